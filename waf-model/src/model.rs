//! Model: profiles, clusters, calibration; scores one observation with its client's window.

use serde::{Deserialize, Serialize};

use crate::{
    client::{CLIENT_FEATURES, CLIENT_TABLE, ClientVector, SURPRISE_OFFSET},
    features::{self, FEATURES, FeatureVector, Side, TABLE},
    observation::{Observation, ValueKey},
    profile::{ProfileError, Profiles, RawProfiles},
    score::{Explanation, PValue, Score},
};

pub mod baseline;
pub mod calibration;
pub mod clusters;
pub mod explain;
pub mod groups;

use baseline::{Baseline, RawSpread};
use calibration::{Calibration, Certificate, RawCalibration};
use clusters::{Clusters, RawClusters};
use groups::{Group, Groups, RawGroups};

/// A checked model, ready to score.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    seq: u64,
    value_key: ValueKey,
    provenance: Provenance,
    profiles: Profiles,
    requests: Clusters,
    clients: Option<Clusters>,
    request_calibration: Calibration,
    client_calibration: Option<Calibration>,
    request_certificate: Certificate,
    request_groups: Groups,
    client_certificate: Certificate,
    baseline: Baseline,
}

/// Where a model comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RawProvenance {
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Version of the trainer.
    pub trainer: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Clean requests learned from.
    pub requests: u64,
    /// Distinct clients among them.
    pub clients: u64,
    /// Requests dropped before training because they were not clean.
    pub dropped: u64,
    /// Milliseconds since 1970 of the first and the last request learned from; 0 if they have no time.
    pub window_ms: (u64, u64),
    /// blake3 of the inputs, hexadecimal.
    pub inputs: String,
}

/// Where a model comes from; anything in it is for people.
pub type Provenance = RawProvenance;

/// Stored form of [`Model`]; what the trainer puts together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawModel {
    /// Sequence number, from 1.
    pub seq: u64,
    /// Key under which values were hashed.
    pub value_key: [u8; 16],
    /// Where it comes from.
    pub provenance: RawProvenance,
    /// What is normal for each endpoint.
    pub profiles: RawProfiles,
    /// Clusters of [`features::FeatureVector`]s.
    pub requests: RawClusters,
    /// Clusters of [`ClientVector`]s; none if the training data has no clients.
    pub clients: Option<RawClusters>,
    /// Distances of clean, later requests.
    pub request_calibration: RawCalibration,
    /// Distances of clean, later clients.
    pub client_calibration: Option<RawCalibration>,
    /// The promise behind rejecting one request, over all routes; the threshold is a distance.
    pub request_certificate: Certificate,
    /// The promises of routes, where they have their own.
    pub request_groups: RawGroups,
    /// The promise behind blocking one client; the threshold is an evidence level.
    pub client_certificate: Certificate,
    /// How each feature was spread in clean, later traffic; empty if it is not known.
    pub baseline: Vec<RawSpread>,
}

/// Why a model's content is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ModelError(pub String);

impl From<ProfileError> for ModelError {
    fn from(error: ProfileError) -> Self {
        Self(error.to_string())
    }
}

impl Model {
    /// Sequence number, from 1.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The key with which this model's profiles were learned.
    pub fn value_key(&self) -> &ValueKey {
        &self.value_key
    }

    /// Where it comes from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What is normal for each endpoint.
    pub fn profiles(&self) -> &Profiles {
        &self.profiles
    }

    /// Scores one request in its client's context. Pure; the same inputs give the same bits everywhere.
    pub fn score(&self, observation: &Observation, client: &ClientVector) -> Score {
        self.measure(observation, client).0
    }

    /// The score, and the feature vector behind it.
    pub fn measure(&self, observation: &Observation, client: &ClientVector) -> (Score, FeatureVector) {
        let extraction = features::extract(observation, &self.profiles);
        let request = self.requests.nearest(&extraction.vector.0);
        let mut score = Score {
            request_distance: request.distance,
            request: self.request_calibration.p_value(request.distance),
            cluster: request.cluster,
            client_distance: 0.0,
            client: PValue::ONE,
        };
        if let (Some(clusters), Some(calibration)) = (&self.clients, &self.client_calibration)
            && client.is_mature()
        {
            score.client_distance = clusters.nearest(&client.0).distance;
            score.client = calibration.p_value(score.client_distance);
        }
        (score, extraction.vector)
    }

