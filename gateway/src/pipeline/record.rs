//! The record of one request: written whatever happens, also when the client leaves and the future is dropped.

use std::{
    any::Any,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Version, header, uri::PathAndQuery};
use http_body::{Frame, SizeHint};
use serde_json::{Value, json};
use waf_model::{
    client::ResponseSummary,
    event::{Event, Origin, RuleHit, Verdict},
    full_record::FullRecord,
    keys,
    rules::Connection,
};

use crate::{
    audit::Entry,
    auth::Principal,
    body::{BoxError, Progress},
    clock,
    config::{Config, Mode, Route},
    error::Fault,
    identity::{self, Identity, Peer, Via},
    inventory::{self, SeenPath, Sighting},
    pipeline::{Gateway, outbound::ResponseInspection},
    rate::Turn,
    telemetry::{
        access_log::{self, Line},
        decisions::Flagged,
        metrics::{RequestLabels, RouteLabels, RuleLabels, VerdictLabels},
    },
    waf::{Inspection, challenger::Compared, client_block, live::Seen, model_slot::InForce, promise},
};

/// Everything known of one request so far. Dropping it writes the access log line, the metrics, the event, and
/// for flagged requests the decision.
pub struct Record {
    gateway: Arc<Gateway>,
    /// The configuration for this request, from its first stage to its last.
    pub config: Arc<Config>,
    peer: Peer,
    started: Instant,
    at: SystemTime,
    method: Method,
    protocol: &'static str,
    target: Option<PathAndQuery>,
    /// `Content-Type` of the request and of the response.
    pub media: (Option<HeaderValue>, Option<HeaderValue>),
    trace_id: Option<String>,
    /// Request id as text and bytes; a fresh one until the sender is known.
    pub request_id: (String, [u8; 16]),
    /// Its place among those that may come at once, and how its limits stand.
    pub turn: Turn,
    /// Who sent it, once known.
    pub identity: Option<Arc<Identity>>,
    /// The caller, once it has proved who it is.
    pub caller: Option<Arc<Principal>>,
    /// The origin of the page whose script asks, as its browser says.
    pub page: Option<HeaderValue>,
    /// Time it took to find out.
    pub auth_took: Option<Duration>,
    /// The route taken, once known.
    pub route: Option<Arc<Route>>,
    /// What inspection found.
    pub inspection: Option<Inspection>,
    /// The request itself, where the route records it.
    pub full: Option<Box<FullRecord>>,
    /// What rules found in the response.
    pub response: Option<ResponseInspection>,
    /// What was found against the request or its response.
    pub verdict: Verdict,
    /// What it breaks of the route's OpenAPI document.
    pub violation: Option<String>,
    /// Why the gateway answered itself.
    pub fault: Option<Fault>,
    /// Status sent; 0 until then.
    pub status: u16,
    /// Who made the response.
    pub origin: Origin,
    /// Time until the upstream's headers.
    pub upstream_took: Option<Duration>,
    /// The request body's way upstream.
    pub progress: Option<Arc<Progress>>,
    /// Bytes of the response body that were sent.
    pub response_bytes: u64,
    /// Whether the response reached its end.
    pub ending: Ending,
    /// Tells the connection that it is not idle.
    _held: Option<Held>,
}

/// What has to live as long as a request and its response; an extension of the request.
#[derive(Clone)]
pub struct Held(pub Arc<dyn Any + Send + Sync>);

/// Whether the response reached its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Not yet, or the client left.
    Open,
    /// All of it was handed to the connection.
    Complete,
    /// The upstream broke off.
    UpstreamBroke,
    /// There was more of it than there may be.
    TooLarge,
}

