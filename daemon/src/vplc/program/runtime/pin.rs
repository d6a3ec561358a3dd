//! TLS to a runtime, whose certificate nobody has signed but itself: what it shows at the first contact is what it has to show
//! ever after.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::vplc::program::store::hex;

/// What certificate is expected, and which one was shown last: both SHA-256, in hexadecimal digits.
#[derive(Debug, Default)]
struct Fingerprints {
    expected: Option<String>,
    shown: Option<String>,
}

/// The certificate of one runtime.
#[derive(Clone)]
pub(super) struct Pin(Arc<Verifier>);

struct Verifier {
    fingerprints: Mutex<Fingerprints>,
    provider: Arc<CryptoProvider>,
}

impl Pin {
    /// Expects this certificate, or any one.
    pub(super) fn new(expected: Option<String>) -> Self {
        Self(Arc::new(Verifier {
            fingerprints: Mutex::new(Fingerprints { expected, shown: None }),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        }))
    }

    /// TLS that lets no other certificate pass.
    pub(super) fn configuration(&self) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(self.0.provider.clone());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        Ok(builder.dangerous().with_custom_certificate_verifier(self.0.clone()).with_no_client_auth())
    }

    /// From now on, expects this certificate, or any one.
    pub(super) fn expect(&self, expected: Option<String>) {
        self.0.with(|fingerprints| fingerprints.expected = expected);
    }

    /// What is expected.
    pub(super) fn expected(&self) -> Option<String> {
        self.0.with(|fingerprints| fingerprints.expected.clone())
    }

    /// What was shown last.
    pub(super) fn shown(&self) -> Option<String> {
        self.0.with(|fingerprints| fingerprints.shown.clone())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Verifier {
    /// The data behind the lock is valid after every single statement.
    fn with<T>(&self, work: impl FnOnce(&mut Fingerprints) -> T) -> T {
        work(&mut self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|fingerprints| fingerprints.fmt(formatter))
    }
}

impl ServerCertVerifier for Verifier {
    /// Names and dates do not matter: the runtime makes its certificate once, for a year, and never again.
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = hex(digest(&SHA256, certificate).as_ref());
        self.with(|fingerprints| {
            let passes = fingerprints.expected.as_ref().is_none_or(|expected| *expected == shown);
            fingerprints.shown = Some(shown);
            if passes {
                Ok(ServerCertVerified::assertion())
            } else {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
        })
    }

    /// That the runtime has the key of its certificate is what the pin is worth.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
