use std::fs;
use std::io::{self, Cursor, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::core::error::Kind;
use crate::update::artifact::VerifyKeys;
use crate::update::interface::TreeError;
use crate::update::interface::bench::{Bench, LONG};
use crate::update::runner::process::ProcessRunner;

/// Answers `No` to `NeedsUnpackedArtifact`.
const PACKED: &str = r#"[ "$1" = NeedsUnpackedArtifact ] && echo No
"#;
/// Answers `Yes` to `ProvidePayloadFileSizes`.
const SIZES: &str = r#"[ "$1" = ProvidePayloadFileSizes ] && echo Yes
"#;

/// A script that answers as told and then downloads like this.
fn script(answers: &str, download: &str) -> Bench {
    Bench::new(&format!(
        r#"echo "$1" >> "$4/calls"
set +e
{answers}
set -e
case "$1" in Download*) ;; *) exit 0 ;; esac
{download}"#
    ))
}

/// The documented way to take streams.
const TAKE_ALL: &str = r#"mkdir -p "$4/got"
while name="$(cat stream-next)"; [ -n "$name" ]; do
    echo "$name" >> "$4/names"
    file="${name%% *}"
    cat "$file" > "$4/got/${file#streams/}"
done"#;

const QUERIES: [&str; 2] = ["NeedsUnpackedArtifact", "ProvidePayloadFileSizes"];

fn names(bench: &Bench) -> Vec<String> {
    bench.text("names").lines().map(str::to_owned).collect()
}

/// Bytes without any pattern that could hide an error.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; size];
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// Flips a bit in the last payload byte with this value.
fn damage(artifact: &[u8], content: &[u8]) -> Vec<u8> {
    let mut damaged = artifact.to_vec();
    let place = artifact.windows(content.len()).rposition(|window| window == content).unwrap();
    damaged[place + content.len() - 1] ^= 1;
    damaged
}

#[tokio::test]
async fn unpacked_streams_come_one_by_one() {
    let bench = script("", TAKE_ALL);
    let large = noise(300_000);
    // Names a careless script or feeder would trip over.
    let files: [(&str, &[u8]); 5] =
        [("kernel", b"kkk"), ("-rf", b"dash"), ("...", b"dots"), ("empty", b""), ("large,v2.0_x.bin", &large)];
    bench.download(&bench.artifact(&files)).await.unwrap();
    assert_eq!(bench.calls(), [QUERIES[0], QUERIES[1], "Download"]);
    let expected: Vec<String> = files.iter().map(|(name, _)| format!("streams/{name}")).collect();
    assert_eq!(names(&bench), expected);
    for (name, content) in files {
        assert_eq!(bench.bytes(&format!("got/{name}")), content, "{name}");
    }
    assert!(!bench.in_tree("files").exists());
    Tree::open(&bench.interface.root).unwrap();
}

#[tokio::test]
async fn unpacked_streams_come_with_sizes_if_wanted() {
    let bench = script(SIZES, TAKE_ALL);
    bench.download(&bench.artifact(&[("a", b"12345"), ("b", b"")])).await.unwrap();
    assert_eq!(bench.calls(), [QUERIES[0], QUERIES[1], "DownloadWithFileSizes"]);
    assert_eq!(names(&bench), ["streams/a 5", "streams/b 0"]);
    assert_eq!(bench.text("got/a"), "12345");
}

#[tokio::test]
async fn packed_is_one_stream_with_every_byte() {
    // Read once, take the stream, and insist that nothing follows: as an Interface does that hands the path on.
    let download = r#"name="$(cat stream-next)"; echo "$name" > "$4/names"; cat "$name" > "$4/got"
[ -z "$(cat stream-next)" ]"#;
    let bench = script(PACKED, download);
    let mut artifact = bench.artifact(&[("a", &noise(500_000)), ("b", b"x")]);
    bench.download(&artifact).await.unwrap();
    assert_eq!(names(&bench), ["streams/artifact.mender"]);
    assert_eq!(bench.bytes("got"), artifact);

    // Zeros after the end of the tar file belong to the input too.
    artifact.extend_from_slice(&[0; 10_240]);
    bench.download(&artifact).await.unwrap();
    assert_eq!(bench.bytes("got"), artifact);
}

