//! A connection's bytes as they pass: who is late, and whether a request head frames its body in two ways.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Version;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

use crate::config::Limits;

/// Bytes of a request head that are kept to look at; the HTTP parser refuses much longer ones.
const HEAD_BYTES: usize = 128 * 1024;

/// Never, in the clock of a connection.
const NEVER: u64 = u64::MAX;

/// What is known of a connection from the bytes that pass. HTTP libraries tell neither when a head began nor what
/// they dropped from it.
#[derive(Debug)]
pub(super) struct WireState {
    opened: Instant,
    in_flight: AtomicU32,
    /// When the head that is being read began.
    head_began: AtomicU64,
    /// When the last response ended.
    idle_since: AtomicU64,
    /// Since when the client takes no bytes.
    stalled_since: AtomicU64,
    is_h2: AtomicBool,
    head: Mutex<Vec<u8>>,
}

/// The bytes of a request head, if they could be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// The head was read while no other request was in progress.
    Seen {
        /// Whether it holds a `Content-Length` field.
        has_length: bool,
    },
    /// It came together with an earlier request.
    Unseen,
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
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            in_flight: AtomicU32::new(0),
            // The first head has to come as soon as the connection is open.
            head_began: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(NEVER),
            is_h2: AtomicBool::new(false),
            head: Mutex::default(),
        }
    }

    /// A request head is complete. Returns what its bytes were.
    pub(super) fn begin(&self, version: Version) -> Head {
        if version == Version::HTTP_2 {
            self.is_h2.store(true, Ordering::Relaxed);
        }
        self.head_began.store(NEVER, Ordering::Relaxed);
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look_at(&head);
        head.clear();
        seen
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
            return left(stalled, limits.keep_alive).map_or(Ok(Lateness::Write), Err);
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
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

    fn read(&self, bytes: &[u8]) {
        if self.in_flight.load(Ordering::Relaxed) > 0 || self.is_h2.load(Ordering::Relaxed) {
            return;
        }
        let _ = self.head_began.compare_exchange(NEVER, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEAD_BYTES.saturating_sub(head.len());
        head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    fn wrote<T>(&self, written: &Poll<T>) {
        match written {
            Poll::Ready(_) => self.stalled_since.store(NEVER, Ordering::Relaxed),
            Poll::Pending => {
                let _ = self.stalled_since.compare_exchange(
                    NEVER,
                    self.now(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
        }
    }

    /// Milliseconds since the connection opened.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

/// Looks for a length in the first head in `bytes`. Lines may end with a bare line feed, as parsers accept it.
fn look_at(bytes: &[u8]) -> Head {
    if bytes.is_empty() {
        return Head::Unseen;
    }
    let mut has_length = false;
    // An empty line ends the head, but those before the request line do not belong to it.
    for line in bytes.split(|byte| *byte == b'\n').skip_while(|line| line.trim_ascii().is_empty()) {
        if line.trim_ascii().is_empty() {
            break;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        has_length |= name.trim_ascii().eq_ignore_ascii_case(b"content-length");
    }
    Head::Seen { has_length }
}

/// A request in progress, from its head to the end of its response.
#[derive(Debug)]
pub(super) struct InFlight(Arc<WireState>);

impl InFlight {
    pub(super) fn new(state: Arc<WireState>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(state)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose bytes are noted in a [`WireState`].
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    state: Arc<WireState>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, state: Arc<WireState>) -> Self {
        Self { stream, state }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            self.state.read(new);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_found_in_the_first_head_only() {
        let seen = |has_length| Head::Seen { has_length };
        assert_eq!(look_at(b""), Head::Unseen);
        assert_eq!(look_at(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), seen(false));
        assert_eq!(look_at(b"GET / HTTP/1.1\r\ncontent-LENGTH : 1\r\n\r\n"), seen(true));
        assert_eq!(look_at(b"\r\nGET / HTTP/1.1\nContent-Length:1\n\n"), seen(true));
        assert_eq!(look_at(b"GET / HTTP/1.1\r\nA: b\r\n\r\nContent-Length: 1\r\n"), seen(false));
    }
}
