SUMMARY = "Updates a machine made of many parts as one unit, over D-Bus"
SUMMARY:${PN}-mender = "The Mender client's way to orchestratord"
DESCRIPTION = "Reads Manifests, Topologies and Artifacts of Mender Orchestrator, calls an Interface program for each \
Component, and brings either all Components of the System to the new state or all back to the old one."
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
CVE_PRODUCT = "orchestratord"

# xz and zstd of the distribution, so that they are patched in one place. Everything else is Rust, or assembler in "ring".
DEPENDS = "xz zstd"

# The layer lies in the source tree, so recipe and source are always of the same commit, and no revision is named twice.
# nooelint: oelint.vars.fileextrapaths
FILESEXTRAPATHS:prepend := "${THISDIR}/../../..:"

SRC_URI = "\
    file://Cargo.lock;subdir=${BP} \
    file://Cargo.toml;subdir=${BP} \
    file://LICENSE;subdir=${BP} \
    file://Makefile;subdir=${BP} \
    file://cli;subdir=${BP} \
    file://daemon;subdir=${BP} \
    file://dbus-interfaces;subdir=${BP} \
    file://docs/mender-orchestrator-manifest-gen.1;subdir=${BP} \
    file://docs/orchestratord.8;subdir=${BP} \
    file://interfaces;subdir=${BP} \
    file://mender;subdir=${BP} \
    file://systemd;subdir=${BP} \
    file://tests/Cargo.toml;subdir=${BP} \
"

inherit bash-completion cargo cargo-update-recipe-crates features_check manpages pkgconfig systemd

require ${BPN}-crates.inc

# Without systemd nothing would start the daemon after a reboot, and a deployment that needs one would not go on.
REQUIRED_DISTRO_FEATURES:class-target = "systemd"

PACKAGECONFIG ??= "${@bb.utils.filter('DISTRO_FEATURES', 'polkit', d)}"
# Man pages of the commands and completions for shells are written by orchestratorctl, which has to run here for it.
PACKAGECONFIG[manpages] = ",,orchestratord-native"
# Not used to build. Where it is missing, only root may change something.
PACKAGECONFIG[polkit] = ",,,,polkit"

# Where the record of the open deployment lies. It must be the same place before and after a reboot into the other root file
# system, so on devices with two of them it has to be on a partition of its own: "/data/mender-orchestrator", say.
ORCHESTRATORD_STATE_DIR ?= "${ORCHESTRATORD_STATE_LINK}"
# Where the daemon, its tools and Mender look for it.
ORCHESTRATORD_STATE_LINK = "${localstatedir}/lib/mender-orchestrator"

CARGO_BUILD_FLAGS += "--package=orchestratord --package=orchestratorctl --no-default-features"
CARGO_BUILD_FLAGS:remove:class-native = "--package=orchestratord"

# Without the feature "bundled-xz", xz is taken from pkg-config; zstd has to be told.
export ZSTD_SYS_USE_PKG_CONFIG = "1"

ORCHESTRATORD_HOST_CTL = "${@bb.utils.contains('PACKAGECONFIG', 'manpages', '${STAGING_BINDIR_NATIVE}/orchestratorctl', '', d)}"

do_install() {
    oe_runmake -C ${S} install \
        DESTDIR=${D} \
        PREFIX=${prefix} BINDIR=${bindir} LIBEXECDIR=${libexecdir} DATADIR=${datadir} MANDIR=${mandir} \
        UNITDIR=${systemd_system_unitdir} UNIT_TYPE=notify-reload \
        BUILT=${B}/target/${CARGO_TARGET_SUBDIR} HOST_CTL=${ORCHESTRATORD_HOST_CTL}

    if [ "${ORCHESTRATORD_STATE_DIR}" != "${ORCHESTRATORD_STATE_LINK}" ]; then
        install -d ${D}${localstatedir}/lib
        ln -s ${ORCHESTRATORD_STATE_DIR} ${D}${ORCHESTRATORD_STATE_LINK}

        # An update of the root file system brings no directories to another partition, so it is made at boot.
        install -d ${D}${nonarch_libdir}/tmpfiles.d
        echo "d ${ORCHESTRATORD_STATE_DIR} 0750 root root -" >${D}${nonarch_libdir}/tmpfiles.d/orchestratord-state.conf

        install -d ${D}${systemd_system_unitdir}/orchestratord.service.d
        printf '%s\n' \
            "[Unit]" "RequiresMountsFor=${ORCHESTRATORD_STATE_DIR}" "" \
            "[Service]" "ReadWritePaths=${ORCHESTRATORD_STATE_DIR}" \
            >${D}${systemd_system_unitdir}/orchestratord.service.d/10-state.conf
    fi
}

do_install:class-native() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/orchestratorctl ${D}${bindir}/orchestratorctl
}

PACKAGE_BEFORE_PN += "${PN}-mender ${PN}-zsh-completion ${PN}-fish-completion"

SYSTEMD_PACKAGES = "${PN} ${PN}-mender"
SYSTEMD_SERVICE:${PN} = "orchestratord.service"
SYSTEMD_SERVICE:${PN}-mender = "orchestratord-mender.service"

FILES:${PN} += "\
    ${datadir}/dbus-1/system-services \
    ${datadir}/dbus-1/system.d \
    ${datadir}/mender-orchestrator \
    ${datadir}/polkit-1/actions \
    ${nonarch_libdir}/sysusers.d \
    ${nonarch_libdir}/tmpfiles.d \
    ${systemd_system_unitdir} \
"
FILES:${PN}-dev += "${datadir}/dbus-1/interfaces"
FILES:${PN}-fish-completion += "${datadir}/fish"
FILES:${PN}-mender += "\
    ${bindir}/mender-orchestrator \
    ${bindir}/mender-orchestrator-manifest-gen \
    ${datadir}/mender \
    ${datadir}/mender-orchestrator/interfaces/v1/rootfs-image \
    ${systemd_system_unitdir}/orchestratord-mender.service \
"
FILES:${PN}-zsh-completion += "${datadir}/zsh"

RDEPENDS:${PN} = "dbus"
RDEPENDS:${PN}-mender = "${PN} (= ${EXTENDPKGV})"

# The names under which meta-mender installs what this package stands in for.
RPROVIDES:${PN}-mender = "mender-orchestrator mender-orchestrator-support"
RREPLACES:${PN}-mender = "mender-orchestrator mender-orchestrator-support"
RCONFLICTS:${PN}-mender = "mender-orchestrator mender-orchestrator-support"

BBCLASSEXTEND = "native"
