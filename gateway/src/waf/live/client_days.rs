//! How many clients came on a day, and how many of them were blocked, without keeping any of them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Milliseconds of a day; days are those of UTC, as the trainer counts them.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Ends a run of zeros.
const TOP: u64 = 1 << 63;

/// Registers of one sketch: about 3 % off for many clients, exact to a client or two for few.
const REGISTERS: usize = 1024;

/// Clients and blocked clients of today and yesterday; 4 KiB.
#[derive(Debug, Default)]
pub struct ClientDays {
    days: [Day; 2],
}

#[derive(Debug, Default)]
struct Day {
    /// Days since 1970.
    number: AtomicU64,
    clients: Sketch,
    blocked: Sketch,
}

/// Client-days since yesterday began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Clients that were inspected, each once a day.
    pub clients: u64,
    /// Those of them whose evidence reached the model's threshold.
    pub blocked: u64,
}

impl ClientDays {
    /// Counts a request of `client` (a keyed hash), and whether it is blocked now or would be.
    pub fn add(&self, client: u64, blocked: bool, now_ms: u64) {
        let number = now_ms / DAY_MS;
        let Some(day) = self.days.get(number as usize % 2) else { return };
        // Who turns the page clears it; a request in the same instant may be forgotten.
        let is_new = day.number.load(Ordering::Relaxed) != number;
        if is_new && day.number.swap(number, Ordering::Relaxed) != number {
            day.clients.clear();
            day.blocked.clear();
        }
        day.clients.add(client);
        if blocked {
            day.blocked.add(client);
        }
    }

    /// Today's and yesterday's together.
    pub fn count(&self, now_ms: u64) -> Count {
        let today = now_ms / DAY_MS;
        let recent = |day: &&Day| {
            let number = day.number.load(Ordering::Relaxed);
            number <= today && today - number <= 1
        };
        self.days.iter().filter(recent).fold(Count::default(), |sum, day| Count {
            clients: sum.clients + day.clients.estimate(),
            blocked: sum.blocked + day.blocked.estimate(),
        })
    }
}

/// A HyperLogLog (Flajolet et al. 2007), with linear counting while it is mostly empty.
#[derive(Debug)]
struct Sketch([AtomicU8; REGISTERS]);

impl Default for Sketch {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU8::new(0)))
    }
}

impl Sketch {
    fn add(&self, hash: u64) {
        let rank = ((hash / REGISTERS as u64) | TOP).trailing_zeros() as u8 + 1;
        if let Some(register) = self.0.get(hash as usize % REGISTERS)
            && register.load(Ordering::Relaxed) < rank
        {
            register.fetch_max(rank, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        self.0.iter().for_each(|register| register.store(0, Ordering::Relaxed));
    }

    fn estimate(&self) -> u64 {
        let ranks = self.0.iter().map(|register| register.load(Ordering::Relaxed));
        let empty = ranks.clone().filter(|rank| *rank == 0).count();
        let m = REGISTERS as f64;
        let raw =
            0.7213 / (1.0 + 1.079 / m) * m * m / ranks.map(|rank| (-f64::from(rank)).exp2()).sum::<f64>();
        let estimate = if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn clients_are_counted_once_a_day_for_two_days() {
        let (days, hash) = (ClientDays::default(), RandomState::new());
        let start = 1_000 * DAY_MS;
        for client in 0..20_000_u64 {
            for _ in 0..3 {
                days.add(hash.hash_one(client), client < 3, start + client);
            }
        }
        let count = days.count(start + 50_000);
        assert!((18_000..=22_000).contains(&count.clients), "{count:?}");
        assert_eq!(count.blocked, 3);
        days.add(hash.hash_one(1), false, start + DAY_MS);
        assert_eq!(days.count(start + DAY_MS), Count { clients: count.clients + 1, blocked: 3 });
        assert_eq!(days.count(start + 2 * DAY_MS).clients, 1);
        days.add(hash.hash_one(7), false, start + 2 * DAY_MS);
        assert_eq!(days.count(start + 2 * DAY_MS), Count { clients: 2, blocked: 0 });
        assert_eq!(days.count(start + 9 * DAY_MS), Count::default());
    }
}