impl Record {
    /// Starts the record of a request.
    pub fn open<B>(gateway: &Arc<Gateway>, peer: &Peer, request: &Request<B>) -> Self {
        gateway.metrics.active_requests.inc();
        Self {
            gateway: Arc::clone(gateway),
            config: gateway.config.snapshot(),
            peer: peer.clone(),
            started: Instant::now(),
            at: SystemTime::now(),
            method: request.method().clone(),
            protocol: protocol(request.version()),
            target: request.uri().path_and_query().cloned(),
            media: (request.headers().get(header::CONTENT_TYPE).cloned(), None),
            trace_id: trace_id(request.headers()),
            request_id: identity::fresh_request_id(),
            turn: Turn::default(),
            identity: None,
            caller: None,
            page: request.headers().get(header::ORIGIN).cloned(),
            auth_took: None,
            route: None,
            inspection: None,
            full: None,
            response: None,
            verdict: Verdict::Pass,
            violation: None,
            fault: None,
            status: 0,
            origin: Origin::Gateway,
            upstream_took: None,
            progress: None,
            response_bytes: 0,
            ending: Ending::Open,
            _held: request.extensions().get::<Held>().cloned(),
        }
    }

    /// Arrival in milliseconds since 1970.
    pub fn at_ms(&self) -> u64 {
        milliseconds(self.at)
    }

    /// How the request came, as far as rules may ask.
    pub fn connection(&self) -> Connection {
        let direct = self.identity.as_ref().is_some_and(|identity| identity.via == Via::Direct);
        Connection { client_port: direct.then(|| self.peer.address.port()), server: Some(self.peer.local) }
    }

    fn write_log(&self) {
        let inspection = self.inspection.as_ref();
        let error = match (&self.fault, self.ending, self.status) {
            (Some(fault), ..) => Some(fault.name()),
            (None, Ending::TooLarge, _) => Some("response_too_large"),
            (None, Ending::UpstreamBroke, _) => Some("upstream_broke_off"),
            (None, Ending::Open, _) => Some("downstream_closed"),
            (None, Ending::Complete, _) => None,
        };
        let error_message = match &self.fault {
            Some(Fault::UpstreamUnreachable(text) | Fault::UpstreamBroken(text)) => Some(text.as_str()),
            _ => None,
        };
        self.gateway.access_log.write(&Line {
            timestamp: self.at,
            method: access_log::known_method(&self.method),
            path: inspection.map(|inspection| inspection.observation.path.as_str()),
            scheme: if self.peer.tls.is_some() { "https" } else { "http" },
            route: self.route.as_ref().map(|route| route.name.as_str()),
            status: if self.status == 0 { 499 } else { self.status },
            request_bytes: self.request_bytes(),
            response_bytes: self.response_bytes,
            client: self.identity.as_ref().map(|identity| identity.address),
            country: self
                .identity
                .as_ref()
                .and_then(|identity| Some(identity.place.country.as_ref()?.as_str())),
            system: self.identity.as_ref().and_then(|identity| identity.place.system),
            peer: self.peer.address.ip().to_canonical(),
            protocol: self.protocol,
            tls: self.peer.tls,
            trace_id: self.trace_id.as_deref(),
            error,
            error_message,
            request_id: &self.request_id.0,
            listener: &self.peer.listener,
            consumer: self.caller.as_ref().and_then(|caller| caller.consumer()),
            user: self.caller.as_ref().and_then(|caller| caller.subject()).map(access_log::shortened),
            auth_method: self.caller.as_ref().map(|caller| caller.method()),
            violation: self.violation.as_deref(),
            verdict: self.verdict.name(),
            mode: self.mode_name(),
            score: inspection.and_then(|inspection| Some(inspection.score?.request.surprise())),
            rules: inspection.map_or(&[], |inspection| &inspection.observation.rules),
            points: inspection.map_or(0, |inspection| inspection.rules.weight()),
            hits: inspection.map_or_else(Vec::new, |inspection| RuleHit::of(&inspection.rules.matches)),
            response_points: self.response_points(),
            response_hits: self.response_hits(),
            total_s: self.started.elapsed().as_secs_f64(),
            upstream_s: self.upstream_took.map(|took| took.as_secs_f64()),
            auth_s: self.auth_took.map(|took| took.as_secs_f64()),
            waf_s: inspection.map(|inspection| inspection.took.as_secs_f64()),
        });
    }

