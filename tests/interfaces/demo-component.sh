#!/bin/sh
# Calls every state and query of interfaces/v1/demo-component by hand, with a File API tree made here, and checks what it answers
# and what it leaves behind. $1 (default: sh) is the shell that runs it.

set -u
LC_ALL=C
export LC_ALL

shell=${1:-sh}
interfaces=$(cd "$(dirname "$0")/../../interfaces/v1" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/demo-component.XXXXXX") || exit 1
trap 'rm -rf "${work:?}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

ORCHESTRATOR_DEMO_DIR=$work/demo
export ORCHESTRATOR_DEMO_DIR
home=$ORCHESTRATOR_DEMO_DIR/R456
tree=$work/tree
checks=0
failed=0

# same <what> <expected> <found>
same() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] && return 0
    failed=$((failed + 1))
    printf 'FAILED: %s\n  expected: %s\n  found:    %s\n' "$1" "$2" "$3" >&2
}

# call <word> [more interface_args]: prints the answer, then "=<exit status>"
call() {
    word=$1
    shift
    (cd "$tree" && "$shell" "$interfaces/demo-rtos" "$word" "$tree" rtos R456 "$@" 2>"$work/stderr")
    printf '=%d' "$?"
}

fresh() {
    rm -rf "${ORCHESTRATOR_DEMO_DIR:?}" "${tree:?}"
    mkdir -p "$home" "$tree/header" "$tree/tmp"
    printf '%s\n' rootfs-image.demo-rtos.version=1 kept=yes artifact_name=rtos-1 >"$home/provides"
    mkdir "$home/payload"
    echo old >"$home/payload/firmware.bin"
    printf rtos-2 >"$tree/header/artifact_name"
    : >"$tree/header/artifact_group"
    printf '%s' '{"type":"demo-rtos","artifact_provides":{"rootfs-image.demo-rtos.version":"2"},' \
        '"artifact_depends":{"kept":["yes","no"]},"clears_artifact_provides":["rootfs-image.demo-rtos.*"]}' >"$tree/header/type-info"
}

# feed <Download|DownloadWithFileSizes> <name>...: the caller's side of the streams; each file holds its own name 1000 times.
# Prints the exit status of the Interface. What it left unread is dropped with it.
feed() {
    state=$1
    shift
    rm -rf "${tree:?}/streams" "${tree:?}/stream-next"
    mkdir "$tree/streams"
    mkfifo "$tree/stream-next"
    (
        for name in "$@"; do
            awk -v name="$name" 'BEGIN { for (i = 0; i < 1000; i++) print name }' >"$work/$name"
            mkfifo "$tree/streams/$name"
            entry=streams/$name
            [ "$state" = Download ] || entry="$entry $(($(wc -c <"$work/$name") + ${wrong_size:-0}))"
            printf '%s\n' "$entry" >"$tree/stream-next"
            cat "$work/$name" >"$tree/streams/$name" 2>/dev/null || exit
        done
        : >"$tree/stream-next"
    ) &
    writer=$!
    result=$(call "$state")
    # It may still wait in open() for a reader that will not come.
    kill "$writer" 2>/dev/null
    wait "$writer" 2>/dev/null
    rm -rf "${tree:?}/streams" "${tree:?}/stream-next"
    printf '%s' "$result"
}

provides() { sort "$home/provides" | tr '\n' ' '; }

# Queries
fresh
same "Identity defaults to the instance" "id=R456
=0" "$(call Identity)"
echo 52:54:00:1d:94:82 >"$home/id"
same "Identity from the file" "id=52:54:00:1d:94:82
=0" "$(call Identity)"
same "Provides as they stand" "$(cat "$home/provides")
=0" "$(call Provides)"
rm "$home/provides"
same "Provides without a file" "rootfs-image.demo-rtos.version=unknown
=0" "$(call Provides)"
same "Inventory without a file" "=0" "$(call Inventory)"
printf 'colour=red\ncolour=blue' >"$home/inventory"
same "Inventory, last line without newline" "colour=red
colour=blue
=0" "$(call Inventory)"
for query in NeedsUnpackedArtifact:needs-unpacked ProvidePayloadFileSizes:file-sizes NeedsArtifactReboot:needs-reboot \
    SupportsRollback:supports-rollback; do
    same "${query%:*} without a file" "=0" "$(call "${query%:*}")"
    printf 'Yes\nreally\n' >"$home/${query#*:}"
    same "${query%:*} from the file" "Yes
