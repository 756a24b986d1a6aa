//! The configuration on the admin API: what is in force, and an order to read it again.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Serialize;

use super::{
    Admin,
    access::Caller,
    answers::{Answer, ApiError},
};
use crate::reload::{Cause, Outcome, Reloader};

/// The configuration in force.
#[derive(Debug, Serialize)]
pub(super) struct InForce {
    /// Its file, if there is one.
    file: Option<String>,
    /// What was written there, before `${NAME}` was replaced: it holds no secret that the file does not hold.
    document: serde_json::Value,
    /// How the last reload ended.
    last_reload: Option<Outcome>,
}

pub(super) async fn show(
    State(reloader): State<Arc<Reloader>>,
    State(admin): State<Arc<Admin>>,
) -> Json<InForce> {
    Json(InForce {
        file: reloader.file().map(|file| file.display().to_string()),
        document: admin.gateway.config.snapshot().document.clone(),
        last_reload: reloader.last().await,
    })
}

pub(super) async fn reload(
    State(reloader): State<Arc<Reloader>>,
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
) -> Answer<Outcome> {
    let outcome = reloader.reload(Cause::Order { actor: caller.actor, from: caller.from }).await;
    admin.gateway.audit.settled().await;
    let Some(reason) = &outcome.refused else { return Ok(Json(outcome)) };
    let detail = format!("refused; the configuration in force stays:\n{reason}");
    let more = serde_json::to_value(&outcome).unwrap_or_default();
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail).and(more))
}
