//! Writes Artifacts: module images and Manifest Artifacts, signed or not.
//!
//! One pass over the payload: the manifest's length is known before its checksums are, so its place is kept free and
//! filled in at the end. What is written and what is hashed are therefore the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ring::digest;
use serde_json::{Map, Value, json};

use super::compression::{Compression, Encoder};
use super::error::ArtifactError;
use super::format::{
    DATA_DIRECTORY, DATA_TAR, FILES_LIMIT, HEADER_INFO, HEADER_LIMIT, HEADER_TAR, INFO_LIMIT, MANIFEST, MANIFEST_LIMIT,
    MANIFEST_PAYLOAD_TYPE, MANIFEST_SIGNATURE, META_DATA, META_DATA_LIMIT, NAME_LIMIT, SCRIPTS_DIRECTORY,
    SCRIPTS_LIMIT, TEXT_LIMIT, TYPE_INFO, VERSION, digest_bytes, is_payload_file_name, is_payload_type, is_script_name,
    is_text, quote, sha256,
};
use super::json::Object;
use super::manifest::Checksums;
use super::signature::SigningKey;

const BLOCK: u64 = 512;
const END_MARKER: [u8; 1024] = [0; 1024];
const VERSION_CONTENT: &[u8] = br#"{"format":"mender","version":3}"#;
const BUFFER: usize = 128 * 1024;

/// The Artifact to write. Start from [`ArtifactSpec::module_image`] or [`ArtifactSpec::manifest`] and change fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArtifactSpec {
    /// The Artifact's name.
    pub name: String,
    /// The group it provides.
    pub group: Option<String>,
    /// The types of device or Component it fits; at least one.
    pub device_types: Vec<String>,
    /// The names of Artifacts of which one has to be installed before; empty for any.
    pub name_depends: Vec<String>,
    /// The groups of which the target has to be in one; empty for any.
    pub group_depends: Vec<String>,
    /// The name of the Interface or update module.
    pub payload_type: String,
    /// The payload; the names inside the Artifact are the last parts of the paths.
    pub files: Vec<PathBuf>,
    /// What it provides, beside the software version.
    pub provides: BTreeMap<String, String>,
    /// What the target's provides have to hold: one of the values.
    pub depends: BTreeMap<String, Vec<String>>,
    /// Patterns of provides it clears, beside the one of the software version.
    pub clears: Vec<String>,
    /// The provides that tell the software version.
    pub software: SoftwareVersion,
    /// Content of `meta-data`, a JSON object.
    pub meta_data: Option<Vec<u8>>,
    /// State scripts, for Mender clients; the file names have to be those of Artifact scripts.
    pub scripts: Vec<PathBuf>,
    /// Compression of header and payload.
    pub compression: Compression,
    /// Time stamp of all members in seconds since 1970, see [`source_date_epoch`]. With the same time stamp the same
    /// files make the same bytes, except for ECDSA signatures, which are random.
    pub modified: u64,
}

/// The default provides and clears of an Artifact: `<file system>.<name>.version=<version>`, and
/// `<file system>.<name>.*` is cleared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SoftwareVersion {
    /// In place of `rootfs-image`.
    pub filesystem: Option<String>,
    /// In place of the payload type.
    pub name: Option<String>,
    /// In place of the Artifact's name.
    pub version: Option<String>,
    /// Leaves out both the provides and the pattern that clears it.
    pub no_version: bool,
    /// Leaves out the pattern.
    pub no_clears: bool,
}

impl ArtifactSpec {
    /// An Artifact for an update module or Interface.
    pub fn module_image(name: &str, device_types: Vec<String>, payload_type: &str, files: Vec<PathBuf>) -> Self {
        Self { name: name.to_owned(), device_types, payload_type: payload_type.to_owned(), files, ..Self::default() }
    }

    /// An Artifact that carries a Manifest to the System device. Whether the Manifest is valid and names these System
    /// types is not looked at here.
    pub fn manifest(name: &str, system_types: Vec<String>, manifest: PathBuf) -> Self {
        let mut spec = Self::module_image(name, system_types, MANIFEST_PAYLOAD_TYPE, vec![manifest]);
        spec.software.filesystem = Some("data-partition".to_owned());
        spec
    }

    fn software_key(&self, last: &str) -> String {
        let filesystem = self.software.filesystem.as_deref().unwrap_or("rootfs-image");
        let name = self.software.name.as_deref().unwrap_or(&self.payload_type);
        format!("{filesystem}.{name}.{last}")
    }

