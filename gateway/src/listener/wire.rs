//! A connection's bytes as they pass: who is late, and whether the messages in them can be told apart.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::sleep,
};

use super::framing::Scanner;
use crate::{admission::InProgress, config::Limits, limits::Framing};

/// Never, in the clock of a connection.
const NEVER: u64 = u64::MAX;

/// What is known of a connection from the bytes that pass. HTTP libraries tell neither when a head began nor what
/// they dropped from it.
#[derive(Debug)]
pub(super) struct WireState {
    opened: Instant,
    /// Requests that may still come.
    requests_left: AtomicU32,
    /// Says that the last request has come.
    pub(super) used_up: Notify,
    in_flight: AtomicU32,
    /// When the head that is being read began.
    head_began: AtomicU64,
    /// When the last response ended.
    idle_since: AtomicU64,
    /// Since when the client takes no bytes.
    stalled_since: AtomicU64,
    /// Milliseconds that it took none, together.
    stalled_ms: AtomicU64,
    /// Bytes that were written.
    written: AtomicU64,
    is_h2: AtomicBool,
    /// Whether an HTTP/2 client sent more frames than it may.
    is_flooded: AtomicBool,
    /// Frames that responses over HTTP/2 earned their client.
    earned: AtomicU64,
    /// Responses over HTTP/2 of which the next part waits for the client.
    offered: AtomicU32,
    /// When a client last took a part of a response over HTTP/2.
    taken_at: AtomicU64,
    scanner: Mutex<Scanner>,
}

/// What a client took too long for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    /// A request head that began did not end.
    Header,
    /// No further request came.
    Idle,
    /// The response is not taken.
    Write,
}

impl WireState {
    /// A connection that was just opened, for so many requests.
    pub(super) fn new(requests: u32) -> Self {
        Self {
            opened: Instant::now(),
            requests_left: AtomicU32::new(requests),
            used_up: Notify::new(),
            in_flight: AtomicU32::new(0),
            // The first head has to come as soon as the connection is open.
            head_began: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(NEVER),
            stalled_ms: AtomicU64::new(0),
            written: AtomicU64::new(0),
            is_h2: AtomicBool::new(false),
            is_flooded: AtomicBool::new(false),
            earned: AtomicU64::new(0),
            offered: AtomicU32::new(0),
            taken_at: AtomicU64::new(0),
            scanner: Mutex::new(Scanner::new()),
        }
    }