really
=0" "$(call "${query%:*}")"
done

# What the protocol says about calls that make no sense
same "unknown word" "=0" "$(call ArtifactTeleport)"
same "no word at all" "=0" "$("$shell" "$interfaces/demo-rtos" 2>&1; printf '=%d' $?)"
for instance in '' . .. ../R456 absent; do
    same "instance \"$instance\"" "=1" "$("$shell" "$interfaces/demo-rtos" Identity "$tree" rtos "$instance" 2>/dev/null; printf '=%d' $?)"
done

# The good case, streams in every form
for mode in cat read slow; do
    fresh
    echo "$mode" >"$home/streams"
    same "$mode: Download" "=0" "$(feed Download a.bin b.bin)"
    same "$mode: files received" "a.bin b.bin" "$(cd "$home/incoming" && echo *)"
    same "$mode: bytes received" "" "$(cmp "$work/b.bin" "$home/incoming/b.bin" 2>&1)"
    same "$mode: ArtifactInstall" "=0" "$(call ArtifactInstall)"
    same "$mode: payload installed" "" "$(cmp "$work/a.bin" "$home/payload/a.bin" 2>&1)"
    same "$mode: provides" "artifact_name=rtos-2 kept=yes rootfs-image.demo-rtos.version=2 " "$(provides)"
done
same "on trial" "trial" "$(cd "$home" && echo tria*)"
for state in ArtifactReboot ArtifactVerifyReboot ArtifactCommit ArtifactCommit; do same "$state" "=0" "$(call "$state")"; done
same "confirmed" "tria*" "$(cd "$home" && echo tria*)"
same "the way back is kept until Cleanup" "previous" "$(cd "$home" && echo prev*)"
same "Cleanup" "=0" "$(call Cleanup)"
same "Cleanup again" "=0" "$(call Cleanup)"
same "what is left" "payload provides streams" "$(cd "$home" && echo *)"
same "Download with sizes" "=0" "$(feed DownloadWithFileSizes a.bin b.bin)"
same "Download with a wrong size" "=1" "$(wrong_size=1 && feed DownloadWithFileSizes a.bin)"
same "Download without files" "=0" "$(feed Download)"

# The bad case: back to what was, as often as it is asked for
fresh
before=$(provides)
same "Download" "=0" "$(feed Download firmware.bin)"
same "ArtifactInstall" "=0" "$(call ArtifactInstall)"
same "ArtifactInstall again keeps the way back" "=0" "$(call ArtifactInstall)"
for state in ArtifactRollback ArtifactRollback ArtifactRollbackReboot ArtifactVerifyRollbackReboot ArtifactFailure; do
    same "$state" "=0" "$(call "$state")"
    same "provides after $state" "$before" "$(provides)"
    same "payload after $state" "old" "$(cat "$home/payload/firmware.bin")"
done
same "Cleanup" "=0" "$(call Cleanup)"
same "ArtifactRollback with no way back" "=0" "$(call ArtifactRollback)"
same "provides are untouched" "$before" "$(provides)"
rm -r "${home:?}/provides" "${home:?}/payload"
same "ArtifactInstall on nothing" "=0" "$(call ArtifactInstall)"
same "ArtifactRollback to nothing" "=0" "$(call ArtifactRollback)"
same "nothing is back" "previous" "$(cd "$home" && echo *)"

# Streams that nobody or only somebody reads
fresh
echo ignore >"$home/streams"
same "ignored" "=0" "$(call Download)"
mkdir "$tree/files"
echo new >"$tree/files/artifact.mender"
same "ArtifactInstall from files/" "=0" "$(call ArtifactInstall)"
same "payload from files/" "new" "$(cat "$home/payload/artifact.mender")"
fresh
echo first >"$home/streams"
same "first" "=0" "$(feed Download a.bin b.bin)"
same "first: the first file is whole" "" "$(cmp "$work/a.bin" "$home/incoming/a.bin" 2>&1)"
same "first: the second is missing" "a.bin" "$(cd "$home/incoming" && echo *)"
echo partial >"$home/streams"
same "partial" "=0" "$(feed Download a.bin)"
same "partial: one byte" "1" "$(wc -c <"$home/incoming/a.bin")"
same "no stream-next" "=1" "$(echo cat >"$home/streams" && call Download)"

