//! THE request path on one screen. Read this first.

use std::{borrow::Cow, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, Version, header, request::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use waf_model::{
    event::{Origin, Verdict},
    observation::ValueKey,
    request::{BodyExtent, RequestView},
    rules::Collections,
};

use crate::{
    acme::{self, Acme},
    admission::Admission,
    audit::Audit,
    auth::{AuthSlot, Visit, login},
    block_list::{self, BlockList},
    body::{self, Body, RequestBody, Window},
    config::{Config, ConfigSlot, Limits, Mode, Route, Toggle},
    error::{Fault, Side},
    https,
    identity::{self, Identity, Peer},
    inventory::Inventory,
    limits,
    rate::RateLimits,
    response, router,
    telemetry::{
        access_log::AccessLog,
        decisions::Decisions,
        events::Events,
        metrics::{FailLabels, Metrics},
        records::Records,
    },
    upgrade::{self, Handover, Tunnel},
    upstream::{Outbound, Upstream},
    waf::{
        Inspector,
        client_block::{self, Outcome},
        decision::{self, Decision, Inspected},
        evidence::Clients,
        model_slot::ModelSlot,
    },
};

mod access;
mod changes;
mod contract;
mod entry;
mod full;
mod inbound;
mod outbound;
pub mod published;
pub mod record;

pub(crate) use outbound::is_wanted;

use published::{Published, Visitor};
use record::{Record, Recorded};

/// Everything a request needs, built once by the composition root.
pub struct Gateway {
    /// The configuration in force.
    pub config: Arc<ConfigSlot>,
    /// What rules remember across requests.
    pub collections: Arc<Collections>,
    /// Methods of authentication.
    pub auth: AuthSlot,
    /// The model in force, or none.
    pub model: Arc<ModelSlot>,
    /// Windows and evidence of all clients.
    pub clients: Arc<Clients>,
    /// Blocks and run-time allow entries in force.
    pub blocks: Arc<BlockList>,
    /// Events on their way to the store.
    pub events: Arc<Events>,
    /// Whole requests on their way to the store, where routes ask for it.
    pub records: Arc<Records>,
    /// Which endpoints there are.
    pub inventory: Arc<Inventory>,
    /// The latest flagged requests.
    pub decisions: Arc<Decisions>,
    /// How often clients may come.
    pub rates: Arc<RateLimits>,
    /// Counters for Prometheus.
    pub metrics: Arc<Metrics>,
    /// One line a request.
    pub access_log: AccessLog,
    /// One line for everything that changes the gateway's state.
    pub audit: Audit,
    /// The way to the origins.
    pub upstream: Upstream,
    /// The site's observation key.
    pub site_key: ValueKey,
    /// The admin API, for routes that publish it.
    pub admin: Published,
    /// What is in progress at once.
    pub admission: Arc<Admission>,
    /// Certificates that are fetched.
    pub acme: Arc<Acme>,
}

/// Longest silence of a gRPC client within one call.
const STREAM_IDLE: Duration = Duration::from_secs(600);

/// Answers one request. Infallible: every failure becomes a response, and the record is written whatever happens.
pub async fn handle(gateway: Arc<Gateway>, peer: Peer, request: Request<Incoming>) -> Response<Body> {
    let tls = peer.tls.is_some();
    let mut record = Record::open(&gateway, &peer, &request);
    let served = AssertUnwindSafe(serve(&gateway, &peer, request, &mut record)).catch_unwind().await;
    let (parts, body) = match served.unwrap_or(Err(Fault::Internal("panic"))) {
        Ok(response) => response.into_parts(),
        Err(fault) => {
            if fault.side() == Side::Internal {
                tracing::error!(
                    request_id = record.request_id.0,
                    error = fault.name(),
                    "request failed inside"
                );
            }
            let response = response::problem(&fault, &record.request_id.0);
            outbound::conclude(&gateway, &fault, &mut record);
            record.fault = Some(fault);
            response.into_parts()
        }
    };
    let mut response = Response::from_parts(parts, body);
    response::mark(response.headers_mut(), &record.request_id.0);
    record.turn.mark(response.headers_mut());
    let responses = record.route.as_ref().map_or(&record.config.responses, |route| &route.responses);
    response::leaving::dress(responses, response.headers_mut(), tls);
    if let Some(cors) = record.route.as_ref().and_then(|route| route.cors.as_ref()) {
        response::cors::dress(cors, record.page.as_ref(), response.headers_mut());
    }
    record.status = response.status().as_u16();
    record.media.1 = response.headers().get(header::CONTENT_TYPE).cloned();
    response.map(|body| Recorded::new(body, record).boxed_unsync())
}

/// The stages in order; each may end the request.
async fn serve(
    gateway: &Gateway,
    peer: &Peer,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<Body>, Fault> {
    let config = Arc::clone(&record.config);
    let config = &*config;
    limits::check(&config.limits, &request)?;
    let (mut parts, body) = request.into_parts();

    let identity = Arc::new(identity::identify(
        config,
        &gateway.site_key,
        peer,
        &parts.headers,
        record.request_id.clone(),
    ));
    record.request_id = (identity.request_id.clone(), identity.id);
    record.identity = Some(Arc::clone(&identity));

    if let Some(response) = acme::answer(&gateway.acme, peer, &parts) {
        return Ok(response);
    }
    access::of_listener(gateway, config, peer, &identity)?;
    https::require(config, peer, &identity, &parts)?;
    let (route, preflight) = find_route(config, peer, &parts)?;
    record.route = Some(Arc::clone(&route));
    access::of_route(gateway, &route, peer, &identity)?;
    response::leaving::refuse_retired(&route.responses)?;
    limits::shape::check_head(&route.shape, &parts)?;

    let asked = upgrade::asked(&route, &mut parts);
    let limits = streaming_limits(&route, &parts, &config.limits);
    let forwarding = identity::Forwarding::new(peer, &identity, &parts.headers);
    sanitize(&mut parts);
    let allowed = is_allowed(gateway, config, &identity);
    if !allowed {
        check_blocked(gateway, &route, &identity, record)?;
    }
    if let Some(answer) = preflight {
        return Ok(answer);
    }
    let visit = Visit { route: &route, peer, identity: &identity, allowed, parts: &mut parts };
    let (identity, auth) = entry::admit(gateway, visit, record).await?;
    let window = match limits {
        Cow::Borrowed(_) => entry::window(&route, record, allowed),
        Cow::Owned(_) => Window::Closed,
    };
    let body = body::read(body, &limits, window).await?;
    changes::check_shape(&limits, &route, &parts.headers, body.view())?;
    let attempt = entry::check_body(gateway, &auth, &route, &parts, &body, allowed, record).await?;
    let inspected = if allowed {
        settle(&route, Verdict::Allowed, record)?
    } else {
        let exchange = Exchange { parts: &parts, body: &body, identity: &identity };
        let inspected = inspect(gateway, &route, &exchange, record)?;
        contract::check(gateway, &route, &exchange, record)?;
        inspected
    };

    if let Some(redirect) = &route.routing.redirect {
        return response::redirect(redirect, peer, &parts);
    }
    if route.routing.is_admin {
        let visitor = record.caller.as_ref().map(|caller| Visitor::new(caller, identity.address));
        return gateway.admin.ask(&route, visitor, parts, body, &limits).await;
    }
    let told = changes::Told::of(&route, record, &identity);
    let body = changes::request_body(&route, &limits, &mut parts.headers, body)?;
    changes::request_target(&route, &told, &mut parts)?;
    let compression = route.responses.compression.map(|least| {
        let accepted: Vec<HeaderValue> =
            parts.headers.get_all(header::ACCEPT_ENCODING).iter().cloned().collect();
        (least, accepted)
    });
    let headers = std::mem::take(&mut parts.headers);
    let mut outbound = Outbound {
        route: &route,
        address: identity.address,
        method: parts.method.clone(),
        uri: &parts.uri,
        headers,
        body,
        upgrade: asked.as_ref().map(|asked| asked.protocol.clone()),
    };
    forwarding.write(&identity, &mut outbound.headers);
    if let Some(caller) = &record.caller {
        caller.write(&mut outbound.headers);
    }
    changes::request_headers(&route, &told, &mut outbound.headers);
    outbound::ask_for_readable(&route, &mut outbound.headers);
    if let Some(login) = &route.login {
        login::ask_for_readable(login, &mut outbound.headers);
    }
    let answer = gateway.upstream.forward(inspected, outbound, &limits).await?;
    outbound::check_length(&config.limits, &answer.response)?;
    gateway.metrics.upstream_retries.inc_by(u64::from(answer.retries));
    record.origin = Origin::Upstream;
    record.upstream_took = Some(answer.took);
    record.progress = Some(answer.progress);
    let mut response =
        outbound::inspect_response(gateway, &route, &parts.method, answer.response, record).await?;
    response::leaving::clean(&route.responses, &mut response, &record.request_id.0);
    response = changes::response(gateway, &route, &told, &parts.method, response, record).await?;
    if route.cors.is_some() {
        response::cors::clean(response.headers_mut());
    }
    if let (Some(asked), Some(switched), Some(handover)) =
        (asked, answer.switched, parts.extensions.remove::<Handover>())
    {
        identity::announce_switch(response.headers_mut(), asked.protocol.clone());
        let held = parts.extensions.remove::<record::Held>();
        handover.leave(Tunnel::new(asked, switched, Box::new(held)));
    }
    let response = entry::watch(&route, attempt, response);
    match compression {
        Some((least, accepted)) => {
            Ok(response::compression::compress(least, &parts.method, &accepted, response).await)
        }
        None => Ok(response),
    }
}

/// The limits of a request: those of the configuration; or, for gRPC that streams, others that a conversation can keep.
fn streaming_limits<'a>(route: &Route, parts: &Parts, limits: &'a Limits) -> Cow<'a, Limits> {
    let kind = parts.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    if route.routing.grpc != Some(Toggle::On) || !kind.starts_with(b"application/grpc") {
        return Cow::Borrowed(limits);
    }
    Cow::Owned(Limits { body_bytes: u64::MAX, body_idle_timeout: STREAM_IDLE, ..limits.clone() })
}