    fn header_info(&self) -> Value {
        let mut provides = Map::new();
        provides.insert("artifact_name".into(), self.name.as_str().into());
        if let Some(group) = &self.group {
            provides.insert("artifact_group".into(), group.as_str().into());
        }
        let mut depends = Map::new();
        depends.insert("device_type".into(), json!(self.device_types));
        for (key, values) in [("artifact_name", &self.name_depends), ("artifact_group", &self.group_depends)] {
            if !values.is_empty() {
                depends.insert(key.into(), json!(values));
            }
        }
        json!({
            "payloads": [{ "type": self.payload_type }],
            "artifact_provides": provides,
            "artifact_depends": depends,
        })
    }

    fn type_info(&self) -> Value {
        let mut provides = self.provides.clone();
        let mut clears = self.clears.clone();
        if !self.software.no_version {
            let version = self.software.version.as_deref().unwrap_or(&self.name);
            provides.entry(self.software_key("version")).or_insert_with(|| version.to_owned());
            let pattern = self.software_key("*");
            if !self.software.no_clears && !clears.contains(&pattern) {
                clears.push(pattern);
            }
        }
        let mut info = Map::new();
        info.insert("type".into(), self.payload_type.as_str().into());
        if !self.depends.is_empty() {
            // Mender's client takes lists for malformed, so a single value is written as a string.
            let value = |values: &Vec<String>| match values.as_slice() {
                [value] => json!(value),
                values => json!(values),
            };
            let depends: Map<_, _> = self.depends.iter().map(|(key, values)| (key.clone(), value(values))).collect();
            info.insert("artifact_depends".into(), depends.into());
        }
        if !provides.is_empty() {
            info.insert("artifact_provides".into(), json!(provides));
        }
        if !clears.is_empty() {
            info.insert("clears_artifact_provides".into(), json!(clears));
        }
        info.into()
    }

    /// The rules that the reader has too, told in the words of who writes.
    fn check(&self) -> Result<(), ArtifactError> {
        let refuse = |rule: String| Err(ArtifactError::Description(rule));
        if self.name.is_empty() {
            return refuse("it has no name".into());
        }
        if self.device_types.is_empty() {
            return refuse(format!("{} names no device type", quote(&self.name)));
        }
        if !is_payload_type(&self.payload_type) {
            return refuse(format!("the payload type {} is not a plain name", quote(&self.payload_type)));
        }
        if let Some((key, _)) = self.depends.iter().find(|(_, values)| values.is_empty()) {
            return refuse(format!("the dependency {} has no value", quote(key)));
        }
        let software = [&self.software.filesystem, &self.software.name, &self.software.version, &self.group];
        let texts = [&self.name, &self.payload_type].into_iter().chain(software.into_iter().flatten());
        let lists = [&self.device_types, &self.name_depends, &self.group_depends, &self.clears];
        let pairs = self.provides.iter().flat_map(|(key, value)| [key, value]);
        let depends = self.depends.iter().flat_map(|(key, values)| std::iter::once(key).chain(values));
        let mut all = texts.chain(lists.into_iter().flatten()).chain(pairs).chain(depends);
        if let Some(text) = all.find(|text| !is_text(text)) {
            return refuse(format!(
                "the text {} is longer than {TEXT_LIMIT} bytes or holds control characters",
                quote(text)
            ));
        }
        Ok(())
    }
}

/// The time stamp that the environment variable `SOURCE_DATE_EPOCH` asks for, 0 without it.
pub fn source_date_epoch() -> Result<u64, ArtifactError> {
    epoch(std::env::var_os("SOURCE_DATE_EPOCH").as_deref())
}

pub(super) fn epoch(variable: Option<&OsStr>) -> Result<u64, ArtifactError> {
    let Some(text) = variable else {
        return Ok(0);
    };
    // A sign would pass the parser.
    let digits = text.to_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).filter(|seconds| in_tar_time(*seconds)).ok_or_else(|| {
        let rule =
            format!("\"SOURCE_DATE_EPOCH\" is {}, not a number of seconds since 1970", quote(&text.to_string_lossy()));
        ArtifactError::Description(rule)
    })
}

/// Eleven octal digits, what a tar header holds.
fn in_tar_time(seconds: u64) -> bool {
    seconds < 1 << 33
}