#[tokio::test]
async fn packed_with_size_tells_that_of_the_whole() {
    let bench = script(&format!("{PACKED}{SIZES}"), TAKE_ALL);
    let artifact = bench.artifact(&[("a", b"12345")]);
    bench.download(&artifact).await.unwrap();
    assert_eq!(bench.calls(), [QUERIES[0], QUERIES[1], "DownloadWithFileSizes"]);
    assert_eq!(names(&bench), [format!("streams/artifact.mender {}", artifact.len())]);
    assert_eq!(bench.bytes("got/artifact.mender"), artifact);

    let error = bench.make(bench.request(Cursor::new(artifact), None)).await.unwrap_err();
    let expected = "DownloadWithFileSizes of Component \"gateway.R:1\" failed: \"PROGRAM\" wants the size of the whole \
                    Artifact, but its source does not tell the size.";
    assert_eq!(bench.plain(&error), expected);
}

#[tokio::test]
async fn a_line_reader_that_opens_anew_works_too() {
    let download = r#"while IFS= read -r name < stream-next && [ -n "$name" ]; do
    cat "$name" >> "$4/got"
done"#;
    let bench = script("", download);
    bench.download(&bench.artifact(&[("a", b"1"), ("b", b"2"), ("c", b"3")])).await.unwrap();
    assert_eq!(bench.text("got"), "123");
}

#[tokio::test]
async fn a_stream_may_be_read_in_the_background() {
    let download = r#"mkdir "$4/got"
while name="$(cat stream-next)"; [ -n "$name" ]; do
    (exec 3< "$name"; : > "$4/open"; sleep 0.2; cat <&3 > "$4/got/${name#streams/}") &
    while ! [ -e "$4/open" ]; do sleep 0.01; done
    rm "$4/open"
done
wait"#;
    let bench = script("", download);
    bench.download(&bench.artifact(&[("a", b"first"), ("b", b"second")])).await.unwrap();
    assert_eq!((bench.text("got/a"), bench.text("got/b")), ("first".into(), "second".into()));
}

#[tokio::test]
async fn untouched_streams_become_files() {
    let bench = script("", "ls > \"$4/listed\"");
    let large = noise(300_000);
    bench.download(&bench.artifact(&[("kernel", b"kkk"), ("-rf", b"dash"), ("large", &large)])).await.unwrap();
    assert_eq!(fs::read(bench.in_tree("files/kernel")).unwrap(), b"kkk");
    assert_eq!(fs::read(bench.in_tree("files/-rf")).unwrap(), b"dash");
    assert_eq!(fs::read(bench.in_tree("files/large")).unwrap(), large);
    assert_eq!(fs::read_dir(bench.in_tree("files")).unwrap().count(), 3);
    let expected = "current_artifact_group\ncurrent_artifact_name\ncurrent_device_type\nheader\nstream-next\nstreams\n\
                    tmp\nversion\n";
    assert_eq!(bench.text("listed"), expected);
}

#[tokio::test]
async fn an_untouched_packed_stream_becomes_a_file() {
    for size in ["", SIZES] {
        let bench = script(&format!("{PACKED}{size}"), "cat header/type-info > \"$4/type-info\"");
        let artifact = bench.artifact(&[("a", &noise(200_000))]);
        bench.download(&artifact).await.unwrap();
        assert_eq!(fs::read(bench.in_tree("files/artifact.mender")).unwrap(), artifact);
        assert_eq!(fs::read_dir(bench.in_tree("files")).unwrap().count(), 1);
        // The header is there before the Artifact is.
        assert!(bench.text("type-info").contains("rootfs-image.gw.version"));
    }
}

