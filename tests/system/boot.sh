#!/bin/sh
# Boots the bench: a container with systemd as its PID 1. Runs as the first process of a mount and a PID namespace of its
# own, so that killing it ends everything and leaves no mount behind. Usage: boot.sh ROOTFS SEED CGROUP [NSPAWN OPTION]...
set -eu
rootfs=$1 seed=$2 cgroup=$3
shift 3

# systemd in the container gets the modern hierarchy, below a group that the harness can remove. On a machine that
# still mounts the old ones, nspawn uses the old "systemd" one as well.
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
    [ -e "$hierarchy/cgroup.procs" ] || continue
    mkdir -p "$hierarchy/$cgroup"
    echo 0 >"$hierarchy/$cgroup/cgroup.procs"
done
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1

# What the container writes goes into memory and with it; what the test wants in it lies between that and the image.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/upper /run/work /run/root
mount -t overlay -o "lowerdir=$seed:$rootfs,upperdir=/run/upper,workdir=/run/work" overlay /run/root

# nspawn gives each boot a boot id of its own. It cannot boot again by itself without a systemd on the host: status 133 says
# that the container wants to reboot, 0 that it wants to stay off. Anything else is what the harness calls a power cut.
boots=0
while [ "$boots" -lt 50 ]; do
    boots=$((boots + 1))
    echo "bench: boot $boots"
    systemd-nspawn --directory=/run/root --boot --machine=bench --hostname=bench --register=no --keep-unit \
        --private-network --resolv-conf=off --timezone=off --link-journal=no --console=pipe "$@" </dev/null && exit 0
    echo "bench: ended with status $?"
done
