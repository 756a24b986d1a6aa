//! Breakers on the admin API: a person closes one.

use std::sync::Arc;

use axum::{Json, extract::State};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::admin::{
    Admin,
    answers::{ApiError, Done, Note, Ordered},
};

/// Which breaker: that of a route, or all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReset {
    /// Route name; without it on every route.
    route: Option<String>,
}

/// What became of the breaker of one route.
#[derive(Debug, Serialize)]
pub(super) struct Reset {
    route: String,
    was_open: bool,
}

/// Closes breakers; the model acts on these routes again as far as its certificate and the route's mode let it.
pub(super) async fn reset(State(admin): State<Arc<Admin>>, Json(raw): Json<RawReset>) -> Ordered<Vec<Reset>> {
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
        let name = raw.route.clone().unwrap_or_default();
        return Err(ApiError::not_found(format!("there is no route `{name}`; there are: {known}")));
    }
    for breaker in reset.iter().filter(|breaker| breaker.was_open) {
        tracing::info!(route = breaker.route, "breaker closed by an operator");
    }
    let opened: Vec<&str> = reset.iter().filter(|one| one.was_open).map(|one| one.route.as_str()).collect();
    let note = Note {
        object: raw.route.unwrap_or_else(|| "every route".to_owned()),
        before: json!({ "open": opened }),
        after: Value::Null,
    };
    Ok(Done { answer: reset, note })
}
