//! Whole requests on their way to the store, from routes that say `record: full`: chosen and copied on the request
//! path, freed of secrets and sealed on another thread, stored in batches. Nothing waits for them: what does not fit is
//! dropped and counted.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;
use waf_model::full_record::FullRecord;

use crate::{
    config::{self, Recording, Route},
    telemetry::store_metrics::StoreMetrics,
};

pub mod delivery;

/// Requests that may wait.
const QUEUE: usize = 4096;

/// Bytes of requests that may wait: they are in memory.
const QUEUED_BYTES: usize = 32 << 20;

/// What a record takes beside its body and headers, about.
const OVERHEAD: usize = 1024;

/// Takes whole requests from the request path.
#[derive(Debug)]
pub struct Records {
    queue: mpsc::Sender<FullRecord>,
    queued: Arc<AtomicUsize>,
    rate: Rate,
    body_bytes: usize,
    metrics: Arc<StoreMetrics>,
}

/// The receiving end of [`Records`].
#[derive(Debug)]
pub struct Queue {
    receiver: mpsc::Receiver<FullRecord>,
    queued: Arc<AtomicUsize>,
}

impl Records {
    /// The sending end, and the end for [`delivery::Delivery`].
    pub fn new(settings: &config::Records, metrics: Arc<StoreMetrics>) -> (Self, Queue) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let records = Self {
            queue,
            queued: Arc::clone(&queued),
            rate: Rate { most: settings.per_second, ..Rate::default() },
            body_bytes: settings.body_bytes,
            metrics,
        };
        (records, Queue { receiver, queued })
    }

    /// How many bytes of the body to record of a request on `route` that arrived at `at_ms`; `None` to record nothing.
    pub fn wants(&self, route: &Route, at_ms: u64, flagged: bool) -> Option<usize> {
        if route.record != Recording::Full {
            return None;
        }
        if !self.rate.admits(at_ms / 1000, flagged) {
            self.metrics.full_records_skipped.inc();
            return None;
        }
        Some(self.body_bytes)
    }

    /// Queues a request.
    pub fn push(&self, record: FullRecord) {
        let size = size(&record);
        if self.queued.fetch_add(size, Ordering::Relaxed) + size > QUEUED_BYTES
            || self.queue.try_send(record).is_err()
        {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            self.metrics.lose_full_records("queue", 1);
        }
    }
}

impl Queue {
    /// At most `most` requests more, once there is one; their number, 0 when no more will come.
    async fn take(&mut self, into: &mut Vec<FullRecord>, most: usize) -> usize {
        let before = into.len();
        let taken = self.receiver.recv_many(into, most).await;
        let freed: usize = into.iter().skip(before).map(size).sum();
        self.queued.fetch_sub(freed, Ordering::Relaxed);
        taken
    }
}

fn size(record: &FullRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let query = record.query.as_ref().map_or(0, Vec::len);
    record.body.len() + record.path.len() + query + headers + OVERHEAD
}

/// The first so many requests of each second, and as many flagged ones beside them.
#[derive(Debug, Default)]
struct Rate {
    most: u32,
    second: AtomicU64,
    seen: AtomicU32,
    flagged: AtomicU32,
}

impl Rate {
    fn admits(&self, second: u64, flagged: bool) -> bool {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.seen.store(0, Ordering::Relaxed);
            self.flagged.store(0, Ordering::Relaxed);
        }
        let count = if flagged { &self.flagged } else { &self.seen };
        count.fetch_add(1, Ordering::Relaxed) < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_what_is_flagged_has_its_own() {
        let rate = Rate { most: 3, ..Rate::default() };
        for second in 1..4 {
            let admitted = |flagged| (0..10).filter(|_| rate.admits(second, flagged)).count();
            assert_eq!((admitted(false), admitted(true)), (3, 3));
        }
    }
}
