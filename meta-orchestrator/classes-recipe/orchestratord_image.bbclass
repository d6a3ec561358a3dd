# For images: refuses a read-only root file system on which the record of an open deployment would not survive a reboot.
#
# On such an image, OE-core puts /var/lib into memory. A deployment that reboots the host would then find no record afterwards,
# and would neither be committed nor rolled back. ORCHESTRATORD_STATE_DIR moves the record to another partition. Images
# that keep /var/lib in a way of their own set ORCHESTRATORD_CHECK_STATE = "0".

ORCHESTRATORD_CHECK_STATE ?= "1"

ROOTFS_POSTPROCESS_COMMAND += "${@bb.utils.contains('IMAGE_FEATURES', 'read-only-rootfs', 'orchestratord_check_state', '', d)}"

orchestratord_check_state() {
    if [ "${ORCHESTRATORD_CHECK_STATE}" = "1" ] && [ -e "${IMAGE_ROOTFS}${libexecdir}/orchestratord" ] &&
        [ ! -L "${IMAGE_ROOTFS}${localstatedir}/lib/mender-orchestrator" ]; then
        bbfatal "The root file system is read-only, and ${localstatedir}/lib/mender-orchestrator does not survive a reboot." \
            "Set ORCHESTRATORD_STATE_DIR to a directory on a partition that does."
    fi
}
