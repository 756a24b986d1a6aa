//! ClientWindow: what one client did lately, in decayed counters; bounded memory.

use serde::{Deserialize, Serialize};

use crate::{observation::Observation, score::Score};

/// Number of columns of a [`ClientVector`].
pub const CLIENT_FEATURES: usize = 24;

/// What one client did lately, as numbers in a fixed order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClientVector(pub [f32; CLIENT_FEATURES]);

/// What one client did lately. At most 1 KiB.
#[derive(Debug, Clone)]
pub struct ClientWindow {
    first_seen_ms: u64,
}

/// What became of a request, as far as it says something about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseSummary {
    /// Status that the upstream sent.
    pub status: u16,
    /// Bytes of the response body.
    pub bytes: u64,
}

impl ClientWindow {
    /// A client first seen at `now_ms` (milliseconds since 1970).
    pub fn new(now_ms: u64) -> Self {
        Self { first_seen_ms: now_ms }
    }

    /// Counts a request. Call before [`Self::vector`].
    pub fn record_request(&mut self, now_ms: u64, observation: &Observation) {
        let _ = (now_ms, observation);
    }

    /// Counts an upstream's response. Responses that the gateway itself made must not be recorded.
    pub fn record_response(&mut self, now_ms: u64, response: ResponseSummary) {
        let _ = (now_ms, response, self.first_seen_ms);
    }

    /// The window as numbers.
    pub fn vector(&self, now_ms: u64) -> ClientVector {
        let _ = now_ms;
        ClientVector([0.0; CLIENT_FEATURES])
    }
}

/// Evidence against one client: accumulates with every suspicious request, and decays.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    level: f32,
    updated_ms: u64,
}

/// Why evidence was added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspicion {
    /// Points of the rules that matched.
    pub rule_points: u32,
    /// The model's score, if there is a model.
    pub score: Option<Score>,
}

impl Evidence {
    /// Adds what one request says; returns the level after it.
    pub fn add(&mut self, now_ms: u64, suspicion: &Suspicion) -> f32 {
        let _ = (now_ms, suspicion, self.updated_ms);
        self.level
    }

    /// The level at `now_ms`.
    pub fn level(&self, now_ms: u64) -> f32 {
        let _ = now_ms;
        self.level
    }
}
