//! Why the latest flagged requests were flagged, for `gateway explain <request-id>`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use waf_model::{
    event::Verdict,
    rules::{Denial, RuleMatch},
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
    /// The rule that denied whatever the points are.
    pub denied: Option<Denial>,
    /// Rules that matched in the response.
    pub response_rules: Vec<RuleMatch>,
    /// Their points together, and the threshold.
    pub response_points: (u32, u32),
    /// The rule that withheld the response whatever the points are.
    pub response_denied: Option<Denial>,
    /// The model's score, if one was loaded.
    pub score: Option<Score>,
    /// Why the score is what it is.
    pub explanation: Option<Explanation>,
    /// What stands behind the model's flag, in words; empty if it does not flag the request.
    pub promise: String,
    /// Evidence against the client after this request, and the threshold.
    pub evidence: (f32, f32),
}

/// Most flagged requests that are kept; about 2 KiB each.
const KEPT: usize = 10_000;

/// The latest flagged requests, bounded.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<VecDeque<Arc<Flagged>>>);

impl Decisions {
    /// Keeps one, dropping the oldest when full.
    pub fn record(&self, flagged: Flagged) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(flagged));
    }

    /// Finds one by request id.
    pub fn find(&self, request_id: &str) -> Option<Arc<Flagged>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|flagged| flagged.request_id == request_id).cloned()
    }

    /// The latest of one client, newest first, at most `count`.
    pub fn of_client(&self, client: &str, count: usize) -> Vec<Arc<Flagged>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().filter(|flagged| flagged.client == client).take(count).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flagged(id: usize) -> Flagged {
        Flagged {
            request_id: id.to_string(),
            at_ms: 0,
            route: "r".to_owned(),
            client: format!("ip:10.0.0.{}", id % 2),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            verdict: Verdict::Rules,
            mode: "block",
            status: 403,
            rules: Vec::new(),
            rule_points: (5, 5),
            denied: None,
            response_rules: Vec::new(),
            response_points: (0, 4),
            response_denied: None,
            score: None,
            explanation: None,
            promise: String::new(),
            evidence: (0.0, 0.0),
        }
    }

    #[test]
    fn the_latest_are_found_and_the_oldest_dropped() {
        let decisions = Decisions::default();
        for id in 0..=KEPT {
            decisions.record(flagged(id));
        }
        assert!(decisions.find("0").is_none());
        assert_eq!(decisions.find("1").unwrap().request_id, "1");
        let latest: Vec<_> =
            decisions.of_client("ip:10.0.0.1", 2).iter().map(|flagged| flagged.request_id.clone()).collect();
        assert_eq!(latest, ["9999", "9997"]);
    }
}
