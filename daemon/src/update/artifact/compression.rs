//! Compression of the header and data tars: none, gzip, xz, zstd.
//!
//! Concatenated gzip members, xz streams and zstd frames are read as one, as their formats say and parallel compressors
//! write them. Anything else after them is refused.

use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::str::FromStr;

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use liblzma::write::XzEncoder;

use super::error::ArtifactError;
use super::format::{DECOMPRESSION_MEMORY_LIMIT, quote};

const BUFFER: usize = 128 * 1024;
const MAGIC_LENGTH: usize = 6;

/// How a tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, suffix `.gz`; the default of Mender's tool.
    #[default]
    Gzip,
    /// xz, suffix `.xz`; Mender's tool calls it `lzma`.
    Xz,
    /// Zstandard, suffix `.zst`.
    Zstd,
}

impl Compression {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Gzip, Self::Xz, Self::Zstd];

    /// What follows `.tar` in the name of the member.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
        }
    }

    /// The compression of a member with this name, if the name is `tar` and one of the suffixes.
    pub(super) fn of_member(name: &str, tar: &str) -> Option<Self> {
        let suffix = name.strip_prefix(tar)?;
        Self::ALL.into_iter().find(|compression| compression.suffix() == suffix)
    }

    /// What the content begins like. Anything unknown counts as an uncompressed tar, which says itself what is wrong.
    fn of_content(head: &[u8]) -> Self {
        // Parallel zstd puts a skippable frame first; its magic number has sixteen forms.
        let skippable = head.get(1..4) == Some(&[0x2a, 0x4d, 0x18]) && head.first().is_some_and(|low| low >> 4 == 5);
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ if skippable => Self::Zstd,
            _ => Self::None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = ArtifactError;

    /// The names that [`Compression`] displays, and Mender's `lzma` for xz.
    fn from_str(name: &str) -> Result<Self, ArtifactError> {
        let name = if name == "lzma" { "xz" } else { name };
        Self::ALL.into_iter().find(|compression| compression.to_string() == name).ok_or_else(|| {
            ArtifactError::Description(format!(
                "the compression {} is not one of none, gzip, xz (or lzma) and zstd",
                quote(name)
            ))
        })
    }
}

type Buffered<R> = BufReader<Peeked<R>>;

enum Codec<R> {
    None(Peeked<R>),
    Gzip(Box<MultiGzDecoder<Buffered<R>>>),
    Xz(XzDecoder<Buffered<R>>),
    Zstd(zstd::Decoder<'static, Buffered<R>>),
}

impl<R: Read> Codec<R> {
    fn new(input: Peeked<R>, compression: Compression) -> io::Result<Self> {
        let buffered = |input| BufReader::with_capacity(BUFFER, input);
        Ok(match compression {
            Compression::None => Self::None(input),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(buffered(input)))),
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(DECOMPRESSION_MEMORY_LIMIT, CONCATENATED)?;
                Self::Xz(XzDecoder::new_stream(buffered(input), stream))
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(buffered(input))?;
                decoder.window_log_max(DECOMPRESSION_MEMORY_LIMIT.ilog2())?;
                Self::Zstd(decoder)
            }
        })
    }
}

/// Decompresses a member.
pub(super) struct Decoder<R> {
    codec: Codec<R>,
    place: String,
}

impl<R: Read> Decoder<R> {
    /// The suffix of the member's name decides, and the content has to agree: Mender's client looks only at the
    /// content, its tool only at the suffix, and both have to read the same thing. The input ends where the member ends; its
    /// errors have to carry an [`ArtifactError`].
    pub(super) fn new(input: R, by_name: Compression, place: String) -> Result<Self, ArtifactError> {
        let input = Peeked::new(input).map_err(ArtifactError::from_io)?;
        let by_content = Compression::of_content(input.head());
        if by_name != by_content {
            let found = match by_content {
                Compression::None => "no compression that is known".to_owned(),
                other => format!("{other} compression"),
            };
            let rule = format!("is named for {by_name} compression, but its content has {found}");
            return Err(ArtifactError::malformed(place, rule));
        }
        match Codec::new(input, by_name) {
            Ok(codec) => Ok(Self { codec, place }),
            Err(error) => Err(ArtifactError::Decompress { place, reason: error.to_string() }),
        }
    }

    /// Gives the input back. Everything of the member has to have been read.
    pub(super) fn into_inner(self) -> Result<R, ArtifactError> {
        let (unread, mut peeked) = match self.codec {
            Codec::None(peeked) => (false, peeked),
            Codec::Gzip(decoder) => take(decoder.into_inner()),
            Codec::Xz(decoder) => take(decoder.into_inner()),
            Codec::Zstd(decoder) => take(decoder.into_inner()),
        };
        if unread || peeked.read(&mut [0]).map_err(ArtifactError::from_io)? > 0 {
            return Err(ArtifactError::malformed(self.place, "has bytes after the end of its compressed content"));
        }
        Ok(peeked.inner)
    }
}

fn take<R: Read>(buffered: Buffered<R>) -> (bool, Peeked<R>) {
    (!buffered.buffer().is_empty(), buffered.into_inner())
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = match &mut self.codec {
            Codec::None(input) => input.read(buffer),
            Codec::Gzip(decoder) => decoder.read(buffer),
            Codec::Xz(decoder) => decoder.read(buffer),
            Codec::Zstd(decoder) => decoder.read(buffer),
        };
        result.map_err(|error| match error.downcast::<ArtifactError>() {
            Ok(inner) => inner.into_io(),
            // The input marks its own errors, so this one is the codec's.
            Err(error) => ArtifactError::Decompress { place: self.place.clone(), reason: error.to_string() }.into_io(),
        })
    }
}

/// An input whose first bytes have been looked at.
struct Peeked<R> {
    head: [u8; MAGIC_LENGTH],
    start: usize,
    end: usize,
    inner: R,
}

impl<R: Read> Peeked<R> {
    fn new(mut inner: R) -> io::Result<Self> {
        let mut head = [0; MAGIC_LENGTH];
        let mut end = 0;
        while end < head.len() {
            match inner.read(&mut head[end..])? {
                0 => break,
                count => end += count,
            }
        }
        Ok(Self { head, start: 0, end, inner })
    }

    fn head(&self) -> &[u8] {
        &self.head[self.start..self.end]
    }
}

impl<R: Read> Read for Peeked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            return self.inner.read(buffer);
        }
        let count = buffer.len().min(self.end - self.start);
        buffer[..count].copy_from_slice(&self.head[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }
}

/// Compresses into a writer.
pub(super) enum Encoder<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    Xz(XzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// The levels are the defaults of `gzip` and `xz`, and 9 for zstd, where it still writes faster than gzip.
    pub(super) fn new(output: W, compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::None(output),
            Compression::Gzip => Self::Gzip(GzEncoder::new(output, flate2::Compression::new(6))),
            Compression::Xz => Self::Xz(XzEncoder::new(output, 6)),
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(output, 9)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::None(output) => Ok(output),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Xz(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(output) => output.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Xz(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(output) => output.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Xz(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
