//! Reads tar files as a stream, only as much of the format as Artifacts use.
//!
//! The `tar` crate's archive lends its input to its entries, so a tar inside a compressed member of another one cannot
//! be kept open across calls. Here every layer owns the one below it and hands it back at the end.

use std::io::{self, Read};

use super::ahead::{Lend, Piece};
use super::error::ArtifactError;
use super::format::{EXTENSION_LIMIT, TRAILING_LIMIT, quote, quote_inside};

const BLOCK: usize = 512;
type Block = [u8; BLOCK];

/// One member; its content is read from the [`TarReader`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) size: u64,
}

/// A tar file of regular files. As [`Read`] it yields the content of the current member.
#[derive(Debug)]
pub(super) struct TarReader<R> {
    input: R,
    /// Name of this tar inside the Artifact; `None` for the Artifact itself.
    name: Option<String>,
    member: String,
    remaining: u64,
    padding: u64,
    first: bool,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R, name: Option<String>) -> Self {
        Self { input, name, member: String::new(), remaining: 0, padding: 0, first: true }
    }

    /// Goes on to the next member, past whatever is unread of the current one. `None` after the end marker: two blocks
    /// of zeros.
    pub(super) fn next_member(&mut self) -> Result<Option<Member>, ArtifactError> {
        let mut long_name = None;
        let mut pax = Pax::default();
        loop {
            self.skip_rest()?;
            self.member = String::new();
            let Some(block) = self.header_block()? else {
                if long_name.is_some() || pax.seen {
                    return Err(self.malformed("ends after an extension without its member"));
                }
                return Ok(None);
            };
            let header = TarHeader::parse(&block).map_err(|rule| {
                if std::mem::take(&mut self.first) && self.name.is_none() {
                    return ArtifactError::NotTar;
                }
                self.malformed(rule)
            })?;
            self.first = false;
            match header.kind {
                b'0' | 0 => {
                    let bytes = pax.path.or(long_name).unwrap_or(header.name);
                    let name =
                        String::from_utf8(bytes).map_err(|_| self.malformed("has a member whose name is not UTF-8"))?;
                    let size = pax.size.unwrap_or(header.size);
                    self.begin(&name, size)?;
                    return Ok(Some(Member { name, size }));
                }
                b'x' if !pax.seen => {
                    self.begin("PAX extension", header.size)?;
                    let records = self.read_all(EXTENSION_LIMIT)?;
                    pax = Pax::parse(&records).map_err(|rule| self.malformed(rule))?;
                }
                b'L' if long_name.is_none() => {
                    self.begin("GNU long name", header.size)?;
                    let mut bytes = self.read_all(EXTENSION_LIMIT)?;
                    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                    bytes.truncate(end);
                    long_name = Some(bytes);
                }
                kind => {
                    let name = String::from_utf8_lossy(&header.name).into_owned();
                    let rule = format!("is {}; only regular files are allowed", describe(kind));
                    return Err(ArtifactError::malformed(self.place_of(&name), rule));
                }
            }
        }
    }

    /// The whole content of the current member, which may not be larger than the limit.
    pub(super) fn read_all(&mut self, limit: u64) -> Result<Vec<u8>, ArtifactError> {
        if self.remaining > limit {
            return Err(ArtifactError::TooLarge { place: self.place(), limit });
        }
        // Not reserved at once: the size is only claimed so far.
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(ArtifactError::from_io)?;
        Ok(content)
    }

    /// What follows the end marker may only be zeros; gives the input back, read to its very end.
    pub(super) fn finish(mut self) -> Result<R, ArtifactError> {
        let mut buffer = [0; 8 * 1024];
        let mut total = 0;
        loop {
            let count = read_some(&mut self.input, &mut buffer).map_err(ArtifactError::from_io)?;
            if count == 0 {
                return Ok(self.input);
            }
            if buffer.iter().take(count).any(|byte| *byte != 0) {
                return Err(self.malformed("has bytes other than zero after its end"));
            }
            total += count as u64;
            if total > TRAILING_LIMIT {
                return Err(self.malformed(&format!("has more than {TRAILING_LIMIT} zero bytes after its end")));
            }
        }
    }

    /// The current member, for a message.
    pub(super) fn place(&self) -> String {
        self.place_of(&self.member)
    }

    fn place_of(&self, member: &str) -> String {
        match &self.name {
            Some(tar) => quote_inside(member, tar),
            None => quote(member),
        }
    }

    fn malformed(&self, rule: &str) -> ArtifactError {
        let place = self.name.as_deref().map_or_else(|| "its outer tar".to_owned(), quote);
        ArtifactError::malformed(place, rule)
    }

    fn truncated(&self) -> ArtifactError {
        let place = match (&self.name, self.member.is_empty()) {
            (_, false) => self.place(),
            (Some(tar), true) => quote(tar),
            (None, true) => "its outer tar, before the end marker".to_owned(),
        };
        ArtifactError::Truncated { place }
    }

    fn begin(&mut self, name: &str, size: u64) -> Result<(), ArtifactError> {
        name.clone_into(&mut self.member);
        if size > i64::MAX.unsigned_abs() {
            return Err(ArtifactError::malformed(self.place(), "claims a size that no file can have"));
        }
        self.remaining = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), ArtifactError> {
        let mut buffer = [0; 8 * 1024];
        while self.remaining > 0 {
            self.read(&mut buffer).map_err(ArtifactError::from_io)?;
        }
        while self.padding > 0 {
            let wanted = usize::try_from(self.padding).unwrap_or(BLOCK);
            let count = read_some(&mut self.input, &mut buffer[..wanted]).map_err(ArtifactError::from_io)?;
            if count == 0 {
                return Err(self.truncated());
            }
            self.padding -= count as u64;
        }
        Ok(())
    }

    /// The next header; `None` for the end marker.
    fn header_block(&mut self) -> Result<Option<Block>, ArtifactError> {
        let block = self.block()?;
        if block.iter().any(|byte| *byte != 0) {
            return Ok(Some(block));
        }
        if self.first && self.name.is_none() {
            return Err(ArtifactError::NotTar);
        }
        if self.block()?.iter().any(|byte| *byte != 0) {
            return Err(self.malformed("has a single block of zeros where its end marker has two"));
        }
        Ok(None)
    }

    fn block(&mut self) -> Result<Block, ArtifactError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let count = read_some(&mut self.input, &mut block[filled..]).map_err(ArtifactError::from_io)?;
            if count == 0 {
                let no_tar = self.first && self.name.is_none();
                return Err(if no_tar { ArtifactError::NotTar } else { self.truncated() });
            }
            filled += count;
        }
        Ok(block)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let count = read_some(&mut self.input, &mut buffer[..wanted])?;
        if count == 0 {
            return Err(self.truncated().into_io());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

impl<R: Lend> TarReader<R> {
    /// The next bytes of the current member, lent; none at its end.
    pub(super) fn lend(&mut self) -> io::Result<Piece> {
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        if wanted == 0 {
            return Ok(Piece::default());
        }
        let piece = self.input.lend(wanted).map_err(|error| ArtifactError::from_io(error).into_io())?;
        if piece.is_empty() {
            return Err(self.truncated().into_io());
        }
        self.remaining -= piece.len() as u64;
        Ok(piece)
    }
}

/// Reads once, through interruptions. Errors of the input carry an [`ArtifactError`], so that no codec above takes them
/// for damage of the Artifact and none is taken for a codec's own.
fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(buffer) {
            Ok(count) => return Ok(count.min(buffer.len())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArtifactError::from_io(error).into_io()),
        }
    }
}

