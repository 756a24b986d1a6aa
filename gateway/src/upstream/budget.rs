//! How many requests may be sent again: a share of all, so that retries never double the load on what is failing.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

/// Seconds over which requests and retries are compared.
const WINDOW: u64 = 10;

/// Retries allowed in a window whatever the traffic, so that a quiet site may retry at all.
const ALWAYS: u32 = 10;

/// Counts requests and retries of a group.
#[derive(Debug)]
pub(super) struct RetryBudget {
    began: Instant,
    /// Percent of requests.
    share: u32,
    window: AtomicU64,
    requests: AtomicU32,
    retries: AtomicU32,
}

impl RetryBudget {
    pub(super) fn new(share: u32) -> Self {
        Self {
            began: Instant::now(),
            share,
            window: AtomicU64::new(0),
            requests: AtomicU32::new(0),
            retries: AtomicU32::new(0),
        }
    }

    /// Notes a request.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether one more may be sent again; counts it if so.
    pub(super) fn take(&self) -> bool {
        self.take_at(self.began.elapsed().as_secs() / WINDOW)
    }

    fn take_at(&self, window: u64) -> bool {
        if self.window.swap(window, Ordering::Relaxed) != window {
            self.requests.store(0, Ordering::Relaxed);
            self.retries.store(0, Ordering::Relaxed);
        }
        if self.share == 0 {
            return false;
        }
        let requests = u64::from(self.requests.load(Ordering::Relaxed));
        let allowed = requests.saturating_mul(u64::from(self.share)) / 100 + u64::from(ALWAYS);
        u64::from(self.retries.fetch_add(1, Ordering::Relaxed)) < allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = RetryBudget::new(20);
        (0..100).for_each(|_| budget.request());
        assert_eq!((0..100).filter(|_| budget.take_at(0)).count(), 30);
        assert!(budget.take_at(1), "a new window");
        let none = RetryBudget::new(0);
        assert!(!none.take_at(0));
    }
}
