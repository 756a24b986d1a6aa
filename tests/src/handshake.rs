//! A TLS client that tells what it was shown: certificate, stapled response, version, and whether it was resumed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Longest time that a handshake and an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that remembers its sessions.
#[derive(Debug)]
pub struct Handshaker {
    config: Arc<ClientConfig>,
    witness: Arc<Witness>,
}

/// What one connection was shown, and what came back.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The server's certificate, in DER; that of the first handshake if this one was resumed.
    pub certificate: Vec<u8>,
    /// The stapled OCSP response; empty without.
    pub staple: Vec<u8>,
    /// 1.2 or 1.3.
    pub version: ProtocolVersion,
    /// Whether an earlier session went on.
    pub is_resumed: bool,
    /// The first bytes of the answer to `GET /`.
    pub answer: String,
}

impl Handshaker {
    /// A client that speaks only these versions, and takes any certificate.
    ///
    /// # Errors
    /// There is no such version.
    pub fn new(versions: &[&'static SupportedProtocolVersion]) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let witness = Arc::new(Witness { provider: Arc::clone(&provider), seen: Mutex::default() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as _)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), witness })
    }

    /// Connects, asking for `name`, and sends one request.
    ///
    /// # Errors
    /// The handshake fails, or nothing comes back.
    pub async fn ask(&self, address: SocketAddr, name: &str) -> Result<Shown> {
        timeout(PATIENCE, self.ask_on(TcpStream::connect(address).await?, name))
            .await
            .context("no answer over TLS in time")?
    }

    async fn ask_on(&self, stream: TcpStream, name: &str) -> Result<Shown> {
        let host = ServerName::try_from(name.to_owned())?;
        let mut stream = TlsConnector::from(Arc::clone(&self.config)).connect(host, stream).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        // Tickets of 1.3 come with the answer.
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if answer.is_empty() => return Err(error.into()),
                Err(_) => break,
            }
        }
        if answer.is_empty() {
            bail!("the connection was closed without an answer");
        }
        let session = stream.get_ref().1;
        let (certificate, staple) = self.witness.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Shown {
            certificate: match session.peer_certificates().and_then(|chain| chain.first()) {
                Some(leaf) => leaf.to_vec(),
                None => certificate,
            },
            staple,
            version: session.protocol_version().context("no version was agreed on")?,
            is_resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            answer: String::from_utf8_lossy(&answer).chars().take(300).collect(),
        })
    }
}

/// Believes everybody, and remembers what was shown last.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    seen: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        staple: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (certificate.to_vec(), staple.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