    fn count(&self) {
        let metrics = &self.gateway.metrics;
        let route = self.route.as_ref().map_or_else(String::new, |route| route.name.clone());
        let by_route = RouteLabels { route: route.clone() };
        metrics.active_requests.dec();
        metrics.log_dropped.set(i64::try_from(self.gateway.access_log.dropped()).unwrap_or(i64::MAX));
        metrics
            .requests
            .get_or_create(&RequestLabels {
                listener: self.peer.listener.to_string(),
                route: route.clone(),
                method: access_log::known_method(&self.method),
                code: if self.status == 0 { 499 } else { self.status },
            })
            .inc();
        metrics.duration.get_or_create(&by_route).observe(self.started.elapsed().as_secs_f64());
        metrics.request_size.get_or_create(&by_route).observe(self.request_bytes() as f64);
        metrics.response_size.get_or_create(&by_route).observe(self.response_bytes as f64);
        if let Some(took) = self.upstream_took {
            metrics.upstream_duration.get_or_create(&by_route).observe(took.as_secs_f64());
        }
        let labels = VerdictLabels { route, verdict: self.verdict.name(), mode: self.mode_name() };
        metrics.waf_requests.get_or_create(&labels).inc();
        let Some(inspection) = &self.inspection else { return };
        metrics.inspection.observe(inspection.took.as_secs_f64());
        if let Some(score) = inspection.score {
            metrics.score.observe(f64::from(score.request.surprise()));
        }
        if let Some(response) = &self.response {
            metrics.response_inspection.observe(response.took.as_secs_f64());
        }
        let in_response = self.response.iter().flat_map(|response| &response.rules.matches);
        for rule in inspection.rules.matches.iter().chain(in_response) {
            metrics.rule_matches.get_or_create(&RuleLabels { rule_id: rule.id }).inc();
        }
    }

    /// Counts what the model in force made of the request, beside what it promises.
    fn account(&self, client: u64, identity: &Identity, inspection: &Inspection) {
        // The promise is about clean requests; what rules reject is none.
        let (Some(in_force), Some(route)) = (&inspection.in_force, &self.route) else { return };
        if self.verdict == Verdict::Rules {
            return;
        }
        let seen = Seen {
            client,
            network: identity.network,
            path: &inspection.observation.path,
            flagged: inspection.flagged,
            disputed: inspection.disputed,
            blocked: client_block::counts_against_budget(inspection),
        };
        let now_ms = clock::now_ms();
        if let (Some(vector), Verdict::Pass | Verdict::Model) = (&inspection.vector, self.verdict) {
            in_force.live.note_vector(&in_force.model, vector, now_ms);
        }
        self.compare(&seen, &route.name, in_force, identity, inspection);
        let breakers = self.config.waf.breaker;
        if let Some(reason) = in_force.live.note(&in_force.model, &route.name, &seen, breakers, now_ms) {
            let model = in_force.model.seq();
            tracing::error!(
                route = route.name,
                model,
                reason,
                "breaker open: the model only reports on this route until `gateway breaker reset`, or a new model"
            );
            let what = json!({ "model": model, "reason": reason });
            self.gateway.audit.record(Entry::by_gateway(
                "breaker.open",
                route.name.as_str(),
                Value::Null,
                what,
            ));
        }
    }

    /// Lets the challenger score the request too, after the fact.
    fn compare(
        &self,
        seen: &Seen<'_>,
        route: &str,
        champion: &InForce,
        identity: &Identity,
        inspection: &Inspection,
    ) {
        let Some(challenger) = self.gateway.model.challenger() else { return };
        // The champion changed while this request was under way.
        if champion.model.seq() != self.gateway.model.seq() {
            return;
        }
        let now_ms = clock::now_ms();
        let score = challenger.model.score(&inspection.observation, &inspection.client_vector);
        let group = challenger.model.group(route);
        // What the champion flagged has changed the client's history by now; it was looked up before.
        let is_clean = || self.gateway.clients.has_clean_history(&identity.client, now_ms);
        let harmless = if seen.flagged { seen.disputed } else { inspection.unsuspected && is_clean() };
        let compared = Compared {
            id: self.request_id.1,
            client: seen.client,
            network: seen.network,
            path: seen.path,
            budget: group.certificate().budget,
            champion: seen.flagged,
            challenger: group.flags(&score),
            harmless,
        };
        challenger.note(&compared, now_ms);
    }

