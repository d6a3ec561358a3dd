//! The stub of the OpenPLC runtime: its programs, a process of it, and an image of it for a container engine.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zip::write::SimpleFileOptions;

use crate::binary;

/// A PLC program as the editor would make one, with this number and behaviour (see the program `stub-runtime`).
pub fn program(number: u16, behaviour: &str) -> Vec<u8> {
    let stub = format!("{{\"number\": {number}, \"behaviour\": \"{behaviour}\"}}");
    archive(&[
        ("generated.hpp", b"#pragma once\n"),
        ("program.cpp", b"int main() {}\n"),
        ("strucpp_runtime/include/runtime.hpp", b"#pragma once\n"),
        ("stub.json", stub.as_bytes()),
    ])
}

/// An archive with these files.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, SimpleFileOptions::default()).expect("a name");
        archive.write_all(bytes).expect("memory");
    }
    archive.finish().expect("an archive").into_inner()
}

/// The stub as a process on loopback; dropping it ends it.
#[derive(Debug)]
pub struct StubRuntime {
    child: Child,
    directory: PathBuf,
    /// Port of its REST interface.
    pub https: u16,
    /// Port of its Modbus server.
    pub modbus: u16,
}

impl StubRuntime {
    /// Starts it on ports of the kernel's choice. Its users are in `data/` of the directory, the rest in `work/`.
    pub fn start(directory: &Path) -> Self {
        Self::with(directory, [0, 0], &[])
    }

    /// Starts it with these ports and these variables.
    pub fn with(directory: &Path, [https, modbus]: [u16; 2], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary("stub-runtime"));
        command.env("OPENPLC_PERSISTENT_DATA_DIR", directory.join("data")).env("STUB_WORK", directory.join("work"));
        command.env("STUB_HTTPS", format!("127.0.0.1:{https}")).env("STUB_MODBUS", format!("127.0.0.1:{modbus}"));
        let mut child = command.envs(variables.iter().copied()).stdout(Stdio::piped()).spawn().expect("the stub");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("its ports");
        let mut words = line.split_whitespace();
        let mut port = || words.nth(1).and_then(|word| word.parse().ok()).expect("a port");
        let (https, modbus) = (port(), port());
        Self { child, directory: directory.to_owned(), https, modbus }
    }

    /// Has its answers be wrong from now on, or with an empty word right again.
    pub fn fault(&self, word: &str) {
        let path = self.directory.join("work/fault");
        if word.is_empty() { drop(std::fs::remove_file(path)) } else { std::fs::write(path, word).expect("a file") }
    }

    /// Number, scans and starts of the program that runs, read over Modbus; `None` if none does.
    pub fn registers(&self) -> Option<[u16; 3]> {
        modbus_registers(&mut TcpStream::connect(("127.0.0.1", self.modbus)).ok()?)
    }

    /// Ends it at once, as a crash does.
    pub fn end(&mut self) {
        // An error means that it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for StubRuntime {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads the first three holding registers.
pub fn modbus_registers(stream: &mut TcpStream) -> Option<[u16; 3]> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(&[0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 3]).ok()?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).ok()?;
    let register = |place: usize| u16::from_be_bytes([answer[9 + 2 * place], answer[10 + 2 * place]]);
    Some([register(0), register(1), register(2)])
}

/// Writes a root file system for `docker import`: the stub as `/usr/bin/stub-runtime` with the libraries it needs, and the
/// commands of a static busybox below `/bin`. Import it with `--change 'CMD ["/usr/bin/stub-runtime"]'`.
///
/// Needs Debian's `busybox-static`.
pub fn write_image(tar: &Path) {
    let mut image = tar::Builder::new(File::create(tar).expect("a file"));
    image.follow_symlinks(true);
    for directory in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr/bin", "var/run/runtime", "workdir"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        image.append_data(&mut header, format!("{directory}/"), std::io::empty()).expect("a directory");
    }
    let stub = binary("stub-runtime");
    append(&mut image, &stub, "usr/bin/stub-runtime");
    for library in libraries(&stub) {
        append(&mut image, &library, library.to_str().expect("a name").trim_start_matches('/'));
    }
    append(&mut image, Path::new("/bin/busybox"), "bin/busybox");
    for applet in ["cat", "id", "ip", "ls", "mknod", "nc", "ps", "sh", "sleep", "stat", "touch", "wget"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        image.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("a link");
    }
    image.finish().expect("the image");
}

/// Writes an archive with an image of the stub, as `docker save` does it: what a site without a registry gets.
pub fn write_archive(archive: &Path, name: &str) {
    let layer = archive.with_extension("layer");
    write_image(&layer);
    let bytes = std::fs::read(&layer).expect("the layer");
    let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
    let hash = hash.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let image = serde_json::json!({
        "architecture": machine,
        "os": "linux",
        "config": { "Cmd": ["/usr/bin/stub-runtime"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hash}")] },
    });
    let images = serde_json::json!([{ "Config": "image.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let mut files = tar::Builder::new(File::create(archive).expect("a file"));
    for (name, bytes) in [
        ("image.json", image.to_string().as_bytes()),
        ("manifest.json", images.to_string().as_bytes()),
        ("layer.tar", &bytes),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        files.append_data(&mut header, name, bytes).expect("a file of the archive");
    }
    files.finish().expect("the archive");
    std::fs::remove_file(layer).expect("the layer");
}

fn append(image: &mut tar::Builder<File>, path: &Path, name: &str) {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("\"{}\": {error}", path.display()));
    let mut header = tar::Header::new_gnu();
    header.set_size(file.metadata().expect("a size").len());
    header.set_mode(0o755);
    image.append_data(&mut header, name, &mut file).expect("a file of the image");
}

/// The shared libraries that a program is started with, and the loader itself; none of one that is linked statically.
pub(crate) fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("\"ldd\" can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("not a dynamic executable"), "{said}");
    let text = String::from_utf8(output.stdout).expect("paths");
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
