//! Gauges of groups of origins: who is fit, how busy each is; read off at each scrape.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Gauges of every origin of the configuration in force.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    up: Family<OriginLabels, Gauge>,
    active: Family<OriginLabels, Gauge>,
    idle: Family<OriginLabels, Gauge>,
    ejections: Family<OriginLabels, Gauge>,
    refused: Family<GroupLabels, Gauge>,
    mirrored: Family<ResultLabels, Gauge>,
}

/// One origin; as many as the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OriginLabels {
    upstream: String,
    origin: String,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    upstream: String,
}

/// What became of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    /// `answered`, `failed`, `skipped`.
    result: &'static str,
}

/// An origin as it is shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its group's name.
    pub upstream: String,
    /// Its URL.
    pub origin: String,
    /// Whether it gets requests.
    pub is_up: bool,
    /// Requests in progress.
    pub active: usize,
    /// Connections that wait for one.
    pub idle: usize,
    /// How often it was left out.
    pub ejections: u64,
}

impl UpstreamMetrics {
    /// Registers everything; names get the registry's prefix `portcullis`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("upstream_up", "1 for an origin that gets requests", self.up.clone());
        registry.register(
            "upstream_active_requests",
            "Requests in progress at an origin",
            self.active.clone(),
        );
        registry.register(
            "upstream_idle_connections",
            "Connections kept without a request",
            self.idle.clone(),
        );
        registry.register("upstream_ejections", "How often an origin was left out", self.ejections.clone());
        registry.register("mirrored_requests", "Copies of requests, by result", self.mirrored.clone());
        registry.register("upstream_refused", "Requests that no origin had room for", self.refused.clone());
    }

    /// Shows what became of copies of requests.
    pub fn show_mirrored(&self, counts: [(&'static str, u64); 3]) {
        for (result, count) in counts {
            self.mirrored.get_or_create(&ResultLabels { result }).set(whole(count));
        }
    }

    /// Shows these origins, and how many requests each group refused; forgets what was shown before.
    pub fn show(&self, origins: &[Shown], refused: impl Iterator<Item = (String, u64)>) {
        for family in [&self.up, &self.active, &self.idle, &self.ejections] {
            family.clear();
        }
        self.refused.clear();
        for shown in origins {
            let labels = OriginLabels { upstream: shown.upstream.clone(), origin: shown.origin.clone() };
            self.up.get_or_create(&labels).set(i64::from(shown.is_up));
            self.active.get_or_create(&labels).set(whole(shown.active as u64));
            self.idle.get_or_create(&labels).set(whole(shown.idle as u64));
            self.ejections.get_or_create(&labels).set(whole(shown.ejections));
        }
        for (upstream, count) in refused {
            self.refused.get_or_create(&GroupLabels { upstream }).set(whole(count));
        }
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
