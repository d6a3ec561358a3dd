SUMMARY = "An example of an image with orchestratord"
DESCRIPTION = "A small image that boots, is reached over ssh and runs orchestratord. It knows no Topology: that one, and the \
Interfaces of the Components, come from the layer of the product."
LICENSE = "Apache-2.0"

inherit core-image orchestratord_image

IMAGE_FEATURES += "ssh-server-openssh"
IMAGE_INSTALL += "packagegroup-orchestrator"
