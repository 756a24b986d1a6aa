//! One connection from its first byte to its last: who is there, TLS, then HTTP within its limits.

use std::{pin::pin, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    count_error, proxy_protocol,
    response::Offered,
    wire::{InFlight, Lateness, Wire, WireState},
};
use crate::{
    auth::certificate,
    body::Body,
    config::{Limits, Listener, Sni},
    identity::{self, Peer},
    limits::{Overload, ServerName},
    pipeline::{self, Gateway, record::Held},
    tls::{self, server::Acceptor},
    upgrade::Handover,
};

/// Silence after which the kernel asks whether the other end still exists.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a client that has just connected may take for its first request after a shutdown began.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

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

/// A connection that was accepted.
pub(super) struct Connection {
    pub(super) gateway: Arc<Gateway>,
    pub(super) peer: Peer,
    /// Ends it when what is in flight is answered.
    pub(super) shutdown: CancellationToken,
    /// Ends it at once.
    pub(super) abort: CancellationToken,
}

impl Connection {
    /// Serves it to its end.
    pub(super) async fn run(mut self, mut stream: TcpStream, tls: Option<Arc<Acceptor>>) {
        // Small responses must not wait for an acknowledgement; a failure here only costs latency.
        let _ = stream.set_nodelay(true);
        // A client that vanished without a word must not hold a long response open.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
        let limits = self.gateway.config.snapshot().limits.clone();
        if let Err(reason) = self.meet_proxy(&mut stream, limits.header_timeout).await {
            return count_error(&self.gateway, reason);
        }
        let client = self.peer.address.ip().to_canonical();
        let counted = self.gateway.admission.connection(client, limits.connections_per_address);
        if counted.is_none() && !identity::contains(&self.gateway.config.snapshot().trusted_proxies, client) {
            return count_error(&self.gateway, "per_address");
        }
        let Some(acceptor) = tls else {
            return self.serve(stream, None, limits).await;
        };
        let handshake = tokio::select! {
            handshake = timeout(limits.header_timeout, acceptor.accept(stream)) => handshake,
            () = self.abort.cancelled() => return,
        };
        let stream = match handshake {
            Ok(Ok(Some(stream))) => stream,
            // Whoever asked for proof that a host is ours has it now.
            Ok(Ok(None)) => return,
            Ok(Err(_)) | Err(_) => return count_error(&self.gateway, "tls"),
        };
        let session = stream.get_ref().1;
        self.peer.tls = Some(tls::version_name(session.protocol_version()));
        let chain = session.peer_certificates();
        self.peer.certificate = chain.and_then(|chain| certificate::names(chain.first()?)).map(Arc::from);
        let name = session.server_name().filter(|_| self.listener(|listener| listener.sni) != Some(Sni::Any));
        let name = name.map(|name| ServerName(name.strip_suffix('.').unwrap_or(name).into()));
        self.serve(stream, name, limits).await;
    }

    /// Takes over who the client is from a proxy in front, where the listener has such.
    async fn meet_proxy(&mut self, stream: &mut TcpStream, limit: Duration) -> Result<(), &'static str> {
        let sender = self.peer.address.ip().to_canonical();
        if self.listener(|listener| identity::contains(&listener.proxy_protocol, sender)) != Some(true) {
            return Ok(());
        }
        let read = tokio::select! {
            read = timeout(limit, proxy_protocol::read(stream)) => read,
            () = self.abort.cancelled() => return Err("proxy_protocol"),
        };
        match read {
            Ok(Ok(Some(ends))) => (self.peer.address, self.peer.local) = (ends.source, ends.destination),
            // The proxy speaks for itself, as in a health check.
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => return Err("proxy_protocol"),
        }
        Ok(())
    }

    /// Something about the listener as it is configured now; `None` if it is about to be closed.
    fn listener<T>(&self, ask: impl Fn(&Listener) -> T) -> Option<T> {
        let config = self.gateway.config.snapshot();
        config.listeners.iter().find(|listener| *listener.name == *self.peer.listener).map(ask)
    }

    async fn serve<S>(self, stream: S, server_name: Option<ServerName>, limits: Limits)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { gateway, peer, shutdown, abort } = self;
        let state = Arc::new(WireState::new(limits.requests_per_connection));
        let handover = Handover::default();
        let service = service_fn(|mut request: Request<Incoming>| {
            let (gateway, peer, state) = (Arc::clone(&gateway), peer.clone(), Arc::clone(&state));
            request.extensions_mut().insert(handover.clone());
            if let Some(name) = &server_name {
                request.extensions_mut().insert(name.clone());
            }
            async move { Ok::<_, std::convert::Infallible>(answer(gateway, peer, &state, request).await) }
        });
        let builder = protocol(&limits);
        let io = TokioIo::new(Wire::new(stream, Arc::clone(&state)));
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut draining = false;
        loop {
            tokio::select! {
                // What has come is looked at first: a gateway that was held up takes no client for late.
                biased;
                ended = connection.as_mut() => {
                    if state.is_flooded() {
                        count_error(&gateway, "h2_flood");
                    }
                    // What could not be parsed was answered by the HTTP library and has no record. Any other
                    // error is the client's way of leaving.
                    if ended.is_err_and(|error| is_parse(&*error)) {
                        count_error(&gateway, "malformed");
                    }
                    if let Some(tunnel) = handover.take() {
                        tokio::select! {
                            () = tunnel.run() => {}
                            () = abort.cancelled() => {}
                        }
                    }
                    return;
                }
                () = may_end(&shutdown, &state, limits.requests_per_connection), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = state.used_up.notified(), if !draining => {
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

/// Resolves after `shutdown`: at once, but that a client that has just connected gets to send its first request.
async fn may_end(shutdown: &CancellationToken, state: &WireState, most: u32) {
    shutdown.cancelled().await;
    let _ = timeout(FIRST_REQUEST, async {
        while state.is_fresh(most) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn answer(
    gateway: Arc<Gateway>,
    peer: Peer,
    state: &Arc<WireState>,
    mut request: Request<Incoming>,
) -> http::Response<Body> {
    let version = request.version();
    let framing = state.begin(version);
    let counted = gateway.admission.request(gateway.config.snapshot().limits.requests_in_flight);
    let extensions = request.extensions_mut();
    extensions.insert(framing);
    if counted.is_none() {
        gateway.metrics.requests_shed.inc();
        extensions.insert(Overload);
    }
    extensions.insert(Held(Arc::new(InFlight::new(Arc::clone(state), counted))));
    let mut response = pipeline::handle(gateway, peer, request).await;
    if version == Version::HTTP_2 {
        return response.map(|body| Offered::new(body, Arc::clone(state)).boxed_unsync());
    }
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if state.is_used_up() && !switches {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    state.answered(switches);
    response
}

fn protocol(limits: &Limits) -> auto::Builder<TokioExecutor> {
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

fn is_parse(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
}
