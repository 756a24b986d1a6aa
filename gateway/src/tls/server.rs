//! TLS of a listener: versions, certificates by name, certificates of clients, tickets for the next time.

use std::{io, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{Acceptor as HelloReader, ClientHello, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};

use super::{
    TlsError,
    automatic::{Automatic, Proofs},
    certificate::provider,
    choice::Choice,
};
use crate::config::{ListenerTls, TlsClients, TlsVersion, Toggle};

/// The protocol by which somebody asks for proof that a host is ours (RFC 8737).
const PROOF: &[u8] = b"acme-tls/1";

/// Takes TLS connections of one listener.
#[derive(Clone)]
pub struct Acceptor {
    ordinary: TlsAcceptor,
    proving: Option<Arc<ServerConfig>>,
}

impl Acceptor {
    /// With what `tls` says; `automatic` is the certificate that is fetched for it, if one is.
    ///
    /// # Errors
    /// Certificates of clients cannot be verified with what is there, or the system gives no random numbers.
    pub fn new(tls: &ListenerTls, automatic: Option<Arc<Automatic>>) -> Result<Self, TlsError> {
        let proofs = automatic.clone().map(Proofs);
        let config = server_config(tls, automatic, &[b"h2", b"http/1.1"])?;
        let proving = match proofs {
            None => None,
            Some(proofs) => {
                let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
                    .with_safe_default_protocol_versions()?
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(proofs));
                config.alpn_protocols = vec![PROOF.to_vec()];
                Some(Arc::new(config))
            }
        };
        Ok(Self { ordinary: TlsAcceptor::from(Arc::new(config)), proving })
    }

    /// Shakes hands; `None` if that was all the other end wanted.
    ///
    /// # Errors
    /// The handshake fails, or the connection.
    pub async fn accept<S>(&self, stream: S) -> io::Result<Option<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(proving) = &self.proving else {
            return self.ordinary.accept(stream).await.map(Some);
        };
        let start = LazyConfigAcceptor::new(HelloReader::default(), stream).await?;
        if asks_for_proof(&start.client_hello()) {
            let mut stream = start.into_stream(Arc::clone(proving)).await?;
            stream.shutdown().await?;
            return Ok(None);
        }
        start.into_stream(Arc::clone(self.ordinary.config())).await.map(Some)
    }
}

/// What a server with this TLS says and accepts, and by which protocols (ALPN); as [`Acceptor::new`].
///
/// # Errors
/// Certificates of clients cannot be verified with what is there, or the system gives no random numbers.
pub fn server_config(
    tls: &ListenerTls,
    automatic: Option<Arc<Automatic>>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let versions = match tls.min_version {
        TlsVersion::V1_2 => &[&TLS13, &TLS12][..],
        TlsVersion::V1_3 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match &tls.clients {
        Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Choice::new(&tls.certificates, automatic)));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Of ciphers that are all good, ours come in our order: it is what auditors ask for.
    config.ignore_client_order = true;
    // Keys of its own, new every few hours and with every configuration: a ticket vouches for the certificate that
    // a client showed here, and must not be good at another listener or after its authority was taken out.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

fn asks_for_proof(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(PROOF) && offered.next().is_none())
}

fn verifier(
    clients: &TlsClients,
    provider: Arc<CryptoProvider>,
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
