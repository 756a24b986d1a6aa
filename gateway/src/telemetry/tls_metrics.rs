//! Metrics of certificates: when they end, and how fetching them goes.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Gauges of every certificate of the configuration in force, and orders by result.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    expiry: Family<CertificateLabels, Gauge>,
    orders: Family<ResultLabels, Counter>,
}

/// One certificate; as many as the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CertificateLabels {
    /// Listener name.
    pub listener: String,
    /// The first host name in it; empty without.
    pub host: String,
    /// `file` or `acme`.
    pub source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl TlsMetrics {
    /// Registers everything; names get the registry's prefix `portcullis`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_certificate_expiry_timestamp_seconds",
            "When a certificate ends; 0 while there is none",
            self.expiry.clone(),
        );
        registry.register("acme_orders", "Certificates asked for by ACME, by result", self.orders.clone());
    }

    /// Shows when certificates end, in milliseconds since 1970; forgets what was shown before.
    pub fn show(&self, certificates: impl Iterator<Item = (CertificateLabels, Option<u64>)>) {
        self.expiry.clear();
        for (labels, until_ms) in certificates {
            let seconds = i64::try_from(until_ms.unwrap_or(0) / 1000).unwrap_or(i64::MAX);
            self.expiry.get_or_create(&labels).set(seconds);
        }
    }

    /// An order ended.
    pub fn ordered(&self, is_done: bool) {
        let result = if is_done { "issued" } else { "failed" };
        self.orders.get_or_create(&ResultLabels { result }).inc();
    }
}
