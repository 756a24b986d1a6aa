//! Whether an origin is fit: what checks of it say, and what requests to it did.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::clock;

/// Longest time that an origin is left out for what requests did.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);

/// What is known of an origin. It counts as fit until something speaks against it.
#[derive(Debug)]
pub(super) struct Health {
    began: Instant,
    /// What the checks say.
    is_down: AtomicBool,
    /// Checks in a row that contradict that.
    contradictions: AtomicU32,
    /// Requests in a row that failed.
    failures: AtomicU32,
    /// Until when it is left out, in milliseconds since `began`; 0 if it never was.
    ejected_until: AtomicU64,
    /// How often in succession it was left out.
    ejections: AtomicU32,
}

/// How an origin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It gets requests.
    Up,
    /// Checks fail.
    Down,
    /// Requests to it failed; it is left out for a while.
    Ejected,
}

impl State {
    /// Its name, for people and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            is_down: AtomicBool::new(false),
            contradictions: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
        }
    }

    /// How the origin stands now.
    pub(super) fn state(&self) -> State {
        if self.is_down.load(Ordering::Relaxed) {
            return State::Down;
        }
        match self.ejected_until.load(Ordering::Relaxed) {
            0 => State::Up,
            until if until > self.now() => State::Ejected,
            _ => State::Up,
        }
    }

    /// Notes the outcome of a check. Returns the new state if `threshold` checks in a row contradicted the old one.
    pub(super) fn checked(&self, is_good: bool, threshold: u32) -> Option<State> {
        let is_down = self.is_down.load(Ordering::Relaxed);
        if is_good != is_down {
            self.contradictions.store(0, Ordering::Relaxed);
            return None;
        }
        if self.contradictions.fetch_add(1, Ordering::Relaxed) + 1 < threshold {
            return None;
        }
        self.contradictions.store(0, Ordering::Relaxed);
        self.is_down.store(!is_good, Ordering::Relaxed);
        if is_good {
            // A check has seen it well: what requests did before is over.
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
        Some(self.state())
    }

    /// Notes a request that the origin answered.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a request that failed; how many did in a row.
    pub(super) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Leaves the origin out for `first`, and twice as long each time that it happens again soon.
    pub(super) fn eject(&self, first: Duration) -> Duration {
        let now = self.now();
        let until = self.ejected_until.load(Ordering::Relaxed);
        let calm = now.saturating_sub(until) > clock::millis(LONGEST_EJECTION);
        if until == 0 || calm {
            self.ejections.store(0, Ordering::Relaxed);
        }
        let before = self.ejections.fetch_add(1, Ordering::Relaxed).min(16);
        let time = first.saturating_mul(1 << before).min(LONGEST_EJECTION.max(first));
        self.failures.store(0, Ordering::Relaxed);
        self.ejected_until.store(now.saturating_add(clock::millis(time)).max(1), Ordering::Relaxed);
        time
    }

    fn now(&self) -> u64 {
        clock::millis(self.began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_check_is_not_enough_and_one_good_one_neither() {
        let health = Health::new();
        let checks = [false, true, false, false, false, true, false, true, true];
        let states: Vec<_> = checks.iter().map(|good| health.checked(*good, 2)).collect();
        let (down, up) = (Some(State::Down), Some(State::Up));
        assert_eq!(states, [None, None, None, down, None, None, None, None, up]);
    }

    #[test]
    fn each_ejection_that_follows_lasts_longer_up_to_a_limit() {
        let health = Health::new();
        assert_eq!((health.failed(), health.failed(), health.state()), (1, 2, State::Up));
        let times: Vec<u64> = (0..6).map(|_| health.eject(Duration::from_secs(30)).as_secs()).collect();
        assert_eq!(times, [30, 60, 120, 240, 300, 300]);
        assert_eq!((health.state(), health.failed()), (State::Ejected, 1));
        // Checks that fail and then succeed end it.
        health.checked(false, 1);
        assert_eq!(health.checked(true, 1), Some(State::Up));
    }
}
