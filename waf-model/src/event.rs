//! Event: what the gateway emits and the trainer reads. Versioned; no raw value is in it.

use serde::{Deserialize, Serialize};

use crate::{client::ClientVector, observation::Observation, rules::RuleMatch, score::Score};

/// Version of the wire form; the first field of every encoded event.
pub const EVENT_VERSION: u16 = 2;

/// Version of the wire form of a review; the first field of every encoded one.
pub const REVIEW_VERSION: u16 = 1;

/// Most rules of one side of an exchange that an event shows.
pub const HITS: usize = 16;

/// One request as the gateway saw, scored and answered it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Request id (UUIDv7): unique, so that repeats can be dropped.
    pub id: [u8; 16],
    /// Milliseconds since 1970 at arrival.
    pub at_ms: u64,
    /// Keyed hash of the client key.
    pub client: u64,
    /// Keyed hash of the client's network (IPv4 /24, IPv6 /48).
    pub network: u64,
    /// Name of the route.
    pub route: String,
    /// What was observed.
    pub observation: Observation,
    /// The client's window at this request, before its response.
    pub client_vector: ClientVector,
    /// The score, if a model was loaded.
    pub score: Option<Score>,
    /// Sequence number of that model, 0 for none.
    pub model: u64,
    /// First 8 bytes of the hash of the observation's value key: hashes under different keys do not compare.
    pub key_id: u64,
    /// What was decided.
    pub verdict: Verdict,
    /// Status sent to the client; 0 if the client left before.
    pub status: u16,
    /// Who made the response.
    pub origin: Origin,
    /// Microseconds the upstream took until its response headers; 0 if it was not asked.
    pub upstream_us: u32,
    /// Bytes of the response body that were sent.
    pub response_bytes: u64,
    /// How many requests this event stands for: 1, or more when benign events are sampled.
    pub weight: f32,
    /// What rules matched in the request, masked; at most [`HITS`].
    pub hits: Vec<RuleHit>,
    /// What rules matched in the response, masked; at most [`HITS`]. Says nothing against the client.
    pub response_hits: Vec<RuleHit>,
}

/// One rule that matched, as far as it may be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHit {
    /// The rule's id.
    pub rule: u32,
    /// The variable, its name collapsed by [`crate::shape`]: `ARGS:id`.
    pub variable: String,
    /// What it matched, masked by [`crate::mask`].
    pub fragment: String,
}

impl RuleHit {
    /// The first [`HITS`] of `matches`.
    pub fn of(matches: &[RuleMatch]) -> Vec<Self> {
        let hit = |found: &RuleMatch| Self {
            rule: found.id,
            variable: found.variable.clone(),
            fragment: found.fragment.clone(),
        };
        matches.iter().take(HITS).map(hit).collect()
    }
}

/// What the WAF decided about a request. In mode `detect` this is what `block` would have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing against it.
    Pass,
    /// Rejected (or would have been) by rules.
    Rules,
    /// Rejected (or would have been) by the model.
    Model,
    /// The client was blocked (or would have been).
    Blocked,
    /// The allow list let it through uninspected.
    Allowed,
    /// Inspection failed and the route's `on_error` decided.
    Fault,
    /// The response was withheld (or would have been) by rules. Says nothing against the client.
    Response,
    /// Rejected (or would have been) by the base knowledge.
    Base,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 8] = [
        Self::Pass,
        Self::Rules,
        Self::Model,
        Self::Blocked,
        Self::Allowed,
        Self::Fault,
        Self::Response,
        Self::Base,
    ];

    /// Its name in logs, metrics and the lake.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Rules => "rules",
            Self::Model => "model",
            Self::Blocked => "blocked",
            Self::Allowed => "allowed",
            Self::Fault => "fault",
            Self::Response => "response",
            Self::Base => "base",
        }
    }
}

/// Who made the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The upstream.
    Upstream,
    /// The gateway itself; never counts against the client.
    Gateway,
}

/// Why an event could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Written by a version this trainer does not know.
    #[error(
        "version {0}; this trainer reads events of version {EVENT_VERSION} and reviews of {REVIEW_VERSION}"
    )]
    Version(u16),
    /// Not an event.
    #[error("damaged event: {0}")]
    Malformed(String),
}

impl Event {
    /// The wire form: version, then the fields.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(&(EVENT_VERSION, self)).unwrap_or_default()
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// An unknown version, or bytes that are not an event.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        let malformed = |error: postcard::Error| EventError::Malformed(error.to_string());
        let (version, rest) = postcard::take_from_bytes::<u16>(bytes).map_err(malformed)?;
        if version != EVENT_VERSION {
            return Err(EventError::Version(version));
        }
        postcard::from_bytes(rest).map_err(malformed)
    }
}

/// A person's judgment of one request or one client: a permanent gate and a training label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// The request, if one was judged.
    pub request: Option<[u8; 16]>,
    /// Keyed hash of the client.
    pub client: u64,
    /// The judgment.
    pub verdict: ReviewVerdict,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

impl Review {
    /// The wire form: version, then the fields.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(&(REVIEW_VERSION, self)).unwrap_or_default()
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// An unknown version, or bytes that are not a review.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventError> {
        let malformed = |error: postcard::Error| EventError::Malformed(error.to_string());
        let (version, rest) = postcard::take_from_bytes::<u16>(bytes).map_err(malformed)?;
        if version != REVIEW_VERSION {
            return Err(EventError::Version(version));
        }
        postcard::from_bytes(rest).map_err(malformed)
    }
}

/// A person's judgment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewVerdict {
    /// It was harmless.
    FalsePositive,
    /// It was an attack.
    Confirmed,
}
