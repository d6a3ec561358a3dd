#!/bin/sh
# Calls every state and query of interfaces/v1/rootfs-image by hand, with a mender-update that takes notes, and checks what the
# Mender client was called with and what came back. $1 (default: sh) is the shell that runs it.

set -u
LC_ALL=C
export LC_ALL

shell=${1:-sh}
interface=$(cd "$(dirname "$0")/../../interfaces/v1" && pwd)/rootfs-image
work=$(mktemp -d "${TMPDIR:-/tmp}/rootfs-image.XXXXXX") || exit 1
trap 'rm -rf "${work:?}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
tree=$work/tree
checks=0
failed=0

mkdir -p "$work/bin" "$work/client/identity" "$work/state"
export MENDER_DATASTORE_DIR="$work/state" MENDER_DATA_DIR="$work/client"
# Notes its arguments, reads an Artifact to its end, answers what the files "provides" and "code" say.
cat >"$work/bin/mender-update" <<END_OF_PROGRAM
#!/bin/sh
printf '%s\n' "\$*" >>"$work/calls"
for last; do :; done
case \$1 in
    install) cat "\$last" >"$work/received" ;;
    show-provides) cat "$work/provides" ;;
esac
exit "\$(cat "$work/code")"
END_OF_PROGRAM
chmod +x "$work/bin/mender-update"

# same <what> <expected> <found>
same() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] && return 0
    failed=$((failed + 1))
    printf 'FAILED: %s\n  expected: %s\n  found:    %s\n' "$1" "$2" "$3" >&2
}

# call <word>: prints the answer, then "=<exit status>"
call() {
    (cd "$tree" && PATH=$work/bin:$PATH "$shell" "$interface" "$1" "$tree" gateway 2>"$work/stderr")
    printf '=%d' "$?"
}

fresh() {
    rm -rf "${work:?}/tree" "${work:?}/received"
    mkdir -p "$tree/tmp"
    : >"$work/calls"
    echo 0 >"$work/code"
    printf 'artifact_name=v1\nrootfs-image.version=v1\n' >"$work/provides"
    printf 'device_type=gateway\n' >"$work/state/device_type"
    printf '#!/bin/sh\nprintf "mac=52:54:00:1d:94:82\\nserial=a=b\\n"\n' >"$work/client/identity/mender-device-identity"
    chmod +x "$work/client/identity/mender-device-identity"
}

# feed <stream name>...: Download, with this side of the streams
feed() {
    mkdir "$tree/streams"
    mkfifo "$tree/stream-next"
    (
        for name; do
            mkfifo "$tree/streams/$name"
            printf 'streams/%s\n' "$name" >"$tree/stream-next"
            printf 'the bytes of %s' "$name" >"$tree/streams/$name" 2>/dev/null || exit
        done
        : >"$tree/stream-next"
    ) &
    writer=$!
    result=$(call Download)
    # It may still wait in open() for a reader that will not come.
    for fifo in "$tree"/streams/* "$tree/stream-next"; do
        [ ! -p "$fifo" ] || : <>"$fifo"
    done
    kill "$writer" 2>/dev/null
    wait "$writer" 2>/dev/null
    printf '%s' "$result"
}

# Queries
fresh
same "NeedsUnpackedArtifact" "No
=0" "$(call NeedsUnpackedArtifact)"
same "NeedsArtifactReboot" "Automatic
=0" "$(call NeedsArtifactReboot)"
same "SupportsRollback" "Yes
=0" "$(call SupportsRollback)"
same "Identity" "id=52:54:00:1d:94:82
=0" "$(call Identity)"
for word in ProvidePayloadFileSizes Inventory ArtifactReboot ArtifactVerifyReboot ArtifactRollbackReboot \
    ArtifactVerifyRollbackReboot SomethingNew ''; do
    same "\"$word\" has nothing to do" "=0" "$(call "$word")"
done
same "none of these called the client" "" "$(cat "$work/calls")"
printf '#!/bin/sh\necho nonsense\n' >"$work/client/identity/mender-device-identity"
same "an identity that is none" "=1" "$(call Identity)"
rm "$work/client/identity/mender-device-identity"
same "no identity" "=127" "$(call Identity)"

same "Provides" "artifact_name=v1
rootfs-image.version=v1
=0" "$(call Provides)"
same "Provides asks the client" "show-provides" "$(cat "$work/calls")"
printf 'device_type=gateway\nartifact_name=unknown\n' >"$work/provides"
same "Provides of a device that was never updated" "artifact_name=unknown
rootfs-image.version=unknown
=0" "$(call Provides)"
: >"$work/provides"
same "Provides of a client that knows nothing" "rootfs-image.version=unknown
=0" "$(call Provides)"
echo 1 >"$work/code"
same "Provides if the client fails" "=1" "$(call Provides)"

# The states, each with the call it makes
fresh
same "Download" "=0" "$(feed artifact.mender)"
same "Download hands the stream to the client" "install --stop-before ArtifactInstall_Enter --stop-before ArtifactRollback_Enter\
 --stop-before Cleanup $tree/streams/artifact.mender" "$(cat "$work/calls")"
same "the client gets the Artifact" "the bytes of artifact.mender" "$(cat "$work/received")"
for line in "ArtifactInstall:resume --stop-before ArtifactCommit_Enter --stop-before ArtifactRollback_Enter" \
    "ArtifactCommit:commit --stop-before ArtifactCommit_Leave --stop-before ArtifactRollback_Enter" \
    "ArtifactRollback:rollback --stop-before ArtifactFailure_Enter" \
    "ArtifactFailure:resume --stop-before Cleanup" \
    "Cleanup:resume"; do
    state=${line%%:*}
    fresh
    same "$state" "=0" "$(call "$state")"
    same "$state makes one call" "${line#*:}" "$(cat "$work/calls")"
    fresh
    echo 1 >"$work/code"
    same "$state if the client fails" "=1" "$(call "$state")"
    echo 2 >"$work/code"
    case $state in
        ArtifactInstall | ArtifactCommit) same "$state if there is no update" "=2" "$(call "$state")" ;;
        *) same "$state if there is no update" "=0" "$(call "$state")" ;;
    esac
done

# After a power cut ArtifactRollback may come again, and the client must not be asked twice
fresh
call ArtifactRollback >"$work/answer"
same "ArtifactRollback again" "=0" "$(call ArtifactRollback)"
same "the client rolls back once" "1" "$(grep -c rollback "$work/calls")"

# Downloads that must fail
fresh
echo 1 >"$work/code"
same "Download if the client fails" "=1" "$(feed artifact.mender)"
fresh
same "no stream" "=1" "$(feed)"
fresh
same "a second stream" "=1" "$(feed one two)"
fresh
printf 'device_type=other\n' >"$work/state/device_type"
same "another device type" "=1" "$(feed artifact.mender)"
same "the client is not called then" "" "$(cat "$work/calls")"
fresh
rm "$work/state/device_type"
same "no device type" "=1" "$(feed artifact.mender)"

[ "$failed" -eq 0 ] || {
    printf 'rootfs-image.sh: %d of %d checks failed\n' "$failed" "$checks" >&2
    exit 1
}
printf 'rootfs-image.sh: %d checks passed\n' "$checks"
