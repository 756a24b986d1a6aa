//! What the gateway tells about itself: access log, metrics, events, explained decisions.

pub mod decisions;
pub mod events;
pub mod store_metrics;
