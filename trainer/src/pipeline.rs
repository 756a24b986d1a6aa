//! The learning path: read this first.

use std::time::Instant;

use anyhow::Result;
use ed25519_dalek::SigningKey;
use waf_model::{
    artifact,
    client::ClientVector,
    event::ReviewVerdict,
    model::{Model, RawProvenance},
};

use crate::{
    calibrate::{Budgets, Candidate, calibrate},
    dataset::{Dataset, Row, Slice},
    gate::{Approved, Clients, Demands, Refusal, approve},
    micro::{Vote, vote},
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
    /// Largest share of the requests that may be removed as not clean.
    pub may_remove: f64,
    /// Whether a person approved that traffic and clusters moved.
    pub approve_drift: bool,
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
    /// What was judged.
    pub candidate: Candidate,
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
    let mut dataset = open()?;
    let Vote { slices, odd, shared } = vote(&dataset, settings.seed)?;
    tracing::info!(rows = dataset.extent().rows, slices, odd = odd.rows, shared, "dataset read");
    dataset.leave_out(odd);
    let dataset = dataset;
    let read = started.elapsed();

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
    let current = in_force.and_then(|bytes| artifact::decode(&bytes, &[key.verifying_key()]).ok());
    let candidate = calibrate(learned, &dataset, seq, provenance, &settings.budgets, current.as_ref())?;
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
        removed: dataset.extent().removed_share(),
        may_remove: settings.may_remove,
        approve_drift: settings.approve_drift,
        wronged: wronged(&candidate, &dataset)?,
        lost: current.as_ref().map_or(Ok(Vec::new()), |current| lost(&candidate, current, &dataset))?,
        current,
    };
    let verdict = approve(&candidate, &demands, key);
    let seconds = Seconds {
        dataset: Seconds::of(read),
        train: Seconds::of(trained.saturating_sub(read)),
        calibrate: Seconds::of(calibrated.saturating_sub(trained)),
    };
    let report = Report::of(&candidate, extent, holdout, seconds);
    Ok(Outcome { report, verdict, candidate })
}

/// How many clean requests were kept aside, and how many of them the candidate would reject.
fn holdout(candidate: &Candidate, dataset: &Dataset) -> Result<(u64, u64)> {
    let (mut kept, mut flagged) = (0, 0);
    let judged = |row: Row| {
        let vector = row.client_vector.unwrap_or(ClientVector::UNKNOWN);
        candidate.model.flags_request(&candidate.model.score(&row.observation, &vector), &row.route)
    };
    dataset.scan_with(Slice::Holdout, judged, |is_flagged| {
        kept += 1;
        flagged += u64::from(is_flagged);
        Ok(())
    })?;
    Ok((kept, flagged))
}

/// Requests that a person judged harmless and that the candidate would reject.
fn wronged(candidate: &Candidate, dataset: &Dataset) -> Result<Vec<[u8; 16]>> {
    let mut wronged = Vec::new();
    dataset.scan_judged(ReviewVerdict::FalsePositive, |id, row| {
        let vector = row.client_vector.unwrap_or(ClientVector::UNKNOWN);
        let score = candidate.model.score(&row.observation, &vector);
        if candidate.model.flags_request(&score, &row.route) {
            wronged.push(id);
        }
        Ok(())
    })?;
    Ok(wronged)
}

/// Requests that a person confirmed as attacks, that the model in force flags and the candidate does not.
fn lost(candidate: &Candidate, current: &Model, dataset: &Dataset) -> Result<Vec<[u8; 16]>> {
    let mut lost = Vec::new();
    if current.value_key() != candidate.model.value_key() {
        return Ok(lost);
    }
    dataset.scan_judged(ReviewVerdict::Confirmed, |id, row| {
        let vector = row.client_vector.unwrap_or(ClientVector::UNKNOWN);
        let flags = |model: &Model| model.flags_request(&model.score(&row.observation, &vector), &row.route);
        if flags(current) && !flags(&candidate.model) {
            lost.push(id);
        }
        Ok(())
    })?;
    Ok(lost)
}
