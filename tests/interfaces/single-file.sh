#!/bin/sh
# Calls every state and query of interfaces/v1/single-file by hand, with a File API tree made here, and checks what it answers
# and what it leaves behind, also when a state is cut short at each of its steps. $1 (default: sh) is the shell that runs it.
# BIN_DIR names the directory of orchestratorctl (default: target/debug).

set -u
LC_ALL=C
export LC_ALL

shell=${1:-sh}
cd "$(dirname "$0")/../.." || exit 1
interface=$PWD/interfaces/v1/single-file
programs=$(cd "${BIN_DIR:-${CARGO_TARGET_DIR:-target}/debug}" && pwd) || exit 1
[ -x "$programs/orchestratorctl" ] || {
    echo "single-file.sh: there is no $programs/orchestratorctl" >&2
    exit 1
}
work=$(mktemp -d "${TMPDIR:-/tmp}/single-file.XXXXXX") || exit 1
trap 'rm -rf "${work:?}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
tree=$work/tree
place=$work/place
checks=0
failed=0

# same <what> <expected> <found>
same() {
    checks=$((checks + 1))
    [ "$2" = "$3" ] && return 0
    failed=$((failed + 1))
    printf 'FAILED: %s\n  expected: %s\n  found:    %s\n' "$1" "$2" "$3" >&2
}

# call <word> [interface_args]: prints the answer, then "=<exit status>". What is in $before comes first in the PATH.
before=
call() {
    word=$1
    shift
    (cd "$tree" && PATH=${before:+$before:}$programs:$PATH "$shell" "$interface" "$word" "$tree" config "$@" 2>"$work/stderr")
    printf '=%d' "$?"
}

# The header of the Artifact with version 2, and a place with nothing in it.
fresh() {
    rm -rf "${work:?}/tree" "${work:?}/place"
    mkdir -p "$tree/header" "$tree/tmp" "$place"
    printf single-file >"$tree/header/payload_type"
    : >"$tree/header/artifact_group"
    printf app-2 >"$tree/header/artifact_name"
    printf '{"type":"single-file","artifact_provides":{"rootfs-image.single-file.version":"2"},%s' \
        '"clears_artifact_provides":["rootfs-image.single-file.*"]}' >"$tree/header/type-info"
}