/// The route; and, where a browser asks beforehand whether a page may use it, the answer to that.
fn find_route(
    config: &Config,
    peer: &Peer,
    parts: &Parts,
) -> Result<(Arc<Route>, Option<Response<Body>>), Fault> {
    let host = limits::host_name(&parts.uri, &parts.headers);
    let target = router::Target {
        listener: &peer.listener,
        host: &host,
        path: parts.uri.path(),
        method: &parts.method,
        headers: &parts.headers,
    };
    if let Some(method) = response::cors::preflight(parts)
        && let Ok(route) = router::find(&config.routes, &router::Target { method: &method, ..target })
        && let Some(cors) = &route.cors
    {
        let answer = response::cors::answer(cors);
        return Ok((route, Some(answer)));
    }
    Ok((router::find(&config.routes, &target)?, None))
}

/// The allow list comes first, on every path: neither rules nor blocks nor evidence can reject what it holds.
fn is_allowed(gateway: &Gateway, config: &Config, identity: &Identity) -> bool {
    identity::contains(&config.waf.allow, identity.address) || gateway.blocks.allows(identity.address)
}

fn check_blocked(
    gateway: &Gateway,
    route: &Route,
    identity: &Identity,
    record: &mut Record,
) -> Result<(), Fault> {
    match gateway.blocks.find(&identity.keys, &route.name, record.at_ms()) {
        Some(_) if route.mode != Mode::Off => settle(route, Verdict::Blocked, record).map(drop),
        _ => Ok(()),
    }
}

