//! The updaters that others use, on the same payload and disk. One that cannot run here is left out, and that is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use orchestrator_tests::bus::Bus;
use orchestratord::update::artifact::Compression;
use tempfile::TempDir;

use crate::payload::{Kind, Payloads};
use crate::process::{Held, children_cpu, cpu_of, has, measure, peak_of, run, script, shell};
use crate::report::Sample;

/// A peer that is ready to install.
pub trait Peer {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Installs the payload once.
    fn install(&self) -> anyhow::Result<Sample>;
}

/// Debian's Mender client: `mender install` of the same Artifact, with an update module that does what our Interface does.
pub struct Mender {
    place: TempDir,
    artifact: PathBuf,
    stores: bool,
}

impl Mender {
    /// With a module that reads the streams, or, with `stores`, leaves it to the client to store files.
    pub fn new(on: &Path, artifact: &Path, stores: bool) -> anyhow::Result<Self> {
        if !has("mender") {
            bail!("there is no \"mender\" (Debian: mender-client)");
        }
        let place = TempDir::with_prefix_in("mender-", on)?;
        fs::create_dir_all(place.path().join("modules"))?;
        fs::create_dir_all(place.path().join("data"))?;
        fs::create_dir_all(place.path().join("etc"))?;
        fs::write(place.path().join("etc/artifact_info"), "artifact_name=bench-0\n")?;
        let take = "while name=\"$(cat stream-next)\"; [ -n \"$name\" ]; do cat \"$name\" >/dev/null; done";
        let take = if stores { ":" } else { take };
        script(
            &place.path().join("modules/bench"),
            &format!("#!/bin/sh\ncd \"$2\" || exit 1\ncase $1 in\nDownload) {take} ;;\nesac\n"),
        )?;
        fs::write(place.path().join("data/device_type"), "device_type=bench\n")?;
        fs::write(
            place.path().join("mender.conf"),
            "{\"DeviceTypeFile\": \"@/data/device_type\"}".replace('@', &place.path().display().to_string()),
        )?;
        Ok(Self { place, artifact: artifact.to_owned(), stores })
    }

    /// The client looks for modules in one place only, so it gets a view of the file system of its own.
    fn command(&self, words: &str) -> Command {
        let place = self.place.path().display();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!(
            "mkdir -p /usr/share/mender/modules/v3 && mount --bind '{place}/modules' /usr/share/mender/modules/v3 && \
             mkdir -p /etc/mender && mount --bind '{place}/etc' /etc/mender && exec mender --no-syslog -l error --config '{place}/mender.conf' --fallback-config '{place}/mender.conf' \
             --data '{place}/data' {words}"
        ));
        command
    }
}

impl Peer for Mender {
    fn name(&self) -> &'static str {
        if self.stores { "mender install, stored" } else { "mender install, streamed" }
    }

    fn install(&self) -> anyhow::Result<Sample> {
        // Its module says nothing of a rollback, so the client commits by itself.
        measure(&mut self.command(&format!("install '{}'", self.artifact.display())))
    }
}

/// RAUC: a bundle with one raw image, put into a slot that is a file on the same disk.
pub struct Rauc {
    place: TempDir,
    service: Held,
    bus: Bus,
}

impl Rauc {
    /// Makes the bundle: the compression is that of its squashfs.
    pub fn new(on: &Path, payloads: &Payloads, size: u64, compression: Compression) -> anyhow::Result<Self> {
        for program in ["rauc", "mksquashfs", "openssl"] {
            if !has(program) {
                bail!("there is no \"{program}\"");
            }
        }
        let comp = match compression {
            Compression::None => "-noI -noD -noF -noX",
            Compression::Gzip => "-comp gzip -Xcompression-level 6",
            Compression::Xz => "-comp xz",
            Compression::Zstd => "-comp zstd -Xcompression-level 9",
        };
        let place = TempDir::with_prefix_in("rauc-", on)?;
        let at = place.path().display().to_string();
        fs::create_dir_all(place.path().join("bundle"))?;
        fs::create_dir_all(place.path().join("mount"))?;
        fs::hard_link(payloads.plain(Kind::Realistic, size)?, place.path().join("bundle/payload.img"))?;
        fs::write(
            place.path().join("bundle/manifest.raucm"),
            "[update]\ncompatible=bench\nversion=1\n[bundle]\nformat=plain\n[image.data]\nfilename=payload.img\n",
        )?;
        fs::write(
            place.path().join("system.conf"),
            format!(
                "[system]\ncompatible=bench\nbootloader=noop\nmountprefix={at}/mount\nstatusfile={at}/status\n\
                 [keyring]\npath={at}/cert.pem\n[slot.system.0]\ndevice=/dev/null\ntype=raw\nbootname=system0\n\
                 [slot.data.0]\ndevice={at}/slot\ntype=raw\n"
            ),
        )?;
        run(&mut shell(&format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 7300 -subj /CN=bench -keyout '{at}/key.pem' -out '{at}/cert.pem'"
        )))?;
        fs::File::create(place.path().join("slot"))?.set_len(size)?;
        run(&mut shell(&format!(
            "rauc --cert='{at}/cert.pem' --key='{at}/key.pem' --mksquashfs-args='{comp}' bundle '{at}/bundle' '{at}/bundle.raucb'"
        )))?;
        let policy = Path::new("/usr/share/dbus-1/system.d/de.pengutronix.rauc.conf");
        let bus = if policy.exists() { Bus::with_policies(&[policy]) } else { bail!("there is no policy of RAUC") };
        let log = fs::File::create(place.path().join("log"))?;
        let service = Command::new("rauc")
            .args([&format!("--conf={at}/system.conf"), "--override-boot-slot=system0", "service"])
            .env("DBUS_SYSTEM_BUS_ADDRESS", bus.address())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let peer = Self { place, service: Held(service), bus };
        let begun = Instant::now();
        while !Command::new("rauc")
            .arg("status")
            .env("DBUS_SYSTEM_BUS_ADDRESS", peer.bus.address())
            .output()?
            .status
            .success()
        {
            if begun.elapsed() > Duration::from_secs(10) {
                bail!("its service does not start: {}", fs::read_to_string(peer.place.path().join("log"))?);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(peer)
    }
}

impl Peer for Rauc {
    fn name(&self) -> &'static str {
        "rauc install"
    }

