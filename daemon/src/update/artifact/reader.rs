//! Reads an Artifact as a stream, in one pass and bounded memory.
//!
//! Order of trust: nothing is decompressed and no JSON but the tiny `version` is parsed before the manifest's signature
//! and the checksum of what is parsed have been verified. The payload is the exception the format forces: its checksums
//! are over the decompressed files, so they are known only at the end of each.

use std::collections::BTreeSet;
use std::io::{self, Read};

use ring::digest;

use super::ahead::{Content, Piece};
use super::compression::{Compression, Decoder};
use super::error::ArtifactError;
use super::format::{
    DATA_TAR, HEADER_LIMIT, HEADER_TAR, MANIFEST, MANIFEST_LIMIT, MANIFEST_SIGNATURE, SIGNATURE_LIMIT, Sha256, VERSION,
    VERSION_LIMIT, compare, digest_bytes, is_payload_file_name, quote, quote_inside, sha256,
};
use super::header::{self, Header, Outer};
use super::json::Object;
use super::manifest::Checksums;
use super::signature::VerifyKeys;
use super::tarball::{Member, TarReader};

/// Size of the buffer for what nobody wants to read.
const BUFFER: usize = 128 * 1024;

/// Reads up to the end of the header and checks all of it: version, manifest, signature, header checksum, header.
///
/// With keys, an Artifact without a signature of one of them is refused; without keys, a signature is not looked
/// at.
pub fn open<R: Read>(input: R, keys: &VerifyKeys) -> Result<Artifact<R>, ArtifactError> {
    let mut tar = TarReader::new(input, None);

    expect(&mut tar, VERSION, "\"version\"")?;
    let version = tar.read_all(VERSION_LIMIT)?;
    check_version(&version)?;

    expect(&mut tar, MANIFEST, "\"manifest\"")?;
    let manifest = tar.read_all(MANIFEST_LIMIT)?;

    let mut member = next_known(&mut tar)?;
    let signature = match &member {
        Some(found) if found.name == MANIFEST_SIGNATURE => {
            let signature = tar.read_all(SIGNATURE_LIMIT)?;
            member = next_known(&mut tar)?;
            Some(signature)
        }
        _ => None,
    };
    let verified_with = match &signature {
        _ if keys.is_empty() => None,
        Some(signature) => Some(keys.verify(&manifest, signature)?.to_owned()),
        None => return Err(ArtifactError::NotSigned),
    };

    let checksums = Checksums::parse(&manifest)?;
    verify(&checksums, VERSION, &version)?;

    let member = member.ok_or_else(|| ArtifactError::Missing { place: quote(HEADER_TAR) })?.name;
    let expected = "\"header.tar\", with or without \".gz\", \".xz\" or \".zst\",";
    let compression = Compression::of_member(&member, HEADER_TAR)
        .ok_or_else(|| ArtifactError::Unexpected { place: quote(&member), expected })?;
    let stored = tar.read_all(HEADER_LIMIT)?;
    verify(&checksums, &member, &stored)?;

    let outer = Outer { signed: signature.is_some(), verified_with, checksums, member, compression };
    let header = header::parse(&stored, outer)?;
    let position = Position::BeforeData(tar);
    Ok(Artifact { header, position, seen: BTreeSet::new(), file: None, data: None, decode: Content::here })
}

/// The next member, if it is not one of the augmented ones.
fn next_known<R: Read>(tar: &mut TarReader<R>) -> Result<Option<Member>, ArtifactError> {
    let member = tar.next_member()?;
    match &member {
        Some(found) if found.name.starts_with("manifest-augment") || found.name.starts_with("header-augment") => {
            Err(ArtifactError::Augmented { place: tar.place() })
        }
        _ => Ok(member),
    }
}

fn expect<R: Read>(tar: &mut TarReader<R>, name: &str, expected: &'static str) -> Result<(), ArtifactError> {
    let member = next_known(tar)?.ok_or_else(|| ArtifactError::Missing { place: expected.to_owned() })?;
    if member.name == name { Ok(()) } else { Err(ArtifactError::Unexpected { place: tar.place(), expected }) }
}

fn check_version(bytes: &[u8]) -> Result<(), ArtifactError> {
    let place = quote(VERSION);
    let mut object = Object::parse(&place, bytes)?;
    if object.text("format")?.as_deref() != Some("mender") {
        return Err(object.wrong("format", "has to be \"mender\""));
    }
    match object.take("version") {
        Some(version) if version.as_u64() == Some(3) => Ok(()),
        Some(version) if version.is_i64() || version.is_u64() => {
            Err(ArtifactError::UnsupportedVersion { version: version.to_string() })
        }
        _ => Err(object.wrong("version", "has to be the number 3")),
    }
}

