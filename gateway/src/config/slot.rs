//! The configuration in force: read by every request, swapped as a whole by a reload.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Config;

/// Holds the configuration in force. One request takes one snapshot.
#[derive(Debug)]
pub struct ConfigSlot(ArcSwap<Config>);

impl ConfigSlot {
    /// Puts the first configuration in force.
    pub fn new(config: Arc<Config>) -> Self {
        Self(ArcSwap::new(config))
    }

    /// The configuration in force now.
    pub fn snapshot(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Puts a checked configuration in force for every request that comes from now on.
    pub fn swap(&self, config: Arc<Config>) {
        self.0.store(config);
    }
}