# feed <payload file>... -- <interface_args>: Download, with this side of the streams.
feed() {
    rm -rf "${tree:?}/streams" "${tree:?}/stream-next"
    mkdir "$tree/streams"
    mkfifo "$tree/stream-next"
    payloads=
    while [ "$1" != -- ]; do
        payloads="$payloads $1"
        shift
    done
    shift
    (
        for payload in $payloads; do
            name=streams/${payload##*/}
            mkfifo "$tree/$name"
            printf '%s\n' "$name" >"$tree/stream-next"
            cat "$payload" >"$tree/$name" 2>/dev/null || exit
        done
        : >"$tree/stream-next"
    ) &
    writer=$!
    result=$(call Download "$@")
    # It may still wait in open() for a reader that will not come.
    for fifo in "$tree"/streams/* "$tree/stream-next"; do
        [ ! -p "$fifo" ] || : <>"$fifo"
    done
    kill "$writer" 2>/dev/null
    wait "$writer" 2>/dev/null
    rm -rf "${tree:?}/streams" "${tree:?}/stream-next"
    printf '%s' "$result"
}

echo new >"$work/app.conf"
target=$place/app.conf
installed="artifact_name=app-2
rootfs-image.single-file.version=2
=0"
unknown="rootfs-image.single-file.version=unknown
=0"

# Queries
fresh
same "Identity from the path" "id=app.conf
=0" "$(call Identity "$target")"
same "Identity that is given" "id=gate
=0" "$(call Identity "$target" gate)"
same "Identity of a directory" "id=web
=0" "$(call Identity "$place/web/")"
same "Provides of what is not there" "$unknown" "$(call Provides "$target")"
echo old >"$target"
same "Provides of what nobody installed" "$unknown" "$(call Provides "$target")"
same "Inventory" "=0" "$(call Inventory "$target")"
for answer in NeedsUnpackedArtifact:Yes ProvidePayloadFileSizes:No NeedsArtifactReboot:No SupportsRollback:Yes; do
    same "${answer%:*}" "${answer#*:}
=0" "$(call "${answer%:*}" "$target")"
done
for word in ArtifactReboot ArtifactVerifyReboot ArtifactCommit ArtifactFailure SomethingNew ''; do
    same "\"$word\" has nothing to do" "=0" "$(call "$word" "$target")"
done
for path in '' etc/app.conf / // /etc//app /etc/./app /etc/.. /../etc /etc/../app "/etc/a
b"; do
    same "the path \"$path\" is refused" "=1" "$(call Identity "$path")"
done
same "queries leave nothing behind" "app.conf" "$(ls -A "$place")"

# A file that exists: way there, commit
chmod 640 "$target"
same "Download" "=0" "$(feed "$work/app.conf" -- "$target")"
same "Download activates nothing" "old" "$(cat "$target")"
same "what is received is for root only" "700" "$(stat -c %a "$place/.app.conf.single-file")"
same "ArtifactInstall" "=0" "$(call ArtifactInstall "$target")"
same "the new file has the mode of the old one" "new 640" "$(cat "$target") $(stat -c %a "$target")"
same "Provides after ArtifactInstall" "$installed" "$(call Provides "$target")"
same "Cleanup" "=0" "$(call Cleanup "$target")"
same "after Cleanup" ".app.conf.single-file/provides
app.conf" "$(cd "$place" && find . ! -type d -printf '%P\n' | sort)"
same "Cleanup again" "=0" "$(call Cleanup "$target")"
rm "$target"
same "without the file, nothing is installed" "$unknown" "$(call Provides "$target")"

# Rollback, once and again, also after the commit
fresh
echo old >"$target"
chmod 600 "$target"
feed "$work/app.conf" -- "$target" >"$work/answer"
call ArtifactInstall "$target" >"$work/answer"
call ArtifactCommit "$target" >"$work/answer"
for time in first second; do
    same "the $time ArtifactRollback" "=0" "$(call ArtifactRollback "$target")"
    same "the old file is back ($time)" "old 600" "$(cat "$target") $(stat -c %a "$target")"
    same "the old Provides are back ($time)" "$unknown" "$(call Provides "$target")"
done
same "Cleanup after the rollback" "=0" "$(call Cleanup "$target")"
same "a rollback leaves nothing behind" "app.conf" "$(ls -A "$place")"

# A file that is new, in a directory that is new
fresh
same "Download makes the directory" "=0" "$(feed "$work/app.conf" -- "$place/etc/app.conf")"
call ArtifactInstall "$place/etc/app.conf" >"$work/answer"
same "a file that is new" "new 644" "$(cat "$place/etc/app.conf") $(stat -c %a "$place/etc/app.conf")"
call ArtifactRollback "$place/etc/app.conf" >"$work/answer"
call Cleanup "$place/etc/app.conf" >"$work/answer"
same "a file that was new is gone" "" "$(ls -A "$place/etc")"

# A symbolic link is replaced, not followed
fresh
echo other >"$place/other"
ln -s other "$target"
feed "$work/app.conf" -- "$target" >"$work/answer"
call ArtifactInstall "$target" >"$work/answer"
same "a link is replaced" "new other" "$(cat "$target") $(cat "$place/other")"
call ArtifactRollback "$target" >"$work/answer"
same "a link is put back" "other" "$(readlink "$target")"

# A directory
mkdir -p "$work/web/sub"
echo index >"$work/web/index"
echo page >"$work/web/sub/page"
chmod 750 "$work/web/sub"
tar -C "$work/web" -czf "$work/web.tar.gz" .
web=$place/web
fresh
mkdir "$web"
echo stale >"$web/stale"
same "Download of a directory" "=0" "$(feed "$work/web.tar.gz" -- "$web/")"
same "Download leaves the directory alone" "stale" "$(ls "$web")"
same "ArtifactInstall of a directory" "=0" "$(call ArtifactInstall "$web/")"
same "the new directory" "index sub page 750" "$(cd "$web" && echo *) $(cat "$web/sub/page") $(stat -c %a "$web/sub")"
same "Provides of a directory" "$installed" "$(call Provides "$web/")"
for time in first second; do
    same "the $time ArtifactRollback of a directory" "=0" "$(call ArtifactRollback "$web/")"
    same "the old directory ($time)" "stale" "$(ls "$web")"
done

# What does not fit is refused before anything is touched
fresh
mkdir "$web"
feed "$work/app.conf" -- "$web" >"$work/answer"
same "a file for a directory" "=1" "$(call ArtifactInstall "$web")"
fresh
echo old >"$web"
feed "$work/web.tar.gz" -- "$web/" >"$work/answer"
same "a directory for a file" "=1" "$(call ArtifactInstall "$web/")"
same "the file is still there" "old" "$(cat "$web")"
fresh
mkdir "$web"
feed "$work/app.conf" -- "$web/" >"$work/answer"
same "a directory from what is no archive" "=2" "$(call ArtifactInstall "$web/")"
call ArtifactRollback "$web/" >"$work/answer"
same "the directory is still there" "web" "$(ls "$place")"
fresh
echo old >"$target"
same "no payload" "=1" "$(feed -- "$target")"
same "two payloads" "=1" "$(feed "$work/app.conf" "$work/web.tar.gz" -- "$target")"
fresh
echo old >"$target"
same "ArtifactInstall without Download" "=1" "$(call ArtifactInstall "$target")"
feed "$work/app.conf" -- "$target" >"$work/answer"
echo nonsense >"$tree/header/type-info"
same "a header that cannot be read" "=13" "$(call ArtifactInstall "$target")"
same "the file was not touched" "old" "$(cat "$target")"

# Cut short: the n-th call of a program that changes something kills the Interface, before or after it has done its work.
# Whatever had happened by then, ArtifactRollback brings the old state back, and so it does if it was cut short itself.
mkdir "$work/deadly"
for program in cp mv ln rm mkdir chmod cat sync tar; do
    real=$(command -v "$program")
    cat >"$work/deadly/$program" <<END_OF_PROGRAM
#!/bin/sh
read -r left <"$work/left"
if [ "\$left" -gt 0 ]; then
    echo \$((left - 1)) >"$work/left"
    if [ "\$left" -eq 1 ]; then
        [ ! -e "$work/after" ] || "$real" "\$@"
        kill -KILL \$PPID
        exit 1
    fi
fi
exec "$real" "\$@"
END_OF_PROGRAM
    chmod +x "$work/deadly/$program"
done
# cut <n> <word> <interface_args>: the call; true if it did not come so far.
cut() {
    before=$work/deadly
    echo "$1" >"$work/left"
    shift
    call "$@" >"$work/answer" 2>/dev/null
    before=
    read -r left <"$work/left"
    echo 0 >"$work/left"
    [ "$left" -gt 0 ]
}
# state_of <target>: what a user sees of it
state_of() {
    if [ -d "$1" ]; then (cd "$1" && ls && cat ./*) 2>/dev/null; else cat "$1" 2>/dev/null || echo absent; fi
}

for kind in file new-file directory new-directory; do
    case $kind in
        *file) path=$target payload=$work/app.conf ;;
        *) path=$web/ payload=$work/web.tar.gz ;;
    esac
    for after in no yes; do
        rm -f "${work:?}/after"
        [ "$after" = no ] || : >"$work/after"
        for state in ArtifactInstall ArtifactRollback Cleanup; do
            step=0
            over=
            while [ -z "$over" ]; do
                step=$((step + 1))
                fresh
                case $kind in
                    file) echo old >"$target" ;;
                    directory) mkdir "$web" && echo old >"$web/old" ;;
                esac
                old=$(state_of "${path%/}")
                feed "$payload" -- "$path" >"$work/answer"
                new=
                if [ "$state" != ArtifactInstall ]; then
                    call ArtifactInstall "$path" >"$work/answer"
                    new=$(state_of "${path%/}")
                fi
                if cut "$step" "$state" "$path" || [ "$step" -gt 60 ]; then over=yes; fi
                what="$kind, $state cut short at step $step (after: $after)"
                if [ "$state" = Cleanup ]; then
                    same "$what: the new state stays" "$new" "$(state_of "${path%/}")"
                    same "$what: Provides" "$installed" "$(call Provides "$path")"
                else
                    same "$what: ArtifactRollback" "=0" "$(call ArtifactRollback "$path")"
                    same "$what: the old state" "$old" "$(state_of "${path%/}")"
                    same "$what: Provides" "$unknown" "$(call Provides "$path")"
                fi
                same "$what: Cleanup" "=0" "$(call Cleanup "$path")"
                same "$what: nothing else is left" "" \
                    "$(cd "$place" && find . -mindepth 1 -maxdepth 1 ! -name app.conf ! -name web ! -name '.*.single-file')"
            done
            [ "$step" -gt 1 ] || same "$kind: $state has steps" "more than 1" "$step"
            [ "$step" -le 60 ] || same "$kind: $state ends" "at most 60 steps" "$step"
        done
    done
done

[ "$failed" -eq 0 ] || {
    printf 'single-file.sh: %d of %d checks failed\n' "$failed" "$checks" >&2
    exit 1
}
printf 'single-file.sh: %d checks passed\n' "$checks"
