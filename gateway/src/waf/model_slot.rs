//! The model in force and the one on trial: read by every request, swapped as a whole by the watcher.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwapOption;
use waf_model::model::Model;

use crate::{
    clock, config,
    waf::{challenger::Challenger, live::Live},
};

/// Refusals that are remembered.
const REFUSALS: usize = 16;

/// A model in force, and what it has done here since.
#[derive(Debug)]
pub struct InForce {
    /// The model.
    pub model: Arc<Model>,
    /// Its rates and breakers.
    pub live: Live,
}

/// Holds the model in force, or none, and the challenger, if there is one. One request takes one snapshot.
#[derive(Debug, Default)]
pub struct ModelSlot {
    in_force: ArcSwapOption<InForce>,
    challenger: ArcSwapOption<Challenger>,
    /// Why models were refused after their trial.
    refused: Mutex<BTreeMap<u64, String>>,
}

impl ModelSlot {
    /// The model in force now.
    pub fn snapshot(&self) -> Option<Arc<InForce>> {
        self.in_force.load_full()
    }

    /// Sequence number of the model in force; 0 for none.
    pub fn seq(&self) -> u64 {
        self.in_force.load().as_ref().map_or(0, |in_force| in_force.model.seq())
    }

    /// Puts a verified and warmed model in force. A trial against the one before ends without a verdict.
    pub fn swap(&self, model: Arc<Model>) {
        self.refusals().remove(&model.seq());
        self.in_force.store(Some(Arc::new(InForce { model, live: Live::default() })));
        self.challenger.store(None);
    }

    /// Lets a verified and warmed model score beside the one in force.
    pub fn challenge(&self, model: Arc<Model>, terms: config::Challenger) {
        self.refusals().remove(&model.seq());
        self.challenger.store(Some(Arc::new(Challenger::new(model, terms, clock::now_ms()))));
    }

    /// The model on trial now.
    pub fn challenger(&self) -> Option<Arc<Challenger>> {
        self.challenger.load_full()
    }

    /// Ends the trial without a verdict.
    pub fn dismiss(&self) {
        self.challenger.store(None);
    }

    /// Ends the trial: the challenger does not take over.
    pub fn refuse(&self, seq: u64, reason: String) {
        self.challenger.store(None);
        let mut refused = self.refusals();
        refused.insert(seq, reason);
        while refused.len() > REFUSALS {
            refused.pop_first();
        }
    }

    /// Why the model with this number was refused after its trial, if it was.
    pub fn refusal(&self, seq: u64) -> Option<String> {
        self.refusals().get(&seq).cloned()
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
