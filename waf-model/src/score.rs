//! Score, p-value and explanation: what the model says of one request and its client.

use serde::{Deserialize, Serialize};

/// How often a clean request (or client) is at least this far from normal; in (0, 1].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct PValue(f32);

impl PValue {
    /// Nothing unusual.
    pub const ONE: Self = Self(1.0);

    /// A p-value; anything outside (0, 1] or not a number becomes the nearest bound, 1 for NaN.
    pub fn new(p: f32) -> Self {
        if p.is_nan() { Self::ONE } else { Self(p.clamp(f32::MIN_POSITIVE, 1.0)) }
    }

    /// The probability.
    pub fn get(self) -> f32 {
        self.0
    }

    /// -log10 p: 0 for normal, 3 for one in a thousand.
    pub fn surprise(self) -> f32 {
        -self.0.log10()
    }
}

/// What the model says of one request and its client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Distance of the request from the nearest cluster of requests, in that cluster's scale.
    pub request_distance: f32,
    /// Its p-value under the calibration.
    pub request: PValue,
    /// Index of the nearest cluster of requests.
    pub cluster: u16,
    /// Distance of the client's behavior from the nearest cluster of clients.
    pub client_distance: f32,
    /// Its p-value.
    pub client: PValue,
}

/// Why a score is high, in words an operator understands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The strongest reasons, strongest first.
    pub reasons: Vec<Reason>,
    /// Sequence number of the model, 0 for none.
    pub model: u64,
}

/// One feature that is far from what is usual.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Feature name from the feature table.
    pub feature: String,
    /// Share of the distance, 0 to 1.
    pub share: f32,
    /// Observed value.
    pub observed: f32,
    /// Usual range of the nearest cluster.
    pub usual: (f32, f32),
    /// One sentence: `parameter id (query) holds characters never seen there: ' ( )`.
    pub text: String,
}
