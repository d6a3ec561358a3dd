# The tier is the last step of a migration and needs a new approval of the device, so no layer implies it: it is asked for with
# ORCHESTRATORD_SYSTEM_TIER = "1". Without that, the recipe stays as it is, to the last byte.
# nooelint: oelint.spaces.lineend
require ${@bb.utils.contains('ORCHESTRATORD_SYSTEM_TIER', '1', 'mender-system-tier.inc', '', d)}
