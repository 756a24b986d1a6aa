//! What a training run did, for the operator.

use std::{fmt, time::Duration};

use serde::Serialize;
use waf_model::model::{Model, RawModel, calibration::Certificate, groups::RawGroups};

use crate::{
    calibrate::{Candidate, RouteRate},
    dataset::Extent,
    drift::Drift,
};

pub mod html;
pub mod map;

use map::Map;

/// Shares of clean requests of which the calibration table names the distance.
const SHARES: [f64; 6] = [0.5, 0.1, 0.01, 1e-3, 1e-4, 1e-5];

/// One training run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Sequence number of the candidate.
    pub seq: u64,
    /// What there was to learn from.
    pub extent: Extent,
    /// Requests learned from.
    pub rows: u64,
    /// Clients learned from; 0 where there are none.
    pub clients: u64,
    /// Endpoints known.
    pub endpoints: usize,
    /// Clusters of requests.
    pub clusters: usize,
    /// The promise behind rejecting a request, over all routes.
    pub request: Certificate,
    /// The promises of routes, where they have their own.
    pub groups: RawGroups,
    /// The promise behind blocking a client.
    pub client: Certificate,
    /// Requests kept aside, and how many of them would be rejected.
    pub holdout: (u64, u64),
    /// What its threshold does on each of the busiest routes.
    pub routes: Vec<RouteRate>,
    /// Share of clean, later requests, and the distance that so many reach.
    pub calibration: Vec<(f64, f32)>,
    /// Endpoints, the best known first: client changes seen, and parameters.
    pub coverage: Vec<(String, f32, usize)>,
    /// How far traffic and clusters moved since the model in force.
    pub drift: Option<Drift>,
    /// Where the clusters lie.
    pub map: Map,
    /// Seconds that each step took.
    pub seconds: Seconds,
}

/// Seconds that each step took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Seconds {
    /// Reading and sanitizing.
    pub dataset: f64,
    /// Profiles and clusters.
    pub train: f64,
    /// Calibration and holdout.
    pub calibrate: f64,
}

impl Report {
    /// The report of `candidate`.
    pub fn of(candidate: &Candidate, extent: &Extent, holdout: (u64, u64), seconds: Seconds) -> Self {
        let model = &candidate.model;
        let mut coverage: Vec<(String, f32, usize)> = model
            .profiles()
            .endpoints()
            .map(|(endpoint, profile)| (endpoint.to_owned(), profile.weight, profile.params.len()))
            .collect();
        coverage.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Self {
            seq: model.seq(),
            extent: extent.clone(),
            rows: model.provenance().requests,
            clients: model.provenance().clients,
            endpoints: model.profiles().endpoints().count(),
            clusters: model.clusters().count(),
            request: *model.request_certificate(),
            groups: RawModel::from(model).request_groups,
            client: *model.client_certificate(),
            holdout,
            routes: candidate.routes.clone(),
            calibration: calibration(model),
            coverage,
            drift: candidate.drift.clone(),
            map: Map::of(model, &candidate.vectors),
            seconds,
        }
    }
}

/// The distances that some shares of the clean, later requests reach; only shares that there are enough of.
fn calibration(model: &Model) -> Vec<(f64, f32)> {
    let raw = RawModel::from(model).request_calibration;
    SHARES
        .into_iter()
        .filter(|share| share * raw.n as f64 >= 1.0)
        .filter_map(|share| {
            let wanted = (share * raw.n as f64).floor() as u64;
            raw.steps.iter().rev().find(|(_, count)| *count >= wanted).map(|(distance, _)| (share, *distance))
        })
        .collect()
}

impl Seconds {
    /// A duration as seconds.
    pub fn of(duration: Duration) -> f64 {
        (duration.as_secs_f64() * 1000.0).round() / 1000.0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model {}", self.seq)?;
        write!(f, "  read        {} requests, {} may be learned from", self.extent.read, self.extent.rows)?;
        for (reason, count) in &self.extent.removed {
            write!(f, ", {count} {}", reason.replace('_', " "))?;
        }
        writeln!(f)?;
        write!(f, "  learned     {} requests of {} clients", self.rows, self.clients)?;
        for (reason, count) in &self.extent.left_out {
            write!(f, ", {count} left out: {}", reason.replace('_', " "))?;
        }
        writeln!(f)?;
        writeln!(f, "  knows       {} endpoints, {} clusters of requests", self.endpoints, self.clusters)?;
        writeln!(f, "  requests    {}", Promise(&self.request, "requests"))?;
        if !self.groups.routes.is_empty() {
            writeln!(f, "  routes      {}", groups_in_words(&self.groups, self.request.n))?;
        }
        writeln!(f, "  clients     {}", Promise(&self.client, "client-days"))?;
        let (kept, flagged) = self.holdout;
        writeln!(f, "  held out    {kept} clean requests, {flagged} of them would be rejected")?;
        let Seconds { dataset, train, calibrate } = self.seconds;
        write!(
            f,
            "  took        {dataset:.1} s to read, {train:.1} s to train, {calibrate:.1} s to calibrate"
        )
    }
}

/// How many routes have a promise of their own, and what becomes of the others; `n` requests were calibrated on.
fn groups_in_words(groups: &RawGroups, n: u64) -> String {
    let own: u64 = groups.routes.iter().map(|(_, certificate)| certificate.n).sum();
    let routes = groups.routes.len();
    let share = 100.0 * own as f64 / n.max(1) as f64;
    let others = match &groups.others {
        Some(certificate) => format!("the others together: {}", Promise(certificate, "requests")),
        None => "there are no others".to_owned(),
    };
    format!("{routes} have a threshold of their own, with {share:.0}% of the requests; {others}")
}

/// A certificate in words.
struct Promise<'a>(&'a Certificate, &'a str);

impl fmt::Display for Promise<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Certificate { budget, confidence, n, threshold, standing } = self.0;
        let standing = format!("{standing:?}").to_lowercase();
        write!(
            f,
            "{standing}: at most {budget:.2e} of clean {} flagged, with {:.0}% confidence, from {n} of them; \
             threshold {threshold:.2}",
            self.1,
            confidence * 100.0
        )
    }
}
