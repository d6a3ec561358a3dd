#!/usr/bin/env bash
# Installs the packages on a booted Debian with systemd, drives them as the autopkgtests do, has Debian's Mender client install a
# Manifest Artifact that reboots the machine twice, upgrades while a deployment is open, removes, and purges.
# Usage: booted.sh DIRECTORY_WITH_PACKAGES
#
# Needs root, systemd-nspawn and debootstrap; exit status 77 and the reason if it cannot boot a machine here.
set -euo pipefail
packages=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD

cannot() {
    echo "booted.sh: $*" >&2
    exit 77
}
[ "$(id -u)" -eq 0 ] || cannot "it needs root"
for tool in systemd-nspawn debootstrap unshare nsenter setpriv; do
    command -v "$tool" >/dev/null || cannot "$tool is missing (Debian packages systemd-container, debootstrap and util-linux)"
done

# The image is made once for each text of rootfs.sh.
base=$root/target/booted
image=$base/packaging-$(sha256sum tests/system/rootfs.sh | cut -c1-16)
mkdir -p "$base"
if [ ! -d "$image" ]; then
    echo "booted.sh: making $image, this takes a minute" >&2
    rm -rf "${base:?}/packaging-unfinished"
    sh tests/system/rootfs.sh "$base/packaging-unfinished" >"$base/packaging.log" 2>&1 ||
        cannot "the image cannot be made: $(tail -n 3 "$base/packaging.log")"
    mv "$base/packaging-unfinished" "$image"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/packaging-booted.XXXXXX")
group=orchestrator-packaging-$$
machine=
clean_up() {
    local hierarchy try
    if [ -n "$machine" ]; then
        kill -KILL "$machine" 2>/dev/null || :
        wait "$machine" 2>/dev/null || :
    fi
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
        [ -d "$hierarchy/$group" ] || continue
        # Groups can be removed once the kernel is done with the processes in them.
        for try in {1..50}; do
            find "$hierarchy/$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
            [ "$try" -lt 50 ] || echo "booted.sh: cannot remove $hierarchy/$group" >&2
            sleep 0.1
        done
    done
    rm -rf "${work:?}"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    printf 'booted.sh: %s\n' "$*" >&2
    inside 'journalctl --no-pager --lines=80' >&2 || tail -n 40 "$work/console" >&2
    exit 1
}

# --- the machine -----------------------------------------------------------------------------------------------------------

seed=$work/seed
mkdir -p "$seed"/{data/mender,etc/mender,packages,checks}
echo device_type=bench >"$seed/data/mender/device_type"
echo artifact_name=factory >"$seed/etc/mender/artifact_info"
echo '{}' >"$seed/etc/mender/mender.conf"
cp "$packages"/orchestratord{,-mender,-dev}_*.deb "$seed/packages/"
cp debian/tests/smoke debian/tests/update interfaces/v1/demo-component "$seed/checks/"

setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child=KILL --mount-proc --propagation private \
    sh tests/system/boot.sh "$image" "$seed" "$group" </dev/null >"$work/console" 2>&1 &
machine=$!

child_of() {
    local stat
    for stat in /proc/[0-9]*/stat; do
        if read -r pid name _ parent _ <"$stat" 2>/dev/null && [ "$parent" = "$1" ] && [ "$name" = "($2)" ]; then
            echo "$pid"
            return
        fi
    done 2>/dev/null
    return 1
}
# inside <script>: runs it in the machine
inside() {
    local script nspawn leader
    script=$(child_of "$machine" sh) && nspawn=$(child_of "$script" systemd-nspawn) && leader=$(child_of "$nspawn" systemd) || return 1
    nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup --root --wd -- env -i \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        sh -c "$1" </dev/null
}
# do_it <what> <script>: it has to succeed
do_it() {
    echo "== $1"
    inside "$2" >"$work/output" 2>&1 || fail "$1: $(cat "$work/output")"
}
# wait_for <what> <script>
wait_for() {
    for _ in {1..180}; do
        ! inside "$2" >"$work/output" 2>&1 || return 0
        kill -0 "$machine" 2>/dev/null || fail "the machine is off: $(tail "$work/console")"
        sleep 0.5
    done
    fail "$1 did not come within 90 seconds"
}
# shellcheck disable=SC2016 # for the shell in the machine
up='test -S /run/dbus/system_bus_socket && case $(systemctl is-system-running --wait) in running | degraded) ;; *) false ;; esac'
files='find / -xdev \( -path /proc -o -path /sys -o -path /run/systemd -o -path /run/udev -o -path /tmp -o -path /var/tmp \
    -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /checks \
    -o -path /data/mender -o -path /root \) -prune -o -print | sort; find /run -path "*orchestrator*"; find /var/lib/systemd -name "*orchestrator*"'

wait_for "the machine" "$up"
inside "$files" >"$work/before"

# --- installation ------------------------------------------------------------------------------------------------------------

do_it "apt install" 'apt-get install -y --no-install-recommends /packages/orchestratord_*.deb /packages/orchestratord-mender_*.deb /packages/orchestratord-dev_*.deb'
do_it "autopkgtest smoke" 'sh -ex /checks/smoke'
do_it "nothing went wrong on the way" '! systemctl --failed --quiet --plain | grep orchestrator'
do_it "autopkgtest update" 'sh -ex /checks/update'

# --- the Mender client, with two reboots ---------------------------------------------------------------------------------------

