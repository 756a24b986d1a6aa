//! Metrics of the store, the event feed and the model, and what readiness says of them.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{clock, store::StoreError};

/// Parts of the store that can fail on their own.
const PARTS: [&str; 5] = ["blocks", "events", "models", "records", "limits"];

/// Counters and gauges of everything that is fed by or into the store.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    failing: [AtomicBool; PARTS.len()],
    errors: Family<Part, Counter>,
    answered_ms: AtomicU64,
    answered: Gauge<i64, AtomicI64>,
    blocks: Gauge<i64, AtomicI64>,
    blocks_refused: Counter,
    /// Events that were never written, by reason.
    pub events_lost: Family<Reason, Counter>,
    /// Requests that benign events stand for beyond themselves.
    pub events_sampled: Counter,
    /// Events written to the store.
    pub events_written: Counter,
    /// Events waiting in the local spool.
    pub events_spooled: Gauge<i64, AtomicI64>,
    /// Whole requests that were never written, by reason.
    full_records_lost: Family<Reason, Counter>,
    /// Requests of routes with `record: full` that were not recorded, because there were too many.
    pub full_records_skipped: Counter,
    /// Whole requests written to the store.
    pub full_records_written: Counter,
    model: Family<Model, Gauge<i64, AtomicI64>>,
    model_in_force: Mutex<Option<u64>>,
    model_swaps: Counter,
    model_refused: Counter,
}

/// Which part of the store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

/// Why events were lost.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// `queue` (full), `spool` (full), `store` (its cap reached unread), `unwritable`.
    pub reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    seq: u64,
}

impl StoreMetrics {
    /// Registers everything; names get the registry's prefix `portcullis`.
    pub fn register(&self, registry: &mut Registry) {
        let families: [(&str, &str, &Family<Part, Counter>); 1] =
            [("store_errors", "Calls to the store that failed", &self.errors)];
        for (name, help, family) in families {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "store_last_answer_timestamp_seconds",
            "When the block store answered last",
            self.answered.clone(),
        );
        registry.register("blocks_active", "Blocks in force", self.blocks.clone());
        registry.register(
            "blocks_refused",
            "Blocks not made because too many are in force",
            self.blocks_refused.clone(),
        );
        registry.register("events_lost", "Events that were lost", self.events_lost.clone());
        registry.register(
            "events_sampled_out",
            "Benign events another event stands for",
            self.events_sampled.clone(),
        );
        registry.register("events_written", "Events written to the store", self.events_written.clone());
        registry.register(
            "events_spooled",
            "Events that wait in the local spool for the store",
            self.events_spooled.clone(),
        );
        registry.register(
            "full_records_lost",
            "Whole requests that were lost",
            self.full_records_lost.clone(),
        );
        registry.register(
            "full_records_skipped",
            "Requests not recorded as a whole because there were too many",
            self.full_records_skipped.clone(),
        );
        registry.register(
            "full_records_written",
            "Whole requests written to the store",
            self.full_records_written.clone(),
        );
        registry.register("model_info", "1 for the model in force", self.model.clone());
        registry.register("model_swaps", "Models put in force", self.model_swaps.clone());
        registry.register("model_refused", "Artifacts refused", self.model_refused.clone());
    }

    /// Counts a failure of `part`; logs the first one in a row.
    pub fn store_failed(&self, part: &'static str, error: &StoreError) {
        self.errors.get_or_create(&Part { part }).inc();
        if let Some(failing) = self.failing(part)
            && !failing.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(part, %error, "store failed; what is known stays in force, and it is tried again");
        }
    }

    /// Notes that `part` works (again).
    pub fn store_works(&self, part: &'static str) {
        if let Some(failing) = self.failing(part)
            && failing.swap(false, Ordering::Relaxed)
        {
            tracing::info!(part, "store is back");
        }
    }

    /// Notes that the block store answered.
    pub fn store_answered(&self) {
        self.store_works("blocks");
        let now_ms = clock::now_ms();
        self.answered_ms.store(now_ms, Ordering::Relaxed);
        self.answered.set(i64::try_from(now_ms / 1000).unwrap_or(i64::MAX));
    }

    /// Whether `part` fails now.
    pub fn fails(&self, part: &'static str) -> bool {
        self.failing(part).is_some_and(|failing| failing.load(Ordering::Relaxed))
    }

    /// The parts that fail now.
    pub fn failing_parts(&self) -> Vec<&'static str> {
        PARTS
            .iter()
            .zip(&self.failing)
            .filter(|(_, failing)| failing.load(Ordering::Relaxed))
            .map(|(part, _)| *part)
            .collect()
    }

    /// Milliseconds since the block store answered; `None` if it never did.
    pub fn snapshot_age_ms(&self) -> Option<u64> {
        match self.answered_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(clock::now_ms().saturating_sub(at)),
        }
    }

    /// Notes how many blocks are in force, and how many were refused since the last call.
    pub fn set_blocks(&self, blocks: usize, refused: u64) {
        self.blocks.set(i64::try_from(blocks).unwrap_or(i64::MAX));
        if refused > 0 {
            self.blocks_refused.inc_by(refused);
            tracing::warn!(refused, "too many blocks in force; block the networks behind them instead");
        }
    }

    /// Counts lost events.
    pub fn lose_events(&self, reason: &'static str, count: u64) {
        if count > 0 {
            self.events_lost.get_or_create(&Reason { reason }).inc_by(count);
        }
    }

    /// Notes which model is in force.
    pub fn set_model(&self, seq: u64) {
        let mut in_force = self.model_in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = in_force.replace(seq) {
            self.model.remove(&Model { seq: before });
        }
        self.model.get_or_create(&Model { seq }).set(1);
        self.model_swaps.inc();
    }

    /// Counts a refused artifact.
    pub fn refuse_model(&self) {
        self.model_refused.inc();
    }

    /// How many artifacts were refused.
    pub fn models_refused(&self) -> u64 {
        self.model_refused.get()
    }

    /// How many events were lost for `reason`.
    pub fn lost(&self, reason: &'static str) -> u64 {
        self.events_lost.get_or_create(&Reason { reason }).get()
    }

    /// Counts whole requests that were lost.
    pub fn lose_full_records(&self, reason: &'static str, count: u64) {
        if count > 0 {
            self.full_records_lost.get_or_create(&Reason { reason }).inc_by(count);
        }
    }

    /// How many whole requests were lost for `reason`.
    pub fn full_lost(&self, reason: &'static str) -> u64 {
        self.full_records_lost.get_or_create(&Reason { reason }).get()
    }

    fn failing(&self, part: &'static str) -> Option<&AtomicBool> {
        self.failing.get(PARTS.iter().position(|other| *other == part)?)
    }
}