    fn remember(&self, identity: &Identity, inspection: &Inspection) {
        if matches!(self.verdict, Verdict::Pass | Verdict::Allowed) {
            return;
        }
        self.gateway.decisions.record(Flagged {
            request_id: self.request_id.0.clone(),
            at_ms: self.at_ms(),
            route: self.route.as_ref().map_or_else(String::new, |route| route.name.clone()),
            client: identity.client.to_string(),
            method: inspection.observation.method.to_string(),
            path: inspection.observation.path.clone(),
            verdict: self.verdict,
            mode: match self.verdict {
                Verdict::Model if inspection.model_mode != Mode::Block => "detect",
                Verdict::Base if inspection.base_mode != Mode::Block => "detect",
                _ => self.mode_name(),
            },
            status: self.status,
            rule_points: (
                inspection.rules.weight(),
                self.route.as_ref().map_or(0, |route| route.inbound_threshold),
            ),
            rules: inspection.rules.matches.clone(),
            denied: inspection.rules.denied.clone(),
            response_points: (
                self.response_points(),
                self.route.as_ref().map_or(0, |route| route.outbound_threshold),
            ),
            response_rules: self
                .response
                .as_ref()
                .map_or_else(Vec::new, |response| response.rules.matches.clone()),
            response_denied: self.response.as_ref().and_then(|response| response.rules.denied.clone()),
            score: inspection.score,
            explanation: inspection.explanation.clone(),
            promise: self.promise(inspection),
            evidence: inspection.evidence,
        });
    }

    /// Tells the inventory what was asked for.
    fn sight(&mut self, client: u64) {
        let Some(route) = &self.route else { return };
        let observation = self.inspection.as_ref().map(|inspection| &inspection.observation);
        let path = match (observation, self.target.take()) {
            (Some(observation), _) => SeenPath::Template(observation.path.clone()),
            (None, Some(target)) => SeenPath::Raw(target),
            (None, None) => return,
        };
        let caller = self.caller.as_ref();
        self.gateway.inventory.note(Sighting {
            at_ms: self.at_ms(),
            route: route.name.clone(),
            method: self.method.clone(),
            path,
            client,
            consumer: caller.and_then(|caller| caller.consumer()).map(str::to_owned),
            auth: caller.map(|caller| caller.method().to_owned()),
            status: self.status,
            origin: self.origin,
            clean: matches!(self.verdict, Verdict::Pass | Verdict::Allowed) && self.violation.is_none(),
            request_type: self.media.0.take(),
            response_type: self.media.1.take(),
            parameters: observation.map(inventory::parameters).unwrap_or_default(),
        });
    }

    /// What stands behind the model's flag, in words; empty if it flags nothing.
    fn promise(&self, inspection: &Inspection) -> String {
        let (Some(in_force), Some(score), Some(route)) =
            (&inspection.in_force, inspection.score, &self.route)
        else {
            return String::new();
        };
        let group = in_force.model.group(&route.name);
        if !group.flags(&score) {
            return String::new();
        }
        let threshold = group.certificate().threshold;
        let promise = promise::of_group(&group);
        format!("distance {:.2}, threshold {threshold:.2} of {promise}", score.request_distance)
    }

