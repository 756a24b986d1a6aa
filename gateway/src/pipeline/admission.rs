//! Who may come in: authentication where the route asks for it, and an end to guessing.

use std::{sync::Arc, time::Instant};

use http::{Response, StatusCode, request::Parts};
use waf_model::request::BodyExtent;

use super::{Gateway, check_blocked, record::Record};
use crate::{
    auth::{
        Visit,
        brute::{self, Attempt},
        login, signature,
    },
    body::{Body, RequestBody, Window},
    config::{Oversize, Route},
    error::{Fault, Refusal},
    identity::Identity,
    telemetry::metrics::RefusalLabels,
    waf::{client_block, decision},
};

/// Who calls, where the route wants to know; a caller may be blocked under its own name, too.
pub(super) async fn admit(
    gateway: &Gateway,
    visit: Visit<'_>,
    record: &mut Record,
) -> Result<Arc<Identity>, Fault> {
    let (route, allowed) = (visit.route, visit.allowed);
    let identity = visit.identity.clone();
    let started = Instant::now();
    let admitted = gateway.auth.admit(visit).await;
    if route.auth.is_some() {
        record.auth_took = Some(started.elapsed());
    }
    let Some(caller) =
        admitted.inspect_err(|fault| note_guessing(gateway, route, &identity, fault, record))?
    else {
        return Ok(Arc::new(identity));
    };
    let identity = Arc::new(identity.of(caller.key()));
    record.identity = Some(Arc::clone(&identity));
    record.caller = Some(caller);
    if !allowed {
        check_blocked(gateway, route, &identity, record)?;
    }
    Ok(identity)
}

/// How much of the body is read before it is forwarded.
pub(super) fn window(gateway: &Gateway, route: &Route, allowed: bool) -> Window {
    let wanted = if allowed { Window::Closed } else { decision::body_window(route) };
    match wanted {
        Window::Closed if gateway.auth.needs_body(route) || (route.login.is_some() && !allowed) => {
            Window::Open(Oversize::InspectPrefix)
        }
        window => window,
    }
}

/// Whether the body is the one that was signed, and whether another login may be tried.
pub(super) async fn check_body(
    gateway: &Gateway,
    route: &Route,
    parts: &Parts,
    body: &RequestBody,
    allowed: bool,
    record: &Record,
) -> Result<Option<Attempt>, Fault> {
    let view = body.view();
    let is_whole = view.extent == BodyExtent::Complete;
    if record.caller.as_ref().is_some_and(|caller| caller.signed()) {
        if !is_whole {
            return Err(Fault::BodyTooLarge);
        }
        if !signature::body_matches(&parts.headers, view.bytes) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong_digest").into());
        }
    }
    let (Some(login), Some(identity)) = (&route.login, &record.identity) else { return Ok(None) };
    if allowed || !matches!(parts.method, http::Method::POST | http::Method::PUT | http::Method::PATCH) {
        return Ok(None);
    }
    let guard = gateway.auth.guard();
    let tried = login::tried(login, guard, &parts.headers, view.bytes, is_whole)?;
    let attempt = match guard.attempt(identity.address, tried, record.at_ms()) {
        Ok(attempt) => attempt.wait().await,
        Err(refusal) => Err(refusal),
    };
    let attempt = attempt.map_err(Fault::from);
    attempt.map(Some).inspect_err(|fault| note_guessing(gateway, route, identity, fault, record))
}

/// Settles an attempt by what the upstream answers.
pub(super) fn watch(route: &Route, attempt: Option<Attempt>, response: Response<Body>) -> Response<Body> {
    match (attempt, &route.login) {
        (Some(attempt), Some(login)) => login::watch(login, attempt, response),
        _ => response,
    }
}

/// Counts a refusal for guessing, and takes it for evidence against its address.
fn note_guessing(gateway: &Gateway, route: &Route, identity: &Identity, fault: &Fault, record: &Record) {
    let reason = fault.name();
    if !brute::is_guessing(reason) {
        return;
    }
    gateway.metrics.login_refusals.get_or_create(&RefusalLabels { reason }).inc();
    if !brute::is_evidence(reason) {
        return;
    }
    let Gateway { config, clients, blocks, .. } = gateway;
    if client_block::block_on_guessing(&config.waf, clients, blocks, route, identity, record.at_ms())
        == client_block::Outcome::Blocked
    {
        gateway.metrics.client_blocks.inc();
    }
}
