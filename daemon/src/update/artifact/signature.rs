//! Signatures of the manifest: RSA and ECDSA P-256, both with SHA-256.
//!
//! The key decides which algorithm verifies, never the signature.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::der;
use super::error::ArtifactError;

/// Largest key file, in bytes.
pub const KEY_FILE_LIMIT: u64 = 64 * 1024;

/// `AlgorithmIdentifier` contents: OID and parameters.
const RSA_ENCRYPTION: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";

/// Public keys that may have signed an Artifact, tried in order.
#[derive(Clone, Default)]
pub struct VerifyKeys {
    keys: Arc<[KeyFile]>,
}

struct KeyFile {
    path: PathBuf,
    /// The keys of the file, or why there is none.
    keys: Result<Vec<PublicKey>, String>,
}

enum PublicKey {
    /// PKCS#1 `RSAPublicKey`.
    Rsa(Vec<u8>),
    /// Uncompressed point.
    P256(Vec<u8>),
}

impl fmt::Debug for VerifyKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.keys.iter().map(|file| &file.path)).finish()
    }
}

impl VerifyKeys {
    /// No keys: signatures are not looked at.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads PEM files with public keys (`SubjectPublicKeyInfo`): RSA with 2048 to 8192 bits, or ECDSA on P-256.
    ///
    /// A file that cannot be used matters only if no other key verifies; the refusal then says what is wrong
    /// with it. If *no* file can be used, no Artifact can ever be accepted, and that is an error at once.
    pub fn load(paths: &[PathBuf]) -> Result<Self, ArtifactError> {
        let keys: Arc<[KeyFile]> =
            paths.iter().map(|path| KeyFile { path: path.clone(), keys: load_public(path) }).collect();
        if !keys.is_empty() && keys.iter().all(|file| file.keys.is_err()) {
            let reason = keys.iter().map(|file| file.describe("")).collect::<Vec<_>>().join("; ");
            return Err(ArtifactError::NoUsableKey { reason });
        }
        Ok(Self { keys })
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Verifies the content of `manifest.sig`; the file whose key has made it.
    pub(super) fn verify(&self, manifest: &[u8], signature: &[u8]) -> Result<&Path, ArtifactError> {
        let signature = STANDARD
            .decode(signature.trim_ascii_end())
            .map_err(|error| ArtifactError::Signature { reason: format!("it is not base64 ({error})") })?;
        for file in self.keys.iter() {
            for key in file.keys.iter().flatten() {
                if key.verify(manifest, &signature) {
                    return Ok(&file.path);
                }
            }
        }
        let reasons = self.keys.iter().map(|file| file.describe("it was not made with this key"));
        Err(ArtifactError::Signature { reason: reasons.collect::<Vec<_>>().join("; ") })
    }
}

impl KeyFile {
    fn describe(&self, usable: &str) -> String {
        let reason = self.keys.as_ref().err().map_or(usable, String::as_str);
        format!("\"{}\": {reason}", self.path.display())
    }
}

impl PublicKey {
    fn parse(spki: &[u8]) -> Result<Self, String> {
        const MALFORMED: &str = "its public key is not valid DER";
        let mut spki = der::only(spki, der::SEQUENCE).ok_or(MALFORMED)?;
        let algorithm = der::take(&mut spki, der::SEQUENCE).ok_or(MALFORMED)?;
        let key = der::only(spki, der::BIT_STRING).and_then(der::whole_bytes).ok_or(MALFORMED)?;
        if algorithm == RSA_ENCRYPTION {
            let mut numbers = der::only(key, der::SEQUENCE).ok_or(MALFORMED)?;
            let bits = der::take(&mut numbers, der::INTEGER).and_then(der::bit_length).ok_or(MALFORMED)?;
            if !(2048..=8192).contains(&bits) {
                return Err(format!("its RSA key has {bits} bits; 2048 to 8192 are accepted"));
            }
            return Ok(Self::Rsa(key.to_vec()));
        }
        if let Some(curve) = algorithm.strip_prefix(EC_PUBLIC_KEY) {
            if curve != P256 {
                return Err("its elliptic curve is not P-256".to_owned());
            }
            if key.len() != 65 || key.first() != Some(&4) {
                return Err("its P-256 key is not an uncompressed point".to_owned());
            }
            return Ok(Self::P256(key.to_vec()));
        }
        Err("its key is neither RSA nor ECDSA".to_owned())
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa(key) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, signature).is_ok()
            }
            // Mender writes r and s as two numbers of 32 bytes; PKCS#11 tools write DER, of 8 to 72 bytes.
            Self::P256(key) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature).is_ok()
                    || UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(message, signature).is_ok()
            }
        }
    }
}

fn load_public(path: &Path) -> Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for section in sections(path)? {
        match section {
            (SectionKind::PublicKey, spki) => keys.push(PublicKey::parse(&spki)?),
            (SectionKind::Certificate, _) => return Err("it holds a certificate, not a public key".to_owned()),
            _ => {}
        }
    }
    if keys.is_empty() {
        return Err("it holds no PEM block \"PUBLIC KEY\"".to_owned());
    }
    Ok(keys)
}