    fn emit(&mut self, client: u64, identity: &Identity, inspection: Inspection) {
        let hits = RuleHit::of(&inspection.rules.matches);
        if let Some(full) = self.full.take() {
            self.gateway.records.push(FullRecord {
                id: self.request_id.1,
                at_ms: self.at_ms(),
                client,
                verdict: self.verdict,
                acts: match self.verdict {
                    Verdict::Model => inspection.model_mode == Mode::Block,
                    Verdict::Base => inspection.base_mode == Mode::Block,
                    _ => true,
                },
                hits: hits.clone(),
                what: format!("{} {}", inspection.observation.method, inspection.observation.path),
                ..*full
            });
        }
        self.gateway.events.emit(Event {
            id: self.request_id.1,
            at_ms: self.at_ms(),
            client,
            network: identity.network,
            route: self.route.as_ref().map_or_else(String::new, |route| route.name.clone()),
            observation: inspection.observation,
            client_vector: inspection.client_vector,
            score: inspection.score,
            model: inspection.in_force.map_or(0, |in_force| in_force.model.seq()),
            key_id: inspection.key_id,
            verdict: self.verdict,
            status: self.status,
            origin: self.origin,
            upstream_us: self.upstream_took.map_or(0, microseconds),
            response_bytes: self.response_bytes,
            weight: 1.0,
            hits,
            response_hits: self.response_hits(),
        });
    }

    fn response_points(&self) -> u32 {
        self.response.as_ref().map_or(0, |response| response.rules.weight())
    }

    fn response_hits(&self) -> Vec<RuleHit> {
        self.response.as_ref().map_or_else(Vec::new, |response| RuleHit::of(&response.rules.matches))
    }

    fn request_bytes(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.bytes())
    }

    fn mode_name(&self) -> &'static str {
        match self.route.as_ref().map(|route| route.mode) {
            None | Some(Mode::Off) => "off",
            Some(Mode::Detect) => "detect",
            Some(Mode::Block) => "block",
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.write_log();
        self.count();
        let Some(identity) = self.identity.take() else { return };
        // Responses that the gateway made itself never count against the client.
        if self.origin == Origin::Upstream && self.inspection.is_some() {
            let response = ResponseSummary { status: self.status, bytes: self.response_bytes };
            self.gateway.clients.respond(&identity.client, milliseconds(SystemTime::now()), response);
        }
        let client = keys::keyed_hash(&self.gateway.site_key, &identity.client.to_string());
        self.sight(client);
        if let Some(inspection) = self.inspection.take() {
            self.account(client, &identity, &inspection);
            self.remember(&identity, &inspection);
            // Nobody is to learn from what the document forbids, if nothing else was found in it.
            if !matches!(self.fault, Some(Fault::Contract(_))) || self.verdict != Verdict::Pass {
                self.emit(client, &identity, inspection);
            }
        }
    }
}

/// A response body that counts what is sent and carries the record until it ends.
pub struct Recorded<B> {
    inner: B,
    record: Option<Record>,
}

impl<B: http_body::Body> Recorded<B> {
    /// Ties `record` to the end of `inner`; a body that has nothing to send ends at once.
    pub fn new(inner: B, mut record: Record) -> Self {
        // The connection does not poll the body of a response to HEAD.
        if inner.is_end_stream() || record.method == Method::HEAD {
            record.ending = Ending::Complete;
        }
        Self { inner, record: Some(record) }
    }
}

impl<B> http_body::Body for Recorded<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        let is_end = self.inner.is_end_stream();
        let Some(record) = &mut self.record else { return Poll::Ready(frame.map(|f| f.map_err(Into::into))) };
        match &frame {
            None => record.ending = Ending::Complete,
            Some(Ok(frame)) => {
                record.response_bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                if record.response_bytes > record.config.limits.response_bytes {
                    record.ending = Ending::TooLarge;
                    self.record = None;
                    return Poll::Ready(Some(Err("more than limits.response".into())));
                }
                if is_end {
                    record.ending = Ending::Complete;
                }
            }
            Some(Err(_)) => record.ending = Ending::UpstreamBroke,
        }
        if record.ending != Ending::Open {
            self.record = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn trace_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    access_log::trace_id(value).map(str::to_owned)
}

fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

fn microseconds(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(u32::MAX)
}
