//! Clients that a model would stop although nothing else speaks against them: who, from where, on which path.
//!
//! Such flags are what false positives look like. They are also what an attacker would send to make them look so;
//! therefore a client counts once a day, a network twice, and memory is bounded.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

/// Milliseconds of an hour and of a day.
const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// Most clients of one network (IPv4 /24, IPv6 /48) that count.
const OF_A_NETWORK: usize = 2;

/// Most clients that are kept, the oldest dropped; 32 bytes each.
const KEPT: usize = 2048;

/// Clients that a model would stop although nothing else speaks against them, over a day.
#[derive(Debug, Default)]
pub struct Accused(VecDeque<Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    at_ms: u64,
    client: u64,
    network: u64,
    path: u64,
}

/// How many clients are accused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// In the last hour.
    pub hour: u64,
    /// In the last day.
    pub day: u64,
    /// In the last hour, on the path where most are.
    pub path: u64,
}

impl Accused {
    /// Notes a client; whether it counts: not known today, and not one of too many of its network.
    pub fn note(&mut self, client: u64, network: u64, path: &str, now_ms: u64) -> bool {
        while self.0.front().is_some_and(|first| now_ms.saturating_sub(first.at_ms) >= DAY_MS) {
            self.0.pop_front();
        }
        let of_network = self.0.iter().filter(|entry| entry.network == network).count();
        if of_network >= OF_A_NETWORK || self.0.iter().any(|entry| entry.client == client) {
            return false;
        }
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        self.0.push_back(Entry { at_ms: now_ms, client, network, path: hasher.finish() });
        true
    }

    /// How many there are.
    pub fn count(&self, now_ms: u64) -> Count {
        let within = |span| move |entry: &&Entry| now_ms.saturating_sub(entry.at_ms) < span;
        let mut paths: HashMap<u64, u64> = HashMap::new();
        for entry in self.0.iter().filter(within(HOUR_MS)) {
            *paths.entry(entry.path).or_default() += 1;
        }
        Count {
            hour: paths.values().sum(),
            day: self.0.iter().filter(within(DAY_MS)).count() as u64,
            path: paths.values().copied().max().unwrap_or(0),
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_counts_once_and_a_network_twice() {
        let mut accused = Accused::default();
        for _ in 0..100 {
            accused.note(1, 1, "/a", 0);
        }
        for client in 2..100 {
            accused.note(client, 1, "/a", 0);
        }
        assert_eq!(accused.count(0), Count { hour: 2, day: 2, path: 2 });
        assert!(accused.note(500, 2, "/b", 0));
        assert_eq!(accused.count(0), Count { hour: 3, day: 3, path: 2 });
        assert_eq!(accused.count(HOUR_MS), Count { hour: 0, day: 3, path: 0 });
        assert!(accused.note(1, 1, "/a", DAY_MS), "a new day");
        assert_eq!(accused.count(DAY_MS).day, 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut accused = Accused::default();
        for client in 0..10_000 {
            accused.note(client, client, "/", 0);
        }
        assert_eq!(accused.count(0).day, KEPT as u64);
    }
}
