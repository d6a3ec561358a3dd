# With the partitions of Mender, /data is what both root file systems share.
# nooelint: oelint.vars.specific
ORCHESTRATORD_STATE_DIR:mender-image ?= "/data/mender-orchestrator"

RDEPENDS:${PN}-mender += "mender-update"
