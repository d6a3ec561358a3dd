#!/usr/bin/env bash
# Installs the packages on a booted Debian with systemd, drives them as the autopkgtests do, has Debian's Mender client install
# Manifest Artifacts (failure before and after the reboot, two reboots there and back, no reboot; called by hand, and in daemon mode
# with a server), upgrades while a deployment is open, removes, and purges.
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

# The image is made once for each text of rootfs.sh. Python, which autopkgtest is written in, plays the server of the Mender client;
# the operator's guide makes keys with openssl.
base=$root/target/booted
image=$base/packaging-autopkgtest-openssl-$(sha256sum tests/system/rootfs.sh | cut -c1-16)
mkdir -p "$base"
if [ ! -d "$image" ]; then
    echo "booted.sh: making $image, this takes a minute" >&2
    rm -rf "${base:?}/packaging-unfinished"
    sh tests/system/rootfs.sh "$base/packaging-unfinished" autopkgtest,openssl >"$base/packaging.log" 2>&1 ||
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
mkdir -p "$seed"/{data/mender,data/server,etc/mender,etc/systemd/system,packages,checks/debian,usr/share/mender/identity}
echo device_type=bench >"$seed/data/mender/device_type"
echo artifact_name=factory >"$seed/etc/mender/artifact_info"
cat >"$seed/etc/mender/mender.conf" <<'END'
{ "ServerURL": "http://127.0.0.1:8000", "UpdatePollIntervalSeconds": 3, "InventoryPollIntervalSeconds": 3, "RetryPollIntervalSeconds": 3 }
END
printf '#!/bin/sh\necho serial=1\n' >"$seed/usr/share/mender/identity/mender-device-identity"
chmod 755 "$seed/usr/share/mender/identity/mender-device-identity"
cat >"$seed/etc/systemd/system/mender-server.service" <<'END'
[Service]
ExecStart=/usr/bin/python3 /checks/server.py 8000 /data/server
END
cp "$packages"/orchestratord{,-mender,-dev}_*.deb "$seed/packages/"
awk '/^```sh$/ { on = 1; next } /^```$/ { on = 0 } on' docs/operators-guide.md >"$seed/checks/guide"
# Without debian/control, autopkgtest takes it for a tree that is built already.
cp -r debian/tests "$seed/checks/debian/"
cp tests/mender/server.py interfaces/v1/demo-component "$seed/checks/"

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
    for _ in {1..600}; do
        ! inside "$2" >"$work/output" 2>&1 || return 0
        kill -0 "$machine" 2>/dev/null || fail "the machine is off: $(tail "$work/console")"
        sleep 0.5
    done
    fail "$1 did not come within five minutes"
}
# shellcheck disable=SC2016 # for the shell in the machine
up='test -S /run/dbus/system_bus_socket && case $(systemctl is-system-running --wait) in running | degraded) ;; *) false ;; esac'
files='find / -xdev \( -path /proc -o -path /sys -o -path /run/systemd -o -path /run/udev -o -path /tmp -o -path /var/tmp \
    -o -path /var/log -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /checks \
    -o -path /data/mender -o -path /data/server -o -path /etc/systemd/system/mender\* -o -path /etc/systemd/system/multi-user.target.wants/mender\* \
    -o -path /root \) -prune -o -print | sort; find /run -path "*orchestrator*"; find /var/lib/systemd -name "*orchestrator*"'

wait_for "the machine" "$up"
inside "$files" >"$work/before"

# --- installation ------------------------------------------------------------------------------------------------------------

do_it "apt install" 'apt-get install -y --no-install-recommends /packages/orchestratord_*.deb /packages/orchestratord-mender_*.deb /packages/orchestratord-dev_*.deb'
# This machine is the container that the tests ask for, and it may break.
do_it "autopkgtest" 'PYTHONDONTWRITEBYTECODE=1 autopkgtest --ignore-restrictions=isolation-container,breaks-testbed /packages/*.deb /checks -- null'
grep -E '^[a-z]+ +(PASS|FAIL|SKIP|FLAKY)' "$work/output" | sed 's/^/   /'
do_it "nothing went wrong on the way" '! systemctl --failed --quiet --plain | grep orchestrator'

do_it "the commands of the operator's guide, as they stand there" 'sh -ex /checks/guide'
do_it "without what the guide has brought" 'rm -r /srv/press /media/release-3 /etc/mender-orchestrator/*'

