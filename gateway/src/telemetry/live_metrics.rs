//! Gauges of what the model in force does here, beside what it promises; read off at each scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    telemetry::metrics::RouteLabels,
    waf::{
        challenger::Trial,
        live::{Realised, drift::Drift},
    },
};

/// Gauges of the model in force; empty without one.
#[derive(Debug, Default)]
pub struct LiveMetrics {
    inspected: Family<SpanLabels, Gauge>,
    flagged: Family<SpanLabels, Gauge>,
    allowed: Family<SpanLabels, Gauge<f64, AtomicU64>>,
    disputed: Family<RouteLabels, Gauge>,
    breaker_open: Family<RouteLabels, Gauge>,
    drift: Family<FeatureLabels, Gauge<f64, AtomicU64>>,
    challenger: Family<CountLabels, Gauge>,
}

/// A route, and over which time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    route: String,
    /// `hour`, `day` (requests), `client_days` (clients, since yesterday began).
    span: &'static str,
}

/// A column of the feature table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeatureLabels {
    feature: &'static str,
}

/// What is counted during a trial.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CountLabels {
    /// `seen`, `flagged`, `champion_flagged`, `disputed_clients`.
    count: &'static str,
}

impl LiveMetrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("model_inspected", "Requests or client-days scored", self.inspected.clone());
        registry.register("model_flagged", "Of these, flagged or blocked", self.flagged.clone());
        registry.register("model_allowed", "Of these, false positives by the budget", self.allowed.clone());
        registry.register(
            "model_disputed_clients",
            "Clients flagged within a day that nothing else speaks against",
            self.disputed.clone(),
        );
        registry.register("model_breaker_open", "1 where the model only reports", self.breaker_open.clone());
        registry.register("model_drift_psi", "Population stability index by feature", self.drift.clone());
        registry.register("model_challenger", "Requests of the trial now", self.challenger.clone());
    }

    /// Shows how the trial of a challenger stands.
    pub fn show_trial(&self, trial: Option<&Trial>) {
        self.challenger.clear();
        let Some(trial) = trial else { return };
        for (count, value) in [
            ("seen", trial.seen),
            ("flagged", trial.flagged),
            ("champion_flagged", trial.champion_flagged),
            ("disputed_clients", trial.disputed),
        ] {
            self.challenger.get_or_create(&CountLabels { count }).set(whole(value));
        }
    }

    /// Shows the realised rates of each route by name, and the drift; forgets what was shown before.
    pub fn show<'a>(&self, routes: impl Iterator<Item = (&'a str, &'a Realised)>, drift: Option<&Drift>) {
        for family in [&self.inspected, &self.flagged] {
            family.clear();
        }
        self.allowed.clear();
        self.disputed.clear();
        self.breaker_open.clear();
        self.drift.clear();
        for (feature, psi) in drift.into_iter().flat_map(|drift| &drift.psi) {
            self.drift.get_or_create(&FeatureLabels { feature }).set(f64::from(*psi));
        }
        for (route, realised) in routes {
            let spans =
                [("hour", realised.hour), ("day", realised.day), ("client_days", realised.client_days)];
            for (span, rate) in spans {
                let labels = SpanLabels { route: route.to_owned(), span };
                self.inspected.get_or_create(&labels).set(whole(rate.inspected));
                self.flagged.get_or_create(&labels).set(whole(rate.flagged));
                self.allowed.get_or_create(&labels).set(rate.allowed);
            }
            let labels = RouteLabels { route: route.to_owned() };
            self.disputed.get_or_create(&labels).set(whole(realised.disputed));
            self.breaker_open.get_or_create(&labels).set(i64::from(realised.breaker.is_some()));
        }
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
