//! Metrics of reloads of the configuration.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Counts reloads.
#[derive(Debug, Default)]
pub struct ReloadMetrics {
    reloads: Family<ResultLabels, Counter>,
    accepted: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl ReloadMetrics {
    /// Registers everything; names get the registry's prefix `portcullis`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("config_reloads", "Reloads of the configuration, by result", self.reloads.clone());
        registry.register(
            "config_last_reload_timestamp_seconds",
            "When a reload was accepted last; 0 for never",
            self.accepted.clone(),
        );
    }

    /// A configuration was put in force at `now_ms`.
    pub fn accepted(&self, now_ms: u64) {
        self.reloads.get_or_create(&ResultLabels { result: "accepted" }).inc();
        self.accepted.set(i64::try_from(now_ms / 1000).unwrap_or(i64::MAX));
    }

    /// A configuration was refused.
    pub fn refused(&self) {
        self.reloads.get_or_create(&ResultLabels { result: "refused" }).inc();
    }
}