# What becomes of the provides
changed() {
    fresh
    printf '%s\n' rootfs-image.demo-rtos.version=1 a.b.c=1 aba=1 a=1 test_x=1 artifact_group=g >"$home/provides"
    printf '%s' "$1" >"$tree/header/type-info"
    call ArtifactInstall >/dev/null
    provides
}
same "neither provides nor clears: all goes" "artifact_name=rtos-2 " "$(changed '{"type":"demo-rtos"}')"
same "empty clears: all stays" "a.b.c=1 a=1 aba=1 artifact_group=g artifact_name=rtos-2 rootfs-image.demo-rtos.version=1 test_x=1 " \
    "$(changed '{"type":"demo-rtos","clears_artifact_provides":[]}')"
same "globs: literal, star, inner star" "aba=1 artifact_group=g artifact_name=rtos-2 rootfs-image.demo-rtos.version=1 test_x=1 " \
    "$(changed '{"clears_artifact_provides":["a","a.*c","test_","a.c","x*"]}')"
same "a star clears all" "artifact_name=rtos-2 z=1 " "$(changed '{"clears_artifact_provides":["*"],"artifact_provides":{"z":"1"}}')"
same "spaces, escapes, nested values" 'artifact_name=rtos-2 q="\/<é t=a=b ' "$(changed '
{ "type" : null, "x" : [ 1, { "artifact_provides" : { "no" : "no" } }, true ], "artifact_depends": {"clears_artifact_provides": ["a"]},
  "artifact_provides" : { "q" : "\"\\\/\u003cé" , "t":"a=b" } }')"
for broken in '' '{' '{"a"}' '{"a":"b' '{"a":"\ud83d"}' '{"a":1} x' '["a",]'; do
    fresh
    printf '%s' "$broken" >"$tree/header/type-info"
    same "broken type-info: $broken" "=1" "$(call ArtifactInstall)"
    same "the way back from it" "=0" "$(call ArtifactRollback)"
    same "provides after it" "artifact_name=rtos-1 kept=yes rootfs-image.demo-rtos.version=1 " "$(provides)"
done

# Switches
fresh
: >"$home/ArtifactCommit.fail"
same "fail" "=1" "$(call ArtifactCommit)"
same "fail says why" "demo-rtos R456: ArtifactCommit fails, because ArtifactCommit.fail says so" "$(cat "$work/stderr")"
same "fail again" "=1" "$(call ArtifactCommit)"
echo 2 >"$home/Identity.fail"
same "fail twice: first" "=1" "$(call Identity)"
same "fail twice: second" "=1" "$(call Identity)"
same "fail twice: third" "id=R456
=0" "$(call Identity)"
: >"$home/ArtifactInstall.fail-late"
same "fail late" "=1" "$(call ArtifactInstall)"
same "fail late, but the work is done" "rootfs-image.demo-rtos.version=2" "$(grep version "$home/provides")"
echo TERM >"$home/Cleanup.signal"
same "signal" "=143" "$(call Cleanup 2>/dev/null)"
echo said >"$home/Inventory.stdout"
echo whispered >"$home/Inventory.stderr"
same "stdout" "said
=0" "$(call Inventory)"
same "stderr" "whispered" "$(cat "$work/stderr")"
for how in '' stubborn; do
    echo "$how" >"$home/ArtifactReboot.hang"
    : >"$ORCHESTRATOR_DEMO_DIR/calls.log"
    status=$({
        timeout -s TERM -k 1 1 "$shell" "$interfaces/demo-rtos" ArtifactReboot "$tree" rtos R456
        echo "$?"
    } 2>/dev/null)
    same "hang $how" "$([ -z "$how" ] && echo 124 || echo 137)" "$status"
    same "hang $how has no end" "begin R456 ArtifactReboot rtos R456" "$(cat "$ORCHESTRATOR_DEMO_DIR/calls.log")"
done
rm "$ORCHESTRATOR_DEMO_DIR/calls.log"
call ArtifactFailure 'second argument' >/dev/null
same "calls.log" "begin R456 ArtifactFailure rtos R456 second argument
end R456 ArtifactFailure 0" "$(cat "$ORCHESTRATOR_DEMO_DIR/calls.log")"

printf 'demo-component (%s): %d checks, %d failed\n' "$shell" "$checks" "$failed"
[ "$failed" -eq 0 ]