/// The fields of a header block that matter here.
struct TarHeader {
    name: Vec<u8>,
    size: u64,
    kind: u8,
}

impl TarHeader {
    fn parse(block: &Block) -> Result<Self, &'static str> {
        let ustar = &block[257..265] == b"ustar\x0000";
        let gnu = &block[257..265] == b"ustar  \0";
        if !ustar && !gnu {
            return Err("has a block that is not a tar header");
        }
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let field: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
        if number(&block[148..156]) != Some(sum - field + 8 * u64::from(b' ')) {
            return Err("has a tar header with a wrong checksum");
        }
        let mut name = text(&block[..100]).to_vec();
        let prefix = text(&block[345..500]);
        // GNU keeps time stamps where POSIX has the prefix.
        if ustar && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        let size = number(&block[124..136]).ok_or("has a tar header with a malformed size")?;
        Ok(Self { name, size, kind: block[156] })
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits, between blanks or ended by NUL; or, for what does not fit, GNU's base 256.
fn number(field: &[u8]) -> Option<u64> {
    if let Some((0x80, rest)) = field.split_first() {
        let (high, low) = rest.split_at(rest.len().checked_sub(8)?);
        if high.iter().any(|byte| *byte != 0) {
            return None;
        }
        return Some(low.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)));
    }
    let digits = text(field).trim_ascii();
    if digits.is_empty() || !digits.iter().all(|digit| matches!(digit, b'0'..=b'7')) {
        return None;
    }
    // At most twelve digits: no overflow.
    Some(digits.iter().fold(0, |value, digit| value * 8 + u64::from(digit - b'0')))
}

/// What PAX records say about the next member.
#[derive(Default)]
struct Pax {
    seen: bool,
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Pax {
    fn parse(mut records: &[u8]) -> Result<Self, &'static str> {
        const MALFORMED: &str = "has a malformed PAX extension";
        let mut pax = Self { seen: true, ..Self::default() };
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ').ok_or(MALFORMED)?;
            let length = decimal(&records[..blank]).and_then(|length| usize::try_from(length).ok()).ok_or(MALFORMED)?;
            let record = records.get(blank + 1..length).ok_or(MALFORMED)?;
            records = &records[length..];
            let record = record.strip_suffix(b"\n").ok_or(MALFORMED)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(MALFORMED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => pax.path = Some(value.to_vec()),
                b"size" => pax.size = Some(decimal(value).ok_or(MALFORMED)?),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err("has a sparse member; only plain files are allowed");
                }
                // Times, owners and attributes mean nothing here.
                _ => {}
            }
        }
        Ok(pax)
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

fn describe(kind: u8) -> &'static str {
    match kind {
        b'1' => "a hard link",
        b'2' => "a symbolic link",
        b'3' => "a character device",
        b'4' => "a block device",
        b'5' => "a directory",
        b'6' => "a FIFO",
        b'S' => "a sparse file",
        b'g' => "a PAX global header",
        b'x' | b'L' => "a second extension for one member",
        b'K' => "a GNU long link name",
        _ => "of an unknown type",
    }
}
