//! What a training run did, for the operator.

use std::{fmt, time::Duration};

use serde::Serialize;
use waf_model::model::{Model, calibration::Certificate};

use crate::dataset::Extent;

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
    /// The promise behind rejecting a request.
    pub request: Certificate,
    /// The promise behind blocking a client.
    pub client: Certificate,
    /// Requests kept aside, and how many of them would be rejected.
    pub holdout: (u64, u64),
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
    /// The report of `model`.
    pub fn of(
        model: &Model,
        extent: &Extent,
        clusters: usize,
        holdout: (u64, u64),
        seconds: Seconds,
    ) -> Self {
        Self {
            seq: model.seq(),
            extent: extent.clone(),
            rows: model.provenance().requests,
            clients: model.provenance().clients,
            endpoints: model.profiles().endpoints().count(),
            clusters,
            request: *model.request_certificate(),
            client: *model.client_certificate(),
            holdout,
            seconds,
        }
    }
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
