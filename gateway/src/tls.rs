//! TLS of the listeners and towards the upstreams: 1.2 and 1.3, HTTP/2 or HTTP/1.1 by ALPN.

use std::path::Path;

use rustls::ProtocolVersion;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub mod automatic;
pub mod certificate;
mod choice;
mod client;
pub mod server;

pub use client::{Alpn, Trust, client};

/// Why a certificate cannot be used.
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
    /// A certificate cannot be used.
    #[error("{0}")]
    Certificate(&'static str),
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

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| file_error(file, &format!("{error}; a PEM private key is needed")))
}

fn file_error(file: &Path, what: &str) -> TlsError {
    TlsError::File { file: file.display().to_string(), what: what.to_owned() }
}
