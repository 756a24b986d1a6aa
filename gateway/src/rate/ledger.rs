//! Counts that several gateways share, or that outlive one: a request is counted here at once and charged to the store
//! a moment later, which answers where the count of all gateways stands.
//!
//! What all gateways let through while they do not know of each other yet is charged too, so that it is missing
//! afterwards: over time, no more than the limit goes through.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dashmap::DashMap;

use super::{Answer, Standing, local};
use crate::{
    clock,
    config::rate::Period,
    store::{Charge, QuotaStore, RateStore, StoreError},
};

/// Most keys that are settled in one exchange.
const BATCH: usize = 500;

/// The counts of one limit.
pub(super) struct Ledger {
    terms: Terms,
    now: Now,
    entries: DashMap<u64, Entry>,
    /// Keys with something to charge.
    due: Mutex<Vec<u64>>,
}

#[derive(Debug, Clone, Copy)]
enum Terms {
    Rate { every: Duration, burst: u32 },
    Quota { most: u64, period: Period },
}

/// A clock that does not jump.
enum Now {
    Since(Instant),
    #[cfg(test)]
    Set(Arc<std::sync::atomic::AtomicU64>),
}

impl Now {
    fn nanoseconds(&self) -> u64 {
        match self {
            Self::Since(began) => nanoseconds(began.elapsed()),
            #[cfg(test)]
            Self::Set(now) => now.load(std::sync::atomic::Ordering::Relaxed),
        }
    }
}

/// The count of one key.
#[derive(Debug, Default)]
struct Entry {
    /// Of a rate: its theoretical arrival time (GCRA), in nanoseconds since the ledger began. Of a quota: how many the
    /// store knows of.
    level: u64,
    /// Counted here and not charged yet.
    due: u64,
    /// Of a quota: charged, and not confirmed yet.
    under_way: u64,
    /// Of a quota: when its period ends, in milliseconds since 1970.
    ends_ms: u64,
}

impl Ledger {
    /// A rate: one request in `every`, `burst` of them at once.
    pub(super) fn of_rate(every: Duration, burst: NonZeroU32) -> Self {
        Self::new(Terms::Rate { every, burst: burst.get() })
    }

    /// A quota: so many in a period.
    pub(super) fn of_quota(most: u64, period: Period) -> Self {
        Self::new(Terms::Quota { most, period })
    }

    fn new(terms: Terms) -> Self {
        Self { terms, now: Now::Since(Instant::now()), entries: DashMap::new(), due: Mutex::default() }
    }

    /// Counts a request.
    pub(super) fn ask(&self, name: &Arc<str>, key: u64, now_ms: u64) -> Answer {
        let mut entry = self.entries.entry(key).or_default();
        let answer = match self.terms {
            Terms::Rate { every, burst } => {
                let now = self.now.nanoseconds();
                let (every_ns, ahead) = (nanoseconds(every), entry.level.saturating_sub(now));
                let whole = every_ns.saturating_mul(u64::from(burst));
                let after = ahead.saturating_add(every_ns);
                if after > whole {
                    let wait = Duration::from_nanos(after - whole);
                    return Answer::Waits(local::standing(name, every, burst, 0), wait);
                }
                entry.level = now.saturating_add(after);
                local::standing(name, every, burst, (whole - after) / every_ns)
            }
            Terms::Quota { most, period } => {
                if now_ms >= entry.ends_ms {
                    let ends_ms = match period {
                        Period::Day => clock::end_of_day(now_ms),
                        Period::Month => clock::end_of_month(now_ms),
                    };
                    *entry = Entry { ends_ms, ..Entry::default() };
                }
                let left = Duration::from_millis(entry.ends_ms.saturating_sub(now_ms));
                let used = entry.level.saturating_add(entry.due).saturating_add(entry.under_way);
                let standing = |remaining| Standing {
                    name: Arc::clone(name),
                    quota: most,
                    window: match period {
                        Period::Day => 86_400,
                        Period::Month => 30 * 86_400,
                    },
                    remaining,
                    reset: left.as_secs(),
                };
                if used >= most {
                    return Answer::Waits(standing(0), left);
                }
                standing(most - used - 1)
            }
        };
        entry.due += 1;
        if entry.due == 1 {
            self.lock().push(key);
        }
        Answer::Goes(answer)
    }

    /// Charges what is due to a store of rates; how many keys that were.
    ///
    /// # Errors
    /// The store does not answer. What was due is forgotten: each gateway counts for itself until it is back.
    pub(super) async fn settle_rates(&self, name: &str, store: &dyn RateStore) -> Result<usize, StoreError> {
        let Terms::Rate { every, .. } = self.terms else { return Ok(0) };
        let due = self.take_due();
        for charges in due.chunks(BATCH) {
            self.take_over(charges, &store.charge_rates(name, every, charges).await?);
        }
        Ok(due.len())
    }

    /// Charges what is due to a store of quotas; how many keys that were.
    ///
    /// # Errors
    /// The store does not answer. What was due is charged when it is back.
    pub(super) async fn settle_quotas(
        &self,
        name: &str,
        store: &dyn QuotaStore,
    ) -> Result<usize, StoreError> {
        let due = self.take_due();
        let mut charged = 0;
        for charges in due.chunks(BATCH) {
            match store.charge_quotas(name, charges).await {
                Ok(levels) => self.take_over(charges, &levels),
                Err(error) => {
                    self.owe(due.get(charged..).unwrap_or_default());
                    return Err(error);
                }
            }
            charged += charges.len();
        }
        Ok(due.len())
    }

    fn take_due(&self) -> Vec<Charge> {
        let keys = std::mem::take(&mut *self.lock());
        let take = |key: u64| {
            let mut entry = self.entries.get_mut(&key)?;
            let count = std::mem::take(&mut entry.due);
            entry.under_way += count;
            (count > 0).then_some(Charge { key, count, ends_ms: entry.ends_ms })
        };
        keys.into_iter().filter_map(take).collect()
    }

    /// Where the counts of all gateways stand, and what came here since they were asked.
    fn take_over(&self, charges: &[Charge], levels: &[u64]) {
        for (charge, level) in charges.iter().zip(levels) {
            let Some(mut entry) = self.entries.get_mut(&charge.key) else { continue };
            entry.under_way = entry.under_way.saturating_sub(charge.count);
            match self.terms {
                Terms::Rate { every, .. } => {
                    let since = nanoseconds(every).saturating_mul(entry.due);
                    let ahead = level.saturating_mul(1_000).saturating_add(since);
                    entry.level = self.now.nanoseconds().saturating_add(ahead);
                }
                Terms::Quota { .. } if entry.ends_ms == charge.ends_ms => entry.level = *level,
                // Its period ended meanwhile.
                Terms::Quota { .. } => {}
            }
        }
    }

    /// Puts back what could not be charged.
    fn owe(&self, charges: &[Charge]) {
        for charge in charges {
            let Some(mut entry) = self.entries.get_mut(&charge.key) else { continue };
            if entry.ends_ms == charge.ends_ms {
                entry.under_way = entry.under_way.saturating_sub(charge.count);
                entry.due += charge.count;
                self.lock().push(charge.key);
            }
        }
    }

    /// Forgets the keys of which nothing is left to know.
    pub(super) fn forget(&self, now_ms: u64) {
        let now = self.now.nanoseconds();
        self.entries.retain(|_, entry| match self.terms {
            Terms::Rate { .. } => entry.due > 0 || entry.level > now,
            Terms::Quota { .. } => entry.due + entry.under_way > 0 || entry.ends_ms > now_ms,
        });
        self.entries.shrink_to_fit();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
