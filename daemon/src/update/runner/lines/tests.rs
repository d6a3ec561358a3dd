use std::sync::Mutex;

use super::*;

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(Stream, String)>>);

impl Lines for Seen {
    fn line(&self, stream: Stream, line: &str) {
        self.0.lock().unwrap().push((stream, line.to_owned()));
    }
}

fn cut(chunks: &[&[u8]]) -> Vec<String> {
    let seen = Seen::default();
    let mut output = Output::new();
    for chunk in chunks {
        output.push(Stream::Stdout, chunk, &seen);
    }
    output.finish(&seen);
    seen.0.into_inner().unwrap().into_iter().map(|(_, line)| line).collect()
}

#[test]
fn lines_are_found_however_the_bytes_arrive() {
    let whole = cut(&[b"one\ntwo\r\n\nlast"]);
    assert_eq!(whole, ["one", "two", "", "last"]);
    assert_eq!(cut(&[b"on", b"e\nt", b"wo\r", b"\n", b"\n", b"la", b"st"]), whole);
    assert!(cut(&[b""]).is_empty());
}

#[test]
fn streams_do_not_mix() {
    let seen = Seen::default();
    let mut output = Output::new();
    output.push(Stream::Stdout, b"out", &seen);
    output.push(Stream::Stderr, b"err\n", &seen);
    output.push(Stream::Stdout, b"put\n", &seen);
    output.finish(&seen);
    let expected = [(Stream::Stderr, "err".to_owned()), (Stream::Stdout, "output".to_owned())];
    assert_eq!(*seen.0.lock().unwrap(), expected);
}

#[test]
fn a_line_of_exactly_the_limit_stays_whole() {
    let line = "x".repeat(LINE_LIMIT);
    assert_eq!(cut(&[line.as_bytes(), b"\n", b"y\n"]), [line.as_str(), "y"]);
    assert_eq!(cut(&[line.as_bytes()]), [line.as_str()]);
}

#[test]
fn a_longer_line_is_cut_and_nothing_is_lost() {
    let line = "x".repeat(3 * LINE_LIMIT + 5);
    let pieces = cut(&[line.as_bytes(), b"\n"]);
    assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [LINE_LIMIT, LINE_LIMIT, LINE_LIMIT, 5]);
    assert_eq!(pieces.concat(), line);
}

#[test]
fn a_cut_tears_no_character() {
    for shift in 0..4 {
        let line = format!("{}{}", "x".repeat(shift), "\u{1f980}".repeat(LINE_LIMIT));
        let pieces = cut(&[line.as_bytes()]);
        assert!(pieces.iter().all(|piece| piece.len() <= LINE_LIMIT));
        assert_eq!(pieces.concat(), line);
    }
}

#[test]
fn bytes_that_are_no_text_stay_within_the_limit() {
    let pieces = cut(&[&[0xff; 2 * LINE_LIMIT]]);
    assert!(pieces.iter().all(|piece| piece.len() <= LINE_LIMIT), "{:?}", pieces.iter().map(String::len).max());
    assert_eq!(pieces.concat().chars().count(), 2 * LINE_LIMIT);
}

#[test]
fn of_many_lines_the_first_are_logged_and_the_rest_is_counted() {
    let seen = cut(&[b"a\n".repeat(LINES_LIMIT + 7).as_slice(), b"tail"]);
    assert_eq!(seen.len(), LINES_LIMIT + 1);
    assert_eq!(seen[LINES_LIMIT - 1], "a");
    assert_eq!(seen[LINES_LIMIT], "8 more lines were dropped, only 10000 are logged.");
}