/// Writes the Artifact, signed if there is a key. `out` appears, or is replaced, only when all of it is on the disk.
pub fn write(spec: &ArtifactSpec, signer: Option<&SigningKey>, out: &Path) -> Result<(), ArtifactError> {
    spec.check()?;
    if !in_tar_time(spec.modified) {
        return Err(ArtifactError::Description("its time stamp is beyond what a tar file can hold".to_owned()));
    }
    let files = payload_files(&spec.files)?;
    let header = header_tar(spec)?;
    let header_name = format!("{HEADER_TAR}{}", spec.compression.suffix());

    let mut checksums = Checksums::default();
    checksums.insert(VERSION, sha256(VERSION_CONTENT));
    checksums.insert(&header_name, sha256(&header));
    for file in &files {
        checksums.insert(&format!("{DATA_DIRECTORY}{}", file.name), [0; 32]);
    }
    // Only the digits will change.
    let manifest_length = checksums.render().len();
    if manifest_length as u64 > MANIFEST_LIMIT || files.len() > FILES_LIMIT {
        return Err(ArtifactError::Description(format!("{} payload files are too many", files.len())));
    }

    let draft = Draft::create(out)?;
    let mut output = Counted { inner: BufWriter::with_capacity(BUFFER, &draft.file), position: 0 };
    let failed = |source| draft.failed(source);

    member(&mut output, VERSION, VERSION_CONTENT, spec.modified).map_err(failed)?;
    let manifest_at = output.position + BLOCK;
    member(&mut output, MANIFEST, &vec![0; manifest_length], spec.modified).map_err(failed)?;
    let signature_at = output.position + BLOCK;
    if let Some(key) = signer {
        member(&mut output, MANIFEST_SIGNATURE, &vec![0; key.signature_length()], spec.modified).map_err(failed)?;
    }
    member(&mut output, &header_name, &header, spec.modified).map_err(failed)?;

    let data_at = output.position;
    output.write_all(tar::Header::new_old().as_bytes()).map_err(failed)?;
    let mut output = data_tar(output, &files, spec, &draft, &mut checksums)?;
    let data_size = output.position - data_at - BLOCK;
    pad(&mut output, data_size).and_then(|()| output.write_all(&END_MARKER)).map_err(failed)?;
    output.flush().map_err(failed)?;
    drop(output);

    let manifest = checksums.render();
    let data_name = format!("{DATA_TAR}{}", spec.compression.suffix());
    let data_header = tar_header(&data_name, data_size, spec.modified).map_err(failed)?;
    let fill = |bytes: &[u8], at| draft.file.write_all_at(bytes, at).map_err(failed);
    fill(data_header.as_bytes(), data_at)?;
    fill(manifest.as_bytes(), manifest_at)?;
    if let Some(key) = signer {
        fill(key.sign(manifest.as_bytes())?.as_bytes(), signature_at)?;
    }
    draft.publish(out)
}

struct PayloadPath<'a> {
    name: &'a str,
    path: &'a Path,
}

fn payload_files(paths: &[PathBuf]) -> Result<Vec<PayloadPath<'_>>, ArtifactError> {
    let mut seen = BTreeSet::new();
    paths
        .iter()
        .map(|path| {
            let name = file_name(path);
            let refuse =
                |rule: String| Err(ArtifactError::Description(format!("the payload file {} {rule}", quote(name))));
            if !is_payload_file_name(name) {
                return refuse(
                    "has a name with other characters than letters, digits, \"_\", \"-\", \".\" and \",\"".into(),
                );
            }
            if DATA_DIRECTORY.len() + name.len() > NAME_LIMIT {
                return refuse(format!("has a name of more than {} bytes", NAME_LIMIT - DATA_DIRECTORY.len()));
            }
            if !seen.insert(name) {
                return refuse("is given twice".into());
            }
            Ok(PayloadPath { name, path })
        })
        .collect()
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn header_tar(spec: &ArtifactSpec) -> Result<Vec<u8>, ArtifactError> {
    let failed = |source| ArtifactError::Write { action: "compress", path: PathBuf::from(HEADER_TAR), source };
    let mut tar = Vec::new();
    let mut add = |name: &str, content: &[u8], limit: u64| {
        if content.len() as u64 > limit {
            return Err(ArtifactError::Description(format!("{} is larger than {limit} bytes", quote(name))));
        }
        member(&mut tar, name, content, spec.modified).map_err(failed)
    };
    add(HEADER_INFO, spec.header_info().to_string().as_bytes(), INFO_LIMIT)?;
    if spec.scripts.len() > SCRIPTS_LIMIT {
        return Err(ArtifactError::Description(format!("more than {SCRIPTS_LIMIT} state scripts are given")));
    }
    let mut seen = BTreeSet::new();
    for path in &spec.scripts {
        let name = file_name(path);
        if !is_script_name(name) || !seen.insert(name) {
            let rule = format!("{} is given twice, or is not the name of an Artifact's state script", quote(name));
            return Err(ArtifactError::Description(rule));
        }
        add(&format!("{SCRIPTS_DIRECTORY}{name}"), &read_bounded(path)?, HEADER_LIMIT)?;
    }
    add(TYPE_INFO, spec.type_info().to_string().as_bytes(), INFO_LIMIT)?;
    if let Some(meta_data) = spec.meta_data.as_deref().filter(|content| !content.is_empty()) {
        Object::parse("the meta-data", meta_data).map_err(|error| match error {
            ArtifactError::Malformed { place, rule } => ArtifactError::Description(format!("{place} {rule}")),
            other => other,
        })?;
        add(META_DATA, meta_data, META_DATA_LIMIT)?;
    }
    tar.extend_from_slice(&END_MARKER);
    if tar.len() as u64 > HEADER_LIMIT {
        return Err(ArtifactError::Description(format!("its header is larger than {HEADER_LIMIT} bytes")));
    }
    let mut encoder = Encoder::new(Vec::new(), spec.compression).map_err(failed)?;
    encoder.write_all(&tar).map_err(failed)?;
    encoder.finish().map_err(failed)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ArtifactError> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(HEADER_LIMIT + 1).read_to_end(&mut content))
        .map_err(|source| ArtifactError::Write { action: "read", path: path.to_owned(), source })?;
    Ok(content)
}

