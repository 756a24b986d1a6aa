//! The audit log on the admin API.

use std::{collections::VecDeque, sync::Arc};

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Admin,
    answers::{Answer, ApiError},
};
use crate::{
    audit::{
        self, Head, Standing,
        chain::{self, Broken},
        line::RawLine,
    },
    clock,
};

/// Entries that are shown where nobody says how many.
const SHOWN: usize = 100;

/// Which entries are shown.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RawFilter {
    /// From this moment on: RFC 3339, or milliseconds since 1970.
    pub since: Option<String>,
    /// Of this actor, such as `token:ops`.
    pub actor: Option<String>,
    /// This action, or all that begin so: `block` stands for `block.put` and `block.release`.
    pub action: Option<String>,
    /// So many of the latest (default 100).
    pub limit: Option<usize>,
}

/// What is shown.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    since_ms: Option<u64>,
    actor: Option<String>,
    action: Option<String>,
    limit: usize,
}

impl RawFilter {
    /// Checks it.
    ///
    /// # Errors
    /// The moment cannot be read.
    pub fn check(self) -> Result<Filter, String> {
        let since_ms = self.since.map(|text| {
            clock::parse(&text).ok_or_else(|| format!("`{text}` is no moment; write 2026-11-24T18:00:00Z"))
        });
        Ok(Filter {
            since_ms: since_ms.transpose()?,
            actor: self.actor,
            action: self.action,
            limit: self.limit.unwrap_or(SHOWN),
        })
    }
}

impl Filter {
    fn fits(&self, line: &RawLine) -> bool {
        let of_action = |action: &String| {
            line.action
                .strip_prefix(action.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.since_ms.is_none_or(|since| clock::parse(&line.at).is_some_and(|at| at >= since))
            && self.actor.as_ref().is_none_or(|actor| *actor == line.actor)
            && self.action.as_ref().is_none_or(of_action)
    }
}

/// The latest entries of the log in `directory` that fit, oldest first; and the first place where it is broken, if it
/// is: what comes behind that is not shown.
///
/// # Errors
/// A file cannot be read.
pub fn read(directory: &std::path::Path, filter: &Filter) -> std::io::Result<(Vec<RawLine>, Option<Broken>)> {
    let mut found = VecDeque::new();
    let proof = chain::verify(directory, Head::default(), None, |line| {
        if filter.fits(line) {
            found.push_back(line.clone());
            if found.len() > filter.limit {
                found.pop_front();
            }
        }
    })?;
    Ok((found.into(), proof.err()))
}

pub(super) async fn head(State(admin): State<Arc<Admin>>) -> Json<Standing> {
    admin.gateway.audit.settled().await;
    Json(admin.gateway.audit.standing())
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Query(raw): Query<RawFilter>,
) -> Answer<Vec<RawLine>> {
    let filter = raw.check().map_err(ApiError::invalid)?;
    let directory = admin.gateway.config.snapshot().state.join(audit::DIRECTORY);
    admin.gateway.audit.settled().await;
    let failed = |why: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why);
    let read = tokio::task::spawn_blocking(move || read(&directory, &filter)).await;
    let (lines, broken) =
        read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    match broken {
        None => Ok(Json(lines)),
        Some(broken) => Err(failed(format!("the audit log is not whole: {broken}"))),
    }
}
