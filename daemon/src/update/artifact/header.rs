//! The header tar: what the Artifact is, needs, provides and clears.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

use serde_json::Value;

use super::compression::{Compression, Decoder};
use super::error::ArtifactError;
use super::format::{
    HEADER_INFO, HEADER_LIMIT, INFO_LIMIT, META_DATA, META_DATA_LIMIT, SCRIPTS_DIRECTORY, SCRIPTS_LIMIT, TYPE_INFO,
    is_payload_type, is_script_name, quote,
};
use super::json::Object;
use super::manifest::Checksums;
use super::tarball::{Member, TarReader};

/// What an Artifact says about itself. Everything here has been checked against the manifest, and the manifest against
/// the signature if there are keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `artifact_provides.artifact_name`; never empty.
    pub artifact_name: String,
    /// `artifact_provides.artifact_group`.
    pub artifact_group: Option<String>,
    /// `artifact_depends.device_type`: the types of Component this fits; never empty.
    pub device_types: Vec<String>,
    /// The payload type, which is the name of an Interface or update module: a plain file name.
    pub payload_type: String,
    /// `artifact_provides` of the type-info.
    pub provides: BTreeMap<String, String>,
    /// What the provides of the target have to hold: a key's value has to be one of the list. From the type-info, and
    /// `artifact_name` and `artifact_group` of the header-info. A key in both keeps the values that are in both; a list
    /// may be empty for that reason, and fits nothing.
    pub depends: BTreeMap<String, Vec<String>>,
    /// `clears_artifact_provides`; `None` if absent, which is not the same as an empty list.
    pub clears_provides: Option<Vec<String>>,
    /// Names of the state scripts in the header, in their order. They are never run for Components.
    pub scripts: Vec<String>,
    /// `header-info`, verbatim.
    pub raw_header_info: Vec<u8>,
    /// `type-info`, verbatim.
    pub raw_type_info: Vec<u8>,
    /// `meta-data`, verbatim; empty if absent.
    pub raw_meta_data: Vec<u8>,
    /// Whether there is a `manifest.sig`. It has been verified exactly if [`Header::verified_with`] is set.
    pub signed: bool,
    /// The key that verified the signature; `None` if no keys are configured.
    pub verified_with: Option<PathBuf>,
    /// How the header tar is compressed.
    pub compression: Compression,
    /// The manifest: checksums of all members.
    pub checksums: Checksums,
}

/// What the outer members have told before the header tar is read.
pub(super) struct Outer {
    pub(super) signed: bool,
    pub(super) verified_with: Option<PathBuf>,
    pub(super) checksums: Checksums,
    /// The name of the header tar.
    pub(super) member: String,
    pub(super) compression: Compression,
}

/// Parses the header tar, whose bytes have been checked already.
pub(super) fn parse(stored: &[u8], outer: Outer) -> Result<Header, ArtifactError> {
    let tar_name = outer.member.clone();
    let decoder = Decoder::new(stored, outer.compression, quote(&tar_name))?;
    let limited = Limited { inner: decoder, left: HEADER_LIMIT, place: format!("{}, decompressed,", quote(&tar_name)) };
    let mut tar = TarReader::new(limited, Some(tar_name.clone()));

    let first = next(&mut tar, "\"header-info\"")?;
    if first.name != HEADER_INFO {
        return Err(ArtifactError::Unexpected { place: tar.place(), expected: "\"header-info\"" });
    }
    let raw_header_info = tar.read_all(INFO_LIMIT)?;
    let info = HeaderInfo::parse(&tar.place(), &raw_header_info)?;

    let mut scripts: Vec<String> = Vec::new();
    let mut member = next(&mut tar, "\"headers/0000/type-info\"")?;
    while let Some(script) = member.name.strip_prefix(SCRIPTS_DIRECTORY) {
        check_script(script, &scripts, &tar)?;
        scripts.push(script.to_owned());
        member = next(&mut tar, "\"headers/0000/type-info\"")?;
    }

    if member.name != TYPE_INFO {
        let expected = "a state script or \"headers/0000/type-info\"";
        return Err(ArtifactError::Unexpected { place: tar.place(), expected });
    }
    let raw_type_info = tar.read_all(INFO_LIMIT)?;
    let type_info = TypeInfo::parse(&tar.place(), &raw_type_info, &info.payload_type)?;

    let mut raw_meta_data = Vec::new();
    let mut member = tar.next_member()?;
    if member.as_ref().is_some_and(|member| member.name == META_DATA) {
        raw_meta_data = tar.read_all(META_DATA_LIMIT)?;
        // An empty file is as good as none.
        if !raw_meta_data.is_empty() {
            Object::parse(&tar.place(), &raw_meta_data)?;
        }
        member = tar.next_member()?;
    }
    if member.is_some() {
        return Err(ArtifactError::Unexpected { place: tar.place(), expected: "the end of the header" });
    }
    tar.finish()?.inner.into_inner()?;

    Ok(Header {
        artifact_name: info.artifact_name,
        artifact_group: info.artifact_group,
        device_types: info.device_types,
        payload_type: info.payload_type,
        provides: type_info.provides,
        depends: merge(type_info.depends, info.depends),
        clears_provides: type_info.clears_provides,
        scripts,
        raw_header_info,
        raw_type_info,
        raw_meta_data,
        signed: outer.signed,
        verified_with: outer.verified_with,
        compression: outer.compression,
        checksums: outer.checksums,
    })
}

fn next<R: Read>(tar: &mut TarReader<R>, expected: &str) -> Result<Member, ArtifactError> {
    tar.next_member()?.ok_or_else(|| ArtifactError::Missing { place: format!("{expected} in its header") })
}

