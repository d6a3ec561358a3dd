//! What is installed: the machine's own programs and libraries as a realistic payload, and noise that no compressor makes
//! smaller. Made once for a size and kept below `target/bench`.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use orchestratord::update::artifact::writer::write;
use orchestratord::update::artifact::{ArtifactSpec, Compression};

use crate::process::{run, shell};

/// What the payload is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Programs and libraries.
    Realistic,
    /// Noise.
    Noise,
    /// Nothing but zeros, which take no room on the disk.
    Zeros,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Realistic => "realistic",
            Self::Noise => "noise",
            Self::Zeros => "zeros",
        }
    }
}

/// Where the payloads lie.
#[derive(Debug)]
pub struct Payloads {
    directory: PathBuf,
}

impl Payloads {
    /// Below this directory.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let directory = directory.join("payloads");
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    /// A payload of so many bytes.
    pub fn plain(&self, kind: Kind, size: u64) -> anyhow::Result<PathBuf> {
        let directory = self.directory.join(format!("{}-{size}", kind.name()));
        let path = directory.join("payload.img");
        if path.exists() {
            return Ok(path);
        }
        fs::create_dir_all(&directory)?;
        let fresh = directory.join("fresh");
        let mut file = File::create(&fresh)?;
        match kind {
            Kind::Zeros => file.set_len(size)?,
            Kind::Noise => drop(io::copy(&mut File::open("/dev/urandom")?.take(size), &mut file)?),
            Kind::Realistic => {
                let mut left = size;
                for place in ["/usr/lib", "/usr/bin", "/usr/sbin", "/usr/share"] {
                    gather(Path::new(place), &mut file, &mut left)?;
                }
                ensure!(left == 0, "this machine has too few files below /usr for a payload of {size} bytes");
            }
        }
        file.flush()?;
        fs::rename(fresh, &path)?;
        Ok(path)
    }

    /// The payload as an Artifact.
    pub fn artifact(&self, kind: Kind, size: u64, compression: Compression) -> anyhow::Result<PathBuf> {
        let plain = self.plain(kind, size)?;
        let path = plain.with_file_name(format!("{compression}.mender"));
        if !path.exists() {
            eprintln!("making {}", path.display());
            let spec = ArtifactSpec {
                compression,
                ..ArtifactSpec::module_image("bench-1", vec!["bench".to_owned()], "bench", vec![plain])
            };
            write(&spec, None, &path)?;
        }
        Ok(path)
    }

    /// The payload compressed by itself, for the bare decoders: made by the tool of the format.
    pub fn compressed(&self, kind: Kind, size: u64, compression: Compression) -> anyhow::Result<PathBuf> {
        let plain = self.plain(kind, size)?;
        let path = plain.with_file_name(format!("payload.img{}", compression.suffix()));
        if !path.exists() {
            eprintln!("making {}", path.display());
            let tool = match compression {
                Compression::None => return Ok(plain),
                Compression::Gzip => "gzip -n -6",
                Compression::Xz => "xz -6",
                Compression::Zstd => "zstd -q -9",
            };
            run(&mut shell(&format!(
                "{tool} -c <'{0}' >'{1}.new' && mv '{1}.new' '{1}'",
                plain.display(),
                path.display()
            )))?;
        }
        Ok(path)
    }
}

/// Adds the regular files below a directory, in the order of their names, until there is enough.
fn gather(place: &Path, to: &mut File, left: &mut u64) -> anyhow::Result<()> {
    let Ok(entries) = fs::read_dir(place) else { return Ok(()) };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if *left == 0 {
            break;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            gather(&entry.path(), to, left)?;
        } else if kind.is_file()
            && let Ok(file) = File::open(entry.path())
        {
            *left -= io::copy(&mut file.take(*left), to)?;
        }
    }
    Ok(())
}
