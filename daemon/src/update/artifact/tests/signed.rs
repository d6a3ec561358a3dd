//! Signatures and keys. Keys of other makers and RSA are tested against OpenSSL in the tests of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};

use super::fixture::*;
use crate::core::error::{Error, Kind};
use crate::update::artifact::{SigningKey, VerifyKeys};

const P256_ALGORITHM: &[u8] = b"\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384_ALGORITHM: &[u8] = b"\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
const ED25519_ALGORITHM: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match length {
        0..128 => vec![tag, u8::try_from(length).unwrap()],
        128..256 => vec![tag, 0x81, u8::try_from(length).unwrap()],
        _ => [&[tag, 0x82], &u16::try_from(length).unwrap().to_be_bytes()[..]].concat(),
    };
    [&header, content].concat()
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    der(0x30, &[algorithm, &der(0x03, &[&[0], key].concat())].concat())
}

fn rsa_spki(bytes: usize) -> Vec<u8> {
    let modulus = [&[0][..], &vec![0xc5; bytes]].concat();
    spki(RSA_ALGORITHM, &der(0x30, &[der(0x02, &modulus), der(0x02, &[1, 0, 1])].concat()))
}

fn pem(label: &str, content: &[u8]) -> String {
    let text = STANDARD.encode(content);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

struct Signer {
    pkcs8: Vec<u8>,
}

impl Signer {
    fn new() -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self { pkcs8: document.as_ref().to_vec() }
    }

    fn pair(&self, algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8, &SystemRandom::new()).unwrap()
    }

    fn public_pem(&self) -> String {
        let pair = self.pair(&ECDSA_P256_SHA256_FIXED_SIGNING);
        pem("PUBLIC KEY", &spki(P256_ALGORITHM, pair.public_key().as_ref()))
    }

    fn sign(&self, algorithm: &'static EcdsaSigningAlgorithm, message: &[u8]) -> Vec<u8> {
        self.pair(algorithm).sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn shown(&self, name: &str) -> String {
        format!("\"{}\"", self.0.path().join(name).display())
    }
}

fn signed(signature: impl AsRef<[u8]>) -> Vec<u8> {
    Fixture { signature: Some(signature.as_ref().to_vec()), ..Fixture::default() }.bytes()
}

