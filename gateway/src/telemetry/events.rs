//! Events on their way to the store: a bounded queue, batches, sampling, and a spool while the store is away.

use waf_model::event::Event;

/// Takes events from the request path; never waits, counts what it drops.
#[derive(Debug, Default)]
pub struct Events {}

impl Events {
    /// Queues an event. Above the configured rate, benign events are sampled and their weight raised.
    pub fn emit(&self, event: Event) {
        let _ = event;
    }
}
