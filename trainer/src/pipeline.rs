//! The learning path: read this first.

use std::time::Instant;

use anyhow::Result;
use ed25519_dalek::SigningKey;
use waf_model::{
    artifact,
    client::ClientVector,
    model::{Model, RawModel, RawProvenance},
};

use crate::{
    calibrate::{Budgets, Candidate, calibrate},
    dataset::{Dataset, Slice},
    gate::{Approved, Clients, Demands, Refusal, approve},
    report::{Report, Seconds},
    train::train,
};

/// How to learn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Seed of every random choice.
    pub seed: u64,
    /// Rates of false positives asked for.
    pub budgets: Budgets,
    /// Least clean requests to learn from.
    pub min_requests: u64,
}

/// Where a new model will stand.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Its sequence number.
    pub seq: u64,
    /// When it is said to be made.
    pub now_ms: u64,
    /// The artifact in force, if any; one that cannot be read is not compared with.
    pub in_force: Option<Vec<u8>>,
}

/// What came of learning.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub report: Report,
    /// The signed artifact, or why there is none.
    pub verdict: Result<Approved, Vec<Refusal>>,
}

/// Dataset, profiles and clusters, calibration, gates, signature. `place` is where the new model will stand.
///
/// # Errors
/// There is too little to learn from at all, or reading fails.
pub fn learn(
    open: impl FnOnce() -> Result<Dataset>,
    settings: &Settings,
    place: Place,
    key: &SigningKey,
) -> Result<Outcome> {
    let Place { seq, now_ms, in_force } = place;
    let started = Instant::now();
    let dataset = open()?;
    let read = started.elapsed();
    tracing::info!(rows = dataset.extent().rows, "dataset read");

    let learned = train(&dataset, settings.seed)?;
    let trained = started.elapsed();
    tracing::info!(rows = learned.rows, clusters = learned.requests.mass.len(), "trained");

    let extent = dataset.extent();
    let provenance = RawProvenance {
        created_ms: now_ms,
        trainer: env!("CARGO_PKG_VERSION").to_owned(),
        seed: settings.seed,
        requests: learned.rows,
        clients: learned.client_count,
        dropped: extent.removed.values().sum(),
        window_ms: extent.window_ms,
        inputs: learned.inputs.clone(),
    };
    let candidate = calibrate(learned, &dataset, seq, provenance, &settings.budgets)?;
    let holdout = holdout(&candidate, &dataset)?;
    let calibrated = started.elapsed();
    tracing::info!(n = candidate.model.request_certificate().n, "calibrated");

    let clients = match dataset {
        Dataset::Lake(_) => Clients::Known,
        Dataset::Files(_) => Clients::Unknown,
    };
    let demands = Demands {
        requests: settings.min_requests,
        available: dataset.extent().rows,
        clients,
        current: in_force.and_then(|bytes| artifact::decode(&bytes, &[key.verifying_key()]).ok()),
        wronged: wronged(&candidate, &dataset)?,
    };
    let verdict = approve(&candidate, &demands, key);
    let seconds = Seconds {
        dataset: Seconds::of(read),
        train: Seconds::of(trained.saturating_sub(read)),
        calibrate: Seconds::of(calibrated.saturating_sub(trained)),
    };
    let report = Report::of(&candidate.model, extent, clusters(&candidate.model), holdout, seconds);
    Ok(Outcome { report, verdict })
}

/// How many clean requests were kept aside, and how many of them the candidate would reject.
fn holdout(candidate: &Candidate, dataset: &Dataset) -> Result<(u64, u64)> {
    let (mut kept, mut flagged) = (0, 0);
    dataset.scan(Slice::Holdout, |row| {
        let vector = row.client_vector.unwrap_or(ClientVector::UNKNOWN);
        let score = candidate.model.score(&row.observation, &vector);
        kept += 1;
        flagged += u64::from(candidate.model.flags_request(&score));
        Ok(())
    })?;
    Ok((kept, flagged))
}

/// Requests that a person judged harmless and that the candidate would reject.
fn wronged(candidate: &Candidate, dataset: &Dataset) -> Result<Vec<[u8; 16]>> {
    let mut wronged = Vec::new();
    dataset.scan_harmless(|id, row| {
        let vector = row.client_vector.unwrap_or(ClientVector::UNKNOWN);
        let score = candidate.model.score(&row.observation, &vector);
        if candidate.model.flags_request(&score) {
            wronged.push(id);
        }
        Ok(())
    })?;
    Ok(wronged)
}

fn clusters(model: &Model) -> usize {
    RawModel::from(model).requests.mass.len()
}
