SUMMARY = "Stands in for the kernel, to see what is appended to it"
LICENSE = "GPL-2.0-only"
SRC_URI = ""