fn message(bytes: &[u8], keys: &VerifyKeys) -> String {
    read_with(bytes, keys).map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[test]
fn both_encodings_of_ecdsa() {
    let directory = Directory::new();
    let signer = Signer::new();
    let path = directory.file("key.pem", signer.public_pem());
    let keys = VerifyKeys::load(std::slice::from_ref(&path)).unwrap();
    let manifest = Fixture::default().manifest();
    for algorithm in [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_ASN1_SIGNING] {
        let signature = STANDARD.encode(signer.sign(algorithm, manifest.as_bytes()));
        for text in [signature.clone(), format!("{signature}\n")] {
            let (header, _) = read_with(&signed(text), &keys).unwrap();
            assert!(header.signed);
            assert_eq!(header.verified_with.as_deref(), Some(path.as_path()));
        }
    }
}

#[test]
fn der_shorter_than_usual() {
    let directory = Directory::new();
    let signer = Signer::new();
    let keys = VerifyKeys::load(&[directory.file("key.pem", signer.public_pem())]).unwrap();
    let manifest = Fixture::default().manifest();
    let pair = signer.pair(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let random = SystemRandom::new();
    // One in about 128 has a leading zero byte in r or s.
    let short = std::iter::repeat_with(|| pair.sign(&random, manifest.as_bytes()).unwrap())
        .find(|signature| signature.as_ref().len() < 70)
        .unwrap();
    assert!(read_with(&signed(STANDARD.encode(short)), &keys).is_ok());
}

#[test]
fn keys_are_tried_in_order_and_broken_ones_do_not_matter() {
    let directory = Directory::new();
    let (wanted, other) = (Signer::new(), Signer::new());
    let path = directory.file("wanted.pem", wanted.public_pem());
    let both = directory.file("both.pem", other.public_pem() + &wanted.public_pem());
    let rest = [
        directory.file("other.pem", other.public_pem()),
        directory.file("broken.pem", "x"),
        directory.0.path().join("gone.pem"),
    ];
    let signature =
        STANDARD.encode(wanted.sign(&ECDSA_P256_SHA256_FIXED_SIGNING, Fixture::default().manifest().as_bytes()));
    for (paths, expected) in [
        (rest.iter().chain([&path, &both]).cloned().collect::<Vec<_>>(), &path),
        (rest.iter().chain([&both, &path]).cloned().collect(), &both),
    ] {
        let keys = VerifyKeys::load(&paths).unwrap();
        let (header, _) = read_with(&signed(&signature), &keys).unwrap();
        assert_eq!(header.verified_with.as_ref(), Some(expected));
    }
    let keys = VerifyKeys::load(&rest).unwrap();
    let expected = format!(
        "The signature in \"manifest.sig\" is not accepted: {}: it was not made with this key; {}: it holds no PEM block \"PUBLIC KEY\"; {}: it cannot be read: No such file or directory (os error 2).",
        directory.shown("other.pem"),
        directory.shown("broken.pem"),
        directory.shown("gone.pem"),
    );
    assert_eq!(message(&signed(&signature), &keys), expected);
}

#[test]
fn what_is_not_signed_as_required_is_refused() {
    let directory = Directory::new();
    let signer = Signer::new();
    let keys = VerifyKeys::load(&[directory.file("key.pem", signer.public_pem())]).unwrap();
    let manifest = Fixture::default().manifest();
    let good = signer.sign(&ECDSA_P256_SHA256_FIXED_SIGNING, manifest.as_bytes());
    let refused = |reason: &str| format!("The signature in \"manifest.sig\" is not accepted: {reason}.");
    let wrong = refused(&format!("{}: it was not made with this key", directory.shown("key.pem")));
    let mut little_endian = good.clone();
    little_endian[..32].reverse();
    little_endian[32..].reverse();
    let other_message = signer.sign(&ECDSA_P256_SHA256_FIXED_SIGNING, b"something else");
    let table = [
        (
            Fixture::default().bytes(),
            "The Artifact has no \"manifest.sig\", but verification keys are configured: only signed Artifacts are accepted.".to_owned(),
        ),
        (signed(STANDARD.encode(&good)), "accepted".to_owned()),
        (signed(""), wrong.clone()),
        (signed(STANDARD.encode(&good[..63])), wrong.clone()),
        (signed(STANDARD.encode(little_endian)), wrong.clone()),
        (signed(STANDARD.encode([0; 64])), wrong.clone()),
        (signed(STANDARD.encode(other_message)), wrong.clone()),
        (signed(&good), refused("it is not base64 (Invalid symbol 145, offset 0.)")),
        (signed(STANDARD.encode(&good).trim_end_matches('=')), refused("it is not base64 (Invalid padding)")),
        (
            signed(vec![b'A'; 9000]),
            "The Artifact is refused: \"manifest.sig\" is larger than the limit of 8192 bytes.".to_owned(),
        ),
    ];
    for (bytes, expected) in &table {
        let actual = message(bytes, &keys);
        if expected.contains("Invalid symbol") {
            // Which byte comes first is up to the signature.
            assert!(
                actual.starts_with("The signature in \"manifest.sig\" is not accepted: it is not base64 ("),
                "{actual}"
            );
        } else {
            assert_eq!(&actual, expected);
        }
    }
    // The same signature over a manifest that is no longer the same.
    let mut fixture = Fixture { signature: Some(STANDARD.encode(&good).into()), ..Fixture::default() };
    fixture.data[0].content = b"malware!".to_vec();
    assert_eq!(message(&fixture.bytes(), &keys), wrong);
}

#[test]
fn without_keys_signatures_are_not_looked_at() {
    let (header, _) = read(&signed("no signature at all")).unwrap();
    assert!(header.signed);
    assert_eq!(header.verified_with, None);
    assert!(VerifyKeys::load(&[]).unwrap().is_empty());
}

#[test]
fn a_signature_belongs_behind_the_manifest() {
    let mut members = Fixture::default().members();
    members.insert(3, raw("manifest.sig", "x"));
    let message = "The Artifact is malformed: \"manifest.sig\" found where \"data/0000.tar\", with or without \".gz\", \".xz\" or \".zst\", is expected.";
    assert_eq!(refusal(&tar(&members)), message);
}

#[test]
fn nothing_is_parsed_before_the_signature_is_verified() {
    let directory = Directory::new();
    let keys = VerifyKeys::load(&[directory.file("key.pem", Signer::new().public_pem())]).unwrap();
    let fixture = Fixture { signature: Some(STANDARD.encode([1; 64]).into()), ..Fixture::default() };
    let broken = tar(&fixture.members_with("no manifest", b"no header".to_vec(), vec![]));
    assert!(message(&broken, &keys).starts_with("The signature in \"manifest.sig\" is not accepted"));
}

fn load_error(path: &Path) -> String {
    VerifyKeys::load(&[path.to_owned()]).map_or_else(
        |error| {
            let error = Error::from(error);
            assert_eq!(error.kind, Kind::InvalidConfiguration);
            error.message
        },
        |_| "loaded".to_owned(),
    )
}

#[test]
fn keys_that_cannot_be_used() {
    let directory = Directory::new();
    let point = [&[4][..], &[1; 64]].concat();
    let public = |spki: &[u8]| pem("PUBLIC KEY", spki);
    let table = [
        (public(&rsa_spki(255)), "its RSA key has 2040 bits; 2048 to 8192 are accepted"),
        (public(&rsa_spki(1025)), "its RSA key has 8200 bits; 2048 to 8192 are accepted"),
        (public(&spki(P384_ALGORITHM, &point)), "its elliptic curve is not P-256"),
        (public(&spki(ED25519_ALGORITHM, &[1; 32])), "its key is neither RSA nor ECDSA"),
        (public(&spki(P256_ALGORITHM, &point[..33])), "its P-256 key is not an uncompressed point"),
        (public(b"\x30\x03abc"), "its public key is not valid DER"),
        (public(b""), "its public key is not valid DER"),
        (public(&[rsa_spki(256), vec![0]].concat()), "its public key is not valid DER"),
        (pem("CERTIFICATE", b"x"), "it holds a certificate, not a public key"),
        (pem("PRIVATE KEY", b"x"), "it holds no PEM block \"PUBLIC KEY\""),
        (String::new(), "it holds no PEM block \"PUBLIC KEY\""),
        ("#".repeat(70_000), "it is larger than 65536 bytes"),
    ];
    for (content, reason) in table {
        let path = directory.file("key.pem", content);
        let expected = format!("None of the verification keys can be used: \"{}\": {reason}.", path.display());
        assert_eq!(load_error(&path), expected);
    }
    for good in [rsa_spki(256), rsa_spki(1024), spki(P256_ALGORITHM, &point)] {
        assert_eq!(load_error(&directory.file("key.pem", public(&good))), "loaded");
    }
}

#[test]
fn private_keys() {
    let directory = Directory::new();
    let signer = Signer::new();
    let error = |content: &str| SigningKey::load(&directory.file("key.pem", content)).unwrap_err().to_string();
    let refused = |reason: &str| format!("Cannot use the key {}: {reason}.", directory.shown("key.pem"));
    assert!(SigningKey::load(&directory.file("good.pem", pem("PRIVATE KEY", &signer.pkcs8))).is_ok());
    assert_eq!(error(""), refused("it holds no private key in PEM"));
    assert_eq!(error(&signer.public_pem()), refused("it holds no private key in PEM"));
    assert_eq!(error(&pem("ENCRYPTED PRIVATE KEY", b"x")), refused("it is encrypted"));
    assert_eq!(error(&pem("PRIVATE KEY", b"x")), refused("its key is neither RSA nor ECDSA"));
    assert_eq!(
        error(&pem("EC PRIVATE KEY", b"x")),
        refused("its EC key does not name its curve or does not carry its public key")
    );
    assert_eq!(
        error(&pem("RSA PRIVATE KEY", b"x")),
        refused("its RSA key is not accepted (InvalidEncoding); 2048 to 4096 bits are")
    );
}
