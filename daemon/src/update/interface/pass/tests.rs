use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::{OpenArtifact, Seat, Way, seats_of};
use crate::update::artifact::VerifyKeys;
use crate::update::interface::ArtifactInput;
use crate::update::interface::bench::{Bench, LONG};

/// Takes every file as documented.
const TAKE: &str = r#"while name="$(cat stream-next)"; [ -n "$name" ]; do cat "$name" >> "$4/got"; done"#;
/// The same in small steps.
const SLOWLY: &str = r#"while name="$(cat stream-next)"; [ -n "$name" ]; do
    while dd bs=64k count=8 iflag=fullblock of="$4/block" 2> "$4/dd" && [ -s "$4/block" ]; do
        cat "$4/block" >> "$4/got"; sleep 0.02
    done < "$name"
done"#;
/// Takes half a mebibyte, and the rest when it may.
const STALLING: &str = r#"name="$(cat stream-next)"; exec 3< "$name"
dd bs=64k count=8 iflag=fullblock <&3 2> "$4/dd" > "$4/got"; : > "$4/stalled"
while ! [ -e "$4/go" ]; do sleep 0.01; done
cat <&3 >> "$4/got"; exec 3<&-
while name="$(cat stream-next)"; [ -n "$name" ]; do cat "$name" >> "$4/got"; done"#;

/// A Component that does this in `Download`, and answers like this.
fn component(answers: &str, download: &str) -> Bench {
    Bench::new(&format!("set +e\n{answers}\nset -e\ncase $1 in Download*) ;; *) exit 0 ;; esac\n{download}"))
}

/// Counts what is read of an Artifact, and how often it is opened.
#[derive(Default)]
struct Count {
    opened: AtomicUsize,
    bytes: AtomicUsize,
}

struct Counted(Cursor<Vec<u8>>, Arc<Count>);

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        self.1.bytes.fetch_add(count, Ordering::SeqCst);
        Ok(count)
    }
}

impl ArtifactInput for Counted {
    fn size(&self) -> Option<u64> {
        Some(self.0.get_ref().len() as u64)
    }
}

/// Places in the reading of the first of these; who opens it again gets the next, or the last.
fn places(contents: Vec<Vec<u8>>, count: usize, patience: Duration) -> (Vec<Seat>, Arc<Count>) {
    let counts = Arc::new(Count::default());
    let counted = Arc::clone(&counts);
    let open: Arc<OpenArtifact> = Arc::new(move |_| {
        let number = counted.opened.fetch_add(1, Ordering::SeqCst).min(contents.len() - 1);
        Ok(Box::new(Counted(Cursor::new(contents[number].clone()), Arc::clone(&counted))))
    });
    let way = Way { open, keys: VerifyKeys::default(), patience };
    (seats_of(way, count), counts)
}

fn noise(size: usize) -> Vec<u8> {
    let next =
        |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(7), next).map(|state| state.to_be_bytes()[0]).take(size).collect()
}

