SUMMARY = "Updates of the System as one unit"
SUMMARY:${PN}-mender = "Updates of the System as one unit, driven by the Mender client"
DESCRIPTION = "What a device needs to update its System with orchestratord, and what it needs beside that to be driven by the \
Mender client."
LICENSE = "Apache-2.0"

inherit packagegroup

PACKAGES = "${PN} ${PN}-mender"

RDEPENDS:${PN} = "orchestratord"
RDEPENDS:${PN}-mender = "\
    ${PN} \
    orchestratord-mender \
"
