#!/usr/bin/env bash
# Calls the update module mender-orchestrator-manifest as a Mender client does, against the real orchestratord on a private bus
# with the Components of the demonstration, through deployments that end well and badly; then lets Debian's Mender client, if it
# is there, install Manifest Artifacts with it. Reboots are played: the daemon is killed, and the boot id is another one.
#
# Needs root, or user namespaces. BIN_DIR names the directory of the programs (default: target/debug).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
BIN_DIR=$(cd "${BIN_DIR:-${CARGO_TARGET_DIR:-target}/debug}" && pwd)
export BIN_DIR

# A mount namespace of its own, in which the boot id and the client's modules can be replaced.
if [ "${MODULE_TEST_INSIDE:-}" != yes ]; then
    export MODULE_TEST_INSIDE=yes
    if [ "$(id -u)" -eq 0 ]; then
        exec unshare --mount --propagation private -- "$root/tests/mender/module.sh"
    fi
    if ! unshare --user --map-root-user --mount true; then
        echo "module.sh: SKIPPED: it needs root or user namespaces, and has neither" >&2
        exit 0
    fi
    exec unshare --user --map-root-user --mount --propagation private -- "$root/tests/mender/module.sh"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/mender-module.XXXXXX")
bus_pid=
daemon_pid=
end() {
    [ -n "$1" ] || return 0
    kill -KILL "$1" 2>/dev/null || :
    wait "$1" 2>/dev/null || :
}
clean_up() {
    end "$daemon_pid"
    end "$bus_pid"
    umount "$work"/bound/* 2>/dev/null || :
    rm -rf "${work:?}"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    printf 'module.sh: %s: %s\n' "${scenario:-preparation}" "$*" >&2
    printf -- '---- log of the module\n' >&2
    tail -n 40 "$work/module.log" >&2 || :
    printf -- '---- log of the daemon\n' >&2
    tail -n 30 "$work/daemon.log" >&2 || :
    exit 1
}

# --- a System, a bus, a daemon -----------------------------------------------------------------------------------------

mkdir "$work"/{bin,etc,state,system,payload,release,release/artifacts,modules,mender}
mkdir -p "$work/share"
cp -R "$root/interfaces" "$work/share/"
cp "$root/mender/mender-orchestrator-manifest" "$work/modules/"
ln -s "$BIN_DIR/orchestratorctl" "$work/bin/orchestratorctl"
ln -s "$BIN_DIR/orchestratorctl" "$work/bin/mender-orchestrator"
# The module reboots the host in one case; here that only takes a note.
printf '#!/bin/sh\n: >"%s/rebooted"\n' "$work" >"$work/bin/reboot"
chmod +x "$work/bin/reboot"
export PATH=$work/bin:$PATH
export MENDER_ORCHESTRATOR_CONF_DIR=$work/etc MENDER_ORCHESTRATOR_DATA_DIR=$work/share
export MENDER_ORCHESTRATOR_DATASTORE_DIR=$work/state MENDER_ORCHESTRATOR_TOPOLOGY_DIR=$work/etc
export ORCHESTRATOR_DEMO_DIR=$work/system DBUS_SYSTEM_BUS_ADDRESS=unix:path=$work/bus
export ORCHESTRATOR_REBOOT_PATIENCE=0
unset MENDER_ORCHESTRATOR_TOPOLOGY_COMPONENTS_FILE MENDER_ORCHESTRATOR_MANIFEST_STORE_DIR MENDER_ORCHESTRATOR_ARTIFACTS_CACHE_DIR
unset NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID
printf '{ "Runner": "process", "RebootCommand": ["/bin/true"] }\n' >"$work/etc/mender-orchestrator.conf"
cp demo/topology.yaml "$work/etc/"

cat >"$work/bus.conf" <<END_OF_CONFIGURATION
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path=$work/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
END_OF_CONFIGURATION
dbus-daemon --config-file="$work/bus.conf" --nofork --nopidfile 2>"$work/bus.log" &
bus_pid=$!

boot=0
# A boot of the host: another boot id, another daemon. What the last daemon had not on disk is lost.
power_on() {
    end "$daemon_pid"
    boot=$((boot + 1))
    printf '%08d-0000-4000-8000-000000000000\n' "$boot" >"$work/boot_id"
    "$BIN_DIR/orchestratord" >>"$work/daemon.log" 2>&1 &
    daemon_pid=$!
    for _ in {1..300}; do
        kill -0 "$daemon_pid" 2>/dev/null || fail "orchestratord did not start"
        ! orchestratorctl status >/dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "orchestratord does not answer"
}
: >"$work/boot_id"
mount --bind "$work/boot_id" /proc/sys/kernel/random/boot_id

for part in gateway rtos; do
    head -c 100000 /dev/urandom >"$work/payload/$part"
    orchestratorctl artifact write module-image --type "demo-$part" --device-type "$part" --artifact-name "$part-2" \
        --file "$work/payload/$part" --output-path "$work/release/artifacts/$part-2.mender"
done
sed "s,artifacts/,$work/release/artifacts/," demo/manifest-v2.yaml >"$work/release/manifest.yaml"
for _ in {1..100}; do
    [ ! -S "$work/bus" ] || break
    sleep 0.1
done

# --- the client ----------------------------------------------------------------------------------------------------------

tree=$work/mender/tree
# begin <scenario>: release 1 everywhere, a new deployment of the client.
begin() {
    scenario=$1
    : >"$work/module.log"
    : >"$work/system/calls.log"
    rm -rf "${work:?}/system" "${work:?}/state" "${work:?}/mender/tree" "${work:?}/rebooted"
    mkdir -p "$work/state" "$tree/files" "$tree/tmp"
    for instance in G13:gateway R456:rtos R998:rtos; do
        mkdir -p "$work/system/${instance%:*}"
        printf 'rootfs-image.demo-%s.version=%s-1\n' "${instance#*:}" "${instance#*:}" >"$work/system/${instance%:*}/provides"
        printf 'Yes\n' >"$work/system/${instance%:*}/supports-rollback"
    done
    cp "$work/release/manifest.yaml" "$tree/files/"
    power_on
}

# is <expected> <state>: calls the module; the result is its answer, or its exit status if it says nothing.
is() {
    local answer status=0
    printf '== %s\n' "$2" >>"$work/module.log"
    # The directory may be gone; the client does not care either.
    answer=$({ cd "$tree" 2>/dev/null || cd "$work"; } && "$work/modules/mender-orchestrator-manifest" "$2" "$tree" 2>>"$work/module.log") ||
        status=$?
    case $2 in
        NeedsArtifactReboot | SupportsRollback) ;;
        *) answer=$status ;;
    esac
    [ "$answer" = "$1" ] || fail "$2 gives \"$answer\" instead of \"$1\""
}

# system <release>: all Components have it, nothing is open, and nothing is left of the module's notes.
system() {
    local instance
    for instance in G13:gateway R456:rtos R998:rtos; do
        grep -qx "rootfs-image.demo-${instance#*:}.version=${instance#*:}-$1" "$work/system/${instance%:*}/provides" ||
            fail "${instance%:*} is not at release $1 but at: $(cat "$work/system/${instance%:*}/provides")"
        [ ! -e "$work/system/${instance%:*}/previous" ] || fail "${instance%:*} was not cleaned up"
    done
    orchestratorctl --json status | grep -q '^    "state": "idle"' || fail "a deployment is still open"
    [ ! -e "$work/state/update-module" ] || fail "notes are left: $(ls "$work/state/update-module")"
}

begin "no reboot"
is Yes SupportsRollback
is 0 Download
is 0 ArtifactInstall
is No NeedsArtifactReboot
is 0 ArtifactCommit
is 0 Cleanup
system 2

begin "one reboot"
echo Automatic >"$work/system/G13/needs-reboot"
is 0 ArtifactInstall
is Automatic NeedsArtifactReboot
power_on
is 0 GoOnAfterReboot
[ ! -e "$work/rebooted" ] || fail "there was a second reboot"
is 0 ArtifactVerifyReboot
is 0 ArtifactCommit
is 0 Cleanup
system 2

begin "one reboot, and a client that commits without verifying"
echo Automatic >"$work/system/R456/needs-reboot"
is 0 ArtifactInstall
is Automatic NeedsArtifactReboot
power_on
is 0 ArtifactCommit
is 0 Cleanup
system 2

begin "a second order group that needs a reboot"
echo Automatic >"$work/system/G13/needs-reboot"
echo Automatic >"$work/system/R998/needs-reboot"
is 0 ArtifactInstall
is Automatic NeedsArtifactReboot
is 0 GoOnAfterReboot # nothing happens before the host was rebooted
power_on
is 1 GoOnAfterReboot # the host did not go down, because reboot only takes a note here
[ -e "$work/rebooted" ] || fail "the host was not rebooted"
power_on
is 0 GoOnAfterReboot
is 0 ArtifactVerifyReboot
is 0 ArtifactCommit
is 0 Cleanup
system 2

begin "the same without orchestratord-mender.service"
echo Automatic >"$work/system/G13/needs-reboot"
echo Automatic >"$work/system/R998/needs-reboot"
is 0 ArtifactInstall
power_on
is 1 ArtifactVerifyReboot
is 0 ArtifactRollback
is Automatic NeedsArtifactReboot
power_on
is 0 ArtifactVerifyRollbackReboot
is 0 ArtifactFailure
is 0 Cleanup
system 1

begin "failure before the reboot"
touch "$work/system/R456/ArtifactInstall.fail"
is 1 ArtifactInstall
is 0 ArtifactRollback
is No NeedsArtifactReboot
is 0 ArtifactFailure
is 0 Cleanup
system 1

begin "failure after the reboot"
echo Automatic >"$work/system/G13/needs-reboot"
touch "$work/system/R456/ArtifactInstall.fail"
is 0 ArtifactInstall
is Automatic NeedsArtifactReboot
power_on
is 0 GoOnAfterReboot
is 1 ArtifactVerifyReboot
is 0 ArtifactRollback
is Automatic NeedsArtifactReboot
power_on
is 0 GoOnAfterReboot
is 0 ArtifactVerifyRollbackReboot
is 0 ArtifactFailure
is 0 Cleanup
system 1

begin "a client that is called by hand takes a rebooted deployment back"
echo Automatic >"$work/system/G13/needs-reboot"
is 0 ArtifactInstall
power_on
is 0 ArtifactVerifyReboot
is 0 ArtifactRollback
is 0 ArtifactRollback # nothing happens before the host was rebooted
is 0 Cleanup
grep -q '^begin G13 ArtifactVerifyRollbackReboot' "$work/system/calls.log" && fail "G13 was verified without a reboot"
power_on
is 0 GoOnAfterReboot
system 1

begin "failure of the commit"
touch "$work/system/R998/ArtifactCommit.fail"
is 0 ArtifactInstall
is 1 ArtifactCommit
is 0 ArtifactRollback
is No NeedsArtifactReboot
is 0 Cleanup
system 1

begin "the client takes back what was committed"
is 0 ArtifactInstall
is 0 ArtifactCommit
is 0 ArtifactRollback
is 0 ArtifactFailure
is 0 Cleanup
system 1

begin "a Manifest that is refused"
echo 'kind: nonsense' >"$tree/files/manifest.yaml"
is 1 ArtifactInstall
is 0 ArtifactRollback
is No NeedsArtifactReboot
is 0 ArtifactFailure
is 0 Cleanup
system 1

begin "an Artifact with two files"
cp "$tree/files/manifest.yaml" "$tree/files/other.yaml"
is 1 ArtifactInstall
is 0 ArtifactRollback
is 0 Cleanup
system 1

begin "the client's directory is wiped by a nested client"
is 0 ArtifactInstall
rm -rf "${work:?}/mender/tree"
is 0 ArtifactCommit
is 0 Cleanup
system 2

begin "a deployment of somebody else is open"
orchestratorctl install --stop-before ArtifactCommit "$work/release/manifest.yaml" >>"$work/module.log" 2>&1
is 1 ArtifactInstall
is 0 ArtifactRollback
is No NeedsArtifactReboot
is 0 ArtifactFailure
is 0 Cleanup
orchestratorctl --json status | grep -q '^    "stopped_before": "ArtifactCommit"' || fail "the other deployment was touched"
orchestratorctl resume >>"$work/module.log" 2>&1
system 2

begin "a client that never came back to its deployment"
is 0 ArtifactInstall
is 0 ArtifactInstall
is 0 ArtifactCommit
is 0 Cleanup
system 2

begin "a Component that cannot go back"
echo No >"$work/system/R456/supports-rollback"
is 0 ArtifactInstall
is 1 ArtifactRollback
is 1 ArtifactFailure
is 0 Cleanup
system 2

begin "the daemon is killed in ArtifactInstall"
echo 2 >"$work/system/R456/ArtifactInstall.sleep"
(
    while ! grep -q '^begin R456 ArtifactInstall' "$work/system/calls.log"; do sleep 0.05; done
    kill -KILL "$daemon_pid"
) 2>/dev/null &
killer=$!
(
    wait_for=$killer
    while kill -0 "$wait_for" 2>/dev/null; do sleep 0.05; done
    exec "$BIN_DIR/orchestratord" >>"$work/daemon.log" 2>&1
) &
second=$!
is 1 ArtifactInstall
wait "$killer" || :
daemon_pid=$second
is 0 ArtifactRollback
is 0 ArtifactFailure
is 0 Cleanup
system 1

begin "the inventory of 50 Components, one of which hangs"
{
    printf 'api_version: mender/v1\nkind: topology\nsystem_type: demo-line\ncomponents:\n'
    for number in {1..50}; do
        mkdir "$work/system/N$number"
        printf -- '  - {component_type: rtos, interface: demo-rtos, interface_args: [N%d]}\n' "$number"
    done
} >"$work/etc/topology.yaml"
: >"$work/system/N7/Inventory.hang"
power_on
# The client drops all of it if the script fails. That it also comes in time is the matter of tests/update/show.rs.
timeout 120 "$root/mender/mender-inventory-mender-orchestrator" >"$work/inventory" 2>>"$work/module.log" ||
    fail "the inventory script ends with $?"
[ "$(grep -c '^rtos\.N[0-9]*\.rootfs-image\.demo-rtos\.version=' "$work/inventory")" -ge 49 ] ||
    fail "the inventory lacks Components: $(cat "$work/inventory")"
cp "$root/demo/topology.yaml" "$work/etc/"

# --- Debian's Mender client ------------------------------------------------------------------------------------------------

if ! command -v mender >/dev/null || [ ! -d /usr/share/mender/modules/v3 ] || [ ! -d /etc/mender ]; then
    echo "module.sh: SKIPPED: the part with a real Mender client, because the Debian package mender-client is missing" >&2
else
    mount --bind "$work/modules" /usr/share/mender/modules/v3
    mkdir "$work/etc-mender"
    echo artifact_name=factory >"$work/etc-mender/artifact_info"
    mount --bind "$work/etc-mender" /etc/mender
    "$root/mender/mender-orchestrator-manifest-gen" -t demo-line -o "$work/release.mender" "$work/release/manifest.yaml"
    echo 'device_type=demo-line' >"$work/mender/device_type"
    printf '{}\n' >"$work/mender/mender.conf"
    # client <expected status> <arguments>
    client() {
        local expected=$1 status=0
        shift
        mender --no-syslog --data "$work/mender" --config "$work/mender/mender.conf" "$@" >>"$work/module.log" 2>&1 || status=$?
        [ "$status" -eq "$expected" ] || fail "\"mender $*\" ends with $status instead of $expected"
    }

    begin "mender install and commit"
    client 0 install "$work/release.mender"
    client 0 commit
    system 2

    begin "mender install and rollback"
    client 0 install "$work/release.mender"
    client 0 rollback
    system 1

    begin "mender install with a reboot"
    echo Automatic >"$work/system/G13/needs-reboot"
    client 4 install --reboot-exit-code "$work/release.mender"
    power_on
    client 0 commit
    system 2

    begin "mender install with a reboot, and rollback with another one"
    echo Automatic >"$work/system/G13/needs-reboot"
    client 4 install --reboot-exit-code "$work/release.mender"
    power_on
    client 0 rollback
    power_on
    is 0 GoOnAfterReboot
    system 1

    begin "mender install that fails"
    touch "$work/system/R456/ArtifactInstall.fail"
    client 1 install "$work/release.mender"
    system 1

    begin "mender commit that fails after a reboot"
    echo Automatic >"$work/system/G13/needs-reboot"
    touch "$work/system/R456/ArtifactVerifyReboot.fail"
    echo Yes >"$work/system/R456/needs-reboot"
    client 4 install --reboot-exit-code "$work/release.mender"
    power_on
    client 1 commit
    power_on
    is 0 GoOnAfterReboot
    system 1

    # The module of Mender Orchestrator itself makes other calls, of mender-orchestrator; tests/update/original_module.rs has them all.
    cp "$root/tests/mender/original-module" "$work/modules/mender-orchestrator-manifest"

    begin "mender install and commit with the original module"
    client 0 install --reboot-exit-code "$work/release.mender"
    client 0 commit
    system 2

    begin "mender install with a reboot and the original module"
    echo Automatic >"$work/system/G13/needs-reboot"
    client 4 install --reboot-exit-code "$work/release.mender"
    power_on
    client 0 commit
    system 2

    begin "mender install that fails with the original module"
    touch "$work/system/R456/ArtifactInstall.fail"
    client 1 install --reboot-exit-code "$work/release.mender"
    system 1
fi

echo "module.sh: the update module keeps client and System in step"
