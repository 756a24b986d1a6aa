//! What the gateway tells about itself: access log, metrics, events, explained decisions.

pub mod access_log;
pub mod decisions;
pub mod events;
pub mod live_metrics;
pub mod metrics;
pub mod records;
pub mod reload_metrics;
pub mod store_metrics;
pub mod tls_metrics;
pub mod upstream_metrics;
