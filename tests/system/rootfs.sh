#!/bin/sh
# Makes the root file system of the booted bench: Debian with systemd, D-Bus, polkit and Mender's client.
# Needs root, the network and `debootstrap`; takes about a minute. Usage: rootfs.sh DIRECTORY [PACKAGE,...]
set -eu
root=$1

packages=systemd,systemd-sysv,dbus,polkitd,libpam-systemd,mender-client${2:+,$2}
# From where this machine has its own packages. apt-get fills in the fields, not the shell.
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk '$2 == "bookworm" && $3 == "main" { print $1; exit }')
debootstrap --variant=minbase --include="$packages" bookworm "$root" "${DEBIAN_MIRROR:-$mirror}" >&2

# What a test needs to look into after a reboot, and one identity for all boots.
mkdir -p "$root/var/log/journal"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo bench >"$root/etc/hostname"

# nspawn mounts a boot id of the container's own over the kernel's, and systemd's ProtectControlGroups= uncovers that again.
# So a sandboxed service cannot tell the boots of a container by it, but by this copy.
echo 'f+ /run/boot-id 0444 root root - %b' >"$root/etc/tmpfiles.d/boot-id.conf"

# Nobody logs in, nothing is upgraded, no server is called: what is left starts in a second.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer getty.target console-getty.service mender-client.service mender-connect.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service dev-hugepages.mount; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "${root:?}"/var/cache/apt/archives/*.deb "${root:?}"/var/lib/apt/lists/* "${root:?}"/usr/share/doc "${root:?}"/usr/share/locale