    fn install(&self) -> anyhow::Result<Sample> {
        let service = self.service.0.id();
        let before = cpu_of(service)? + children_cpu()?;
        let begun = Instant::now();
        let mut command = Command::new("rauc");
        command.arg("install").arg(self.place.path().join("bundle.raucb"));
        run(command.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address()))
            .with_context(|| fs::read_to_string(self.place.path().join("log")).unwrap_or_default())?;
        let wall = begun.elapsed().as_secs_f64();
        Ok(Sample { wall, cpu: cpu_of(service)? + children_cpu()? - before, peak: peak_of(service)? })
    }
}

/// `SWUpdate`: an archive with one image that goes straight into a file on the same disk.
pub struct SwUpdate {
    place: TempDir,
}

impl SwUpdate {
    /// Makes the archive.
    pub fn new(on: &Path, payloads: &Payloads, size: u64, compression: Compression) -> anyhow::Result<Self> {
        for program in ["swupdate", "cpio", "sha256sum", "openssl"] {
            if !has(program) {
                bail!("there is no \"{program}\"");
            }
        }
        let compressed = match compression {
            Compression::None => "",
            Compression::Gzip => "compressed = \"zlib\"; ",
            Compression::Zstd => "compressed = \"zstd\"; ",
            Compression::Xz => bail!("it reads no xz"),
        };
        let image = payloads.compressed(Kind::Realistic, size, compression)?;
        let place = TempDir::with_prefix_in("swupdate-", on)?;
        let at = place.path().display().to_string();
        let name = image.file_name().and_then(|name| name.to_str()).context("a name")?;
        fs::hard_link(&image, place.path().join(name))?;
        let digest = Command::new("sha256sum").arg(&image).output()?.stdout;
        let digest = String::from_utf8(digest)?.split(' ').next().unwrap_or_default().to_owned();
        fs::write(
            place.path().join("sw-description"),
            format!(
                "software =\n{{\n  version = \"1\";\n  hardware-compatibility: [ \"1.0\" ];\n  images: ({{ filename = \"{name}\"; sha256 = \"{digest}\"; {compressed}\
                 installed-directly = true; type = \"rawfile\"; path = \"{at}/out\"; }});\n}};\n"
            ),
        )?;
        run(&mut shell(&format!(
            // Debian's takes nothing that is not signed.
            "cd '{at}' && openssl req -x509 -newkey rsa:2048 -nodes -days 7300 -subj /CN=bench -addext \
             keyUsage=digitalSignature -addext extendedKeyUsage=emailProtection -keyout key.pem -out cert.pem && openssl cms \
             -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER -nosmimecap \
             -binary && printf '%s\\n' sw-description sw-description.sig '{name}' | cpio --quiet -o -H crc >bench.swu && rm '{name}'"
        )))?;
        Ok(Self { place })
    }
}

impl Peer for SwUpdate {
    fn name(&self) -> &'static str {
        "swupdate"
    }

    fn install(&self) -> anyhow::Result<Sample> {
        // It leaves its sockets where TMPDIR says.
        let at = self.place.path();
        let mut command = Command::new("swupdate");
        command.args(["-H", "bench:1.0", "-k", "cert.pem", "-i", "bench.swu"]).env("TMPDIR", at).current_dir(at);
        measure(&mut command)
    }
}
