//! Opening a connection: the name is looked up, one of its addresses answers, TLS where the origin speaks it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::fault::SendError;
use crate::config::{Protocol, Reach};

/// How long the addresses of a name are used before it is looked up again.
const RESOLVED: Duration = Duration::from_secs(10);

/// HTTP versions that are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// Those of the settings.
    Any,
    /// HTTP/1.1 alone.
    OnlyH1,
}

/// Opens connections to one origin.
#[derive(Debug)]
pub(super) struct Connector {
    host: String,
    port: u16,
    timeout: Duration,
    tls: Option<Tls>,
    resolved: Mutex<Option<Resolved>>,
    turn: AtomicUsize,
}

struct Tls {
    connector: TlsConnector,
    /// For what HTTP/2 cannot do.
    only_h1: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Resolved {
    addresses: Arc<[SocketAddr]>,
    at: Instant,
}

impl Connector {
    pub(super) fn new(reach: &Reach) -> Self {
        let tls = reach.tls.as_ref().map(|tls| {
            let mut only_h1 = ClientConfig::clone(&tls.client);
            only_h1.alpn_protocols = vec![b"http/1.1".to_vec()];
            Tls {
                connector: TlsConnector::from(Arc::clone(&tls.client)),
                only_h1: TlsConnector::from(Arc::new(only_h1)),
                name: tls.server_name.clone(),
            }
        });
        let (host, port) = (reach.host().to_owned(), reach.port());
        let timeout = reach.connect_timeout;
        Self { host, port, timeout, tls, resolved: Mutex::new(None), turn: AtomicUsize::new(0) }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`SendError::Unreachable`], within the connect timeout.
    pub(super) async fn connect(&self, versions: Versions) -> Result<Stream, SendError> {
        let connecting = async {
            let stream = self.reach(&self.addresses().await?).await?;
            // Small requests must not wait for an acknowledgement; a failure here only costs latency.
            let _ = stream.set_nodelay(true);
            let Some(tls) = &self.tls else { return Ok(Stream::Plain(stream)) };
            let connector = match versions {
                Versions::Any => &tls.connector,
                Versions::OnlyH1 => &tls.only_h1,
            };
            let stream = connector.connect(tls.name.clone(), stream).await;
            let stream = stream.map_err(|error| SendError::Unreachable(format!("TLS: {error}")))?;
            Ok(Stream::Tls(Box::new(stream)))
        };
        timeout(self.timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(SendError::Unreachable(format!("no connection in {:?}", self.timeout))))
    }

    /// The first address that takes a connection, each time starting at another one.
    async fn reach(&self, addresses: &[SocketAddr]) -> Result<TcpStream, SendError> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(addresses.len()).unwrap_or(0);
        let (before, after) = addresses.split_at(start);
        // One dead address must leave time for the next.
        let each = self.timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = format!("{} has no address", self.host);
        for address in after.iter().chain(before) {
            match timeout(each, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = format!("{address}: {error}"),
                Err(_) => last = format!("{address}: no connection in {each:?}"),
            }
        }
        Err(SendError::Unreachable(last))
    }

    /// The addresses of the name. While it cannot be looked up, those known before have to do.
    async fn addresses(&self) -> Result<Arc<[SocketAddr]>, SendError> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Arc::new([SocketAddr::new(address, self.port)]));
        }
        let known = self.resolved.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < RESOLVED) {
            return Ok(Arc::clone(&known.addresses));
        }
        let addresses: io::Result<Arc<[SocketAddr]>> =
            lookup_host((host, self.port)).await.map(Iterator::collect);
        match (addresses, known) {
            (Ok(addresses), known) if !addresses.is_empty() || known.is_none() => {
                let resolved = Resolved { addresses: Arc::clone(&addresses), at: Instant::now() };
                *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) = Some(resolved);
                Ok(addresses)
            }
            (_, Some(known)) => Ok(known.addresses),
            (Ok(addresses), None) => Ok(addresses),
            (Err(error), None) => Err(SendError::Unreachable(format!("{host}: {error}"))),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// What both ends speak, where TLS agreed on it.
    pub(super) fn agreed(&self) -> Option<Protocol> {
        match self {
            Self::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => Some(Protocol::H2),
            Self::Tls(_) => Some(Protocol::H1),
            Self::Plain(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
