//! Models on the admin socket: which there are, where they come from, which is in force.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use serde::{Deserialize, Serialize};
use waf_model::artifact::{self, RawHeader};

use crate::admin::{Admin, ApiError, status::promise};

/// One artifact in the store.
#[derive(Debug, Serialize)]
pub struct ShownModel {
    seq: u64,
    /// `in force`, `published`, `chosen` or nothing, separated by commas.
    state: String,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<RawHeader>,
    /// Why the header cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// Promises of the model in force, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    certificates: Vec<String>,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<ShownModel>>, ApiError> {
    let mut shown = Vec::new();
    for seq in admin.models.list().await? {
        shown.push(shown_model(&admin, seq).await?);
    }
    Ok(Json(shown))
}

/// Names a model.
#[derive(Debug, Deserialize)]
pub(super) struct RawModelName {
    seq: u64,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Query(raw): Query<RawModelName>,
) -> Result<Json<ShownModel>, ApiError> {
    if !admin.models.list().await?.contains(&raw.seq) {
        return Err(ApiError::not_found(format!("there is no model {}; see `gateway models list`", raw.seq)));
    }
    Ok(Json(shown_model(&admin, raw.seq).await?))
}

/// Publishes a model on a person's order; every gateway takes it over at its next look, if it verifies.
pub(super) async fn set_current(
    State(admin): State<Arc<Admin>>,
    Json(raw): Json<RawModelName>,
) -> Result<Json<ShownModel>, ApiError> {
    if admin.gateway.config.waf.model.is_some() {
        return Err(ApiError::invalid(
            "the model is fixed by `waf.model` in the configuration; change it there",
        ));
    }
    admin.models.set_current(raw.seq).await?;
    tracing::info!(model = raw.seq, "model chosen by an operator");
    Ok(Json(shown_model(&admin, raw.seq).await?))
}

async fn shown_model(admin: &Admin, seq: u64) -> Result<ShownModel, ApiError> {
    let bytes = admin.models.fetch(seq).await?;
    let in_force = admin.gateway.model.snapshot().filter(|in_force| in_force.model.seq() == seq);
    let mut state = Vec::new();
    if in_force.is_some() {
        state.push("in force");
    }
    if admin.models.current().await? == Some(seq) {
        state.push("published");
    }
    if admin.models.chosen().await? == Some(seq) {
        state.push("chosen");
    }
    let (header, unreadable) = match artifact::header(&bytes) {
        Ok(header) => (Some(header), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let certificates = in_force.map_or_else(Vec::new, |in_force| {
        let model = &in_force.model;
        vec![
            promise(model.request_certificate(), "request"),
            promise(model.client_certificate(), "client-day"),
        ]
    });
    Ok(ShownModel { seq, state: state.join(", "), bytes: bytes.len(), header, unreadable, certificates })
}
