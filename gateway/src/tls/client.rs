//! TLS towards upstreams: whom they must be, who we are, and which HTTP is offered.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{TlsError, file_error, read_chain, read_key};

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
