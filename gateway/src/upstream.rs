//! The way to the origins: kept connections, time limits, one careful retry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri, Version, header};
use tokio::{task::AbortHandle, time::timeout};

use crate::{
    body::{self, Progress, RequestBody},
    config::{Config, Limits, Reach, Route, UpstreamGroup},
    error::Fault,
    response,
    waf::decision::Inspected,
};

mod arriving;
mod connect;
mod fault;
mod link;
mod origin;
mod request;
mod shared;

pub use arriving::ArrivingBody;
pub use origin::Origin;

use fault::SendError;
use origin::{Freshness, SWEEP};
use request::Sending;

/// The way to the origins of the configuration in force, and of older ones that requests still use.
#[derive(Debug)]
pub struct Upstream {
    groups: Arc<ArcSwap<Vec<Arc<Group>>>>,
    sweeper: AbortHandle,
}

/// Origins that serve the same thing.
#[derive(Debug)]
struct Group {
    settings: Arc<UpstreamGroup>,
    origins: Vec<Arc<Origin>>,
    turn: AtomicUsize,
}

/// One request on its way out.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// The route it takes.
    pub route: &'a Route,
    /// Method.
    pub method: Method,
    /// The client's target.
    pub uri: &'a Uri,
    /// Headers to send.
    pub headers: HeaderMap,
    /// Body to send.
    pub body: RequestBody,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The upstream's response, cleaned.
    pub response: Response<ArrivingBody>,
    /// Time until its headers.
    pub took: Duration,
    /// What is known of the request body's way.
    pub progress: Arc<Progress>,
    /// How often the request was sent again.
    pub retries: u32,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

impl Upstream {
    /// The way to the origins of `config`. Needs a tokio runtime.
    pub fn new(config: &Config) -> Self {
        let groups = Arc::new(ArcSwap::from_pointee(Vec::new()));
        let sweeper = tokio::spawn({
            let groups = Arc::clone(&groups);
            async move {
                loop {
                    tokio::time::sleep(SWEEP).await;
                    each_origin(&groups.load()).for_each(|origin| origin.sweep());
                }
            }
        });
        let upstream = Self { groups, sweeper: sweeper.abort_handle() };
        upstream.adopt(config);
        upstream
    }

    /// Prepares the way to the origins of `config`, before it is put in force. Origins that are reached as before keep
    /// their connections.
    pub fn adopt(&self, config: &Config) {
        let before = self.groups.load_full();
        let mut known: Vec<Arc<Origin>> = each_origin(&before).cloned().collect();
        let mut origin = |reach: &Reach| {
            if let Some(origin) = known.iter().find(|origin| origin.reach() == reach) {
                return Arc::clone(origin);
            }
            let origin = Arc::new(Origin::new(reach.clone()));
            known.push(Arc::clone(&origin));
            origin
        };
        let mut groups: Vec<Arc<Group>> = Vec::new();
        for route in &config.routes {
            if groups.iter().all(|group| !Arc::ptr_eq(&group.settings, &route.upstream)) {
                groups.push(Arc::new(Group {
                    settings: Arc::clone(&route.upstream),
                    origins: route.upstream.origins.iter().map(&mut origin).collect(),
                    turn: AtomicUsize::new(0),
                }));
            }
        }
        // A request that came under an older configuration keeps to it.
        let in_use = |group: &&Arc<Group>| Arc::strong_count(&group.settings) > 1;
        groups.extend(before.iter().filter(in_use).cloned());
        self.groups.store(Arc::new(groups));
    }

    /// Sends a request that passed inspection to the route's next origin and waits for the response headers.
    ///
    /// # Errors
    /// The upstream's fault, or the client's if its body did not arrive.
    pub async fn forward(
        &self,
        _proof: Inspected,
        outbound: Outbound<'_>,
        limits: &Limits,
    ) -> Result<Answer, Fault> {
        let Outbound { route, method, uri, mut headers, body } = outbound;
        let groups = self.groups.load_full();
        let group = groups.iter().find(|group| Arc::ptr_eq(&group.settings, &route.upstream));
        let group = group.ok_or(Fault::Internal("no_upstream"))?;
        let turn = group.turn.fetch_add(1, Ordering::Relaxed);
        // The body is framed anew by the client connection; the length is known to it from the body itself.
        headers.remove(header::CONTENT_LENGTH);
        if !route.preserve_host {
            headers.remove(header::HOST);
        }
        let target = request::target(route, uri)?;
        let again = (method.is_idempotent() && body.is_empty()).then(|| Sending {
            method: method.clone(),
            target: target.clone(),
            headers: headers.clone(),
            body: body::whole(Bytes::new()),
        });
        let (body, progress) = body.forward(limits);
        let started = Instant::now();
        let mut retries = 0;
        let first = Sending { method, target, headers, body };
        let limit = route.upstream_timeout;
        let mut result = send(group.origin(turn)?, first, Freshness::Any, limit, &progress).await;
        let next = result.as_ref().err().and_then(|error| group.retry_turn(turn, error));
        if let (Some(turn), Some(again)) = (next, again) {
            retries = 1;
            result = send(group.origin(turn)?, again, Freshness::Fresh, limit, &progress).await;
        }
        let mut response = result.map_err(|error| progress.fault().unwrap_or_else(|| error.into_fault()))?;
        if response.status().is_informational() {
            // Nobody asked for an upgrade, so nobody may switch protocols.
            return Err(Fault::UpstreamBroken("unsolicited 101".to_owned()));
        }
        // The versions of the two connections have nothing to do with each other.
        *response.version_mut() = Version::HTTP_11;
        response::clean(response.headers_mut());
        Ok(Answer { response, took: started.elapsed(), progress, retries })
    }
}

fn each_origin(groups: &[Arc<Group>]) -> impl Iterator<Item = &Arc<Origin>> {
    groups.iter().flat_map(|group| &group.origins)
}

/// Sends to one origin. The time limit counts from the last movement of the request body, so that a slow upload is
/// not the origin's fault.
async fn send(
    origin: &Arc<Origin>,
    request: Sending,
    freshness: Freshness,
    limit: Duration,
    progress: &Progress,
) -> Result<Response<ArrivingBody>, SendError> {
    let response = origin.send(request, freshness, origin.begin());
    tokio::pin!(response);
    loop {
        let left = limit.saturating_sub(progress.quiet());
        match timeout(left, &mut response).await {
            Ok(result) => return result,
            Err(_) if progress.quiet() >= limit => return Err(SendError::Timeout),
            Err(_) => {}
        }
    }
}

impl Group {
    fn origin(&self, turn: usize) -> Result<&Arc<Origin>, Fault> {
        let origin = turn.checked_rem(self.origins.len()).and_then(|index| self.origins.get(index));
        origin.ok_or(Fault::Internal("no_upstream"))
    }

    /// Whose turn it is if an idempotent request without a body is worth another try: the same origin's if it only
    /// closed a kept connection, the next one's if it cannot be reached.
    fn retry_turn(&self, turn: usize, error: &SendError) -> Option<usize> {
        match error {
            SendError::Closed(_) => Some(turn),
            SendError::Unreachable(_) if self.origins.len() > 1 => Some(turn.wrapping_add(1)),
            _ => None,
        }
    }
}