# --- the Mender client -----------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2016 # for the shell in the machine
do_it "a System of two Components" '
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
        echo Yes >"$home/supports-rollback"
        echo "${part%:*}" >payload
        orchestratorctl artifact write module-image -n "${part%:*}-2" -t "${part%:*}" -T demo-component -f payload -o "${part%:*}.mender"
        printf "  %s:\n    artifact_path: /data/release/%s.mender\n    update_strategy: {order: %d}\n" "${part%:*}" "${part%:*}" "$order"
        order=$((order + 10))
    done
} >manifest.yaml
sed "s/^name: .*/name: release-3/" manifest.yaml >manifest-3.yaml
mender-orchestrator-manifest-gen -t bench -o release-2.mender manifest.yaml
mender-orchestrator-manifest-gen -t bench -o release-3.mender manifest-3.yaml
orchestratorctl reload
orchestratorctl plan manifest.yaml'

# client <expected exit status> <arguments>
client() {
    do_it "mender ${*:2}, which ends with $1" "
        status=0
        cd /data/release && mender --no-syslog ${*:2} || status=\$?
        [ \$status -eq $1 ]"
}
boots() { grep -c '^bench: boot' "$work/console"; }
# reboots <count>: reboots the machine; further reboots are made by what runs in it
reboots() {
    local before
    before=$(boots)
    echo "== reboot"
    inside 'systemctl reboot' >"$work/output" 2>&1 || :
    for _ in {1..600}; do
        [ "$(boots)" -lt $((before + $1)) ] || break
        sleep 0.5
    done
    [ "$(boots)" -eq $((before + $1)) ] || fail "there were $(($(boots) - before)) reboots instead of $1"
    wait_for "the machine" "$up"
    [ "$(boots)" -eq $((before + $1)) ] || fail "there were $(($(boots) - before)) reboots instead of $1"
}
# needs_reboot <Automatic|No>: both Components
needs_reboot() {
    do_it "both Components: NeedsArtifactReboot $1" "for home in /var/lib/orchestratord-demo/*/; do echo $1 >\"\$home/needs-reboot\"; done"
}
# stands_at <version of the gateway> <version of the controller> <Artifact of the client>: with nothing open, and no notes left
stands_at() {
    local found
    wait_for "the end of the deployment" 'orchestratorctl --json status | grep -q "^    \"state\": \"idle\"" &&
        ! test -e /var/lib/mender-orchestrator/update-module'
    # shellcheck disable=SC2016
    found=$(inside 'for part in G13 R456; do sed -n "s/^rootfs-image.demo-component.version=//p" "/var/lib/orchestratord-demo/$part/provides"; done
        mender --no-syslog show-artifact 2>/dev/null' | tr '\n' ' ')
    echo "   versions: $found"
    [ "$found" = "$1 $2 $3 " ] || fail "the versions are $found"
}
before_commit='orchestratorctl --json status | grep -q "\"stopped_before\": \"ArtifactCommit\""'

needs_reboot Automatic
do_it "the gateway fails before any reboot" 'touch /var/lib/orchestratord-demo/G13/ArtifactInstall.fail'
client 1 install --reboot-exit-code release-2.mender
stands_at 1 1 factory
do_it "the controller fails after the reboot for the gateway" 'cd /var/lib/orchestratord-demo && mv G13/ArtifactInstall.fail R456/'
client 4 install --reboot-exit-code release-2.mender
reboots 1
client 1 commit
# The client leaves the reboot to its caller, and the rest of the way back is gone without it.
reboots 1
stands_at 1 1 factory
do_it "nothing fails any more" 'rm /var/lib/orchestratord-demo/R456/ArtifactInstall.fail'

client 4 install --reboot-exit-code release-2.mender
# The second reboot is the one for the controller, made by orchestratord-mender.service.
reboots 2
wait_for "the deployment before the commit" "$before_commit"
client 0 rollback
reboots 2
stands_at 1 1 factory

client 4 install --reboot-exit-code release-2.mender
reboots 2
wait_for "the deployment before the commit" "$before_commit"
client 0 commit
stands_at gateway-2 rtos-2 release-2

needs_reboot No
# shellcheck disable=SC2016
do_it "both Components at version 1" 'for home in /var/lib/orchestratord-demo/*/; do echo rootfs-image.demo-component.version=1 >"$home/provides"; done'
client 0 install --reboot-exit-code release-3.mender
client 0 commit
stands_at gateway-2 rtos-2 release-3

# --- the Mender client with a server -------------------------------------------------------------------------------------------------

# In daemon mode the client goes its way alone, reboots included.
# shellcheck disable=SC2016
do_it "a server, and the client as a service" '
set -e
for release in 4 5; do
    sed "s/^name: .*/name: release-$release/" /data/release/manifest.yaml >manifest.yaml
    mender-orchestrator-manifest-gen -t bench -o "/data/server/release-$release.mender" manifest.yaml
done
rm manifest.yaml /etc/systemd/system/mender-client.service
printf "[Install]\nWantedBy=multi-user.target\n" >>/etc/systemd/system/mender-server.service
systemctl daemon-reload
systemctl enable mender-server mender-client
systemctl start mender-server mender-client'
# managed <release> <reboots> <last word of the client>
managed() {
    local before
    before=$(boots)
    do_it "both Components at version 1, and $1 is deployed" "
        for home in /var/lib/orchestratord-demo/*/; do echo rootfs-image.demo-component.version=1 >\"\$home/provides\"; done
        echo $1 >/data/server/deploy"
    wait_for "the end of the deployment of $1" "grep -qx '$1 $3' /data/server/told"
    [ "$(boots)" -eq $((before + $2)) ] || fail "there were $(($(boots) - before)) reboots instead of $2"
    echo "   told to the server: $(inside "sed -n 's/^$1 //p' /data/server/told" | tr '\n' ' ')"
}
wait_for "the inventory at the server" 'grep -q "\"gateway.G13.rootfs-image.demo-component.version\"" /data/server/inventory'
needs_reboot Automatic
do_it "the controller fails after the reboot for the gateway" 'touch /var/lib/orchestratord-demo/R456/ArtifactInstall.fail'
managed release-4 2 failure
stands_at 1 1 release-3
do_it "nothing fails any more" 'rm /var/lib/orchestratord-demo/R456/ArtifactInstall.fail'
managed release-5 2 success
stands_at gateway-2 rtos-2 release-5
needs_reboot No

# --- upgrade, removal, purge -----------------------------------------------------------------------------------------------------

# shellcheck disable=SC2016
do_it "upgrade while a deployment is open" '
set -e
for home in /var/lib/orchestratord-demo/*/; do echo rootfs-image.demo-component.version=1 >"$home/provides"; done
orchestratorctl install --stop-before ArtifactCommit /data/release/manifest.yaml
before=$(systemctl show --property MainPID --value orchestratord)
apt-get install -y --reinstall /packages/orchestratord_*.deb
[ "$(systemctl show --property MainPID --value orchestratord)" != "$before" ]
orchestratorctl --json status | grep -q "\"stopped_before\": \"ArtifactCommit\""
orchestratorctl resume'
# shellcheck disable=SC2016
do_it "upgrade while an Interface program is at work" '
set -e
for home in /var/lib/orchestratord-demo/*/; do echo rootfs-image.demo-component.version=1 >"$home/provides"; done
: >/var/lib/orchestratord-demo/calls.log
echo 20 >/var/lib/orchestratord-demo/R456/ArtifactInstall.sleep
orchestratorctl install --detach /data/release/manifest.yaml
until grep -q "^begin R456 ArtifactInstall" /var/lib/orchestratord-demo/calls.log; do sleep 0.1; done
apt-get install -y --reinstall /packages/orchestratord_*.deb
! grep -q "^end R456 ArtifactInstall" /var/lib/orchestratord-demo/calls.log'
stands_at gateway-2 rtos-2 release-5
do_it "remove" 'apt-get remove -y orchestratord orchestratord-mender orchestratord-dev'
do_it "state and configuration stay after remove, the service does not" 'test -e /var/lib/mender-orchestrator/topology.yaml && ! systemctl is-active orchestratord'
# Ours, not the packages'.
do_it "purge" 'rm -rf /usr/share/mender-orchestrator/interfaces/v1/demo-component /var/lib/orchestratord-demo /data/release
find /usr/share/mender-orchestrator -type d -empty -delete
dpkg --purge orchestratord orchestratord-mender'
inside "$files" >"$work/after"
diff "$work/before" "$work/after" >"$work/difference" || fail "this is not as before the installation: $(cat "$work/difference")"
echo "booted.sh: installed, updated by the Mender client, upgraded and purged; nothing is left"
