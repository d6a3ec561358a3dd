IMAGE_INSTALL += "packagegroup-orchestrator-mender"
