//! Connections that change protocol: what a client may ask for, and the bytes both ways afterwards.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Version, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional},
    time::sleep,
};

use crate::{clock, config::Route, upstream::Switched};

/// Longest silence in both directions.
const IDLE: Duration = Duration::from_secs(600);

/// A client's wish to switch.
#[derive(Debug)]
pub struct Asked {
    /// To which protocol, as the client wrote it.
    pub protocol: HeaderValue,
    client: OnUpgrade,
}

/// What a client asks to switch to, if its route allows that. Other wishes are ignored, as HTTP has it. Before headers
/// are sanitized.
pub fn asked(route: &Route, parts: &mut Parts) -> Option<Asked> {
    let client = parts.extensions.remove::<OnUpgrade>();
    if route.routing.upgrades.is_empty() || parts.version != Version::HTTP_11 || parts.method != Method::GET {
        return None;
    }
    let mut protocols = parts.headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    let name = protocol.to_str().ok()?.to_ascii_lowercase();
    let is_named = parts
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let has_body = parts.headers.contains_key(header::TRANSFER_ENCODING)
        || parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    let allowed = route.routing.upgrades.contains(&name);
    if protocols.next().is_some() || !is_named || has_body || !allowed {
        return None;
    }
    Some(Asked { protocol: protocol.clone(), client: client? })
}

/// Where the pipeline leaves a tunnel for the listener, which runs it in place of the connection; an extension of the
/// request.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Tunnel>>>);

impl Handover {
    /// Leaves a tunnel to run once the response is sent.
    pub fn leave(&self, tunnel: Tunnel) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    /// The tunnel that was left.
    pub fn take(&self) -> Option<Tunnel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Two connections that carry each other's bytes.
pub struct Tunnel {
    client: OnUpgrade,
    upstream: Switched,
    /// What has to live as long.
    held: Box<dyn std::any::Any + Send>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}

impl Tunnel {
    /// From the client that asked to the upstream that agreed; `held` is dropped at its end.
    pub fn new(asked: Asked, upstream: Switched, held: Box<dyn std::any::Any + Send>) -> Self {
        Self { client: asked.client, upstream, held }
    }

    /// Carries bytes until one end closes, breaks, or both are silent for too long.
    pub async fn run(self) {
        let Self { client, upstream, held } = self;
        let Ok(client) = client.await else { return };
        let Switched { mut stream, early, in_flight } = upstream;
        let moved = Arc::new(Moved { began: Instant::now(), at: AtomicU64::new(0) });
        let mut client = Noted { stream: TokioIo::new(client), moved: Arc::clone(&moved) };
        let carry = async {
            client.write_all(&early).await?;
            copy_bidirectional(&mut client, &mut stream).await
        };
        // How it ended concerns the two ends, who have noticed it themselves.
        tokio::select! {
            _ = carry => {}
            () = moved.silence() => {}
        }
        drop((held, in_flight));
    }
}

/// When bytes moved last.
struct Moved {
    began: Instant,
    at: AtomicU64,
}

impl Moved {
    fn note(&self) {
        self.at.store(clock::millis(self.began.elapsed()), Ordering::Relaxed);
    }

    /// Resolves when nothing moved for too long.
    async fn silence(&self) {
        loop {
            let quiet =
                self.began.elapsed().saturating_sub(Duration::from_millis(self.at.load(Ordering::Relaxed)));
            if quiet >= IDLE {
                return;
            }
            sleep(IDLE.saturating_sub(quiet)).await;
        }
    }
}

/// A stream that notes when bytes move, in either direction: all bytes of a tunnel pass the client's end.
struct Noted<S> {
    stream: S,
    moved: Arc<Moved>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.moved.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.moved.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
