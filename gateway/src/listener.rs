//! The accept loop: survives errors, limits connections and their time, drains on shutdown.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::certificate,
    config,
    identity::Peer,
    limits::Framing,
    listener::wire::{Head, InFlight, Lateness, Wire, WireState},
    pipeline::{self, Gateway, record::Held},
    telemetry::metrics::ReasonLabels,
    tls::{self, TlsError},
};

mod wire;

/// Connections that wait in the kernel.
const BACKLOG: i32 = 4096;

/// Pause after an error that another accept would only repeat, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Silence after which the kernel asks whether the other end still exists.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Streams that one HTTP/2 client may have open at once.
const H2_STREAMS: u32 = 100;

/// HTTP/2 flow control windows: what one client can make the gateway hold.
const H2_STREAM_WINDOW: u32 = 64 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Reset streams that a client may cause before its connection is closed.
const H2_PENDING_RESETS: usize = 20;
const H2_LOCAL_RESETS: usize = 1024;

/// How often HTTP/2 clients are asked for a sign of life.
const H2_PING: Duration = Duration::from_secs(30);

/// A listener that is bound and has its certificate, ready to serve.
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    name: Arc<str>,
    tls: Option<TlsAcceptor>,
}

/// Why a listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be taken.
    #[error("listener {name}: cannot listen on {address}: {error}")]
    Socket {
        /// Listener name.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Its certificate cannot be used.
    #[error("listener {name}: {error}")]
    Tls {
        /// Listener name.
        name: String,
        /// What is wrong.
        error: TlsError,
    },
}

/// Takes the address and reads the certificate. Needs a tokio runtime.
///
/// # Errors
/// The address is taken or not ours, or the certificate cannot be used.
pub fn bind(listener: &config::Listener) -> Result<Bound, BindError> {
    let tls = listener.tls.as_ref().map(tls::acceptor).transpose();
    let tls = tls.map_err(|error| BindError::Tls { name: listener.name.clone(), error })?;
    let socket_error =
        |error| BindError::Socket { name: listener.name.clone(), address: listener.address, error };
    let socket = open(listener.address).map_err(socket_error)?;
    let address = socket.local_addr().map_err(socket_error)?;
    Ok(Bound { socket, address, name: listener.name.as_str().into(), tls })
}

