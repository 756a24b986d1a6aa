//! Copies of requests for another upstream: nobody waits for them, and there are never many at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    group::{Group, scramble},
    origin::Freshness,
    request::Sending,
};

/// Copies on their way at once.
const AT_ONCE: usize = 64;

/// Longest time for one.
const TIME: Duration = Duration::from_secs(10);

/// Sends copies, and counts what became of them.
#[derive(Debug)]
pub struct Mirrors {
    room: Arc<Semaphore>,
    turn: AtomicU64,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(AT_ONCE)), turn: AtomicU64::new(0), counts: Arc::default() }
    }
}

impl Mirrors {
    /// Whether the next request is one of these `percent`.
    pub(super) fn is_due(&self, percent: u32) -> bool {
        scramble(self.turn.fetch_add(1, Ordering::Relaxed)) % 100 < u64::from(percent)
    }

    /// Notes a request that cannot be copied.
    pub(super) fn skip(&self) {
        self.counts.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends a copy, or skips it if there are many on their way.
    pub(super) fn send(&self, group: Arc<Group>, key: u64, request: Sending) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return self.skip() };
        let counts = Arc::clone(&self.counts);
        tokio::spawn(async move {
            let exchange = async {
                let chosen = group.choose(key, None).ok()?;
                let response = chosen.origin.send(request, Freshness::Any, chosen.in_flight).await.ok()?;
                let mut body = response.into_body();
                while let Some(frame) = body.frame().await {
                    frame.ok()?;
                }
                Some(())
            };
            let count = match timeout(TIME, exchange).await {
                Ok(Some(())) => &counts.answered,
                Ok(None) | Err(_) => &counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
            drop(permit);
        });
    }

    /// What became of copies so far: `answered`, `failed`, and `skipped` for those that were not sent, because there
    /// were too many or their body was not whole in memory.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let Counts { answered, failed, skipped } = &*self.counts;
        [("answered", answered), ("failed", failed), ("skipped", skipped)]
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}