    /// A request head is complete. Returns whether its message can be told apart from what follows.
    pub(super) fn begin(&self, version: Version) -> Framing {
        if self.requests_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.used_up.notify_one();
        }
        if version == Version::HTTP_2 {
            self.is_h2.store(true, Ordering::Relaxed);
            return Framing::Plain;
        }
        let mut scanner = self.scanner();
        if scanner.in_head() != Some(true) {
            self.head_began.store(NEVER, Ordering::Relaxed);
        }
        scanner.next_verdict()
    }

    /// A request was answered, by another protocol from now on if `switched`.
    pub(super) fn answered(&self, switched: bool) {
        self.scanner().answered(switched);
    }

    fn scanner(&self) -> MutexGuard<'_, Scanner> {
        self.scanner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no request has come yet, of `most` that may.
    pub(super) fn is_fresh(&self, most: u32) -> bool {
        self.requests_left.load(Ordering::Relaxed) == most
    }

    /// Whether no further request may come.
    pub(super) fn is_used_up(&self) -> bool {
        // It wraps where requests came together before the connection could be ended.
        let left = self.requests_left.load(Ordering::Relaxed);
        left == 0 || left > u32::MAX / 2
    }

    /// Resolves when the client is too late for what it has to do next.
    pub(super) async fn late(&self, limits: &Limits) -> Lateness {
        loop {
            match self.check(limits) {
                Ok(lateness) => return lateness,
                Err(wait) => sleep(wait.max(Duration::from_millis(10))).await,
            }
        }
    }

    /// The lateness, or the time until there can be one.
    fn check(&self, limits: &Limits) -> Result<Lateness, Duration> {
        let now = self.now();
        let left = |since: u64, limit: Duration| {
            let elapsed = Duration::from_millis(now.saturating_sub(since));
            limit.checked_sub(elapsed).filter(|left| !left.is_zero())
        };
        let stalled = self.stalled_since.load(Ordering::Relaxed);
        if stalled != NEVER {
            // A byte now and then must not keep a response open either.
            let earned = Duration::from_millis(
                self.written.load(Ordering::Relaxed).saturating_mul(1000) / limits.body_rate.max(1),
            );
            let before = Duration::from_millis(self.stalled_ms.load(Ordering::Relaxed));
            let allowed = limits.keep_alive.saturating_add(earned).saturating_sub(before);
            return left(stalled, allowed.min(limits.keep_alive)).map_or(Ok(Lateness::Write), Err);
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        if in_flight > 0 && self.offered.load(Ordering::Relaxed) >= in_flight {
            let taken = left(self.taken_at.load(Ordering::Relaxed), limits.keep_alive);
            return taken.map_or(Ok(Lateness::Write), |left| Err(left.min(limits.header_timeout)));
        }
        if in_flight > 0 {
            return Err(limits.header_timeout.min(limits.keep_alive));
        }
        let began = self.head_began.load(Ordering::Relaxed);
        if began != NEVER && !self.is_h2.load(Ordering::Relaxed) {
            return left(began, limits.header_timeout).map_or(Ok(Lateness::Header), Err);
        }
        let idle = left(self.idle_since.load(Ordering::Relaxed), limits.keep_alive);
        // A head may begin while we sleep, and its limit may be the shorter one.
        idle.map_or(Ok(Lateness::Idle), |left| Err(left.min(limits.header_timeout)))
    }

    /// Bytes came; see [`Scanner::feed`] for the error.
    fn read(&self, bytes: &[u8]) -> Result<(), usize> {
        let mut scanner = self.scanner();
        if let Some(frames) = scanner.frames() {
            frames.earn(self.now(), self.earned.load(Ordering::Relaxed));
        }
        let outcome = scanner.feed(bytes);
        if outcome.is_err() && scanner.frames().is_some() {
            self.is_flooded.store(true, Ordering::Relaxed);
        }
        match scanner.in_head() {
            Some(true) => {
                let began = &self.head_began;
                let _ = began.compare_exchange(NEVER, self.now(), Ordering::Relaxed, Ordering::Relaxed);
            }
            Some(false) => self.head_began.store(NEVER, Ordering::Relaxed),
            None => {}
        }
        outcome
    }

    /// A part of a response over HTTP/2 is there for the client to take.
    pub(super) fn offer(&self) {
        self.taken_at.store(self.now(), Ordering::Relaxed);
        self.offered.fetch_add(1, Ordering::Relaxed);
    }

    /// It took it, or gave up.
    pub(super) fn taken(&self) {
        self.taken_at.store(self.now(), Ordering::Relaxed);
        self.offered.fetch_sub(1, Ordering::Relaxed);
    }

    /// A response over HTTP/2 earns its client frames.
    pub(super) fn earn(&self, frames: u64) {
        self.earned.fetch_add(frames, Ordering::Relaxed);
    }

    /// Whether the connection ends because of a flood of frames.
    pub(super) fn is_flooded(&self) -> bool {
        self.is_flooded.load(Ordering::Relaxed)
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(bytes) = written {
            self.written.fetch_add(*bytes.as_ref().unwrap_or(&0) as u64, Ordering::Relaxed);
            let since = self.stalled_since.swap(NEVER, Ordering::Relaxed);
            if since != NEVER {
                self.stalled_ms.fetch_add(self.now().saturating_sub(since), Ordering::Relaxed);
            }
            return;
        }
        let since = &self.stalled_since;
        let _ = since.compare_exchange(NEVER, self.now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Milliseconds since the connection opened.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// A request in progress, from its head to the end of its response.
#[derive(Debug)]
pub(super) struct InFlight {
    state: Arc<WireState>,
    /// Its place among those of all connections.
    _counted: Option<InProgress>,
}

impl InFlight {
    pub(super) fn new(state: Arc<WireState>, counted: Option<InProgress>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { state, _counted: counted }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.idle_since.store(self.state.now(), Ordering::Relaxed);
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose bytes are noted in a [`WireState`].
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    state: Arc<WireState>,
    /// What came last broke the framing of a body: no more is read.
    broken: bool,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, state: Arc<WireState>) -> Self {
        Self { stream, state, broken: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = if self.broken {
            Poll::Ready(Ok(()))
        } else {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        };
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty())
            && let Err(sound) = self.state.read(new)
        {
            buffer.set_filled(before + sound);
            self.broken = true;
        }
        if self.broken && buffer.filled().len() == before {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.state.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.state.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