fn verify(checksums: &Checksums, name: &str, content: &[u8]) -> Result<(), ArtifactError> {
    let expected = checksums
        .get(name)
        .ok_or_else(|| ArtifactError::malformed(quote(name), "is not listed in \"manifest\" under this name"))?;
    compare(quote(name), expected, &sha256(content))
}

/// An Artifact whose header has been read and checked.
///
/// After an error it is of no use any more: every further call fails.
pub struct Artifact<R: Read> {
    header: Header,
    position: Position<R>,
    seen: BTreeSet<String>,
    file: Option<OpenFile>,
    data: Option<Compression>,
    decode: Decode<TarReader<R>>,
}

/// The payload's tar inside the Artifact's own.
type DataReader<R> = TarReader<Content<TarReader<R>>>;

/// How the payload is decompressed.
type Decode<R> = fn(Decoder<R>) -> io::Result<Content<R>>;

enum Position<R: Read> {
    BeforeData(TarReader<R>),
    InData(Box<DataReader<R>>),
    AfterData(TarReader<R>),
    Failed,
}

/// The payload file that is being read.
struct OpenFile {
    left: u64,
    hash: digest::Context,
    expected: Sha256,
}

impl<R: Read> std::fmt::Debug for Artifact<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Artifact").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<R: Read> Artifact<R> {
    /// What the Artifact says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the Artifact says about itself, when nothing else of it is wanted.
    pub fn into_header(self) -> Header {
        self.header
    }

    /// How the payload is compressed; `None` until the first call of [`Artifact::next_file`].
    pub fn data_compression(&self) -> Option<Compression> {
        self.data
    }

    /// The next payload file, in their order. The one before, if it was not read to its end, is read and verified
    /// first. `None` after the last; by then every file of the manifest has been seen.
    pub fn next_file(&mut self) -> Result<Option<PayloadFile<'_, R>>, ArtifactError> {
        match self.advance() {
            Ok(Some((name, size))) => Ok(Some(PayloadFile { artifact: self, name, size })),
            Ok(None) => Ok(None),
            Err(error) => {
                self.position = Position::Failed;
                Err(error)
            }
        }
    }

    /// Reads and checks all that is left, to the very end of the input, and gives the input back.
    ///
    /// Only when this has succeeded is the whole Artifact known to be sound.
    pub fn finish(mut self) -> Result<R, ArtifactError> {
        while self.next_file()?.is_some() {}
        let Position::AfterData(mut tar) = self.position else {
            return Err(ArtifactError::Unusable);
        };
        match tar.next_member()? {
            None => tar.finish(),
            Some(member) if member.name.starts_with("data/") => {
                Err(ArtifactError::malformed(tar.place(), "is a second payload; only one is supported"))
            }
            Some(_) => Err(ArtifactError::Unexpected { place: tar.place(), expected: "the end of the Artifact" }),
        }
    }

    /// Opens the next file; its name and size.
    fn advance(&mut self) -> Result<Option<(String, u64)>, ArtifactError> {
        self.drain()?;
        let mut data = match std::mem::replace(&mut self.position, Position::Failed) {
            Position::BeforeData(tar) => Box::new(self.begin_data(tar)?),
            Position::InData(data) => data,
            Position::AfterData(tar) => {
                self.position = Position::AfterData(tar);
                return Ok(None);
            }
            Position::Failed => return Err(ArtifactError::Unusable),
        };
        if let Some(member) = data.next_member()? {
            let opened = (member.name.clone(), member.size);
            self.file = Some(self.check_file(member, &data.place())?);
            self.position = Position::InData(data);
            return Ok(Some(opened));
        }
        let tar = data.finish()?.into_inner()?;
        self.check_all_seen()?;
        self.position = Position::AfterData(tar);
        Ok(None)
    }

    fn begin_data(&mut self, mut tar: TarReader<R>) -> Result<DataReader<R>, ArtifactError> {
        let expected = "\"data/0000.tar\", with or without \".gz\", \".xz\" or \".zst\",";
        let member = next_known(&mut tar)?.ok_or_else(|| ArtifactError::Missing { place: quote(DATA_TAR) })?;
        let compression = Compression::of_member(&member.name, DATA_TAR)
            .ok_or_else(|| ArtifactError::Unexpected { place: tar.place(), expected })?;
        self.data = Some(compression);
        let place = tar.place();
        let content = (self.decode)(Decoder::new(tar, compression, place)?).map_err(ArtifactError::Input)?;
        Ok(TarReader::new(content, Some(member.name)))
    }

    fn check_file(&mut self, member: Member, place: &str) -> Result<OpenFile, ArtifactError> {
        if !is_payload_file_name(&member.name) {
            let rule = "has a name that no payload file can have (letters, digits, \"_\", \"-\", \".\" and \",\")";
            return Err(ArtifactError::malformed(place, rule));
        }
        let expected = *self
            .header
            .checksums
            .file(&member.name)
            .ok_or_else(|| ArtifactError::malformed(place, "is not listed in \"manifest\""))?;
        // The manifest bounds their number: each file is listed, and occurs once.
        if !self.seen.insert(member.name) {
            return Err(ArtifactError::malformed(place, "occurs twice"));
        }
        let hash = digest::Context::new(&digest::SHA256);
        Ok(OpenFile { left: member.size, hash, expected })
    }

    fn check_all_seen(&self) -> Result<(), ArtifactError> {
        match self.header.checksums.files().find(|(name, _)| !self.seen.contains(*name)) {
            None => Ok(()),
            Some((name, _)) => {
                let place = format!("{}, which \"manifest\" lists", quote_inside(name, DATA_TAR));
                Err(ArtifactError::Missing { place })
            }
        }
    }

    fn drain(&mut self) -> Result<(), ArtifactError> {
        if self.file.is_none() {
            return Ok(());
        }
        let mut buffer = vec![0; BUFFER];
        while self.file.is_some() {
            self.read_file(&mut buffer)?;
        }
        Ok(())
    }

    /// Reads from the open file. The last bytes are handed out only when the checksum is right.
    fn read_file(&mut self, buffer: &mut [u8]) -> Result<usize, ArtifactError> {
        let (Some(file), Position::InData(data)) = (&mut self.file, &mut self.position) else {
            return match self.position {
                Position::Failed => Err(ArtifactError::Unusable),
                _ => Ok(0),
            };
        };
        if buffer.is_empty() && file.left > 0 {
            return Ok(0);
        }
        let count = data.read(buffer).map_err(ArtifactError::from_io)?;
        self.count_in(&buffer[..count])?;
        Ok(count)
    }

    /// Takes the next bytes of the open file without copying them; none at its end.
    fn lend_file(&mut self) -> Result<Piece, ArtifactError> {
        let (Some(_), Position::InData(data)) = (&self.file, &mut self.position) else {
            return match self.position {
                Position::Failed => Err(ArtifactError::Unusable),
                _ => Ok(Piece::default()),
            };
        };
        let piece = data.lend().map_err(ArtifactError::from_io)?;
        self.count_in(&piece)?;
        Ok(piece)
    }

    /// These bytes of the open file were read; if they are the last ones, the checksum has to be right.
    fn count_in(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.hash.update(bytes);
        file.left = file.left.saturating_sub(bytes.len() as u64);
        if file.left > 0 {
            return Ok(());
        }
        match (self.file.take(), &self.position) {
            (Some(file), Position::InData(data)) => {
                compare(data.place(), &file.expected, &digest_bytes(&file.hash.finish()))
            }
            _ => Err(ArtifactError::Unusable),
        }
    }
}

