//! Models on the admin API: which there are, where they come from, which is in force.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use waf_model::artifact::{self, RawHeader};

use crate::{
    admin::{
        Admin,
        answers::{ApiError, Done, Note, Ordered},
    },
    clock,
    waf::{challenger::Trial, model_watch, promise},
};

/// One artifact in the store.
#[derive(Debug, Serialize)]
pub struct ShownModel {
    seq: u64,
    /// `in force`, `on trial`, `refused`, `published`, `chosen` or nothing, separated by commas.
    state: String,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<RawHeader>,
    /// Why the header cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    /// How the trial stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
    /// Why it did not take over after its trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
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
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModelName {
    /// Its sequence number.
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
) -> Ordered<ShownModel> {
    choose(&admin, raw.seq).await
}

/// Goes back to the model that was in force before, or, where none is remembered, to the newest older one that was
/// not refused.
pub(super) async fn roll_back(State(admin): State<Arc<Admin>>) -> Ordered<ShownModel> {
    let slot = &admin.gateway.model;
    let in_force = match slot.seq() {
        0 => {
            return Err(ApiError::not_found(
                "no model is in force; choose one with `gateway models promote`",
            ));
        }
        seq => seq,
    };
    let kept = admin.models.list().await?;
    let before = model_watch::history(&admin.gateway.config.snapshot().state);
    let before = before.into_iter().rev().skip_while(|seq| *seq == in_force).find(|seq| kept.contains(seq));
    let older = kept.iter().rev().copied().find(|seq| *seq < in_force && slot.refusal(*seq).is_none());
    let seq = before.or(older).ok_or_else(|| {
        ApiError::not_found(format!(
            "no model from before model {in_force} is kept; see `gateway models list`"
        ))
    })?;
    choose(&admin, seq).await
}

async fn choose(admin: &Admin, seq: u64) -> Ordered<ShownModel> {
    if admin.gateway.config.snapshot().waf.model.is_some() {
        return Err(ApiError::invalid(
            "the model is fixed by `waf.model` in the configuration; change it there",
        ));
    }
    let before = admin.models.current().await?;
    // Whatever can fail comes first: an order that was carried out is answered and noted as such.
    let answer = shown_model(admin, seq).await?;
    admin.models.set_current(seq).await?;
    tracing::info!(model = seq, "model chosen by an operator");
    let note =
        Note { object: seq.to_string(), before: before.map_or(Value::Null, Value::from), after: seq.into() };
    Ok(Done { answer, note })
}

async fn shown_model(admin: &Admin, seq: u64) -> Result<ShownModel, ApiError> {
    let bytes = admin.models.fetch(seq).await?;
    let in_force = admin.gateway.model.snapshot().filter(|in_force| in_force.model.seq() == seq);
    let mut state = Vec::new();
    if in_force.is_some() {
        state.push("in force");
    }
    let challenger = admin.gateway.model.challenger().filter(|challenger| challenger.model.seq() == seq);
    let trial = challenger.map(|challenger| challenger.trial(clock::now_ms()));
    if trial.is_some() {
        state.push("on trial");
    }
    let refused = admin.gateway.model.refusal(seq);
    if refused.is_some() {
        state.push("refused");
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
        let groups = model.groups().map(|group| promise::of_group(&group));
        groups.chain([promise::in_words(model.client_certificate(), "client-day")]).collect()
    });
    Ok(ShownModel {
        seq,
        state: state.join(", "),
        bytes: bytes.len(),
        header,
        unreadable,
        trial,
        refused,
        certificates,
    })
}