# shellcheck disable=SC2016 # for the shell in the machine
do_it "a System of two Components that want a reboot of the host each" '
set -e
install -m 755 /checks/demo-component /usr/share/mender-orchestrator/interfaces/v1/demo-component
cat >/var/lib/mender-orchestrator/topology.yaml <<EOF
api_version: mender/v1
kind: topology
system_type: bench
components:
  - {component_type: gateway, interface: demo-component, interface_args: [G13]}
  - {component_type: rtos, interface: demo-component, interface_args: [R456]}
EOF
mkdir -p /data/release && cd /data/release
{
    printf "api_version: mender/v1\nkind: manifest\nname: release-2\nsystem_types_compatible: [bench]\ncomponent_types:\n"
    order=10
    for part in gateway:G13 rtos:R456; do
        home=/var/lib/orchestratord-demo/${part#*:}
        mkdir -p "$home"
        echo rootfs-image.demo-component.version=1 >"$home/provides"
        echo Automatic >"$home/needs-reboot"
        echo Yes >"$home/supports-rollback"
        echo "${part%:*}" >payload
        orchestratorctl artifact write module-image -n "${part%:*}-2" -t "${part%:*}" -T demo-component -f payload -o "${part%:*}.mender"
        printf "  %s:\n    artifact_path: /data/release/%s.mender\n    update_strategy: {order: %d}\n" "${part%:*}" "${part%:*}" "$order"
        order=$((order + 10))
    done
} >manifest.yaml
mender-orchestrator-manifest-gen -t bench -o release-2.mender manifest.yaml
orchestratorctl reload
orchestratorctl plan manifest.yaml'

boots() { grep -c '^bench: boot' "$work/console"; }
versions='cat /var/lib/orchestratord-demo/*/provides | grep rootfs-image | sort -u'

# deployment: mender install, then both reboots
deployment() {
    local before
    before=$(boots)
    # shellcheck disable=SC2016
    do_it "mender install, which ends with the wish for a reboot" 'status=0; cd /data/release; mender --no-syslog install --reboot-exit-code release-2.mender || status=$?; [ "$status" -eq 4 ]'
    echo "== reboot"
    inside 'systemctl reboot' >"$work/output" 2>&1 || :
    # The second one is made by orchestratord-mender.service.
    for _ in {1..180}; do
        [ "$(boots)" -lt $((before + 2)) ] || break
        sleep 0.5
    done
    [ "$(boots)" -eq $((before + 2)) ] || fail "there were $(($(boots) - before)) reboots instead of 2"
    wait_for "the machine after both reboots" "$up"
    # shellcheck disable=SC2016
    wait_for "the deployment before the commit" 'orchestratorctl --json status | grep -q "\"stopped_before\": \"ArtifactCommit\""'
}
deployment
do_it "mender rollback" 'mender --no-syslog rollback'
before=$(boots)
echo "== reboot"
inside 'systemctl reboot' >"$work/output" 2>&1 || :
for _ in {1..180}; do
    [ "$(boots)" -lt $((before + 2)) ] || break
    sleep 0.5
done
[ "$(boots)" -eq $((before + 2)) ] || fail "there were $(($(boots) - before)) reboots on the way back instead of 2"
wait_for "the end of the rollback" 'orchestratorctl --json status | grep -q "^    \"state\": \"idle\"" && ! test -e /var/lib/mender-orchestrator/update-module'
echo "   versions now: $(inside "$versions" | tr '\n' ' ')"
[ "$(inside "$versions")" = rootfs-image.demo-component.version=1 ] || fail "the System was not taken back: $(inside "$versions")"
deployment
do_it "mender commit" 'mender --no-syslog commit'
[ "$(inside "$versions")" != rootfs-image.demo-component.version=1 ] || fail "the System was not updated"
echo "   versions now: $(inside "$versions" | tr '\n' ' ')"
# shellcheck disable=SC2016
do_it "the client has the Manifest" '[ "$(mender --no-syslog show-artifact 2>/dev/null)" = release-2 ]'

# --- upgrade, removal, purge -----------------------------------------------------------------------------------------------------

# shellcheck disable=SC2016
do_it "upgrade while a deployment is open" '
set -e
rm /var/lib/orchestratord-demo/*/needs-reboot
for home in /var/lib/orchestratord-demo/*/; do echo rootfs-image.demo-component.version=1 >"$home/provides"; done
orchestratorctl install --stop-before ArtifactCommit /data/release/manifest.yaml
before=$(systemctl show --property MainPID --value orchestratord)
apt-get install -y --reinstall /packages/orchestratord_*.deb
[ "$(systemctl show --property MainPID --value orchestratord)" != "$before" ]
orchestratorctl --json status | grep -q "\"stopped_before\": \"ArtifactCommit\""
orchestratorctl resume'
do_it "remove" 'apt-get remove -y orchestratord orchestratord-mender orchestratord-dev'
do_it "state and configuration stay after remove, the service does not" 'test -e /var/lib/mender-orchestrator/topology.yaml && ! systemctl is-active orchestratord'
# Ours, not the packages'.
do_it "purge" 'rm -rf /usr/share/mender-orchestrator/interfaces/v1/demo-component /var/lib/orchestratord-demo /data/release
find /usr/share/mender-orchestrator -type d -empty -delete
dpkg --purge orchestratord orchestratord-mender'
inside "$files" >"$work/after"
diff "$work/before" "$work/after" >"$work/difference" || fail "this is not as before the installation: $(cat "$work/difference")"
echo "booted.sh: installed, updated by the Mender client, upgraded and purged; nothing is left"