impl<R: Read + Send + 'static> Artifact<R> {
    /// From now on the payload is decompressed by a thread of its own, ahead of who reads it. To be called before the
    /// first [`Artifact::next_file`].
    pub fn read_ahead(&mut self) {
        self.decode = Content::ahead;
    }
}

/// A payload file, open for reading.
///
/// An error of [`Read`] carries an [`ArtifactError`], see [`ArtifactError::from_io`]. A file whose checksum is wrong
/// never reaches its end: the read that would have returned its last bytes fails.
pub struct PayloadFile<'a, R: Read> {
    artifact: &'a mut Artifact<R>,
    name: String,
    size: u64,
}

impl<R: Read> std::fmt::Debug for PayloadFile<'_, R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PayloadFile")
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl<R: Read> PayloadFile<'_, R> {
    /// Its name: a plain file name without blanks or special characters.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes, lent instead of copied; none at the end. As with [`Read`], the last ones come only when the
    /// checksum is right.
    pub fn next_piece(&mut self) -> Result<Piece, ArtifactError> {
        let piece = self.artifact.lend_file();
        if piece.is_err() {
            self.artifact.position = Position::Failed;
        }
        piece
    }

    /// The SHA-256 of what was read so far; `None` at the end, where the checksum has been found right.
    pub fn hash_so_far(&self) -> Option<digest::Context> {
        self.artifact.file.as_ref().map(|file| file.hash.clone())
    }
}

impl<R: Read> Read for PayloadFile<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.artifact.read_file(buffer).map_err(|error| {
            self.artifact.position = Position::Failed;
            error.into_io()
        })
    }
}
