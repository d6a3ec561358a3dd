//! Artifacts, both ways against Mender's own tool: it reads and validates ours, ours reads and verifies its.
//! OpenSSL makes the keys and checks the signatures a second time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use orchestratord::update::artifact::format::hex;
use orchestratord::update::artifact::{
    ArtifactError, ArtifactSpec, Compression, SigningKey, VerifyKeys, open, read_header, verify, write,
};

/// What Debian's version 3.9 knows; it has no zstd.
const COMPRESSIONS: [(Compression, &str); 3] =
    [(Compression::None, "none"), (Compression::Gzip, "gzip"), (Compression::Xz, "lzma")];

fn run(program: &str, arguments: &[&str]) -> Output {
    match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            panic!("The program \"{program}\" is missing: install the Debian package \"{program}\".")
        }
        Err(error) => panic!("Cannot run \"{program}\": {error}."),
    }
}

/// Runs a program that has to succeed; its standard output.
fn succeed(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn mender_artifact(arguments: &[&str]) -> String {
    succeed("mender-artifact", arguments)
}

struct Bench {
    directory: tempfile::TempDir,
}

/// The files of a key pair.
struct Keys {
    /// In each form that can sign, by its name.
    private: Vec<(&'static str, PathBuf)>,
    public: PathBuf,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn openssl(&self, arguments: &str) {
        let directory = self.directory.path().to_str().unwrap();
        let arguments: Vec<_> = arguments.split(' ').map(|argument| argument.replace('@', directory)).collect();
        succeed("openssl", &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn rsa(&self, bits: u32) -> Keys {
        self.openssl(&format!("genrsa -traditional -out @/rsa{bits}.pkcs1 {bits}"));
        self.openssl(&format!("pkcs8 -topk8 -nocrypt -in @/rsa{bits}.pkcs1 -out @/rsa{bits}.pkcs8"));
        self.openssl(&format!("rsa -in @/rsa{bits}.pkcs1 -pubout -out @/rsa{bits}.pub"));
        let private = vec![
            ("RSA in PKCS#1", self.path(&format!("rsa{bits}.pkcs1"))),
            ("RSA in PKCS#8", self.path(&format!("rsa{bits}.pkcs8"))),
        ];
        Keys { private, public: self.path(&format!("rsa{bits}.pub")) }
    }

    fn ec(&self, curve: &str) -> Keys {
        self.openssl(&format!("ecparam -name {curve} -genkey -noout -out @/{curve}.sec1"));
        // With the block "EC PARAMETERS" in front, as people make them; Mender's tool cannot read these.
        self.openssl(&format!("ecparam -name {curve} -genkey -out @/{curve}.parameters"));
        let parameters = fs::read_to_string(self.path(&format!("{curve}.parameters"))).unwrap();
        let (parameters, _) = parameters.split_once("-----BEGIN EC PRIVATE KEY-----").unwrap();
        let sec1 = fs::read_to_string(self.path(&format!("{curve}.sec1"))).unwrap();
        let both = self.file(&format!("{curve}.both"), format!("{parameters}{sec1}"));
        self.openssl(&format!("pkcs8 -topk8 -nocrypt -in @/{curve}.sec1 -out @/{curve}.pkcs8"));
        self.openssl(&format!("ec -in @/{curve}.sec1 -pubout -out @/{curve}.pub"));
        let private = vec![
            ("EC in SEC1", self.path(&format!("{curve}.sec1"))),
            ("EC in SEC1 after its parameters", both),
            ("EC in PKCS#8", self.path(&format!("{curve}.pkcs8"))),
        ];
        Keys { private, public: self.path(&format!("{curve}.pub")) }
    }

    fn payload(&self) -> Vec<PathBuf> {
        let large: Vec<u8> =
            (0..200_000_u32).flat_map(|number| (number.wrapping_mul(number) >> 3).to_le_bytes()).collect();
        vec![self.file("firmware.bin", large), self.file("config,v1", "a=b\n"), self.file("empty", "")]
    }

    fn spec(&self) -> ArtifactSpec {
        let mut spec = ArtifactSpec::module_image("rtos-v2", vec!["rtos".into()], "rtos-interface", self.payload());
        spec.device_types.push("rtos2".into());
        spec.group = Some("line-1".into());
        spec.name_depends = vec!["rtos-v1".into()];
        spec.group_depends = vec!["line-0".into()];
        spec.provides = BTreeMap::from([("x".into(), "1".into())]);
        spec.depends = BTreeMap::from([("y".into(), vec!["2".into()])]);
        spec.clears = vec!["x*".into()];
        spec.meta_data = Some(br#"{"key":"value","list":[1,2]}"#.to_vec());
        spec.scripts = vec![self.file("ArtifactInstall_Enter_01_a", "#!/bin/sh\n")];
        spec
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn keys(paths: &[&Path]) -> VerifyKeys {
    VerifyKeys::load(&paths.iter().map(|path| path.to_path_buf()).collect::<Vec<_>>()).unwrap()
}

/// Mender's tool has to find in the Artifact what the specification says.
fn assert_read_by_mender(out: &Path, files: &[PathBuf], signature: &str) {
    let told = mender_artifact(&["read", text(out)]);
    let sum = |path: &Path| succeed("sha256sum", &[text(path)])[..64].to_owned();
    let expected = [
        "Name: rtos-v2".to_owned(),
        "Version: 3".to_owned(),
        format!("Signature: {signature}"),
        "Compatible devices: '[rtos rtos2]'".to_owned(),
        "Provides group: line-1".to_owned(),
        "Depends on one of artifact(s): [rtos-v1]".to_owned(),
        "Depends on one of group(s): [line-0]".to_owned(),
        "ArtifactInstall_Enter_01_a".to_owned(),
        "Type:   rtos-interface".to_owned(),
        "rootfs-image.rtos-interface.version: rtos-v2".to_owned(),
        "x: 1".to_owned(),
        "y: 2".to_owned(),
        r#"Clears Provides: ["x*", "rootfs-image.rtos-interface.*"]"#.to_owned(),
        r#""key": "value""#.to_owned(),
    ];
    let files = files.iter().flat_map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        [
            format!("name:     {name}"),
            format!("size:     {}", path.metadata().unwrap().len()),
            format!("checksum: {}", sum(path)),
        ]
    });
    for line in expected.into_iter().chain(files) {
        assert!(told.contains(&line), "\"{line}\" is not in:\n{told}");
    }
}

#[test]
fn mender_reads_ours() {
    let bench = Bench::new();
    for (compression, _) in COMPRESSIONS {
        let out = bench.path("out.mender");
        let spec = ArtifactSpec { compression, ..bench.spec() };
        write(&spec, None, &out).unwrap();
        mender_artifact(&["validate", text(&out)]);
        assert_read_by_mender(&out, &spec.files, "no signature");
        let dumped = bench.path(&format!("dumped-{compression}"));
        mender_artifact(&["dump", "--files", text(&dumped), text(&out)]);
        for file in &spec.files {
            assert_eq!(fs::read(dumped.join(file.file_name().unwrap())).unwrap(), fs::read(file).unwrap());
        }
    }
}

#[test]
fn mender_reads_our_manifest_artifacts() {
    let bench = Bench::new();
    let out = bench.path("out.mender");
    let manifest = bench.file("manifest.yaml", "api_version: mender/v1\nkind: update_manifest\n");
    write(&ArtifactSpec::manifest("system-v2", vec!["gateway".into()], manifest), None, &out).unwrap();
    mender_artifact(&["validate", text(&out)]);
    let told = mender_artifact(&["read", text(&out)]);
    for line in [
        "Type:   mender-orchestrator-manifest",
        "data-partition.mender-orchestrator-manifest.version: system-v2",
        r#"Clears Provides: ["data-partition.mender-orchestrator-manifest.*"]"#,
        "name:     manifest.yaml",
    ] {
        assert!(told.contains(line), "\"{line}\" is not in:\n{told}");
    }
}

#[test]
fn mender_and_openssl_verify_our_signatures() {
    let bench = Bench::new();
    let pairs = [bench.rsa(2048), bench.rsa(3072), bench.ec("prime256v1")];
    let stranger = bench.rsa(2050);
    for pair in &pairs {
        for (form, private) in &pair.private {
            for (compression, _) in COMPRESSIONS {
                let out = bench.path("signed.mender");
                let spec = ArtifactSpec { compression, ..bench.spec() };
                write(&spec, Some(&SigningKey::load(private).unwrap()), &out).unwrap();
                mender_artifact(&["validate", "-k", text(&pair.public), text(&out)]);
                assert_read_by_mender(&out, &spec.files, "signed but no key for verification provided");
                let refused = run("mender-artifact", &["validate", "-k", text(&stranger.public), text(&out)]);
                assert!(!refused.status.success(), "{form}");

                let summary = verify(&out, &keys(&[&stranger.public, &pair.public])).unwrap();
                assert_eq!(summary.header.verified_with.as_ref(), Some(&pair.public), "{form}");
                assert!(verify(&out, &keys(&[&stranger.public])).is_err(), "{form}");
            }
        }
    }
    // The last one is RSA no more; OpenSSL has no command for r and s side by side, so it looks at an RSA one.
    let out = bench.path("signed.mender");
    write(&bench.spec(), Some(&SigningKey::load(&pairs[1].private[0].1).unwrap()), &out).unwrap();
    let directory = bench.directory.path();
    succeed("tar", &["-xf", text(&out), "-C", text(directory), "manifest", "manifest.sig"]);
    bench.openssl("base64 -d -A -in @/manifest.sig -out @/signature");
    bench.openssl("dgst -sha256 -verify @/rsa3072.pub -signature @/signature @/manifest");
}

#[test]
fn ours_reads_module_images_of_mender() {
    let bench = Bench::new();
    let files = bench.payload();
    let meta_data = bench.file("meta.json", r#"{"key": "value"}"#);
    let script = bench.file("ArtifactCommit_Leave_05", "#!/bin/sh\n");
    let rsa = bench.rsa(3072);
    let ec = bench.ec("prime256v1");
    for (compression, name) in COMPRESSIONS {
        for key in [None, Some(&rsa), Some(&ec)] {
            let out = bench.path("theirs.mender");
            let mut arguments =
                vec!["write", "module-image", "-n", "rtos-v2", "-t", "rtos", "-t", "rtos2", "-T", "rtos-interface"];
            arguments.extend(["-o", text(&out), "--compression", name, "-m", text(&meta_data), "-s", text(&script)]);
            arguments.extend([
                "-p",
                "x:1",
                "-d",
                "y:2",
                "-N",
                "rtos-v1",
                "-g",
                "line-1",
                "-G",
                "line-0",
                "--clears-provides",
                "x*",
            ]);
            arguments.extend(files.iter().flat_map(|file| ["-f", text(file)]));
            if let Some(pair) = key {
                // It takes RSA keys in PKCS#1 only.
                arguments.extend(["-k", text(&pair.private[0].1)]);
            }
            mender_artifact(&arguments);

            let expected = key.map(|pair| pair.public.clone());
            let trusted = expected.as_deref().map_or_else(VerifyKeys::none, |public| keys(&[public]));
            let summary = verify(&out, &trusted).unwrap();
            let header = &summary.header;
            assert_eq!((header.signed, &header.verified_with), (key.is_some(), &expected));
            assert_eq!((header.compression, summary.data_compression), (compression, compression));
            assert_eq!(header.artifact_name, "rtos-v2");
            assert_eq!(header.artifact_group.as_deref(), Some("line-1"));
            assert_eq!(header.device_types, ["rtos", "rtos2"]);
            assert_eq!(header.payload_type, "rtos-interface");
            let provides = [("rootfs-image.rtos-interface.version", "rtos-v2"), ("x", "1")];
            assert_eq!(header.provides, provides.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
            let depends = [("artifact_group", "line-0"), ("artifact_name", "rtos-v1"), ("y", "2")];
            assert_eq!(header.depends, depends.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into());
            assert_eq!(header.clears_provides.as_deref().unwrap(), ["x*", "rootfs-image.rtos-interface.*"]);
            assert_eq!(header.scripts, ["ArtifactCommit_Leave_05"]);
            assert_eq!(header.raw_meta_data, br#"{"key":"value"}"#);
            for (read, file) in summary.files.iter().zip(&files) {
                assert_eq!(
                    (read.name.as_str(), read.size),
                    (file.file_name().unwrap().to_str().unwrap(), file.metadata().unwrap().len())
                );
                assert!(succeed("sha256sum", &[text(file)]).starts_with(&hex(&read.sha256)));
            }
            assert_eq!(summary.files.len(), files.len());

            let wrong = if key.is_some_and(|pair| pair.public == ec.public) { &rsa } else { &ec };
            let error = read_header(&out, &keys(&[&wrong.public])).unwrap_err().to_string();
            let refused =
                if key.is_some() { "it was not made with this key" } else { "only signed Artifacts are accepted" };
            assert!(error.contains(refused), "{error}");
        }
    }
}

#[test]
fn ours_reads_rootfs_images_of_mender() {
    let bench = Bench::new();
    let image = bench.file("rootfs.ext4", vec![0xe5; 65536]);
    for (compression, name) in COMPRESSIONS {
        let out = bench.path("rootfs.mender");
        mender_artifact(&[
            "write",
            "rootfs-image",
            "--no-progress",
            "-n",
            "os-v2",
            "-t",
            "gateway",
            "-f",
            text(&image),
            "-o",
            text(&out),
            "--compression",
            name,
        ]);
        let summary = verify(&out, &VerifyKeys::none()).unwrap();
        assert_eq!(summary.data_compression, compression);
        assert_eq!(summary.header.payload_type, "rootfs-image");
        assert_eq!(summary.header.provides["rootfs-image.version"], "os-v2");
        assert_eq!(summary.header.provides["rootfs-image.checksum"], hex(&summary.files[0].sha256));
        assert_eq!(
            summary.header.clears_provides.as_deref().unwrap(),
            ["artifact_group", "rootfs_image_checksum", "rootfs-image.*"]
        );
        assert_eq!((summary.files[0].name.as_str(), summary.files[0].size), ("rootfs.ext4", 65536));
    }
}

#[test]
fn an_artifact_without_files() {
    let bench = Bench::new();
    let out = bench.path("none.mender");
    mender_artifact(&["write", "module-image", "-n", "a", "-t", "t", "-T", "x", "-o", text(&out)]);
    assert!(verify(&out, &VerifyKeys::none()).unwrap().files.is_empty());
    write(&ArtifactSpec::module_image("a", vec!["t".into()], "x", vec![]), None, &out).unwrap();
    mender_artifact(&["validate", text(&out)]);
    assert!(mender_artifact(&["read", text(&out)]).contains("Files: None"));
}

#[test]
fn a_bootstrap_artifact_is_refused() {
    let bench = Bench::new();
    let out = bench.path("bootstrap.mender");
    mender_artifact(&["write", "bootstrap-artifact", "-n", "first", "-t", "gateway", "-o", text(&out)]);
    let bytes = fs::read(&out).unwrap();
    let error = open(bytes.as_slice(), &VerifyKeys::none()).unwrap_err();
    assert!(matches!(&error, ArtifactError::EmptyPayload { name } if name == "first"), "{error}");
}

#[test]
fn ours_signed_by_mender_afterwards() {
    let bench = Bench::new();
    let pair = bench.ec("prime256v1");
    let (out, signed) = (bench.path("out.mender"), bench.path("signed.mender"));
    write(&bench.spec(), None, &out).unwrap();
    mender_artifact(&["sign", "-k", text(&pair.private[0].1), "-o", text(&signed), text(&out)]);
    assert_eq!(verify(&signed, &keys(&[&pair.public])).unwrap().header.verified_with, Some(pair.public));
}

#[test]
fn keys_of_openssl_that_are_refused() {
    let bench = Bench::new();
    let (short, curve) = (bench.rsa(1024), bench.ec("secp384r1"));
    bench.openssl("genpkey -algorithm ed25519 -out @/ed.pem");
    bench.openssl("pkey -in @/ed.pem -pubout -out @/ed.pub");
    bench.openssl("ecparam -name prime256v1 -genkey -noout -out @/plain.pem");
    bench.openssl("ec -in @/plain.pem -aes128 -passout pass:secret -out @/encrypted.pem");
    let public = |path: PathBuf| VerifyKeys::load(&[path]).unwrap_err().to_string();
    assert!(public(short.public).contains("its RSA key has 1024 bits"));
    assert!(public(curve.public).contains("its elliptic curve is not P-256"));
    assert!(public(bench.path("ed.pub")).contains("its key is neither RSA nor ECDSA"));
    let private = |path: &Path| SigningKey::load(path).unwrap_err().to_string();
    for (form, path) in short.private.iter().chain(&curve.private) {
        let error = private(path);
        assert!(error.contains("is not accepted") || error.contains("is not P-256"), "{form}: {error}");
    }
    assert!(private(&bench.path("ed.pem")).contains("its key is neither RSA nor ECDSA"));
    assert!(private(&bench.path("encrypted.pem")).contains("it is encrypted"));
}
