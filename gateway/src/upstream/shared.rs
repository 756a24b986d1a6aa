//! HTTP/2 connections to an origin: each carries many exchanges at once, in a task of its own.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{arriving::ArrivingBody, connect::Stream, fault::SendError, origin::InFlight};
use crate::body::Body;

/// Requests at once on one connection before another is opened; what servers commonly allow.
const STREAMS: usize = 100;

/// Flow control windows: what one response, and all of a connection, may have on the way to a slow client.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Most bytes of a response's head.
const HEADER_LIST: u32 = 64 * 1024;

/// How often a silent origin is asked for a sign of life, and how long it has for it.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// The HTTP/2 connections to one origin.
#[derive(Default)]
pub(super) struct SharedLinks {
    senders: Mutex<Vec<Sender>>,
    opening: tokio::sync::Mutex<()>,
}

/// One connection's sending end.
#[derive(Clone)]
pub(super) struct Sender {
    sender: http2::SendRequest<Body>,
    streams: Arc<AtomicUsize>,
}

/// A stream in progress.
pub(super) struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for SharedLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLinks").finish_non_exhaustive()
    }
}

impl SharedLinks {
    /// A connection with room for one more request.
    pub(super) fn find(&self) -> Option<Sender> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|sender| !sender.sender.is_closed());
        senders.iter().find(|sender| sender.streams.load(Ordering::Relaxed) < STREAMS).cloned()
    }

    /// The turn to open a connection.
    pub(super) async fn opening(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.opening.lock().await
    }

    /// Speaks HTTP/2 over `stream` from now on.
    ///
    /// # Errors
    /// The connection broke at once.
    pub(super) async fn add(&self, stream: Stream) -> Result<Sender, SendError> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .handshake(TokioIo::new(stream))
            .await?;
        // How it ends, each of its requests is told.
        tokio::spawn(async { drop(connection.await) });
        let sender = Sender { sender, streams: Arc::default() };
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).push(sender.clone());
        Ok(sender)
    }
}

impl Sender {
    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// What the connection says.
    pub(super) async fn exchange(
        mut self,
        request: Request<Body>,
        in_flight: InFlight,
    ) -> Result<Response<ArrivingBody>, SendError> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let open = Open(Arc::clone(&self.streams));
        let (parts, incoming) = self.sender.send_request(request).await?.into_parts();
        let body = ArrivingBody::new(incoming, in_flight).on(open);
        Ok(Response::from_parts(parts, body))
    }
}
