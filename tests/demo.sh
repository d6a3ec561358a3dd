#!/usr/bin/env bash
# Runs the demonstration to its end, then once more and ends it in the middle of an install, and checks both times that nothing
# is left behind: no change in the work tree, no file in the temporary directory, no process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

place=$(mktemp -d "${TMPDIR:-/tmp}/demo-check.XXXXXX")
mkdir "$place/tmp"
demo_pid=
clean_up() {
    [ -z "$demo_pid" ] || kill -KILL -- "-$demo_pid" 2>/dev/null || :
    rm -rf "${place:?}"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

fail() {
    printf 'demo.sh: %s\n' "$*" >&2
    exit 1
}

if [ -e .git ]; then
    state_of_tree() { git status --porcelain --untracked-files=all; }
else
    echo "demo.sh: skipping the check of the work tree, because this is no git checkout" >&2
    state_of_tree() { :; }
fi
before=$(state_of_tree)

nothing_is_left() {
    local left environ
    left=$(ls -A "$place/tmp")
    [ -z "$left" ] || fail "$1 left files behind: $left"
    for environ in /proc/[0-9]*/environ; do
        ! grep -qszxF "TMPDIR=$place/tmp" "$environ" || fail "$1 left a process behind: $(tr '\0' ' ' <"${environ%environ}cmdline")"
    done
    [ "$(state_of_tree)" = "$before" ] || fail "$1 changed the work tree: $(state_of_tree)"
}

TMPDIR=$place/tmp demo/run
nothing_is_left "the demonstration"

# What needs no root shall not come to need it. The files go where that user may read them.
if [ "$(id -u)" -eq 0 ]; then
    mkdir "$place/tree" "$place/tree/bin"
    cp -r demo interfaces dbus-interfaces "$place/tree/"
    cp "${CARGO_TARGET_DIR:-$PWD/target}"/debug/orchestratord "${CARGO_TARGET_DIR:-$PWD/target}"/debug/orchestratorctl "$place/tree/bin/"
    chmod -R a+rX "$place" && chmod 1777 "$place/tmp"
    BIN_DIR=$place/tree/bin TMPDIR=$place/tmp setpriv --reuid nobody --regid nogroup --clear-groups \
        "$place/tree/demo/run" >"$place/output" 2>&1 || fail "the demonstration failed without root: $(cat "$place/output")"
    nothing_is_left "the demonstration without root"
else
    echo "demo.sh: skipping the run without root, because this was one" >&2
fi

# A file of its own: in that of another run, what is waited for would be there already.
: >"$place/stopped"
BIN_DIR=${CARGO_TARGET_DIR:-$PWD/target}/debug TMPDIR=$place/tmp setsid demo/run >>"$place/stopped" 2>&1 &
demo_pid=$!
for _ in {1..600}; do
    ! grep -q '^== .*install manifest-v2' "$place/stopped" || break
    kill -0 "$demo_pid" 2>/dev/null || break
    sleep 0.1
done
# The whole process group, as a terminal does it.
kill -TERM -- "-$demo_pid" || fail "the second demonstration ended by itself: $(cat "$place/stopped")"
status=0
wait "$demo_pid" || status=$?
demo_pid=
[ "$status" -eq 143 ] || fail "the demonstration ended with status $status instead of 143 when it was told to stop: $(cat "$place/stopped")"
! grep -q '^== Done' "$place/stopped" || fail "the demonstration was over before it could be stopped"
nothing_is_left "the demonstration that was stopped"
echo "demo.sh: nothing is left behind"
