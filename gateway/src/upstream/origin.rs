//! One origin: its connections, and what is known of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Response, StatusCode};

use super::{
    arriving::ArrivingBody,
    connect::{Connector, Stream, Versions},
    fault::SendError,
    health::{Health, State},
    link::Link,
    request::Sending,
    shared::{Sender, SharedLinks},
};
use crate::config::{Protocol, Reach};

/// An origin server. It outlives a reload of the configuration that does not change how it is reached.
pub struct Origin {
    reach: Reach,
    /// Its name, as `Host` where the client's is not preserved.
    host: HeaderValue,
    connector: Connector,
    /// Connections that wait for a request, the latest used last.
    idle: Mutex<Vec<Link>>,
    /// HTTP/2 connections, each used by many requests at once.
    shared: SharedLinks,
    in_flight: AtomicUsize,
    /// Whether it is fit.
    pub(super) health: Health,
    /// How often it was left out.
    pub(super) ejections: AtomicU64,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("reach", &self.reach).finish_non_exhaustive()
    }
}

/// A request in progress at an origin, until its response ended.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Origin>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Origin {
    /// An origin without connections.
    pub(super) fn new(reach: Reach) -> Self {
        Self {
            host: reach.host_header(),
            connector: Connector::new(&reach),
            reach,
            idle: Mutex::default(),
            shared: SharedLinks::default(),
            in_flight: AtomicUsize::new(0),
            health: Health::new(),
            ejections: AtomicU64::new(0),
        }
    }

    /// How it is reached.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Its name, as `Host` says it.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Requests in progress.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Connections that wait for a request.
    pub fn idle(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How it stands.
    pub fn state(&self) -> State {
        self.health.state()
    }

    /// How often it was left out for what requests did.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Whether it may have one more request.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight() < self.reach.max_requests
    }

    /// Counts a request that begins.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Sends a request over a kept connection, or a fresh one, and waits for the response's head.
    ///
    /// # Errors
    /// No connection, or nothing useful came by it.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Sending,
        freshness: Freshness,
        in_flight: InFlight,
    ) -> Result<Response<ArrivingBody>, SendError> {
        if request.upgrade.is_some() && self.reach.protocol != Protocol::H2 {
            // HTTP/2 knows no such switch.
            let link = match self.take() {
                Some(link) => link,
                None => Link::new(self.connector.connect(Versions::OnlyH1).await?).await?,
            };
            return self.exchange(link, request, in_flight).await;
        }
        let protocol = self.reach.protocol;
        if protocol != Protocol::H1
            && let Some(sender) = self.shared.find()
        {
            return sender.exchange(request.over_h2(self)?, in_flight).await;
        }
        let kept = match freshness {
            Freshness::Any if protocol != Protocol::H2 => self.take(),
            _ => None,
        };
        let link = match kept {
            Some(link) => link,
            None => match self.open().await? {
                Opened::Single(link) => link,
                Opened::Shared(sender) => return sender.exchange(request.over_h2(self)?, in_flight).await,
            },
        };
        self.exchange(link, request, in_flight).await
    }

    async fn exchange(
        self: &Arc<Self>,
        mut link: Link,
        request: Sending,
        in_flight: InFlight,
    ) -> Result<Response<ArrivingBody>, SendError> {
        let (parts, incoming) = link.exchange(request.over_h1(self)).await?.into_parts();
        let mut body = ArrivingBody::new(incoming, in_flight).by(link, Arc::clone(self));
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            body.look_ahead().await;
        }
        Ok(Response::from_parts(parts, body))
    }

    async fn open(&self) -> Result<Opened, SendError> {
        if self.reach.protocol != Protocol::H1 {
            // One handshake serves all who wait for it.
            let _turn = self.shared.opening().await;
            if let Some(sender) = self.shared.find() {
                return Ok(Opened::Shared(sender));
            }
            let stream = self.connector.connect(Versions::Any).await?;
            if stream.agreed() == Some(Protocol::H2) || self.reach.protocol == Protocol::H2 {
                return self.shared.add(stream).await.map(Opened::Shared);
            }
            return self.single(stream).await;
        }
        self.single(self.connector.connect(Versions::Any).await?).await
    }

    async fn single(&self, stream: Stream) -> Result<Opened, SendError> {
        Ok(Opened::Single(Link::new(stream).await?))
    }

    /// The connection used last that still is one.
    fn take(&self) -> Option<Link> {
        loop {
            let link = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut link = link?;
            if link.idle_since().elapsed() < self.reach.idle_time && link.is_usable() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, mut link: Link) {
        link.rest();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = (idle.len() >= self.reach.idle_connections && !idle.is_empty()).then(|| idle.remove(0));
        idle.push(link);
        drop(idle);
        // Closing takes time that nobody should wait for with the lock held.
        drop(surplus);
    }

    /// Drops connections that waited too long or were closed by the origin.
    pub(super) fn sweep(&self) {
        let waiting = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let mut good: Vec<_> = waiting
            .into_iter()
            .filter_map(|mut link| {
                (link.idle_since().elapsed() < self.reach.idle_time && link.is_usable()).then_some(link)
            })
            .collect();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // What came back meanwhile was used later.
        good.append(&mut idle);
        *idle = good;
    }
}

/// Whether a kept connection will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Any will do.
    Any,
    /// A kept one was found closed; a fresh one is needed.
    Fresh,
}

enum Opened {
    Single(Link),
    Shared(Sender),
}

/// How often connections that wait are looked through.
pub(super) const SWEEP: Duration = Duration::from_secs(5);
