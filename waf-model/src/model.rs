//! Model: profiles, clusters, calibration; scores one observation with its client's window.

use crate::{
    client::ClientVector,
    observation::{Observation, ValueKey},
    score::{Explanation, Score},
};

/// A checked model, ready to score.
#[derive(Debug)]
pub struct Model {
    seq: u64,
}

/// What a threshold promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificate {
    /// Highest rate of false positives: per request, or per client-day.
    pub budget: f64,
    /// Confidence that the true rate is within the budget.
    pub confidence: f64,
    /// Calibration units (requests or client-days) behind it.
    pub n: u64,
    /// Score (a surprise for requests, an evidence level for clients) at and above which the unit is flagged.
    pub threshold: f32,
    /// Whether the budget asked for could be certified.
    pub standing: Standing,
}

/// Whether a budget is certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Enough clean data: the threshold may block.
    Certified,
    /// Too little data for the budget asked for: `budget` is the tightest that can be certified.
    Provisional,
}

impl Model {
    /// Sequence number, from 1.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The key with which this model's profiles were learned.
    pub fn value_key(&self) -> &ValueKey {
        const NONE: ValueKey = ValueKey([0; 16]);
        &NONE
    }

    /// Scores one request in its client's context. Pure; the same inputs give the same bits everywhere.
    pub fn score(&self, observation: &Observation, client: &ClientVector) -> Score {
        let _ = (observation, client);
        Score {
            request_distance: 0.0,
            request: crate::score::PValue::ONE,
            cluster: 0,
            client_distance: 0.0,
            client: crate::score::PValue::ONE,
        }
    }

    /// Why the score is what it is; computed only for flagged requests.
    pub fn explain(&self, observation: &Observation, client: &ClientVector) -> Explanation {
        let _ = (observation, client);
        Explanation::default()
    }

    /// The promise behind rejecting one request.
    pub fn request_certificate(&self) -> Certificate {
        Certificate {
            budget: 1.0,
            confidence: 0.0,
            n: 0,
            threshold: f32::INFINITY,
            standing: Standing::Provisional,
        }
    }

    /// The promise behind blocking one client.
    pub fn client_certificate(&self) -> Certificate {
        Certificate {
            budget: 1.0,
            confidence: 0.0,
            n: 0,
            threshold: f32::INFINITY,
            standing: Standing::Provisional,
        }
    }
}
