//! The configuration on the admin socket: what is in force, and an order to read it again.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde::Serialize;

use crate::{
    pipeline::Gateway,
    reload::{Outcome, Reloader},
};

/// The configuration in force.
#[derive(Debug, Serialize)]
struct InForce {
    /// Its file, if there is one.
    file: Option<String>,
    /// What was written there, before `${NAME}` was replaced: it holds no secret that the file does not hold.
    document: serde_json::Value,
    /// How the last reload ended.
    last_reload: Option<Outcome>,
}

/// `GET /config` and `POST /config/reload`.
pub fn router(reloader: Arc<Reloader>, gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/config", get(show))
        .route("/config/reload", post(reload))
        .with_state((reloader, gateway))
}

type Parts = State<(Arc<Reloader>, Arc<Gateway>)>;

async fn show(State((reloader, gateway)): Parts) -> Json<InForce> {
    Json(InForce {
        file: reloader.file().map(|file| file.display().to_string()),
        document: gateway.config.snapshot().document.clone(),
        last_reload: reloader.last().await,
    })
}

async fn reload(State((reloader, _)): Parts) -> Json<Outcome> {
    Json(reloader.reload().await)
}