impl Bound {
    /// The address, with the port that was picked if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Serves until `shutdown`, then finishes what is in flight for at most [`config::Config::drain`].
pub async fn serve(bound: Bound, gateway: Arc<Gateway>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    let Bound { socket, address, name, tls } = bound;
    let mut failures: u32 = 0;
    loop {
        // A free connection slot comes first: what cannot be served waits in the kernel.
        let permit = tokio::select! {
            permit = Arc::clone(&gateway.connections).acquire_owned() => permit,
            () = shutdown.cancelled() => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => {
                failures = 0;
                accepted
            }
            Err(error) => {
                count_error(&gateway, "accept");
                if !concerns_one_connection(&error) {
                    failures = failures.saturating_add(1);
                    // While it lasts, ever more rarely: a full disk of warnings would be the next failure.
                    if failures.is_power_of_two() {
                        tracing::warn!(listener = &*name, %error, failures, "cannot accept connections; trying on");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        // The listener may have been bound to all addresses.
        let local = stream.local_addr().unwrap_or(address);
        let peer = Peer { address: peer, listener: Arc::clone(&name), local, tls: None, certificate: None };
        let connection = Connection {
            gateway: Arc::clone(&gateway),
            peer,
            shutdown: shutdown.clone(),
            abort: abort.clone(),
        };
        let tls = tls.clone();
        connections.spawn(async move {
            connection.gateway.metrics.connections.inc();
            let gateway = Arc::clone(&connection.gateway);
            connection.run(stream, tls).await;
            gateway.metrics.connections.dec();
            drop(permit);
        });
    }
    drop(socket);
    connections.close();
    if timeout(gateway.config.drain, connections.wait()).await.is_err() {
        tracing::warn!(
            listener = &*name,
            open = connections.len(),
            "drain took too long: closing what is left"
        );
        abort.cancel();
        connections.wait().await;
    }
}

struct Connection {
    gateway: Arc<Gateway>,
    peer: Peer,
    shutdown: CancellationToken,
    abort: CancellationToken,
}

impl Connection {
    async fn run(mut self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Small responses must not wait for an acknowledgement; a failure here only costs latency.
        let _ = stream.set_nodelay(true);
        // A client that vanished without a word must not hold a long response open.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
        let Some(acceptor) = tls else {
            return self.serve(stream).await;
        };
        let handshake = timeout(self.gateway.config.limits.header_timeout, acceptor.accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = self.abort.cancelled() => return,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                self.peer.tls = Some(tls::version_name(session.protocol_version()));
                let chain = session.peer_certificates();
                self.peer.certificate =
                    chain.and_then(|chain| certificate::names(chain.first()?)).map(Arc::from);
                self.serve(stream).await;
            }
            Ok(Err(_)) | Err(_) => count_error(&self.gateway, "tls"),
        }
    }

    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { gateway, peer, shutdown, abort } = self;
        let limits = gateway.config.limits.clone();
        let state = Arc::new(WireState::new());
        let service = service_fn(|request: Request<Incoming>| {
            let (gateway, peer, state) = (Arc::clone(&gateway), peer.clone(), Arc::clone(&state));
            async move { Ok::<_, std::convert::Infallible>(answer(gateway, peer, &state, request).await) }
        });
        let builder = protocol(&limits);
        let io = TokioIo::new(Wire::new(stream, Arc::clone(&state)));
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut draining = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    // What could not be parsed was answered by the HTTP library and has no record. Any other
                    // error is the client's way of leaving.
                    if ended.is_err_and(|error| is_parse(&*error)) {
                        count_error(&gateway, "malformed");
                    }
                    return;
                }
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = abort.cancelled() => return,
                lateness = state.late(&limits) => {
                    match lateness {
                        Lateness::Header => count_error(&gateway, "header_timeout"),
                        Lateness::Write => count_error(&gateway, "write_timeout"),
                        Lateness::Idle => {}
                    }
                    return;
                }
            }
        }
    }
}

async fn answer(
    gateway: Arc<Gateway>,
    peer: Peer,
    state: &Arc<WireState>,
    mut request: Request<Incoming>,
) -> http::Response<crate::body::Body> {
    let version = request.version();
    let head = state.begin(version);
    let mut must_close = false;
    if version < Version::HTTP_2 && request.headers().contains_key(header::TRANSFER_ENCODING) {
        match head {
            Head::Seen { has_length: true } => {
                request.extensions_mut().insert(Framing::Conflicting);
            }
            Head::Seen { has_length: false } => {}
            // The head came with the request before it and was not looked at: what follows cannot be trusted.
            Head::Unseen => must_close = true,
        }
    }
    request.extensions_mut().insert(Held(Arc::new(InFlight::new(Arc::clone(state)))));
    let mut response = pipeline::handle(gateway, peer, request).await;
    if must_close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn protocol(limits: &config::Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Somewhat above our own limits, so that the usual excess is answered with a problem document and recorded.
    let head = limits.header_bytes.saturating_add(limits.uri_bytes).saturating_mul(2).max(64 * 1024);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.keep_alive.saturating_add(limits.header_timeout))
        .max_headers(limits.header_count.saturating_mul(2))
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_local_error_reset_streams(H2_LOCAL_RESETS)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(limits.header_timeout);
    builder
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Errors of the one connection that was just taken from the queue; the next accept is a new chance.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn is_parse(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
}

fn count_error(gateway: &Gateway, reason: &'static str) {
    gateway.metrics.connection_errors.get_or_create(&ReasonLabels { reason }).inc();
}
