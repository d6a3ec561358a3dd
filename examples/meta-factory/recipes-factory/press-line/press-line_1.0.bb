SUMMARY = "What a press line is made of, and how each part of it is updated"
DESCRIPTION = "The Topology of the line, the Interface program of its controllers, and the configuration of orchestratord with the \
key that Artifacts have to be signed with."
LICENSE = "Apache-2.0"
# nooelint: oelint.vars.licenseremotefile,oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

SRC_URI = "\
    file://mender-orchestrator.conf \
    file://press-controller \
    file://press-line-tmpfiles.conf \
    file://release.pem \
    file://topology.yaml \
"

S = "${UNPACKDIR}"

inherit allarch

do_install() {
    install -D -m 0755 ${S}/press-controller ${D}${datadir}/mender-orchestrator/interfaces/v1/press-controller
    install -D -m 0644 ${S}/mender-orchestrator.conf ${D}${sysconfdir}/mender-orchestrator/mender-orchestrator.conf
    install -D -m 0644 ${S}/release.pem ${D}${datadir}/mender-orchestrator/keys/release.pem
    install -D -m 0644 ${S}/topology.yaml ${D}${datadir}/press-line/topology.yaml
    install -D -m 0644 ${S}/press-line-tmpfiles.conf ${D}${nonarch_libdir}/tmpfiles.d/press-line.conf
}

FILES:${PN} += "${datadir}/mender-orchestrator ${nonarch_libdir}/tmpfiles.d"
RDEPENDS:${PN} = "openssh-ssh orchestratord"
