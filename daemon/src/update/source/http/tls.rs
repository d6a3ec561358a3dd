//! Whom to trust and what to show, for TLS 1.2 and 1.3.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::core::error::{Error, Kind};
use crate::core::settings::HttpsClient;

/// The files behind TLS. They are read for each connection anew, because certificates are renewed while the daemon runs.
#[derive(Debug)]
pub(super) struct Tls {
    client: HttpsClient,
    server_certificate: Option<std::path::PathBuf>,
    /// What the system trusts; kept while somebody downloads and no longer, as it is large.
    system: Mutex<Weak<RootCertStore>>,
}

impl Tls {
    pub(super) fn new(client: HttpsClient, server_certificate: Option<std::path::PathBuf>) -> Self {
        Self { client, server_certificate, system: Mutex::default() }
    }

    /// The configuration, with a hold on what can be shared between connections.
    pub(super) fn configuration(&self) -> Result<(ClientConfig, Arc<RootCertStore>), Error> {
        let system = self.system();
        let mut roots = RootCertStore::clone(&system);
        if let Some(path) = &self.server_certificate {
            for certificate in certificates("ServerCertificate", path)? {
                roots.add(certificate).map_err(|error| unusable("ServerCertificate", path, &error))?;
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| Error::new(Kind::Failed, format!("TLS cannot be used: {error}.")))?
            .with_root_certificates(roots);
        let configuration = match (&self.client.certificate, &self.client.key) {
            (Some(certificate), Some(key)) => {
                let chain = certificates("HttpsClient.Certificate", certificate)?;
                let path = Path::new(key);
                let key =
                    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable("HttpsClient.Key", path, &error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| unusable("HttpsClient.Key", path, &error))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok((configuration, system))
    }

    fn system(&self) -> Arc<RootCertStore> {
        let mut kept = self.system.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(roots) = kept.upgrade() {
            return roots;
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("A certificate that the system trusts cannot be read: {error}");
        }
        // Some in a system's bundle are of kinds that nobody uses any more.
        let (taken, left) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(taken, left, "read the certificates that the system trusts");
        let roots = Arc::new(roots);
        *kept = Arc::downgrade(&roots);
        roots
    }
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(unusable(option, path, &"it holds no certificate in PEM form")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(option, path, &error)),
    }
}

fn unusable(option: &str, path: &Path, reason: &dyn std::fmt::Display) -> Error {
    let text = format!("The file \"{}\" of \"{option}\" cannot be used: {reason}.", path.display());
    Error::new(Kind::InvalidConfiguration, text)
}
