//! Which endpoints there are, for the admin socket.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use serde::Deserialize;

use crate::{admin::Admin, inventory::listed::Listed};

/// Names a route, if only its endpoints are meant.
#[derive(Debug, Deserialize)]
pub struct RawWanted {
    route: Option<String>,
}

/// Every endpoint that was seen.
pub async fn list(State(admin): State<Arc<Admin>>, Query(raw): Query<RawWanted>) -> Json<Vec<Listed>> {
    Json(admin.gateway.inventory.list(raw.route.as_deref()).await)
}
