//! The way back: rules look at the upstream's response before the client gets it.

use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, response::Parts};
use http_body::Body as _;
use waf_model::{
    event::{Origin, Verdict},
    request::{BodyExtent, BodyView, Header, ResponseView},
    rules::{Carry, Context, ResponseBody, RuleMatches},
};

use super::{Gateway, count_fault, record::Record, settle};
use crate::{
    body::{
        Body,
        coding::{self, Coding},
        held::{self, Held},
    },
    config::{Limits, Mode, Route},
    error::{Fault, Refusal},
    rules::Responses,
    telemetry::metrics::BodyLabels,
    upstream::ArrivingBody,
    waf::decision,
};

/// What rules found in one response.
#[derive(Debug)]
pub struct ResponseInspection {
    /// Rules that matched.
    pub rules: RuleMatches,
    /// Time it took, without the time that the body was held.
    pub took: Duration,
}

/// Asks the upstream for a body that rules can read, where they may withhold it: otherwise the client chooses a coding
/// that hides it from them. Mode `detect` changes nothing, not even this.
pub(super) fn ask_for_readable(route: &Route, headers: &mut HeaderMap) {
    if route.mode != Mode::Block || !matches!(route.rules.responses, Responses::Bodies(_)) {
        return;
    }
    let lines = || {
        let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
        lines.map(|line| line.to_str().unwrap_or_default())
    };
    if lines().flat_map(|line| line.split(',')).all(coding::can_be_undone) {
        return;
    }
    let accepted = lines().collect::<Vec<_>>().join(",");
    if let Ok(kept) = HeaderValue::from_str(&coding::acceptable(&accepted))
        && headers.contains_key(header::ACCEPT_ENCODING)
    {
        headers.insert(header::ACCEPT_ENCODING, kept);
    }
}

/// Refuses a response that says that it is larger than one may be.
///
/// # Errors
/// [`Fault::Refused`] with 502.
pub(super) fn check_length(limits: &Limits, response: &Response<ArrivingBody>) -> Result<(), Fault> {
    if response.body().size_hint().lower() > limits.response_bytes {
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "response_too_large").into());
    }
    Ok(())
}

/// Inspects a response, if the route's rules look at responses and the request was inspected.
///
/// # Errors
/// The response may not go to the client.
pub(super) async fn inspect_response(
    gateway: &Gateway,
    route: &Route,
    method: &Method,
    response: Response<ArrivingBody>,
    record: &mut Record,
) -> Result<Response<Body>, Fault> {
    let carry = record.inspection.as_mut().and_then(|inspection| inspection.carry.take());
    let (parts, body) = response.into_parts();
    let Some(carry) = carry else {
        return Ok(Response::from_parts(parts, Held::nothing(body).forward()));
    };
    let (most, longest) = {
        let limits = &record.config.limits;
        (limits.response_inspect_bytes, limits.response_hold)
    };
    let wanted = match &route.rules.responses {
        Responses::Bodies(wanted) if is_wanted(wanted, method, &parts) => Some(wanted.limit.min(most)),
        _ => None,
    };
    let coding = Coding::of(&parts.headers);
    let held = match wanted {
        Some(most) if coding != Coding::Unknown => held::hold(body, most, longest).await,
        _ => Held::nothing(body),
    };
    let (seen, extent) = match wanted {
        Some(most) => see(gateway, &held, coding, most),
        None => (Cow::Borrowed(&b""[..]), held.extent()),
    };
    let started = Instant::now();
    let verdict = match evaluate(gateway, route, carry, &parts, BodyView { bytes: &seen, extent }, record) {
        Some(found) => {
            let rejects = decision::rules_reject(&found, route.outbound_threshold);
            record.response = Some(ResponseInspection { rules: found, took: started.elapsed() });
            if rejects { Verdict::Response } else { Verdict::Pass }
        }
        None => Verdict::Fault,
    };
    let settled = settle(route, verdict, record);
    if verdict == Verdict::Fault {
        count_fault(gateway, &settled);
    }
    if settled.is_err() {
        record.origin = Origin::Gateway;
    }
    // Where the response is withheld, the rest of its body is dropped with the connection that it comes by.
    settled.map(|_| Response::from_parts(parts, held.forward()))
}

/// Tells the rules of phase 5 of a request that rules denied: they may count such requests. What they match then is
/// about the gateway's own answer, and nobody's concern.
pub(super) fn conclude(gateway: &Gateway, fault: &Fault, record: &mut Record) {
    let Some(inspection) = record.inspection.as_mut().filter(|inspection| inspection.rules.denied.is_some())
    else {
        return;
    };
    let (Some(carry), Some(route)) = (inspection.carry.take(), record.route.clone()) else { return };
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = fault.status();
    let body = BodyView { bytes: b"", extent: BodyExtent::Complete };
    let _ = evaluate(gateway, &route, carry, &parts, body, record);
}

/// Whether rules look at this body: it has one, of a type that they name, that is not an endless stream.
pub(crate) fn is_wanted(wanted: &ResponseBody, method: &Method, parts: &Parts) -> bool {
    if method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return false;
    }
    let Some(kind) = parts.headers.get(header::CONTENT_TYPE) else { return false };
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let kind = kind.trim_ascii().to_ascii_lowercase();
    kind != b"text/event-stream" && wanted.media_types.iter().any(|media| media.as_bytes() == kind)
}

/// The part of a body that rules look at, decoded; counts how much that is.
fn see<'a>(
    gateway: &Gateway,
    held: &'a Held<ArrivingBody>,
    coding: Coding,
    most: usize,
) -> (Cow<'a, [u8]>, BodyExtent) {
    // A defect of a decoder costs the sight of this body, not the response.
    let bytes = held.bytes();
    let decoded = catch_unwind(|| coding::decode(coding, bytes, most)).ok().flatten();
    let seen = decoded.map(|(bytes, extent)| match held.extent() {
        BodyExtent::Complete => (bytes, extent),
        BodyExtent::Truncated => (bytes, BodyExtent::Truncated),
    });
    let inspected = match &seen {
        Some((_, BodyExtent::Complete)) => "whole",
        Some((_, BodyExtent::Truncated)) => "prefix",
        None => "no",
    };
    gateway.metrics.response_bodies.get_or_create(&BodyLabels { inspected }).inc();
    seen.unwrap_or((Cow::Borrowed(b""), BodyExtent::Truncated))
}

/// What the rules find; `None` if they break down.
fn evaluate(
    gateway: &Gateway,
    route: &Route,
    carry: Carry,
    parts: &Parts,
    body: BodyView<'_>,
    record: &Record,
) -> Option<RuleMatches> {
    let headers: Vec<Header<'_>> = parts
        .headers
        .iter()
        .map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    let view = ResponseView { status: parts.status.as_u16(), protocol: "HTTP/1.1", headers: &headers, body };
    let request_id = record.request_id.0.as_str();
    let context = Context {
        now_ms: record.at_ms(),
        request_id,
        collections: &gateway.collections,
        connection: record.connection(),
    };
    let found = catch_unwind(AssertUnwindSafe(|| route.rules.set.evaluate_response(&context, carry, &view)));
    if found.is_err() {
        // What a panic says may hold a part of the response, which must not get into a log.
        tracing::error!(request_id, route = route.name, "inspection of a response failed");
    }
    found.ok()
}
