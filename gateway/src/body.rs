//! Request bodies: the first part is read for inspection, the rest streams, all of it within size and time limits.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep, timeout};
use waf_model::request::{BodyExtent, BodyView};

use crate::{
    config::{Limits, Oversize},
    error::Fault,
};

pub mod coding;
pub mod held;

/// An error of either side, opaque to the one that only passes it on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any body on its way through the gateway.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is whole in memory.
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// How much of a body is read before it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Nothing: the body is not inspected.
    Closed,
    /// The first [`Limits::inspect_bytes`], and then as the route says.
    Open(Oversize),
}

/// A request body of which the first part was read.
#[derive(Debug)]
pub struct RequestBody {
    seen: Bytes,
    inspected: usize,
    extent: BodyExtent,
    rest: Option<Incoming>,
}

/// Reads the part of a body that is inspected.
///
/// # Errors
/// The body is too large, stalls, or breaks off.
pub async fn read(mut body: Incoming, limits: &Limits, window: Window) -> Result<RequestBody, Fault> {
    let Window::Open(oversize) = window else {
        let extent = if body.is_end_stream() { BodyExtent::Complete } else { BodyExtent::Truncated };
        return Ok(RequestBody { seen: Bytes::new(), inspected: 0, extent, rest: Some(body) });
    };
    let started = Instant::now();
    let mut first = Bytes::new();
    let mut seen = BytesMut::new();
    loop {
        let size = first.len() + seen.len();
        if size as u64 > limits.body_bytes {
            return Err(Fault::BodyTooLarge);
        }
        if size > limits.inspect_bytes {
            break;
        }
        // A byte now and then must not keep a request open: whoever is slower than the least rate has used up
        // the one silence that everybody may have.
        let allowed = limits.body_idle_timeout.saturating_add(time_for(size as u64, limits.body_rate));
        let left = allowed.saturating_sub(started.elapsed()).min(limits.body_idle_timeout);
        let frame = timeout(left, body.frame()).await.map_err(|_| Fault::BodyStalled)?;
        let Some(frame) = frame else {
            let seen = joined(first, seen);
            return Ok(RequestBody { inspected: seen.len(), seen, extent: BodyExtent::Complete, rest: None });
        };
        // Trailers are dropped: no upstream may take a header from behind the inspected part.
        if let Ok(data) = frame.map_err(|_| Fault::BodyBroken)?.into_data() {
            if first.is_empty() && seen.is_empty() {
                first = data;
            } else {
                seen.extend_from_slice(&data);
            }
        }
    }
    let inspected = match oversize {
        Oversize::Reject => return Err(Fault::BodyTooLarge),
        Oversize::InspectPrefix => limits.inspect_bytes,
        Oversize::Pass => 0,
    };
    Ok(RequestBody { seen: joined(first, seen), inspected, extent: BodyExtent::Truncated, rest: Some(body) })
}

/// How long so many bytes may take at a rate in bytes a second.
fn time_for(bytes: u64, rate: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1))
}

/// Most bodies arrive in one frame, which is then not copied.
fn joined(first: Bytes, more: BytesMut) -> Bytes {
    if more.is_empty() {
        return first;
    }
    let mut all = BytesMut::with_capacity(first.len() + more.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&more);
    all.freeze()
}

impl RequestBody {
    /// A body that was made here.
    pub fn of(bytes: Bytes) -> Self {
        Self { inspected: bytes.len(), seen: bytes, extent: BodyExtent::Complete, rest: None }
    }

    /// The inspected part.
    pub fn view(&self) -> BodyView<'_> {
        BodyView { bytes: self.seen.get(..self.inspected).unwrap_or_default(), extent: self.extent }
    }

    /// All of it, if it was read to its end.
    pub fn whole(&self) -> Option<Bytes> {
        let ended = self.rest.as_ref().is_none_or(http_body::Body::is_end_stream);
        ended.then(|| self.seen.clone())
    }

    /// Whether the body is known to be empty, so that the request may be sent again.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    /// The body as it goes upstream, and what is known of its way.
    pub fn forward(self, limits: &Limits) -> (Body, Arc<Progress>) {
        let progress = Arc::new(Progress::new());
        let Some(rest) = self.rest else {
            progress.bytes.store(self.seen.len() as u64, Ordering::Relaxed);
            return (whole(self.seen), progress);
        };
        let body = Streaming {
            first: Some(self.seen).filter(|seen| !seen.is_empty()),
            rest,
            limit: limits.body_bytes,
            idle: limits.body_idle_timeout,
            rate: limits.body_rate,
            waited: Duration::ZERO,
            waiting: None,
            timer: Box::pin(sleep(limits.body_idle_timeout)),
            progress: Arc::clone(&progress),
        };
        (body.boxed_unsync(), progress)
    }
}

/// What is known of a body on its way upstream: shared with the stage that waits for the response.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    moved_ms: AtomicU64,
    bytes: AtomicU64,
    fault: AtomicU8,
}

const TOO_LARGE: u8 = 1;
const STALLED: u8 = 2;
const BROKEN: u8 = 3;

impl Progress {
    fn new() -> Self {
        Self {
            started: Instant::now(),
            moved_ms: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            fault: AtomicU8::new(0),
        }
    }

    /// Why the body did not reach its end, if the client's side is to blame.
    pub fn fault(&self) -> Option<Fault> {
        match self.fault.load(Ordering::Relaxed) {
            TOO_LARGE => Some(Fault::BodyTooLarge),
            STALLED => Some(Fault::BodyStalled),
            BROKEN => Some(Fault::BodyBroken),
            _ => None,
        }
    }

    /// Time since the body last moved.
    pub fn quiet(&self) -> Duration {
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(moved)
    }

    /// Bytes taken from the client.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn moved(&self, bytes: usize) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.store(elapsed, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }
}

struct Streaming {
    first: Option<Bytes>,
    rest: Incoming,
    limit: u64,
    idle: Duration,
    rate: u64,
    /// Time that was spent waiting for the client, who is not to blame for a slow origin.
    waited: Duration,
    waiting: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    progress: Arc<Progress>,
}

impl Streaming {
    /// Starts to wait for the client: for one silence, or less if it is slower than the rate.
    fn wait(&mut self) {
        if self.waiting.is_none() {
            self.waiting = Some(Instant::now());
            let allowed = self.idle.saturating_add(time_for(self.progress.bytes(), self.rate));
            let left = allowed.saturating_sub(self.waited).min(self.idle);
            self.timer.as_mut().reset(tokio::time::Instant::now() + left);
        }
    }

    fn fail(&self, fault: u8, what: &'static str) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.progress.fault.store(fault, Ordering::Relaxed);
        Poll::Ready(Some(Err(what.into())))
    }
}

impl http_body::Body for Streaming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            self.progress.moved(first.len());
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.rest).poll_frame(context) else {
                self.wait();
                ready!(self.timer.as_mut().poll(context));
                return self.fail(STALLED, "request body stalled");
            };
            if let Some(since) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            match frame {
                None => return Poll::Ready(None),
                Some(Err(_)) => return self.fail(BROKEN, "request body broke off"),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if self.progress.moved(data.len()) > self.limit {
                        return self.fail(TOO_LARGE, "request body too large");
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(first));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(first));
        }
        hint
    }
}
