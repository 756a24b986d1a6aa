//! A rate on one gateway alone: GCRA, by `governor`.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use super::{Answer, Standing, whole_seconds};

type Keyed = RateLimiter<u64, DashMapStateStore<u64>, DefaultClock, StateInformationMiddleware>;

/// A rate for each key.
pub(super) struct Local {
    limiter: Keyed,
    clock: DefaultClock,
    every: Duration,
    burst: u32,
}

impl Local {
    /// One request in `every`, `burst` of them at once.
    pub(super) fn new(every: Duration, burst: NonZeroU32) -> Self {
        // A period is never zero here; if it were, one second would be the safe reading.
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(burst)).allow_burst(burst);
        let limiter = RateLimiter::keyed(quota).with_middleware();
        Self { limiter, clock: DefaultClock::default(), every, burst: burst.get() }
    }

    /// Counts a request.
    pub(super) fn ask(&self, name: &Arc<str>, key: u64) -> Answer {
        match self.limiter.check_key(&key) {
            Ok(state) => Answer::Goes(self.standing(name, state.remaining_burst_capacity())),
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.clock.now());
                Answer::Waits(self.standing(name, 0), wait)
            }
        }
    }

    /// Forgets the keys whose burst is whole again.
    pub(super) fn forget(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    fn standing(&self, name: &Arc<str>, remaining: u32) -> Standing {
        standing(name, self.every, self.burst, u64::from(remaining))
    }
}

/// How a rate stands: its window is the time in which a whole burst comes back.
pub(super) fn standing(name: &Arc<str>, every: Duration, burst: u32, remaining: u64) -> Standing {
    Standing {
        name: Arc::clone(name),
        quota: u64::from(burst),
        window: whole_seconds(every.saturating_mul(burst)).max(1),
        remaining,
        reset: whole_seconds(every),
    }
}