/// Writes the payload tar and fills in the checksums of its files.
fn data_tar<W: Write>(
    output: W,
    files: &[PayloadPath<'_>],
    spec: &ArtifactSpec,
    draft: &Draft,
    checksums: &mut Checksums,
) -> Result<W, ArtifactError> {
    let failed = |source| draft.failed(source);
    let mut encoder = Encoder::new(output, spec.compression).map_err(failed)?;
    let mut buffer = vec![0; BUFFER];
    for file in files {
        let unreadable = |source| ArtifactError::Write { action: "read", path: file.path.to_owned(), source };
        let changed =
            || ArtifactError::Description(format!("the payload file {} changed while it was read", quote(file.name)));
        // Opening a FIFO would wait for a writer.
        if !fs::metadata(file.path).map_err(unreadable)?.is_file() {
            return Err(ArtifactError::Description(format!("the payload {} is not a regular file", quote(file.name))));
        }
        let mut input = File::open(file.path).map_err(unreadable)?;
        let size = input.metadata().map_err(unreadable)?.len();
        let header = tar_header(file.name, size, spec.modified).map_err(failed)?;
        encoder.write_all(header.as_bytes()).map_err(failed)?;
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut left = size;
        loop {
            let count = match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            left = left.checked_sub(count as u64).ok_or_else(changed)?;
            hash.update(&buffer[..count]);
            encoder.write_all(&buffer[..count]).map_err(failed)?;
        }
        if left > 0 {
            return Err(changed());
        }
        pad(&mut encoder, size).map_err(failed)?;
        checksums.insert(&format!("{DATA_DIRECTORY}{}", file.name), digest_bytes(&hash.finish()));
    }
    encoder.write_all(&END_MARKER).map_err(failed)?;
    encoder.finish().map_err(failed)
}

fn member(output: &mut impl Write, name: &str, content: &[u8], modified: u64) -> io::Result<()> {
    let size = content.len() as u64;
    output.write_all(tar_header(name, size, modified)?.as_bytes())?;
    output.write_all(content)?;
    pad(output, size)
}

pub(super) fn tar_header(name: &str, size: u64, modified: u64) -> io::Result<tar::Header> {
    // POSIX has eleven octal digits for the size, GNU has a way round.
    let mut header = if size < 1 << 33 { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(modified);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

/// Fills the last block after content of this size.
fn pad(output: &mut impl Write, size: u64) -> io::Result<()> {
    let rest = (BLOCK - size % BLOCK) % BLOCK;
    output.write_all(&END_MARKER[..usize::try_from(rest).unwrap_or_default()])
}

struct Counted<W> {
    inner: W,
    position: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The Artifact while it is written, under a name of its own; gone again if it is not published.
struct Draft {
    file: File,
    path: PathBuf,
    published: bool,
}

impl Draft {
    fn create(out: &Path) -> Result<Self, ArtifactError> {
        let mut name = out.as_os_str().to_owned();
        name.push(".tmp");
        let path = PathBuf::from(name);
        // A leftover goes first, so that the new file is ours and never a link that somebody else has put there.
        let create = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            File::create_new(&path)
        };
        match create() {
            Ok(file) => Ok(Self { file, path, published: false }),
            Err(source) => Err(ArtifactError::Write { action: "create", path, source }),
        }
    }

    fn failed(&self, source: io::Error) -> ArtifactError {
        ArtifactError::Write { action: "write", path: self.path.clone(), source }
    }

    fn publish(mut self, out: &Path) -> Result<(), ArtifactError> {
        self.file.sync_all().map_err(|source| self.failed(source))?;
        let failed = |source| ArtifactError::Write { action: "create", path: out.to_owned(), source };
        fs::rename(&self.path, out).map_err(failed)?;
        self.published = true;
        let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is left to be told; the error that led here is on its way already.
            let _ = fs::remove_file(&self.path);
        }
    }
}
