//! Health, readiness and metrics: what probes and scrapers ask, and nothing that changes anything.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use crate::{
    admin::{
        Admin,
        access::Caller,
        certificates,
        status::{self, Status},
        upstreams,
    },
    clock,
};

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// For those who may look.
    #[serde(flatten)]
    status: Option<Status>,
}

/// A store that is away does not make a gateway unready: what is known stays in force.
pub(super) async fn ready(
    State(admin): State<Arc<Admin>>,
    caller: Option<Extension<Caller>>,
) -> impl IntoResponse {
    let ready = admin.ready.load(Ordering::Relaxed);
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let may_look = caller.is_some_and(|Extension(caller)| caller.role.is_some());
    (code, Json(Ready { ready, status: may_look.then(|| status::status(&admin)) }))
}

pub(super) async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let in_force = admin.gateway.model.snapshot();
    let routes = status::routes(&admin.gateway.config.snapshot(), in_force.as_deref());
    let shown = routes.iter().filter_map(|route| Some((route.route.as_str(), route.realised.as_ref()?)));
    let drift = in_force.as_ref().and_then(|in_force| in_force.live.drift(&in_force.model, clock::now_ms()));
    admin.gateway.metrics.live.show(shown, drift.as_ref());
    let trial = admin.gateway.model.challenger().map(|challenger| challenger.trial(clock::now_ms()));
    admin.gateway.metrics.live.show_trial(trial.as_ref());
    let upstream = &admin.gateway.upstream;
    let refused = upstreams::refused(upstream).into_iter();
    admin.gateway.metrics.upstreams.show(&upstreams::shown(upstream), refused);
    admin.gateway.metrics.upstreams.show_mirrored(upstream.mirrors().counts());
    admin.gateway.metrics.tls.show(certificates::shown(&admin.gateway));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.gateway.metrics.encode())
}
