IMAGE_INSTALL ?= "packagegroup-core-boot"
