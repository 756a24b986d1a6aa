//! Tallies: counts that one client alone cannot drive up.

use std::collections::BTreeMap;

/// A count of how often the client changed between one occurrence and the next.
///
/// A client that repeats something a thousand times counts once; a thousand clients count a thousand times. It is
/// a quorum without a set of clients behind it: eight bytes a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    count: u32,
    last_client: u32,
}

impl Tally {
    /// Counts an occurrence by `client`.
    pub fn add(&mut self, client: u64) {
        // 32 bits tell neighbors in time apart well enough; 0 stands for "nobody yet".
        let client = (client >> 32) as u32 ^ client as u32 | 1;
        if client != self.last_client {
            self.count = self.count.saturating_add(1);
            self.last_client = client;
        }
    }

    /// Client changes seen.
    pub fn count(self) -> u32 {
        self.count
    }

    /// Adds what another tally saw.
    pub fn merge(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        if self.last_client == 0 {
            self.last_client = other.last_client;
        }
    }
}

/// Tallies of distinct items, up to a number of items beyond which nothing is told apart any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    items: BTreeMap<u64, Tally>,
    overflowed: bool,
}

/// Most distinct items of a [`Census`].
pub const CENSUS_ITEMS: usize = 256;

/// Client changes from which on an item counts as normal.
pub const QUORUM: u32 = 3;

/// Client changes up to which an item is rare.
const RARE: u32 = 3;

/// What is added for a new item that nothing announced.
const PRIOR: f64 = 0.1;

impl Census {
    /// Counts an occurrence of `item` by `client`.
    pub fn add(&mut self, item: u64, client: u64) {
        if self.overflowed {
            return;
        }
        self.items.entry(item).or_default().add(client);
        self.bound();
    }

    /// Adds what another census saw.
    pub fn merge(&mut self, other: &Self) {
        self.overflowed |= other.overflowed;
        if !self.overflowed {
            for (item, tally) in &other.items {
                self.items.entry(*item).or_default().merge(*tally);
            }
        }
        self.bound();
    }

    fn bound(&mut self) {
        if self.overflowed || self.items.len() > CENSUS_ITEMS {
            self.overflowed = true;
            self.items.clear();
        }
    }

    /// The items with the surprise of each, and the surprise of a new one; `None` if the items are not countable.
    /// An item that reached its quorum is not surprising, however rare it is.
    pub fn surprises(&self, total: u32) -> Option<(Vec<(u64, f32)>, f32)> {
        if self.overflowed || self.items.is_empty() {
            return None;
        }
        let other = novelty(self.items.values().map(|tally| tally.count()), total);
        let grade = |tally: &Tally| {
            if tally.count() >= QUORUM { 0.0 } else { surprise(tally.count(), total).min(other) }
        };
        Some((self.items.iter().map(|(item, tally)| (*item, grade(tally))).collect(), other))
    }
}

/// -log10 of the probability of something that `count` of `total` brought (Krichevsky and Trofimov's estimate).
pub fn surprise(count: u32, total: u32) -> f32 {
    let p = (f64::from(count.min(total)) + 0.5) / (f64::from(total) + 1.0);
    (-p.log10()) as f32
}

/// -log10 of the probability that the next one is new, given how often each known one was seen (Good and Turing).
///
/// How many were seen once is itself a small number; what was seen two or three times steadies it. An item set of
/// which nothing is rare is taken as closed: `PRIOR` is small, because most parameters never change their form.
pub fn novelty(counts: impl Iterator<Item = u32>, total: u32) -> f32 {
    let (mut once, mut rare) = (0u32, 0u32);
    for count in counts {
        once += u32::from(count == 1);
        rare += u32::from((1..=RARE).contains(&count));
    }
    let new = f64::from(once).max(f64::from(rare) / f64::from(RARE));
    let p = (new + PRIOR) / (f64::from(total) + 2.0 * PRIOR).max(new + PRIOR);
    (-p.log10()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_counts_once_and_many_count_many_times() {
        let mut tally = Tally::default();
        (0..1000).for_each(|_| tally.add(7));
        assert_eq!(tally.count(), 1);
        (0..1000).for_each(|client| tally.add(client * 7919));
        assert!(tally.count() > 990);
    }

    #[test]
    fn a_closed_set_is_surprised_by_a_new_item_and_an_open_one_is_not() {
        let mut closed = Census::default();
        let mut open = Census::default();
        for client in 0..200u64 {
            closed.add(client % 3, client << 7);
            open.add(client, client << 7);
        }
        let (_, closed) = closed.surprises(200).unwrap();
        let (_, open) = open.surprises(200).unwrap();
        assert!(closed > 2.0 && open < 0.1, "{closed} {open}");
    }
}
