//! Observation: all that is learned from one request. Context-free, and no raw value is in it.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::{
    base::{self, Strength},
    injection::Said,
    recent::Recent,
    request::RequestView,
    rules::RuleMatches,
    shape,
    values::{Finding, Location, Values},
};

pub mod census;
pub mod summary;

use summary::ValueSummary;

/// Most values of one request that are observed; the rest counts in [`Observation::unobserved`].
pub const PARAMS: usize = 128;

/// The secret with which values are hashed; one for a site, so that equal values stay equal and nobody without
/// the key can guess them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ValueKey(pub [u8; 16]);

/// All that is learned from one request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Method, upper case; `{text}` for one that is not a word.
    pub method: SmolStr,
    /// Path template by [`crate::shape`]: `/orders/{int}`.
    pub path: String,
    /// What the whole decoded path looks like.
    pub path_summary: ValueSummary,
    /// Path segments.
    pub path_depth: u16,
    /// One entry per value other than path segments, in order of arrival; at most [`PARAMS`].
    pub params: Vec<ParamObservation>,
    /// Values beyond [`PARAMS`].
    pub unobserved: u16,
    /// Attack evidence in values beyond [`PARAMS`].
    pub unobserved_attack: Strength,
    /// Bytes of the raw query.
    pub query_bytes: u32,
    /// Bytes of the inspected body.
    pub body_bytes: u32,
    /// What is wrong or ambiguous about the request's form.
    pub findings: Vec<Finding>,
    /// Ids of the rules that matched.
    pub rules: Vec<u32>,
    /// Their weight together ([`RuleMatches::weight`]).
    pub rule_points: u32,
}

/// What one value looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ParamObservation {
    /// Where it was found.
    pub location: Location,
    /// Its name by [`shape::name`].
    pub name: SmolStr,
    /// What it looks like.
    pub summary: ValueSummary,
}

impl Observation {
    /// Summarizes one request.
    pub fn of(request: &RequestView<'_>, values: &Values<'_>, rules: &RuleMatches, key: &ValueKey) -> Self {
        let segments = || values.items.iter().filter(|value| value.location == Location::Path);
        let observed = || values.items.iter().filter(|value| base::is_judged(value));
        let mut params = Vec::with_capacity(values.items.len().min(PARAMS));
        let mut names = Recent::new();
        params.extend(observed().take(PARAMS).map(|value| {
            let name = names.recall(&*value.name, || shape::name(&value.name));
            ParamObservation::of(value, name, key)
        }));
        Self {
            method: shape::shape(request.method.as_bytes()).into(),
            path: shape::path(segments().map(|value| &*value.value)),
            path_summary: ValueSummary::of(std::iter::once(&*base::path_text(values)), key),
            path_depth: clamp(segments().count()),
            params,
            unobserved: clamp(observed().count().saturating_sub(PARAMS)),
            unobserved_attack: observed()
                .skip(PARAMS)
                .flat_map(|value| base::value_texts(value))
                .map(strength)
                .max()
                .unwrap_or_default(),
            query_bytes: size(request.query.map_or(0, <[u8]>::len)),
            body_bytes: size(request.body.bytes.len()),
            findings: values.findings.clone(),
            rules: rules.matches.iter().map(|found| found.id).collect(),
            rule_points: rules.weight(),
        }
    }
}

impl ParamObservation {
    fn of(value: &crate::values::Value<'_>, name: SmolStr, key: &ValueKey) -> Self {
        let mut summary = ValueSummary::of(value.layers(), key);
        // A name can carry an attack as well as a value can; layers are counted already.
        summary.attack = base::odd_name(value).map(strength).unwrap_or_default().max(summary.attack);
        if matches!(value.location, Location::Header | Location::Cookie) {
            // Credentials travel here: not even a keyed hash of them is kept.
            summary.hash = 0;
        }
        Self { location: value.location, name, summary }
    }
}

fn strength(text: &[u8]) -> Strength {
    base::shipped().strength(text, Said::of(text))
}

fn clamp(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl ValueKey {
    /// Keyed hash of `bytes`.
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        use std::hash::Hasher as _;
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(&self.0);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Tells two keys apart without giving either away.
    pub fn id(&self) -> u64 {
        self.hash(b"portcullis value key")
    }
}

impl fmt::Debug for ValueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueKey(id {:016x})", self.id())
    }
}
