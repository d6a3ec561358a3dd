//! Artifacts made by hand.

use std::io::{Read, Write};

use ring::digest;

use crate::update::artifact::format::hex;
use crate::update::artifact::{ArtifactError, Compression, Header, VerifyKeys, open};

pub const HEADER_INFO: &str = r#"{"payloads":[{"type":"rtos-interface"}],"artifact_provides":{"artifact_name":"rtos-v1"},"artifact_depends":{"device_type":["rtos"]}}"#;
pub const TYPE_INFO: &str = r#"{"type":"rtos-interface","artifact_provides":{"rootfs-image.rtos-interface.version":"rtos-v1"},"clears_artifact_provides":["rootfs-image.rtos-interface.*"]}"#;

/// A tar member with any name and type.
#[derive(Clone)]
pub struct Raw {
    pub name: Vec<u8>,
    pub kind: u8,
    pub content: Vec<u8>,
    /// What the header claims; the length of the content without it.
    pub size: Option<u64>,
}

pub fn raw(name: &str, content: impl AsRef<[u8]>) -> Raw {
    Raw { name: name.into(), kind: b'0', content: content.as_ref().to_vec(), size: None }
}

pub fn raw_kind(name: &str, kind: u8, content: impl AsRef<[u8]>) -> Raw {
    Raw { kind, ..raw(name, content) }
}

/// One member, padded to blocks.
pub fn tar_member(member: &Raw) -> Vec<u8> {
    let mut block = [0; 512];
    let name = &member.name[..member.name.len().min(100)];
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    let size = member.size.unwrap_or(member.content.len() as u64);
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[156] = member.kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    let mut bytes = block.to_vec();
    bytes.extend_from_slice(&member.content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// Writes the checksum of a tar header.
pub fn seal(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub fn tar_without_end(members: &[Raw]) -> Vec<u8> {
    members.iter().flat_map(tar_member).collect()
}

pub fn tar(members: &[Raw]) -> Vec<u8> {
    let mut bytes = tar_without_end(members);
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

pub fn compress(bytes: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Xz => liblzma::encode_all(bytes, 6).unwrap(),
        Compression::Zstd => zstd::encode_all(bytes, 3).unwrap(),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub fn line(name: &str, content: &[u8]) -> String {
    format!("{}  {name}\n", sha256(content))
}

/// The parts of an Artifact. As it comes, it is sound; every field may be changed before [`Fixture::bytes`].
pub struct Fixture {
    pub version: Vec<u8>,
    pub header: Vec<Raw>,
    pub header_compression: Compression,
    pub data: Vec<Raw>,
    pub data_compression: Compression,
    pub signature: Option<Vec<u8>>,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            version: br#"{"format":"mender","version":3}"#.to_vec(),
            header: vec![raw("header-info", HEADER_INFO), raw("headers/0000/type-info", TYPE_INFO)],
            header_compression: Compression::Gzip,
            data: vec![raw("firmware.bin", "firmware"), raw("notes", "")],
            data_compression: Compression::Gzip,
            signature: None,
        }
    }
}

impl Fixture {
    pub fn with_header_info(json: &str) -> Self {
        let mut fixture = Self::default();
        fixture.header[0].content = json.into();
        fixture
    }

    pub fn with_type_info(json: &str) -> Self {
        let mut fixture = Self::default();
        fixture.header[1].content = json.into();
        fixture
    }

    pub fn with_meta_data(json: impl AsRef<[u8]>) -> Self {
        let mut fixture = Self::default();
        fixture.header.push(raw("headers/0000/meta-data", json));
        fixture
    }

    pub fn with_data(data: Vec<Raw>) -> Self {
        Self { data, ..Self::default() }
    }

    pub fn header_name(&self) -> String {
        format!("header.tar{}", self.header_compression.suffix())
    }

    pub fn data_name(&self) -> String {
        format!("data/0000.tar{}", self.data_compression.suffix())
    }

    pub fn header_tar(&self) -> Vec<u8> {
        compress(&tar(&self.header), self.header_compression)
    }

    pub fn data_tar(&self) -> Vec<u8> {
        compress(&tar(&self.data), self.data_compression)
    }

    pub fn manifest(&self) -> String {
        let files = self.data.iter().filter(|file| file.kind == b'0').map(|file| {
            let name = String::from_utf8_lossy(&file.name);
            line(&format!("data/0000/{name}"), &file.content)
        });
        files.collect::<String>() + &line(&self.header_name(), &self.header_tar()) + &line("version", &self.version)
    }

    /// The members of the Artifact with a header and a payload of any bytes.
    pub fn members_with(&self, manifest: &str, header: Vec<u8>, data: Vec<u8>) -> Vec<Raw> {
        let mut members = vec![raw("version", &self.version), raw("manifest", manifest)];
        members.extend(self.signature.as_ref().map(|signature| raw("manifest.sig", signature)));
        members.push(raw(&self.header_name(), header));
        members.push(raw(&self.data_name(), data));
        members
    }

    pub fn members(&self) -> Vec<Raw> {
        self.members_with(&self.manifest(), self.header_tar(), self.data_tar())
    }

    pub fn bytes(&self) -> Vec<u8> {
        tar(&self.members())
    }

    /// The Artifact with another manifest.
    pub fn bytes_with_manifest(&self, manifest: &str) -> Vec<u8> {
        tar(&self.members_with(manifest, self.header_tar(), self.data_tar()))
    }

    /// The Artifact with another header tar, listed in the manifest as it is.
    pub fn bytes_with_header(&self, header: &[u8]) -> Vec<u8> {
        let manifest = self.manifest().replace(&sha256(&self.header_tar()), &sha256(header));
        tar(&self.members_with(&manifest, header.to_vec(), self.data_tar()))
    }

    /// The Artifact with another payload tar.
    pub fn bytes_with_data(&self, data: Vec<u8>) -> Vec<u8> {
        tar(&self.members_with(&self.manifest(), self.header_tar(), data))
    }
}

/// What an Artifact holds: its header, and the files by name.
pub type Content = (Header, Vec<(String, Vec<u8>)>);

/// Reads all of an Artifact.
pub fn read_with(bytes: &[u8], keys: &VerifyKeys) -> Result<Content, ArtifactError> {
    let mut artifact = open(bytes, keys)?;
    let mut files = Vec::new();
    while let Some(mut file) = artifact.next_file()? {
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(ArtifactError::from_io)?;
        assert_eq!(content.len() as u64, file.size());
        files.push((file.name().to_owned(), content));
    }
    let header = artifact.header().clone();
    let rest = artifact.finish()?;
    assert!(rest.is_empty());
    Ok((header, files))
}

pub fn read(bytes: &[u8]) -> Result<Content, ArtifactError> {
    read_with(bytes, &VerifyKeys::none())
}

/// The message with which an Artifact is refused.
pub fn refusal(bytes: &[u8]) -> String {
    match read(bytes) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Checks a table of Artifacts and the messages with which they have to be refused.
pub fn assert_refused<const N: usize>(table: [(&str, Vec<u8>, &str); N]) {
    let wrong: Vec<String> = table
        .into_iter()
        .map(|(case, bytes, message)| (case, refusal(&bytes), message))
        .filter(|(_, actual, message)| actual != message)
        .map(|(case, actual, message)| format!("{case}\n  expected: {message}\n  actual:   {actual}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
