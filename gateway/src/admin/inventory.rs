//! Which endpoints there are, on the admin API.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{admin::Admin, inventory::listed::Listed};

/// Which endpoints: those of one route, or all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWanted {
    /// Route name; without it on every route.
    route: Option<String>,
}

/// Every endpoint that was seen.
pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(raw): Query<RawWanted>) -> Json<Vec<Listed>> {
    Json(admin.gateway.inventory.list(raw.route.as_deref()).await)
}
