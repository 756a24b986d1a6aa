//! Bounded, seeded samples of a stream.

use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{RngCore, SeedableRng},
};

/// An even sample of at most `limit` items (Vitter 1985, algorithm R); the same stream and seed give the same
/// sample.
#[derive(Debug)]
pub struct Reservoir<T> {
    kept: Vec<T>,
    limit: usize,
    seen: u64,
    random: Xoshiro256PlusPlus,
}

impl<T> Reservoir<T> {
    /// An empty sample.
    pub fn new(limit: usize, seed: u64) -> Self {
        Self { kept: Vec::new(), limit, seen: 0, random: Xoshiro256PlusPlus::seed_from_u64(seed) }
    }

    /// Offers one more item.
    pub fn offer(&mut self, item: T) {
        self.seen += 1;
        if self.kept.len() < self.limit {
            self.kept.push(item);
            return;
        }
        // The bias of the remainder is below seen / 2^64.
        let place = self.random.next_u64() % self.seen;
        if let Some(kept) = usize::try_from(place).ok().and_then(|place| self.kept.get_mut(place)) {
            *kept = item;
        }
    }

    /// How many items were offered.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The sample.
    pub fn into_kept(self) -> Vec<T> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_bounded_even_and_repeatable() {
        let sample = |seed| {
            let mut reservoir = Reservoir::new(1000, seed);
            (0..100_000_u32).for_each(|item| reservoir.offer(item));
            assert_eq!(reservoir.seen(), 100_000);
            reservoir.into_kept()
        };
        let kept = sample(1);
        assert_eq!(kept.len(), 1000);
        assert_eq!(kept, sample(1));
        assert_ne!(kept, sample(2));
        let mean = kept.iter().map(|item| f64::from(*item)).sum::<f64>() / 1000.0;
        assert!((45_000.0..55_000.0).contains(&mean), "{mean}");
    }
}
