#!/bin/sh
# Installs the debug build into a temporary directory and checks that everything, and nothing else, is where it belongs.

set -eu
cd "$(dirname "$0")/.."
LC_ALL=C
export LC_ALL

place=$(mktemp -d "${TMPDIR:-/tmp}/install-check.XXXXXX")
trap 'rm -rf "${place:?}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

install_with() {
    env -u MAKEFLAGS -u MAKELEVEL "${MAKE:-make}" -s install install-demo DESTDIR="$place" BUILT="${CARGO_TARGET_DIR:-target}/debug" "$@"
}

umask 077 # What is installed must not depend on it.
install_with UNIT_TYPE=notify-reload

# Pages of subcommands and descriptions of interfaces come and go with them; one of each stands for all.
found=$(cd "$place" && find . ! -type d -printf '%M %P -> %l\n' | sed -e 's/ -> $//' \
    -e '\,/mender-orchestrator-manifest-gen\.1$,b' \
    -e 's,/\(orchestratorctl\|mender-orchestrator\)-[a-z-]*\.1$,/\1-COMMAND.1,' \
    -e 's,/org\.orchestratord1\.[A-Za-z]*\.xml$,/org.orchestratord1.INTERFACE.xml,' | sort -u -k 2)
expected=$(sort -k 2 <<'END'
-rwxr-xr-x usr/bin/orchestratorctl
lrwxrwxrwx usr/bin/mender-orchestrator -> orchestratorctl
-rwxr-xr-x usr/bin/mender-orchestrator-manifest-gen
-rwxr-xr-x usr/libexec/orchestratord
-rw-r--r-- usr/lib/systemd/system/orchestratord-mender.service
-rw-r--r-- usr/lib/systemd/system/orchestratord.service
-rw-r--r-- usr/share/bash-completion/completions/mender-orchestrator
-rw-r--r-- usr/share/bash-completion/completions/orchestratorctl
-rw-r--r-- usr/share/dbus-1/interfaces/org.orchestratord1.INTERFACE.xml
-rw-r--r-- usr/share/dbus-1/system-services/org.orchestratord1.service
-rw-r--r-- usr/share/dbus-1/system.d/org.orchestratord1.conf
-rw-r--r-- usr/share/fish/vendor_completions.d/mender-orchestrator.fish
-rw-r--r-- usr/share/fish/vendor_completions.d/orchestratorctl.fish
-rw-r--r-- usr/share/man/man1/mender-orchestrator-COMMAND.1
-rw-r--r-- usr/share/man/man1/mender-orchestrator.1
-rw-r--r-- usr/share/man/man1/orchestratorctl-COMMAND.1
-rw-r--r-- usr/share/man/man1/orchestratorctl.1
-rw-r--r-- usr/share/man/man1/mender-orchestrator-manifest-gen.1
-rw-r--r-- usr/share/man/man8/orchestratord.8
-rwxr-xr-x usr/share/mender/inventory/mender-inventory-mender-orchestrator
-rwxr-xr-x usr/share/mender/modules/v3/mender-orchestrator-manifest
-rwxr-xr-x usr/share/mender-orchestrator/interfaces/v1/demo-component
lrwxrwxrwx usr/share/mender-orchestrator/interfaces/v1/demo-gateway -> demo-component
lrwxrwxrwx usr/share/mender-orchestrator/interfaces/v1/demo-rtos -> demo-component
-rwxr-xr-x usr/share/mender-orchestrator/interfaces/v1/rootfs-image
-rwxr-xr-x usr/share/mender-orchestrator/interfaces/v1/single-file
-rwxr-xr-x usr/share/mender-orchestrator/interfaces/v1/vplc-image
-rwxr-xr-x usr/share/mender-orchestrator/interfaces/v1/vplc-program
-rw-r--r-- usr/share/polkit-1/actions/org.orchestratord1.policy
-rw-r--r-- usr/share/zsh/site-functions/_mender-orchestrator
-rw-r--r-- usr/share/zsh/site-functions/_orchestratorctl
END
)
if [ "$found" != "$expected" ]; then
    printf '%s\n' "$found" >"$place/found"
    printf '%s\n' "$expected" | diff -u - "$place/found" >&2 || :
    fail "what was installed (+) is not what should be (-)"
fi
closed=$(find "$place" -mindepth 1 -type d ! -perm 755 -print)
[ -z "$closed" ] || fail "directories that others cannot read: $closed"
empty=$(find "$place" -type f -empty -print)
[ -z "$empty" ] || fail "empty files: $empty"

# Names that have to be the same in several files.
unit=$place/usr/lib/systemd/system/orchestratord.service
activation=$place/usr/share/dbus-1/system-services/org.orchestratord1.service
for line in "ExecStart=/usr/libexec/orchestratord" "Type=notify-reload" "BusName=org.orchestratord1"; do
    grep -qx "$line" "$unit" || fail "the unit has no line $line"
done
for line in "Name=org.orchestratord1" "SystemdService=orchestratord.service" "User=root"; do
    grep -qx "$line" "$activation" || fail "the activation file has no line $line"
done

# Other places, and the older systemd; without a program for man pages.
rm -rf "${place:?}/usr"
install_with UNIT_TYPE=notify PREFIX=/opt LIBEXECDIR=/opt/lib HOST_CTL=
for line in "ExecStart=/opt/lib/orchestratord" "Type=notify" "ExecReload=sh -c \"kill -HUP \$MAINPID\""; do
    grep -qxF "$line" "$place/opt/lib/systemd/system/orchestratord.service" || fail "the other unit has no line $line"
done
[ ! -e "$place/usr" ] || fail "something was installed outside PREFIX: $(find "$place/usr" ! -type d)"
[ ! -e "$place/opt/share/man/man1/orchestratorctl.1" ] || fail "man pages were made without a program to make them"
echo "install.sh: everything is where it belongs"