#[tokio::test]
async fn without_payload_files_the_first_entry_is_empty() {
    let bench = script("", r#"cat stream-next > "$4/entry""#);
    bench.download(&bench.artifact(&[])).await.unwrap();
    assert_eq!(bench.text("entry"), "");
    assert!(!bench.in_tree("files").exists());

    let bench = script("", "");
    bench.download(&bench.artifact(&[])).await.unwrap();
    assert_eq!(fs::read_dir(bench.in_tree("files")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_payload_fails_although_the_script_is_content() {
    for content in [&b"payload-bytes"[..], &noise(400_000)] {
        for answers in ["", PACKED] {
            for download in [TAKE_ALL, ""] {
                let bench = script(answers, download);
                let artifact = damage(&bench.artifact(&[("a", b"fine"), ("b", content)]), content);
                let error = bench.download(&artifact).await.unwrap_err();
                let message = bench.plain(&error);
                let begins = "Download of Component \"gateway.R:1\" failed: The Artifact is damaged: \"b\"";
                assert!(message.starts_with(begins), "{answers:?} {download:?}: {message}");
                assert_eq!(Error::from(error).kind, Kind::InvalidArtifact);
            }
        }
    }
}

#[tokio::test]
async fn a_script_never_sees_the_end_of_a_damaged_file() {
    for answers in ["", PACKED] {
        // It hurries on when it is told to end, as a program does that is not asked.
        let take = r#"trap '' TERM
name="$(cat stream-next)"; echo "$name" > "$4/names"; cat "$name" > "$4/got"; : > "$4/ended"; cat stream-next"#;
        let mut bench = script(answers, take);
        bench.interface.runner = Arc::new(ProcessRunner::with_grace(Duration::from_millis(300)));
        let artifact = damage(&bench.artifact(&[("a", b"payload-bytes")]), b"payload-bytes");
        bench.download(&artifact).await.unwrap_err();
        assert!(bench.path("names").exists(), "{answers:?}");
        assert!(!bench.path("ended").exists(), "{answers:?}");
    }
}

#[tokio::test]
async fn a_truncated_artifact_fails() {
    for (answers, download) in [("", TAKE_ALL), ("", ""), (PACKED, TAKE_ALL), (PACKED, "")] {
        let bench = script(answers, download);
        let artifact = bench.artifact(&[("a", &noise(200_000))]);
        let message = bench.failure(&artifact[..100_000]).await;
        assert!(message.contains("The Artifact is truncated"), "{answers:?} {download:?}: {message}");
    }
}

#[tokio::test]
async fn nothing_is_called_before_header_and_check_are_passed() {
    let bench = script("", TAKE_ALL);
    let artifact = bench.artifact(&[("a", b"x")]);
    let damaged = damage(&artifact, b"gateway-v2");
    let message = bench.failure(&damaged).await;
    assert!(message.contains("The Artifact is damaged: \"header.tar\""), "{message}");

    let mut request = bench.request(Cursor::new(artifact.clone()), None);
    request.check = Box::new(|header| {
        assert_eq!(header.artifact_name, "gateway-v2");
        Err(Error::new(Kind::NoSuitableArtifact, "Another one was selected."))
    });
    let error = bench.make(request).await.unwrap_err();
    let expected = "Download of Component \"gateway.R:1\" failed: Another one was selected.";
    assert_eq!(Error::from(error), Error::new(Kind::NoSuitableArtifact, expected));

    assert!(bench.calls().is_empty());
    assert!(matches!(Tree::open(&bench.interface.root), Err(TreeError::Missing(_))));
}

#[tokio::test]
async fn without_the_signature_that_is_asked_for_nothing_is_called() {
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKMcFJtuUPmAVx0VSO6I0F7VwfAe3\n\
        BKy5UhFNz83pwK+hbNUtsW1r6Mt2sHQdW0+i+hnEEk8ukOjCdrcGG3vEDQ==\n\
        -----END PUBLIC KEY-----\n";
    let mut bench = script(PACKED, TAKE_ALL);
    fs::write(bench.path("key.pem"), KEY).unwrap();
    bench.keys = VerifyKeys::load(&[bench.path("key.pem")]).unwrap();
    let error = bench.download(&bench.artifact(&[("a", b"x")])).await.unwrap_err();
    let message = bench.plain(&error);
    assert!(message.contains("The Artifact has no \"manifest.sig\""), "{message}");
    assert_eq!(Error::from(error).kind, Kind::InvalidArtifact);
    assert!(bench.calls().is_empty());
}

#[tokio::test]
async fn leaving_a_stream_early_is_a_failure() {
    for content in [noise(1_000_000), noise(1000)] {
        for answers in ["", PACKED] {
            // `head` would read a whole block of a small file, `dd` reads what it is told.
            let take = r#"name="$(cat stream-next)"; dd bs=10 count=1 of="$4/got" if="$name" 2> "$4/dd""#;
            let bench = script(answers, take);
            let artifact = bench.artifact(&[("a", &content)]);
            let message = bench.failure(&artifact).await;
            let stream = if answers.is_empty() { "a" } else { "artifact.mender" };
            let expected = format!("\"PROGRAM\" ended without having read all of \"streams/{stream}\".");
            assert!(message.ends_with(&expected), "{message}");

            let bench = script(answers, &format!("{take}; exit 9"));
            let message = bench.failure(&artifact).await;
            assert!(message.ends_with("\"PROGRAM\" exited with status 9."), "{message}");
        }
    }
}

#[tokio::test]
async fn a_small_stream_must_be_read_to_its_end_too() {
    let download = r#"name="$(cat stream-next)"; dd bs=10 count=1 of="$4/got" if="$name" 2> "$4/dd"
name="$(cat stream-next)"; cat "$name" > "$4/got"
cat stream-next"#;
    let bench = script("", download);
    let message = bench.failure(&bench.artifact(&[("a", &noise(1000)), ("b", b"x")])).await;
    assert!(message.ends_with("\"PROGRAM\" ended without having read all of \"streams/a\"."), "{message}");
}

#[tokio::test]
async fn who_leaves_a_stream_and_waits_for_the_next_is_ended() {
    let mut bench = script("", r#"name="$(cat stream-next)"; head -c 10 "$name" > "$4/got"; cat stream-next"#);
    bench.interface.patience = Duration::from_millis(100);
    let message = bench.failure(&bench.artifact(&[("a", &noise(1_000_000))])).await;
    assert!(message.ends_with("\"PROGRAM\" ended without having read all of \"streams/a\"."), "{message}");
}

#[tokio::test]
async fn a_program_must_read_up_to_the_empty_entry() {
    const NO_STREAM: &str = "\"PROGRAM\" ended without having read all of \"streams/a\".";
    const NO_END: &str = "\"PROGRAM\" ended before it had read \"stream-next\" to the empty entry that ends it.";
    let takes = [
        (r#"cat stream-next > "$4/got""#, "", NO_STREAM),
        (r#"cat "$(cat stream-next)" > "$4/got""#, "", NO_END),
        (r#"cat "$(cat stream-next)" > "$4/got""#, PACKED, NO_END),
    ];
    for (take, answers, expected) in takes {
        let bench = script(answers, take);
        let message = bench.failure(&bench.artifact(&[("a", b"x")])).await;
        assert!(message.ends_with(expected), "{take}: {message}");
    }
}

#[tokio::test]
async fn the_exit_code_counts_whatever_was_read() {
    for (answers, download) in [("", TAKE_ALL), ("", ""), (PACKED, TAKE_ALL), (PACKED, "")] {
        let bench = script(answers, &format!("{download}\nexit 4"));
        let message = bench.failure(&bench.artifact(&[("a", b"x")])).await;
        assert!(message.ends_with("\"PROGRAM\" exited with status 4."), "{answers:?} {download:?}: {message}");
    }
    let bench = Bench::new(r#"[ "$1" != NeedsUnpackedArtifact ] || exit 5"#);
    let message = bench.failure(&bench.artifact(&[])).await;
    assert!(message.starts_with("NeedsUnpackedArtifact of Component \"gateway.R:1\" failed"), "{message}");
}

#[tokio::test]
async fn time_runs_out_wherever_the_script_hangs() {
    let hangs = [
        // Before it reads anything, between name and stream, in the middle of a stream, before the empty entry.
        "sleep 1000",
        "name=\"$(cat stream-next)\"; sleep 1000",
        "name=\"$(cat stream-next)\"; exec 3< \"$name\"; dd bs=10 count=1 <&3 2> \"$4/dd\" > \"$4/got\"; sleep 1000",
        "cat \"$(cat stream-next)\" > \"$4/got\"; sleep 1000",
        // For a name it does not take the stream of.
        "cat stream-next > \"$4/got\"; cat stream-next",
        // In a background process that has the stream open, in a session of its own.
        "name=\"$(cat stream-next)\"; setsid sleep 1000 < \"$name\" & wait",
    ];
    for hang in hangs {
        let mut bench = script("", hang);
        bench.interface.timeout = Duration::from_secs(1);
        let message = bench.failure(&bench.artifact(&[("a", &noise(200_000))])).await;
        assert!(message.ends_with("\"PROGRAM\" ran out of time after 1 s and was ended."), "{hang}: {message}");
    }
}

#[tokio::test]
async fn a_script_that_removes_the_streams_does_not_hang_us() {
    for download in ["rm -r stream-next streams", "cat stream-next > \"$4/got\"; rm -r stream-next streams"] {
        let bench = script("", download);
        // The first has not touched the streams, the second has.
        let result = bench.download(&bench.artifact(&[("a", b"x")])).await;
        assert_eq!(result.is_ok(), download.starts_with("rm"), "{download}: {result:?}");
    }
    let bench = script("", "rm -r \"$2\"");
    bench.failure(&bench.artifact(&[("a", b"x")])).await;
}

#[tokio::test]
async fn a_background_reader_left_behind_does_not_hang_us() {
    let bench = script("", r#"name="$(cat stream-next)"; sleep 1000 < "$name" & exit 0"#);
    let message = bench.failure(&bench.artifact(&[("a", &noise(200_000))])).await;
    assert!(message.contains("\"PROGRAM\" ended"), "{message}");
}

#[tokio::test]
async fn cancelling_ends_the_script_and_the_feeding() {
    for download in
        [": > \"$4/ready\"; sleep 1000", "name=\"$(cat stream-next)\"; : > \"$4/ready\"; sleep 1000 < \"$name\""]
    {
        let bench = script("", download);
        let artifact = bench.artifact(&[("a", &noise(1_000_000))]);
        let cancel = async {
            bench.wait_for("ready").await;
            bench.cancel.cancel();
        };
        let (result, ()) = tokio::join!(bench.download(&artifact), cancel);
        let expected = Error::new(Kind::Cancelled, "Download of Component \"gateway.R:1\" was cancelled.");
        assert_eq!(Error::from(result.unwrap_err()), expected);
    }
}

/// Ends like a connection that breaks.
struct Broken(Cursor<Vec<u8>>);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the server is gone")),
            count => Ok(count),
        }
    }
}

#[tokio::test]
async fn a_broken_source_ends_the_script() {
    for (answers, download) in [("", TAKE_ALL), ("", ""), (PACKED, TAKE_ALL), (PACKED, "")] {
        let bench = script(answers, download);
        let mut artifact = bench.artifact(&[("a", &noise(300_000))]);
        artifact.truncate(200_000);
        let error = bench.make(bench.request(Broken(Cursor::new(artifact)), None)).await.unwrap_err();
        let message = bench.plain(&error);
        assert!(message.ends_with("Cannot read the Artifact: the server is gone."), "{answers:?}: {message}");
    }
}

/// Counts what was read of an Artifact, and whether it still is in use.
struct Counted(Cursor<Vec<u8>>, Arc<AtomicU64>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.fetch_add(u64::try_from(count).unwrap(), Ordering::SeqCst);
        Ok(count)
    }
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_source() {
    for answers in ["", PACKED] {
        let download =
            r#"name="$(cat stream-next)"; exec 3< "$name"; head -c 1000000 <&3 > "$4/got"; : > "$4/ready"; sleep 1000"#;
        let bench = script(answers, download);
        let artifact = bench.artifact(&[("a", &noise(20_000_000))]);
        let count = Arc::new(AtomicU64::new(0));
        let input = Counted(Cursor::new(artifact), Arc::clone(&count));
        let cancel = async {
            bench.wait_for("ready").await;
            bench.cancel.cancel();
        };
        let (result, ()) = tokio::join!(bench.make(bench.request(input, None)), cancel);
        assert!(matches!(result, Err(InterfaceError::Cancelled { .. })), "{result:?}");
        assert_eq!(bench.bytes("got").len(), 1_000_000);
        // A pipe and some buffers, whatever the size of the Artifact.
        assert!(count.load(Ordering::SeqCst) < 6_000_000, "{count:?}");
    }
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let download = r#"name="$(cat stream-next)"; dd bs=16k if="$name" 2> "$4/dd" | while dd bs=64k count=1 iflag=fullblock of="$4/block" 2> "$4/dd2"; [ -s "$4/block" ]; do
    cat "$4/block" >> "$4/got"; sleep 0.01
done
cat stream-next"#;
    let bench = script("", download);
    let content = noise(1_000_000);
    bench.download(&bench.artifact(&[("a", &content)])).await.unwrap();
    assert_eq!(bench.bytes("got"), content);
}

#[tokio::test]
async fn progress_counts_up_to_the_size() {
    let bench = script("", TAKE_ALL);
    let artifact = bench.artifact(&[("a", &noise(500_000))]);
    let size = u64::try_from(artifact.len()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let mut request = bench.request(Cursor::new(artifact), Some(size));
    request.progress = Arc::new(move |count| sink.lock().unwrap().push(count));
    bench.make(request).await.unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&size));
    assert!(seen.len() > 3);
}

#[tokio::test]
async fn dropping_a_download_ends_its_thread_and_script() {
    let bench = script("", r#"name="$(cat stream-next)"; : > "$4/ready"; sleep 1000 < "$name""#);
    let count = Arc::new(AtomicU64::new(0));
    let input = Counted(Cursor::new(bench.artifact(&[("a", &noise(1_000_000))])), Arc::clone(&count));
    let request = bench.request(input, None);
    tokio::select! {
        result = bench.interface.download(request, &bench.tag, &bench.cancel) => panic!("{result:?}"),
        () = bench.wait_for("ready") => {}
    }
    // The thread owns the input; it is gone when the counter is ours alone again.
    while Arc::strong_count(&count) > 1 {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_disk_without_room_is_told_before_anything_is_stored() {
    let bench = script(PACKED, "");
    let artifact = bench.artifact(&[("a", b"x")]);
    let request = bench.request(Cursor::new(artifact), Some(1 << 60));
    let error = bench.make(request).await.unwrap_err();
    let expected = "Download of Component \"gateway.R:1\" failed: Cannot write \"ROOT/files/artifact.mender\": No space \
                    left on device (os error 28).";
    assert_eq!(bench.plain(&error), expected);
    assert_eq!(Error::from(error).kind, Kind::Storage);
}

#[tokio::test]
async fn a_disk_that_runs_full_leaves_no_part() {
    let bench = script(PACKED, "");
    let artifact = bench.artifact(&[("a", &noise(3_000_000))]);
    let store = bench.path("store");
    fs::create_dir(&store).unwrap();
    let mount = |arguments: &[&str]| {
        let status = std::process::Command::new(arguments[0]).args(&arguments[1..]).arg(&store).status();
        status.unwrap_or(std::process::ExitStatus::from_raw(1)).success()
    };
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=2m", "none"]) {
        eprintln!("SKIPPED a_disk_that_runs_full_leaves_no_part: mounting a tmpfs is not permitted here");
        return;
    }
    let result = bench.interface.download(bench.request(Cursor::new(artifact), None), &bench.tag, &bench.cancel).await;
    let left = (bench.in_tree("files").exists(), bench.in_tree("files.partial").exists());
    assert!(mount(&["umount", "--lazy"]));
    let message = bench.plain(&result.unwrap_err());
    assert!(
        message.ends_with("Cannot write \"ROOT/files/artifact.mender\": No space left on device (os error 28)."),
        "{message}"
    );
    assert_eq!(left, (false, false));
}

#[tokio::test]
async fn a_hundred_mebibytes_arrive_whole() {
    for answers in ["", PACKED] {
        let mut bench =
            script(answers, r#"name="$(cat stream-next)"; sha256sum < "$name" > "$4/sum"; cat stream-next"#);
        bench.interface.timeout = 10 * LONG;
        let content = noise(100 * 1024 * 1024);
        let artifact = bench.artifact(&[("image", &content)]);
        bench.download(&artifact).await.unwrap();
        let whole = if answers.is_empty() { &content } else { &artifact };
        let sum = ring::digest::digest(&ring::digest::SHA256, whole);
        assert_eq!(bench.text("sum").split(' ').next().unwrap(), crate::update::artifact::format::hex(sum.as_ref()));
    }
}
