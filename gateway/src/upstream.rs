//! The way to the origins: kept connections, time limits, one careful retry.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, Uri, Version, header};
use tokio::{task::AbortHandle, time::timeout};

use crate::{
    body::{self, Progress, RequestBody},
    config::{Config, Limits, Reach, Route, Toggle, UpstreamGroup},
    error::Fault,
    response,
    waf::decision::Inspected,
};

mod arriving;
mod budget;
mod checks;
mod connect;
mod fault;
mod group;
mod health;
mod link;
mod mirror;
mod origin;
mod request;
mod shared;
mod split;

pub use arriving::{ArrivingBody, Switched};
pub use group::Group;
pub use health::State;
pub use mirror::Mirrors;
pub use origin::Origin;

use fault::SendError;
use group::Chosen;
use origin::{Freshness, SWEEP};
use request::Sending;

/// The way to the origins of the configuration in force, and of older ones that requests still use.
#[derive(Debug)]
pub struct Upstream {
    groups: Arc<ArcSwap<Vec<Arc<Group>>>>,
    mirrors: Mirrors,
    sweeper: AbortHandle,
}

/// One request on its way out.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// The route it takes.
    pub route: &'a Route,
    /// The client's address.
    pub address: IpAddr,
    /// Method.
    pub method: Method,
    /// The client's target.
    pub uri: &'a Uri,
    /// Headers to send.
    pub headers: HeaderMap,
    /// Body to send.
    pub body: RequestBody,
    /// The protocol that the client asks to switch to.
    pub upgrade: Option<HeaderValue>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The upstream's response, cleaned.
    pub response: Response<ArrivingBody>,
    /// The connection, if it speaks the protocol from now on that the client asked for.
    pub switched: Option<Switched>,
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
        let upstream = Self { groups, mirrors: Mirrors::default(), sweeper: sweeper.abort_handle() };
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
            checks::start(&origin);
            known.push(Arc::clone(&origin));
            origin
        };
        let mut groups: Vec<Arc<Group>> = Vec::new();
        for settings in config.routes.iter().flat_map(|route| destinations(route)) {
            if groups.iter().all(|group| !Arc::ptr_eq(group.settings(), settings)) {
                let origins = settings.origins.iter().map(|member| origin(&member.reach)).collect();
                groups.push(Arc::new(Group::new(settings, origins)));
            }
        }
        // A request that came under an older configuration keeps to it.
        let in_use = |group: &&Arc<Group>| Arc::strong_count(group.settings()) > 1;
        groups.extend(before.iter().filter(in_use).cloned());
        self.groups.store(Arc::new(groups));
    }

    /// The groups of the configuration in force, and of older ones that requests still use.
    pub fn groups(&self) -> Arc<Vec<Arc<Group>>> {
        self.groups.load_full()
    }

    /// What became of copies of requests.
    pub fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    fn group(&self, settings: &Arc<UpstreamGroup>) -> Result<Arc<Group>, Fault> {
        let groups = self.groups.load();
        let group = groups.iter().find(|group| Arc::ptr_eq(group.settings(), settings));
        group.cloned().ok_or(Fault::Internal("no_upstream"))
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
        let Outbound { route, address, method, uri, mut headers, body, upgrade } = outbound;
        let group = self.group(split::chosen(route, address, &headers))?;
        let group = &*group;
        group.budget.request();
        let key = group.key(address, &headers);
        let chosen = group.choose(key, None)?;
        let place = chosen.place;
        // The body is framed anew by the client connection; the length is known to it from the body itself.
        headers.remove(header::CONTENT_LENGTH);
        if !route.preserve_host {
            headers.remove(header::HOST);
        }
        let target = request::target(route, uri)?;
        let copy = |bytes: Bytes| Sending {
            method: method.clone(),
            target: target.clone(),
            headers: headers.clone(),
            body: body::whole(bytes),
            upgrade: upgrade.clone(),
        };
        if let Some(mirror) =
            route.routing.mirror.as_ref().filter(|mirror| self.mirrors.is_due(mirror.percent))
        {
            match body.whole() {
                Some(bytes) if upgrade.is_none() => {
                    self.mirrors.send(self.group(&mirror.upstream)?, key, copy(bytes));
                }
                _ => self.mirrors.skip(),
            }
        }
        let again = (method.is_idempotent() && body.is_empty()).then(|| copy(Bytes::new()));
        let (body, progress) = body.forward(limits);
        let started = Instant::now();
        let mut retries = 0;
        let first = Sending { method, target, headers, body, upgrade: upgrade.clone() };
        let limit = route.upstream_timeout;
        let mut result = send(chosen, first, Freshness::Any, limit, &progress).await;
        note(group, place, &result, &progress);
        let is_retryable = matches!(result, Err(SendError::Closed(_) | SendError::Unreachable(_)));
        if let Some(again) = again.filter(|_| is_retryable)
            && group.budget.take()
            && let Ok(other) = group.choose(key, Some(place))
        {
            retries = 1;
            let place = other.place;
            result = send(other, again, Freshness::Fresh, limit, &progress).await;
            note(group, place, &result, &progress);
        }
        let mut response = result.map_err(|error| progress.fault().unwrap_or_else(|| error.into_fault()))?;
        let mut switched = None;
        if response.status().is_informational() {
            let agreed = upgrade.filter(|asked| {
                let said = response.headers().get(header::UPGRADE).map(HeaderValue::as_bytes);
                said.is_some_and(|said| said.eq_ignore_ascii_case(asked.as_bytes()))
            });
            // Where nobody asked for that protocol, nobody may switch to it.
            agreed.ok_or_else(|| Fault::UpstreamBroken("unsolicited 101".to_owned()))?;
            let (parts, body) = response.into_parts();
            switched = body.switch().await;
            response = Response::from_parts(parts, ArrivingBody::empty());
        }
        // The versions of the two connections have nothing to do with each other.
        *response.version_mut() = Version::HTTP_11;
        response::clean(response.headers_mut());
        Ok(Answer { response, switched, took: started.elapsed(), progress, retries })
    }
}

