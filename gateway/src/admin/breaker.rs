//! Breakers on the admin socket: a person closes one.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use crate::admin::{Admin, ApiError};

/// Which breaker: that of a route, or all.
#[derive(Debug, Deserialize)]
pub(super) struct RawReset {
    route: Option<String>,
}

/// What became of the breaker of one route.
#[derive(Debug, Serialize)]
pub(super) struct Reset {
    route: String,
    was_open: bool,
}

/// Closes breakers; the model acts on these routes again as far as its certificate and the route's mode let it.
pub(super) async fn reset(
    State(admin): State<Arc<Admin>>,
    Json(raw): Json<RawReset>,
) -> Result<Json<Vec<Reset>>, ApiError> {
    let in_force = admin
        .gateway
        .model
        .snapshot()
        .ok_or_else(|| ApiError::not_found("no model is in force, so there is no breaker to reset"))?;
    let config = admin.gateway.config.snapshot();
    let routes = &config.routes;
    let named = routes.iter().filter(|route| raw.route.as_ref().is_none_or(|name| *name == route.name));
    let reset: Vec<Reset> = named
        .map(|route| Reset { route: route.name.clone(), was_open: in_force.live.reset(&route.name) })
        .collect();
    if reset.is_empty() {
        let known = routes.iter().map(|route| route.name.as_str()).collect::<Vec<_>>().join(", ");
        let name = raw.route.unwrap_or_default();
        return Err(ApiError::not_found(format!("there is no route `{name}`; there are: {known}")));
    }
    for breaker in reset.iter().filter(|breaker| breaker.was_open) {
        tracing::info!(route = breaker.route, "breaker closed by an operator");
    }
    Ok(Json(reset))
}
