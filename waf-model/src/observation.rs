//! Observation: all that is learned from one request. Context-free, and no raw value is in it.

use serde::{Deserialize, Serialize};

use crate::{
    request::RequestView,
    rules::RuleMatches,
    values::{Finding, Location, Values},
};

/// The secret with which values are hashed; one for a site, so that equal values stay equal and nobody without
/// the key can guess them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ValueKey(pub [u8; 16]);

/// All that is learned from one request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Method, upper case.
    pub method: String,
    /// Path template by [`crate::shape`]: `/orders/{int}`.
    pub path: String,
    /// What the whole decoded path looks like.
    pub path_summary: ValueSummary,
    /// One entry per value, in order of arrival.
    pub params: Vec<ParamObservation>,
    /// Bytes of the raw query.
    pub query_bytes: u32,
    /// Bytes of the inspected body.
    pub body_bytes: u32,
    /// What is wrong or ambiguous about the request's form.
    pub findings: Vec<Finding>,
    /// Ids of the rules that matched.
    pub rules: Vec<u32>,
    /// Their points together.
    pub rule_points: u32,
}

/// What one value looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParamObservation {
    /// Where it was found.
    pub location: Location,
    /// Its name by [`crate::shape`].
    pub name: String,
    /// What it looks like.
    pub summary: ValueSummary,
}

/// Features of one value's text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueSummary {
    /// Bytes of the outermost layer.
    pub bytes: u32,
}

impl Observation {
    /// Summarizes one request.
    pub fn of(request: &RequestView<'_>, values: &Values<'_>, rules: &RuleMatches, key: &ValueKey) -> Self {
        let _ = (request, values, rules, key);
        Self::default()
    }
}