/// One is slow, one wants files, two want the Artifact as it is, one fails, one leaves early.
#[tokio::test]
async fn eight_components_share_one_reading() {
    const PACKED: &str = r#"[ "$1" = NeedsUnpackedArtifact ] && echo No"#;
    let components = [
        component("", TAKE),
        component("", SLOWLY),
        component("", ""),
        component(PACKED, TAKE),
        component(PACKED, ""),
        component("", TAKE),
        component("", r#"cat "$(cat stream-next)" > "$4/got"; exit 9"#),
        component("", r#"name="$(cat stream-next)"; head -c 10 "$name" > "$4/got""#),
    ];
    let (large, small) = (noise(6_000_000), b"small".to_vec());
    let artifact = components[0].artifact(&[("large", &large), ("empty", b""), ("small", &small)]);
    let (seats, counts) = places(vec![artifact.clone()], components.len(), LONG);
    let downloads = components.iter().zip(seats).map(|(bench, seat)| bench.make(Bench::request_of(seat)));
    let results = join_all(downloads).await;

    let payload = [large.as_slice(), small.as_slice()].concat();
    for index in [0, 1, 5] {
        results[index].as_ref().unwrap();
        assert!(components[index].bytes("got") == payload, "{index}");
    }
    results[2].as_ref().unwrap();
    for (name, content) in [("large", large.as_slice()), ("empty", b""), ("small", small.as_slice())] {
        assert!(std::fs::read(components[2].in_tree("files").join(name)).unwrap() == content, "{name}");
    }
    results[3].as_ref().unwrap();
    assert!(components[3].bytes("got") == artifact);
    results[4].as_ref().unwrap();
    assert!(std::fs::read(components[4].in_tree("files/artifact.mender")).unwrap() == artifact);
    let message = |index: usize| components[index].plain(results[index].as_ref().unwrap_err());
    assert!(message(6).ends_with("\"PROGRAM\" exited with status 9."), "{}", message(6));
    assert!(message(7).ends_with("ended without having read all of \"streams/large\"."), "{}", message(7));

    assert_eq!(counts.opened.load(Ordering::SeqCst), 1);
    assert_eq!(counts.bytes.load(Ordering::SeqCst), artifact.len());
}

/// Three stand still: before the streams, in the middle of one, and in the middle of the whole Artifact.
#[tokio::test]
async fn who_stands_still_holds_the_others_up_for_a_while_only() {
    const PACKED: &str = r#"[ "$1" = NeedsUnpackedArtifact ] && echo No"#;
    let stalled = [
        component("", r#": > "$4/stalled"; while ! [ -e "$4/go" ]; do sleep 0.01; done"#),
        component("", STALLING),
        component(PACKED, STALLING),
        component(
            r#"[ "$1" = ProvidePayloadFileSizes ] && { : > "$4/stalled"; while ! [ -e "$4/go" ]; do sleep 0.01; done; }"#,
            TAKE,
        ),
    ];
    let quick = [component("", TAKE), component("", "")];
    let content = noise(5_000_000);
    let artifact = quick[0].artifact(&[("large", &content), ("last", b"2")]);
    let (mut seats, counts) = places(vec![artifact.clone()], 6, Duration::from_millis(300));
    let others = seats.split_off(4);

    let waiting = join_all(stalled.iter().zip(seats).map(|(bench, seat)| bench.make(Bench::request_of(seat))));
    let going = async {
        for result in join_all(quick.iter().zip(others).map(|(bench, seat)| bench.make(Bench::request_of(seat)))).await
        {
            result.unwrap();
        }
        for bench in &stalled {
            bench.wait_for("stalled").await;
            std::fs::write(bench.path("go"), "").unwrap();
        }
    };
    let (results, ()) = tokio::join!(waiting, going);
    for (index, result) in results.into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("{index}: {error}"));
    }
    let payload = [content.as_slice(), b"2"].concat();
    assert!(std::fs::read(stalled[0].in_tree("files/large")).unwrap() == content);
    for bench in [&stalled[1], &stalled[3], &quick[0]] {
        assert!(bench.bytes("got") == payload);
    }
    assert!(stalled[2].bytes("got") == artifact);
    assert_eq!(counts.opened.load(Ordering::SeqCst), 5);
}

/// The part that was handed over before was never verified, so it must not be joined to another one.
#[tokio::test]
async fn who_goes_on_alone_needs_the_same_bytes_again() {
    let (slow, quick) = (component("", STALLING), component("", TAKE));
    let content = noise(5_000_000);
    let artifact = quick.artifact(&[("large", &content)]);
    let mut damaged = artifact.clone();
    let place = artifact.windows(64).position(|window| window == &content[..64]).unwrap();
    damaged[place + 1000] ^= 1;
    let (mut seats, _) = places(vec![artifact, damaged], 2, Duration::from_millis(200));
    let (first, second) = (seats.remove(0), seats.remove(0));
    let going = async {
        quick.make(Bench::request_of(second)).await.unwrap();
        std::fs::write(slow.path("go"), "").unwrap();
    };
    let (result, ()) = tokio::join!(slow.make(Bench::request_of(first)), going);
    let message = slow.plain(&result.unwrap_err());
    assert!(message.contains("it has changed while it was being read"), "{message}");
    assert!(quick.bytes("got") == content);
}
