//! Events on their way to the store: a bounded queue, batches, sampling, and a spool while the store is away.

pub mod delivery;
pub mod spool;

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tokio::sync::mpsc;
use waf_model::event::{Event, Review, Verdict};

use crate::{clock, telemetry::store_metrics::StoreMetrics};

/// Records that may wait for the delivery task.
const QUEUE: usize = 16_384;

/// The last quarter of the queue is kept for flagged events and reviews.
const RESERVED: usize = QUEUE / 4;

/// What is delivered to the store.
#[derive(Debug)]
pub enum Record {
    /// One request.
    Event(Box<Event>),
    /// One judgment.
    Review(Review),
}

/// Takes events from the request path; never waits, counts what it drops.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Sender<Record>,
    sampler: Sampler,
    metrics: Arc<StoreMetrics>,
}

impl Default for Events {
    /// Events that go nowhere: all are counted as dropped.
    fn default() -> Self {
        Self::new(u32::MAX, Arc::default()).0
    }
}

impl Events {
    /// The sending end, and the end for [`delivery::Delivery`]. Above `events_per_second` benign events are sampled.
    pub fn new(events_per_second: u32, metrics: Arc<StoreMetrics>) -> (Self, mpsc::Receiver<Record>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue, sampler: Sampler::new(events_per_second), metrics }, receiver)
    }

    /// Queues an event. Above the configured rate, benign events are sampled and their weight raised.
    pub fn emit(&self, mut event: Event) {
        if matches!(event.verdict, Verdict::Pass | Verdict::Allowed) {
            match self.sampler.weigh(clock::now_ms() / 1000, draw(&event.id)) {
                Some(weight) => event.weight = weight,
                None => {
                    self.metrics.events_sampled.inc();
                    return;
                }
            }
            if self.queue.capacity() <= RESERVED {
                self.metrics.lose_events("queue", 1);
                return;
            }
        }
        if self.queue.try_send(Record::Event(Box::new(event))).is_err() {
            self.metrics.lose_events("queue", 1);
        }
    }

    /// Queues a review; `false` if the queue is full.
    #[must_use]
    pub fn review(&self, review: Review) -> bool {
        self.queue.try_send(Record::Review(review)).is_ok()
    }
}

/// Chooses which benign events are kept, at most about the configured rate, and how many each stands for. The
/// weights of the kept ones add up to the number of all, but for those after the last kept one.
#[derive(Debug)]
struct Sampler {
    rate: u32,
    second: AtomicU64,
    seen: AtomicU32,
    /// One in how many was kept at the end of the second before.
    stride: AtomicU32,
    /// Left out since the last kept one.
    skipped: AtomicU32,
}

impl Sampler {
    fn new(rate: u32) -> Self {
        Self {
            rate: rate.max(1),
            second: AtomicU64::new(0),
            seen: AtomicU32::new(0),
            stride: AtomicU32::new(1),
            skipped: AtomicU32::new(0),
        }
    }

    /// The weight of an event in `second` if it is kept; `draw` is its random number.
    fn weigh(&self, second: u64, draw: u32) -> Option<f32> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            let seen = self.seen.swap(0, Ordering::Relaxed);
            self.stride.store(seen.div_ceil(self.rate).max(1), Ordering::Relaxed);
        }
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        // A burst that the second before did not announce is thinned as it grows: its kept part grows as the
        // logarithm of its size only.
        let burst = (seen / self.rate).checked_next_power_of_two().unwrap_or(1).max(1);
        let stride = self.stride.load(Ordering::Relaxed).max(burst);
        if !draw.is_multiple_of(stride) {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(1.0 + self.skipped.swap(0, Ordering::Relaxed) as f32)
    }
}

/// The random part of a UUIDv7.
fn draw(id: &[u8; 16]) -> u32 {
    let [.., a, b, c, d] = *id;
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, from their index.
    fn scramble(at: u32) -> u32 {
        at.wrapping_mul(2_654_435_761).rotate_left(15).wrapping_mul(2_246_822_519) >> 3
    }

    #[test]
    fn weights_add_up_to_all_events_and_the_rate_is_kept() {
        let sampler = Sampler::new(100);
        let mut draws = 0;
        for second in 1..20 {
            let (mut kept, mut sum) = (0, 0.0);
            let before = sampler.skipped.load(Ordering::Relaxed);
            for _ in 0..10_000 {
                draws += 1;
                if let Some(weight) = sampler.weigh(second, scramble(draws)) {
                    kept += 1;
                    sum += weight;
                }
            }
            let after = sampler.skipped.load(Ordering::Relaxed);
            assert_eq!(sum as u32 + after, 10_000 + before);
            // The first second is a surprise, and may cost the rate times the logarithm of the excess.
            assert!(kept <= if second == 1 { 700 } else { 160 }, "{kept} in second {second}");
            assert!(kept >= 40, "{kept} in second {second}");
        }
    }

    #[test]
    fn below_the_rate_nothing_is_left_out() {
        let sampler = Sampler::new(100);
        for second in 1..5 {
            for at in 0..100 {
                assert_eq!(sampler.weigh(second, scramble(at)), Some(1.0));
            }
        }
    }
}
