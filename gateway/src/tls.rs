//! TLS of the listeners: 1.2 and 1.3, HTTP/2 or HTTP/1.1 by ALPN.

use std::{path::Path, sync::Arc};

use rustls::{
    ProtocolVersion, RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

use crate::config::{TlsClients, TlsFiles, Toggle};

/// Why a listener's certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing usable.
    #[error("{file}: {what}")]
    File {
        /// Which file.
        file: String,
        /// What is wrong and how to mend it.
        what: String,
    },
    /// Certificate and key do not fit.
    #[error(
        "certificate and key cannot be used together: {0}; check that the key belongs to the first certificate"
    )]
    Pair(#[from] rustls::Error),
}

/// An acceptor for the certificate chain and the private key in two PEM files, that asks clients for theirs if it shall.
///
/// # Errors
/// A file is missing or holds no certificate or key, or the two do not fit.
pub fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let TlsFiles { certificate, key, clients } = files;
    let chain = read_chain(certificate)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| file_error(key, &format!("{error}; a PEM private key is needed")))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn verifier(
    clients: &TlsClients,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(clients.ca.iter().cloned());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match clients.required {
        Toggle::On => builder,
        Toggle::Off => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| rustls::Error::General(format!("certificates of clients: {error}")))
}

/// A TLS version as logs name it.
pub fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_2) => "1.2",
        _ => "1.3",
    }
}

fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let chain = chain.map_err(|error| file_error(file, &error.to_string()))?;
    if chain.is_empty() {
        return Err(file_error(file, "holds no certificate; a PEM chain is needed, leaf first"));
    }
    Ok(chain)
}

fn file_error(file: &Path, what: &str) -> TlsError {
    TlsError::File { file: file.display().to_string(), what: what.to_owned() }
}
