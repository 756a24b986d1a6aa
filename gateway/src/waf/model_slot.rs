//! The model in force: read by every request, swapped as a whole by the watcher.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use waf_model::model::Model;

use crate::{config::Toggle, waf::live::Live};

/// A model in force, and what it has done here since.
#[derive(Debug)]
pub struct InForce {
    /// The model.
    pub model: Arc<Model>,
    /// Its rates and breakers.
    pub live: Live,
}

/// Holds the model in force, or none. One request takes one snapshot.
#[derive(Debug)]
pub struct ModelSlot {
    in_force: ArcSwapOption<InForce>,
    routes: usize,
    breakers: Toggle,
}

impl ModelSlot {
    /// No model, on a gateway with so many routes, whose breakers may open if they are on.
    pub fn new(routes: usize, breakers: Toggle) -> Self {
        Self { in_force: ArcSwapOption::empty(), routes, breakers }
    }

    /// The model in force now.
    pub fn snapshot(&self) -> Option<Arc<InForce>> {
        self.in_force.load_full()
    }

    /// Sequence number of the model in force; 0 for none.
    pub fn seq(&self) -> u64 {
        self.in_force.load().as_ref().map_or(0, |in_force| in_force.model.seq())
    }

    /// Puts a verified and warmed model in force.
    pub fn swap(&self, model: Arc<Model>) {
        let live = Live::new(&model, self.routes, self.breakers);
        self.in_force.store(Some(Arc::new(InForce { model, live })));
    }
}