/// One request as inspection sees it.
struct Exchange<'a> {
    /// With the headers that go on.
    parts: &'a Parts,
    body: &'a RequestBody,
    identity: &'a Identity,
}

fn inspect(
    gateway: &Gateway,
    route: &Route,
    exchange: &Exchange<'_>,
    record: &mut Record,
) -> Result<Inspected, Fault> {
    if route.mode == Mode::Off {
        return settle(route, Verdict::Pass, record);
    }
    let Exchange { parts, body, identity } = exchange;
    let config = Arc::clone(&record.config);
    let readable = inbound::readable(&config.limits, route, &parts.headers, body.view())?;
    let fields = readable.fields(&parts.headers);
    let address = identity.address.to_string();
    let view = RequestView {
        method: parts.method.as_str(),
        path: parts.uri.path().as_bytes(),
        query: parts.uri.query().map(str::as_bytes),
        protocol: protocol(parts.version),
        headers: &fields,
        body: readable.view(),
        client_address: &address,
    };
    if view.body.extent == BodyExtent::Truncated {
        gateway.metrics.body_truncated.inc();
    }
    let in_force = gateway.model.snapshot();
    let inspector = Inspector {
        settings: &config.waf,
        route,
        collections: &gateway.collections,
        connection: record.connection(),
        in_force: in_force.as_ref(),
        clients: &gateway.clients,
        site_key: &gateway.site_key,
    };
    let now_ms = record.at_ms();
    let mut inspection = match inspector.inspect(&view, identity, now_ms) {
        Ok(inspection) => inspection,
        Err(fault) => {
            tracing::error!(
                request_id = identity.request_id,
                route = route.name,
                error = fault.0,
                "inspection failed"
            );
            let settled = settle(route, Verdict::Fault, record);
            count_fault(gateway, &settled);
            return settled;
        }
    };
    let Gateway { clients, blocks, .. } = gateway;
    let outcome =
        client_block::block_on_evidence(&config.waf, clients, blocks, route, identity, &inspection, now_ms);
    if let Outcome::Blocked(block) = outcome {
        gateway.metrics.client_blocks.inc();
        gateway.audit.record(block_list::entry("block.put", None, Some(&block)));
    }
    // A client that is blocked already stays so in the record, whatever this request looks like.
    if record.verdict == Verdict::Blocked {
        inspection.verdict = Verdict::Blocked;
    }
    record.verdict = inspection.verdict;
    let decision = decision::decide_inspected(route, &inspection);
    let settled = into_result(decision);
    if inspection.verdict == Verdict::Fault {
        count_fault(gateway, &settled);
    }
    let flagged = inspection.verdict != Verdict::Pass;
    if let Some(most) = gateway.records.wants(route, now_ms, flagged) {
        record.full = Some(Box::new(full::copy(route, &view, identity, most)));
    }
    record.inspection = Some(inspection);
    settled
}

fn count_fault(gateway: &Gateway, settled: &Result<Inspected, Fault>) {
    let fail = if settled.is_ok() { "open" } else { "closed" };
    gateway.metrics.engine_errors.get_or_create(&FailLabels { fail }).inc();
}

/// Notes the verdict and asks for the decision. What rejects counts for more than what was only reported before it.
fn settle(route: &Route, verdict: Verdict, record: &mut Record) -> Result<Inspected, Fault> {
    let settled = into_result(decision::decide(route, verdict));
    if record.verdict == Verdict::Pass || settled.is_err() {
        record.verdict = verdict;
    }
    settled
}

fn into_result(decision: Decision) -> Result<Inspected, Fault> {
    match decision {
        Decision::Forward(inspected) => Ok(inspected),
        Decision::Reject(fault) => Err(fault),
    }
}

/// Leaves of the client's headers those that may go on; with `Host` also where HTTP/2 had `:authority`.
fn sanitize(parts: &mut Parts) {
    identity::sanitize(&mut parts.headers);
    if !parts.headers.contains_key(header::HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(header::HOST, host);
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests;
