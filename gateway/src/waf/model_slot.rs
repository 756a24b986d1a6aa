//! The model in force: read by every request, swapped as a whole by the watcher.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use waf_model::model::Model;

/// Holds the model in force, or none. One request takes one snapshot.
#[derive(Debug, Default)]
pub struct ModelSlot(ArcSwapOption<Model>);

impl ModelSlot {
    /// The model in force now.
    pub fn snapshot(&self) -> Option<Arc<Model>> {
        self.0.load_full()
    }

    /// Puts a verified and warmed model in force.
    pub fn swap(&self, model: Arc<Model>) {
        self.0.store(Some(model));
    }
}