    /// Why the score is what it is; computed only for flagged requests.
    pub fn explain(&self, observation: &Observation, client: &ClientVector) -> Explanation {
        let score = self.score(observation, client);
        let mut reasons = explain::request_reasons(&self.requests, &self.profiles, observation);
        if let Some(clusters) = &self.clients
            && score.client.surprise() >= SURPRISE_OFFSET
        {
            let behavior = explain::client_reasons(clusters, client);
            if score.request.surprise() < SURPRISE_OFFSET {
                // The request is an ordinary one: what little is odd about it is no reason.
                reasons.clear();
            } else {
                // Both count: the half that stands out more comes first, and neither hides the other.
                reasons.truncate(explain::REASONS / 2 + 1);
            }
            let at = if score.client.surprise() > score.request.surprise() { 0 } else { reasons.len() };
            let most = explain::REASONS - reasons.len();
            reasons.splice(at..at, behavior.into_iter().take(most));
        }
        Explanation { reasons, model: self.seq }
    }

    /// The promise behind rejecting one request, over all routes: for requests of which no route is known, and for
    /// people. What counts for a request on a route says [`Self::group`].
    pub fn request_certificate(&self) -> &Certificate {
        &self.request_certificate
    }

    /// The promise behind blocking one client.
    pub fn client_certificate(&self) -> &Certificate {
        &self.client_certificate
    }

    /// How each feature was spread in clean, later traffic: what drift is measured against.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Clusters of requests.
    pub fn clusters(&self) -> &Clusters {
        &self.requests
    }

    /// The group of a request on `route`, with the promise that counts for it.
    pub fn group(&self, route: &str) -> Group<'_> {
        self.request_groups.of(route, &self.request_certificate)
    }

    /// Every group of requests: routes with a promise of their own, and the others.
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.request_groups.iter(&self.request_certificate)
    }

    /// Whether a request on `route` alone is far enough from normal to be rejected under its group's certificate.
    pub fn flags_request(&self, score: &Score, route: &str) -> bool {
        self.group(route).flags(score)
    }
}

/// Which deviations of each request feature count.
fn request_sides() -> [Side; FEATURES] {
    TABLE.map(|feature| feature.side)
}

/// Every deviation of a client's behavior counts only upwards, except how regular its pauses are.
fn client_sides() -> [Side; CLIENT_FEATURES] {
    CLIENT_TABLE.map(|(name, ..)| if name == "gap_variation" { Side::Both } else { Side::Above })
}

impl TryFrom<RawModel> for Model {
    type Error = ModelError;

    fn try_from(raw: RawModel) -> Result<Self, ModelError> {
        if raw.seq == 0 {
            return Err(ModelError("sequence number 0".to_owned()));
        }
        if raw.clients.is_some() != raw.client_calibration.is_some() {
            return Err(ModelError("client clusters and their calibration belong together".to_owned()));
        }
        raw.request_certificate.check()?;
        raw.client_certificate.check()?;
        Ok(Self {
            seq: raw.seq,
            value_key: ValueKey(raw.value_key),
            provenance: raw.provenance,
            profiles: raw.profiles.try_into()?,
            requests: Clusters::new(raw.requests, &request_sides())?,
            clients: raw.clients.map(|raw| Clusters::new(raw, &client_sides())).transpose()?,
            request_calibration: raw.request_calibration.try_into()?,
            client_calibration: raw.client_calibration.map(TryInto::try_into).transpose()?,
            request_certificate: raw.request_certificate,
            request_groups: raw.request_groups.try_into()?,
            client_certificate: raw.client_certificate,
            baseline: raw.baseline.try_into()?,
        })
    }
}

impl From<&Model> for RawModel {
    fn from(model: &Model) -> Self {
        Self {
            seq: model.seq,
            value_key: model.value_key.0,
            provenance: model.provenance.clone(),
            profiles: (&model.profiles).into(),
            requests: (&model.requests).into(),
            clients: model.clients.as_ref().map(Into::into),
            request_calibration: (&model.request_calibration).into(),
            client_calibration: model.client_calibration.as_ref().map(Into::into),
            request_certificate: model.request_certificate,
            request_groups: (&model.request_groups).into(),
            client_certificate: model.client_certificate,
            baseline: (&model.baseline).into(),
        }
    }
}

#[cfg(test)]
mod tests;