fn sections(path: &Path) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_LIMIT + 1).read_to_end(&mut text))
        .map_err(|error| format!("it cannot be read: {error}"))?;
    if text.len() as u64 > KEY_FILE_LIMIT {
        return Err(format!("it is larger than {KEY_FILE_LIMIT} bytes"));
    }
    // Both kinds, "BEGIN ENCRYPTED PRIVATE KEY" and "Proc-Type: 4,ENCRYPTED"; the parser knows neither by name.
    if text.windows(9).any(|part| part == b"ENCRYPTED") {
        return Err("it is encrypted".to_owned());
    }
    <(SectionKind, Vec<u8>)>::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is not valid PEM: {error:?}"))
}

/// A private key that signs Artifacts.
pub struct SigningKey {
    key: PrivateKey,
    path: PathBuf,
}

enum PrivateKey {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SigningKey").field(&self.path).finish()
    }
}

impl SigningKey {
    /// Reads a private key from a PEM file: RSA with 2048 to 4096 bits (PKCS#1 or PKCS#8) or EC P-256 (SEC1 or PKCS#8),
    /// not encrypted. An EC key has to carry its public key, as OpenSSL writes it.
    pub fn load(path: &Path) -> Result<Self, ArtifactError> {
        let refused = |reason| ArtifactError::Key { path: path.to_owned(), reason };
        for (kind, key) in sections(path).map_err(refused)? {
            let key = match kind {
                SectionKind::RsaPrivateKey => rsa(RsaKeyPair::from_der(&key)),
                SectionKind::EcPrivateKey => sec1(&key),
                SectionKind::PrivateKey => pkcs8(&key),
                // OpenSSL puts "EC PARAMETERS" in front.
                _ => continue,
            };
            return Ok(Self { key: key.map_err(refused)?, path: path.to_owned() });
        }
        Err(refused("it holds no private key in PEM".to_owned()))
    }

    /// Length of [`SigningKey::sign`]'s answer, in bytes.
    pub(super) fn signature_length(&self) -> usize {
        let raw = match &self.key {
            PrivateKey::Rsa(pair) => pair.public().modulus_len(),
            PrivateKey::P256(_) => 64,
        };
        raw.div_ceil(3) * 4
    }

    /// The content of `manifest.sig`.
    pub(super) fn sign(&self, manifest: &[u8]) -> Result<String, ArtifactError> {
        let random = SystemRandom::new();
        let signature = match &self.key {
            PrivateKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, manifest, &mut signature).map(|()| signature)
            }
            PrivateKey::P256(pair) => pair.sign(&random, manifest).map(|signature| signature.as_ref().to_vec()),
        };
        match signature {
            Ok(signature) => Ok(STANDARD.encode(signature)),
            Err(_) => Err(ArtifactError::Key { path: self.path.clone(), reason: "signing with it failed".to_owned() }),
        }
    }
}

fn rsa(pair: Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<PrivateKey, String> {
    match pair {
        Ok(pair) => Ok(PrivateKey::Rsa(Box::new(pair))),
        Err(error) => Err(format!("its RSA key is not accepted ({error}); 2048 to 4096 bits are")),
    }
}

fn p256(pair: Result<EcdsaKeyPair, ring::error::KeyRejected>) -> Result<PrivateKey, String> {
    match pair {
        Ok(pair) => Ok(PrivateKey::P256(Box::new(pair))),
        Err(error) => {
            Err(format!("its EC key is not accepted ({error}); it has to be on P-256 and carry its public key"))
        }
    }
}

fn pkcs8(key: &[u8]) -> Result<PrivateKey, String> {
    let mut fields = der::only(key, der::SEQUENCE).unwrap_or_default();
    let algorithm =
        der::take(&mut fields, der::INTEGER).and_then(|_| der::take(&mut fields, der::SEQUENCE)).unwrap_or_default();
    if algorithm == RSA_ENCRYPTION {
        return rsa(RsaKeyPair::from_pkcs8(key));
    }
    if algorithm.starts_with(EC_PUBLIC_KEY) {
        return p256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &SystemRandom::new()));
    }
    Err("its key is neither RSA nor ECDSA".to_owned())
}

/// `ECPrivateKey` of RFC 5915.
fn sec1(key: &[u8]) -> Result<PrivateKey, String> {
    let parts = || {
        let mut fields = der::only(key, der::SEQUENCE)?;
        der::take(&mut fields, der::INTEGER)?;
        let private = der::take(&mut fields, der::OCTET_STRING)?;
        let curve = der::take(&mut fields, der::CONTEXT_0)?;
        let public = der::only(fields, der::CONTEXT_1)?;
        let public = der::only(public, der::BIT_STRING).and_then(der::whole_bytes)?;
        Some((private, curve, public))
    };
    let (private, curve, public) =
        parts().ok_or("its EC key does not name its curve or does not carry its public key")?;
    if curve != P256 {
        return Err("its elliptic curve is not P-256".to_owned());
    }
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    p256(EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, &SystemRandom::new()))
}
