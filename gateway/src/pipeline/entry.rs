//! Who may come in: authentication where the route asks for it, and an end to guessing.

use std::{sync::Arc, time::Instant};

use http::{Response, StatusCode, request::Parts};
use waf_model::request::BodyExtent;

use super::{Gateway, changes, check_blocked, record::Record};
use crate::{
    auth::{
        Auth, Visit,
        brute::{self, Attempt},
        login, policy, signature,
    },
    block_list,
    body::{Body, RequestBody, Window},
    config::{Oversize, Route},
    error::{Fault, Refusal},
    identity::Identity,
    rate,
    telemetry::metrics::{PolicyLabels, RefusalLabels},
    waf::{client_block, decision},
};

/// Who calls, where the route wants to know; a caller may be blocked under its own name, too, and come only so often.
pub(super) async fn admit(
    gateway: &Gateway,
    mut visit: Visit<'_>,
    record: &mut Record,
) -> Result<(Arc<Identity>, Arc<Auth>), Fault> {
    let (route, allowed) = (visit.route, visit.allowed);
    let mut identity = Arc::new(visit.identity.clone());
    let auth = gateway.auth.snapshot();
    let started = Instant::now();
    let admitted = auth.admit(&mut visit).await;
    if route.auth.is_some() {
        record.auth_took = Some(started.elapsed());
    }
    record.caller = admitted.inspect_err(|fault| {
        note_guessing(gateway, route, &identity, fault, record);
        note_policy(gateway, route, fault);
    })?;
    if let Some(caller) = &record.caller {
        identity = Arc::new(identity.of(caller.key()));
        record.identity = Some(Arc::clone(&identity));
        if !allowed {
            check_blocked(gateway, route, &identity, record)?;
        }
    }
    if !allowed {
        let caller = rate::Caller {
            route,
            identity: &identity,
            principal: record.caller.as_deref(),
            headers: &visit.parts.headers,
        };
        record.turn = gateway.rates.admit(caller, &gateway.metrics).await?;
    }
    auth.strip(route, visit.parts);
    Ok((identity, auth))
}

/// How much of the body is read before it is forwarded: who signed a request signed its body, too.
pub(super) fn window(route: &Route, record: &Record, allowed: bool) -> Window {
    let wanted = if allowed { Window::Closed } else { decision::body_window(route) };
    let signed = record.caller.as_ref().is_some_and(|caller| caller.signed());
    match wanted {
        Window::Closed
            if signed
                || ((route.login.is_some() || route.openapi.is_some()) && !allowed)
                || changes::needs_body(route) =>
        {
            Window::Open(Oversize::InspectPrefix)
        }
        window => window,
    }
}

/// Whether the body is the one that was signed, and whether another login may be tried.
pub(super) async fn check_body(
    gateway: &Gateway,
    auth: &Auth,
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
    let guard = auth.guard();
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

/// Counts a refusal by a policy.
fn note_policy(gateway: &Gateway, route: &Route, fault: &Fault) {
    let reason = fault.name();
    if matches!(reason, policy::DENIED | policy::FAILED) {
        let labels = PolicyLabels { route: route.name.clone(), reason };
        gateway.metrics.policy_refused.get_or_create(&labels).inc();
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
    let Gateway { clients, blocks, .. } = gateway;
    let waf = &record.config.waf;
    let outcome = client_block::block_on_guessing(waf, clients, blocks, route, identity, record.at_ms());
    if let client_block::Outcome::Blocked(block) = outcome {
        gateway.metrics.client_blocks.inc();
        gateway.audit.record(block_list::entry("block.put", None, Some(&block)));
    }
}
