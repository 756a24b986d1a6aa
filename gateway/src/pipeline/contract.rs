//! Whether a request keeps to the OpenAPI document of its route.

use std::panic::{AssertUnwindSafe, catch_unwind};

use waf_model::request::BodyExtent;

use super::{Exchange, Gateway, inbound, record::Record};
use crate::{
    config::{Mode, Route},
    error::Fault,
    openapi::{Asked, Sent},
    telemetry::metrics::{FailLabels, ViolationLabels},
};

/// Checks a request, notes what it breaks, and refuses it where the route says so.
pub(super) fn check(
    gateway: &Gateway,
    route: &Route,
    exchange: &Exchange<'_>,
    record: &mut Record,
) -> Result<(), Fault> {
    let Some(openapi) = &route.openapi else { return Ok(()) };
    let Exchange { parts, body, .. } = exchange;
    let readable = inbound::readable(&record.config.limits, route, &parts.headers, body.view())?;
    let view = readable.view();
    // Of a caller that proved who it is the credential is off by now.
    let spared: Vec<&str> = match &record.caller {
        Some(_) => record.config.auth.secret_headers().map(|name| name.as_str()).collect(),
        None => Vec::new(),
    };
    let asked = Asked {
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query(),
        headers: &parts.headers,
        body: match view.extent {
            _ if body.is_empty() => Sent::Nothing,
            BodyExtent::Complete => Sent::Whole(view.bytes),
            BodyExtent::Truncated => Sent::Part,
        },
        spared: &spared,
    };
    // A defect of the check is no better a reason to answer than a broken rule is.
    let Ok(checked) = catch_unwind(AssertUnwindSafe(|| openapi.api.check(&asked))) else {
        tracing::error!(
            request_id = record.request_id.0,
            route = route.name,
            "checking against OpenAPI failed"
        );
        let fail = if openapi.mode == Mode::Block { "closed" } else { "open" };
        gateway.metrics.engine_errors.get_or_create(&FailLabels { fail }).inc();
        return if openapi.mode == Mode::Block { Err(Fault::NotInspected) } else { Ok(()) };
    };
    match checked {
        Ok(()) => Ok(()),
        Err(violation) => {
            let labels = ViolationLabels {
                route: route.name.clone(),
                place: violation.place,
                mode: if openapi.mode == Mode::Block { "block" } else { "detect" },
            };
            gateway.metrics.openapi_violations.get_or_create(&labels).inc();
            record.violation = Some(violation.to_string());
            if openapi.mode == Mode::Block { Err(Fault::Contract(Box::new(violation))) } else { Ok(()) }
        }
    }
}
