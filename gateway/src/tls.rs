//! TLS of the listeners and towards the upstreams: 1.2 and 1.3, HTTP/2 or HTTP/1.1 by ALPN.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
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
    let key = read_key(key)?;
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

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| file_error(file, &format!("{error}; a PEM private key is needed")))
}

fn file_error(file: &Path, what: &str) -> TlsError {
    TlsError::File { file: file.display().to_string(), what: what.to_owned() }
}

/// Whose certificates an upstream may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust<'a> {
    /// Those that the system's authorities signed.
    System,
    /// Those that the authorities in a PEM file signed.
    Authorities(&'a Path),
    /// Any at all.
    Anybody,
}

/// HTTP versions offered to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/2 and HTTP/1.1.
    Both,
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// What TLS towards an upstream needs, and a number that stands for the content of all that it was made from.
///
/// # Errors
/// A file is missing or holds nothing usable, or certificate and key do not fit.
pub fn client(
    trust: Trust<'_>,
    identity: Option<(&Path, &Path)>,
    alpn: Alpn,
) -> Result<(Arc<ClientConfig>, u64), TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut digest = DefaultHasher::new();
    (trust, alpn, identity).hash(&mut digest);
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Anybody => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        }
        Trust::System => builder.with_root_certificates(system_roots()),
        Trust::Authorities(file) => {
            let mut roots = RootCertStore::empty();
            for authority in read_chain(file)? {
                authority.hash(&mut digest);
                roots.add(authority).map_err(|error| file_error(file, &error.to_string()))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let (chain, key) = (read_chain(certificate)?, read_key(key)?);
            chain.hash(&mut digest);
            key.secret_der().hash(&mut digest);
            builder.with_client_auth_cert(chain, key)?
        }
    };
    config.alpn_protocols = match alpn {
        Alpn::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Alpn::H1 => vec![b"http/1.1".to_vec()],
        Alpn::H2 => vec![b"h2".to_vec()],
    };
    Ok((Arc::new(config), digest.finish()))
}

/// The authorities that this system trusts. Without any no certificate can be verified: requests fail then, and say so.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!(
            errors = ?found.errors,
            "no root certificates on this system: https upstreams without a \"ca\" of their own will fail"
        );
    }
    roots
}

/// Takes every certificate, for operators who say `verify: off`. Signatures are checked still.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