fn check_script<R: Read>(name: &str, earlier: &[String], tar: &TarReader<R>) -> Result<(), ArtifactError> {
    if !is_script_name(name) {
        return Err(ArtifactError::malformed(tar.place(), "has a name that no state script of an Artifact can have"));
    }
    if earlier.iter().any(|script| script == name) {
        return Err(ArtifactError::malformed(tar.place(), "occurs twice"));
    }
    if earlier.len() == SCRIPTS_LIMIT {
        return Err(ArtifactError::TooMany {
            place: "the header".into(),
            limit: SCRIPTS_LIMIT,
            things: "state scripts",
        });
    }
    Ok(())
}

/// Both sides ask for something of the same key: only values that please both are left.
fn merge(
    mut depends: BTreeMap<String, Vec<String>>,
    more: BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, Vec<String>> {
    for (key, values) in more {
        match depends.get_mut(&key) {
            Some(list) => list.retain(|value| values.contains(value)),
            None => {
                depends.insert(key, values);
            }
        }
    }
    depends
}

struct HeaderInfo {
    payload_type: String,
    artifact_name: String,
    artifact_group: Option<String>,
    device_types: Vec<String>,
    depends: BTreeMap<String, Vec<String>>,
}

impl HeaderInfo {
    /// Unknown keys are ignored.
    fn parse(place: &str, bytes: &[u8]) -> Result<Self, ArtifactError> {
        let mut info = Object::parse(place, bytes)?;

        let mut provides = info.object("artifact_provides")?.ok_or_else(|| info.missing("artifact_provides"))?;
        let artifact_name = provides.text("artifact_name")?.ok_or_else(|| provides.missing("artifact_name"))?;
        if artifact_name.is_empty() {
            return Err(provides.wrong("artifact_name", "may not be empty"));
        }
        let artifact_group = provides.text("artifact_group")?;

        let mut wanted = info.object("artifact_depends")?.ok_or_else(|| info.missing("artifact_depends"))?;
        let device_types = wanted.some_texts("device_type")?.ok_or_else(|| wanted.missing("device_type"))?;
        let mut depends = BTreeMap::new();
        for key in ["artifact_name", "artifact_group"] {
            if let Some(values) = wanted.some_texts(key)? {
                depends.insert(key.to_owned(), values);
            }
        }

        let payload_type = Self::payload_type(&mut info)?
            .ok_or_else(|| ArtifactError::EmptyPayload { name: artifact_name.clone() })?;
        Ok(Self { payload_type, artifact_name, artifact_group, device_types, depends })
    }

    /// The type of the one payload; `None` for an empty payload.
    fn payload_type(info: &mut Object<'_>) -> Result<Option<String>, ArtifactError> {
        const KEY: &str = "payloads";
        let payloads = match info.take(KEY) {
            None => return Err(info.missing(KEY)),
            Some(Value::Array(payloads)) => payloads,
            Some(_) => return Err(info.wrong(KEY, "has to be a list of objects")),
        };
        let payload = match <[Value; 1]>::try_from(payloads) {
            Ok([payload]) => payload,
            Err(payloads) if payloads.is_empty() => return Err(info.wrong(KEY, "may not be an empty list")),
            Err(payloads) => {
                let rule = format!("lists {} payloads; only one is supported", payloads.len());
                return Err(info.wrong(KEY, &rule));
            }
        };
        let Value::Object(mut payload) = payload else {
            return Err(info.wrong(KEY, "has to be a list of objects"));
        };
        match payload.remove("type") {
            None => Err(info.wrong(KEY, "has an entry without a \"type\"")),
            Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if name.is_empty() => Err(info.wrong(KEY, "has an entry with an empty \"type\"")),
            Some(Value::String(name)) if is_payload_type(&name) => Ok(Some(name)),
            Some(_) => Err(info.wrong(KEY, "has an entry whose \"type\" is not a plain name")),
        }
    }
}

struct TypeInfo {
    provides: BTreeMap<String, String>,
    depends: BTreeMap<String, Vec<String>>,
    clears_provides: Option<Vec<String>>,
}

impl TypeInfo {
    fn parse(place: &str, bytes: &[u8], payload_type: &str) -> Result<Self, ArtifactError> {
        const KEY: &str = "type";
        let mut info = Object::parse(place, bytes)?;
        let fits = match info.take_nullable(KEY) {
            None => return Err(info.missing(KEY)),
            Some(Value::String(name)) if name == payload_type => true,
            // Mender's tool wrote an empty type for this one until 4.4.0.
            Some(Value::String(name)) => name.is_empty() && payload_type == "rootfs-image",
            Some(_) => false,
        };
        if !fits {
            let rule = format!("has to be {}, as in \"header-info\"", quote(payload_type));
            return Err(info.wrong(KEY, &rule));
        }
        let clears_provides = info.texts("clears_artifact_provides")?;
        let provides = info.object("artifact_provides")?.map_or_else(|| Ok(BTreeMap::new()), Object::into_texts)?;
        let depends = info.object("artifact_depends")?.map_or_else(|| Ok(BTreeMap::new()), Object::into_lists)?;
        Ok(Self { provides, depends, clears_provides })
    }
}

/// Ends a decompression bomb at the bound.
struct Limited<R> {
    inner: R,
    left: u64,
    place: String,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => return Err(ArtifactError::TooLarge { place: self.place.clone(), limit: HEADER_LIMIT }.into_io()),
        }
        Ok(count)
    }
}
