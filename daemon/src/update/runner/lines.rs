//! Cuts what a call prints into lines, within the bounds of [`LINE_LIMIT`] and [`LINES_LIMIT`].

use super::{LINE_LIMIT, LINES_LIMIT, Lines, Stream};

/// The output of one call. Both streams share the bound on the number of lines.
#[derive(Debug, Default)]
pub struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    logged: usize,
    dropped: u64,
}

impl Output {
    /// Nothing printed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of a stream and passes on the lines that are complete. At most one line of each stream is
    /// kept back.
    pub fn push(&mut self, stream: Stream, mut bytes: &[u8], lines: &dyn Lines) {
        let mut line = std::mem::take(self.rest(stream));
        while !bytes.is_empty() {
            // One byte more than the limit decides whether a full line goes on.
            let room = (LINE_LIMIT + 1).saturating_sub(line.len());
            let window = &bytes[..bytes.len().min(room)];
            if let Some(end) = window.iter().position(|&byte| byte == b'\n') {
                line.extend_from_slice(&window[..end]);
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                self.emit(stream, &line, lines);
                line.clear();
                bytes = &bytes[end + 1..];
            } else {
                line.extend_from_slice(window);
                bytes = &bytes[window.len()..];
                if line.len() > LINE_LIMIT {
                    let cut = character_boundary(&line);
                    self.emit(stream, &line[..cut], lines);
                    line.drain(..cut);
                }
            }
        }
        *self.rest(stream) = line;
    }

    /// Passes on what came without a final newline, and says how many lines were dropped.
    pub fn finish(mut self, lines: &dyn Lines) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(self.rest(stream));
            if !line.is_empty() {
                self.emit(stream, &line, lines);
            }
        }
        if self.dropped > 0 {
            let dropped = self.dropped;
            lines.line(Stream::Stderr, &format!("{dropped} more lines were dropped, only {LINES_LIMIT} are logged."));
        }
    }

    fn rest(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn emit(&mut self, stream: Stream, line: &[u8], lines: &dyn Lines) {
        let text = String::from_utf8_lossy(line);
        // A replaced byte takes three, so a line can outgrow its limit once more.
        let mut rest: &str = &text;
        loop {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(LINE_LIMIT));
            if self.logged < LINES_LIMIT {
                self.logged += 1;
                lines.line(stream, piece);
            } else {
                self.dropped += 1;
            }
            if after.is_empty() {
                break;
            }
            rest = after;
        }
    }
}

/// Where to cut a line that is longer than the limit, so that no UTF-8 sequence is torn.
fn character_boundary(line: &[u8]) -> usize {
    let continues = |index: usize| line.get(index).is_some_and(|byte| byte & 0xc0 == 0x80);
    // No sequence has more than three continuation bytes; with more, this is no UTF-8 and any place is as good.
    (LINE_LIMIT - 3..=LINE_LIMIT).rev().find(|&index| !continues(index)).unwrap_or(LINE_LIMIT)
}

#[cfg(test)]
mod tests;