/// Every group that requests of a route go to.
fn destinations(route: &Route) -> impl Iterator<Item = &Arc<UpstreamGroup>> {
    let split = route.routing.split.iter().map(|part| &part.upstream);
    let mirror = route.routing.mirror.iter().map(|mirror| &mirror.upstream);
    std::iter::once(&route.upstream).chain(split).chain(mirror)
}

fn each_origin(groups: &[Arc<Group>]) -> impl Iterator<Item = &Arc<Origin>> {
    groups.iter().flat_map(|group| group.origins())
}

/// Sends to one origin. The time limit counts from the last movement of the request body, so that a slow upload is
/// not the origin's fault.
async fn send(
    chosen: Chosen<'_>,
    request: Sending,
    freshness: Freshness,
    limit: Duration,
    progress: &Progress,
) -> Result<Response<ArrivingBody>, SendError> {
    let response = chosen.origin.send(request, freshness, chosen.in_flight);
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

/// Notes how the origin did, for what follows from many such.
fn note(
    group: &Group,
    place: usize,
    result: &Result<Response<ArrivingBody>, SendError>,
    progress: &Progress,
) {
    let server_errors =
        group.settings().ejection.as_ref().is_some_and(|ejection| ejection.server_errors == Toggle::On);
    match result {
        Ok(response) if server_errors && response.status().is_server_error() => group.failed(place),
        Ok(_) => group.succeeded(place),
        Err(SendError::Unreachable(_)) => group.failed(place),
        // Where the client's side is to blame, or a request may be what breaks the origin, nothing is held against it.
        Err(SendError::Fault(_)) => {}
        Err(_) if server_errors && progress.fault().is_none() => group.failed(place),
        Err(_) => {}
    }
}
