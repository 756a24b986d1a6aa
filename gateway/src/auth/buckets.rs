//! Leaky buckets for any number of keys, in bounded memory.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

const SHARDS: usize = 64;

/// Buckets of the keys used lately. A bucket fills by one with each event and runs dry over the window.
#[derive(Debug)]
pub struct Buckets {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    /// Most buckets in one generation of one shard.
    generation: usize,
    /// Milliseconds in which a full bucket runs dry.
    window_ms: f64,
}

/// Two generations: a bucket that is used moves to the young one; when that is full it becomes the old one.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<u64, Bucket>,
    old: HashMap<u64, Bucket>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    level: f64,
    capacity: f64,
    at_ms: u64,
}

impl Bucket {
    fn drain_to(&mut self, now_ms: u64, window_ms: f64) {
        let elapsed = now_ms.saturating_sub(self.at_ms) as f64;
        self.level = (self.level - elapsed * self.capacity / window_ms).max(0.0);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

impl Buckets {
    /// At most `most` buckets, each dry `window_ms` milliseconds after it was full.
    pub fn new(most: usize, window_ms: u64) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generation: (most / SHARDS / 2).max(1),
            window_ms: window_ms.max(1) as f64,
        }
    }

    /// A key's place: nobody outside can tell which keys share one.
    pub fn place(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Puts one event into the bucket at `place`, which takes `capacity`. The level before it.
    ///
    /// # Errors
    /// The bucket is full: milliseconds until there is room.
    pub fn fill(&self, place: u64, capacity: u32, now_ms: u64) -> Result<f64, u64> {
        let capacity = f64::from(capacity);
        let mut shard = self.shard(place);
        let bucket = shard.touch(place, self.generation);
        bucket.capacity = capacity;
        bucket.drain_to(now_ms, self.window_ms);
        let level = bucket.level;
        if level + 1.0 > capacity {
            return Err(((level + 1.0 - capacity) * self.window_ms / capacity).ceil() as u64);
        }
        bucket.level = level + 1.0;
        Ok(level)
    }

    /// Takes one event back.
    pub fn take_back(&self, place: u64) {
        if let Some(bucket) = self.shard(place).find(place) {
            bucket.level = (bucket.level - 1.0).max(0.0);
        }
    }

    /// How many buckets are kept.
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    fn shard(&self, place: u64) -> MutexGuard<'_, Shard> {
        self.shards[place as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn find(&mut self, place: u64) -> Option<&mut Bucket> {
        match self.young.get_mut(&place) {
            Some(bucket) => Some(bucket),
            None => self.old.get_mut(&place),
        }
    }

    fn touch(&mut self, place: u64, generation: usize) -> &mut Bucket {
        if !self.young.contains_key(&place) {
            let bucket = self.old.remove(&place).unwrap_or_default();
            if self.young.len() >= generation {
                self.age(generation);
            }
            self.young.insert(place, bucket);
        }
        self.young.entry(place).or_default()
    }

    /// The young become the old. Of those that would be dropped the fullest stay, so that a flood of fresh keys does
    /// not empty the bucket of the one that it is about.
    fn age(&mut self, generation: usize) {
        let dropped = mem::replace(&mut self.old, mem::take(&mut self.young));
        let fullness = |bucket: &Bucket| bucket.level / bucket.capacity.max(1.0);
        let mut full: Vec<_> = dropped.into_iter().filter(|(_, bucket)| fullness(bucket) >= 0.5).collect();
        full.sort_by(|(_, a), (_, b)| fullness(b).total_cmp(&fullness(a)));
        self.young.extend(full.into_iter().take(generation / 4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_takes_its_capacity_and_then_one_now_and_then() {
        let buckets = Buckets::new(1_000, 60_000);
        let fill = |now_ms| buckets.fill(7, 6, now_ms);
        let levels: Vec<_> = (0..7).map(|_| fill(1_000)).collect();
        assert_eq!(levels, [Ok(0.0), Ok(1.0), Ok(2.0), Ok(3.0), Ok(4.0), Ok(5.0), Err(10_000)]);
        assert_eq!(fill(6_000), Err(5_000));
        assert!(fill(11_001).is_ok() && fill(11_001).is_err());
        buckets.take_back(7);
        assert!(fill(11_001).is_ok());
        assert!(fill(500).is_err(), "a clock that steps back gives nothing");
        assert_eq!(fill(10_000_000), Ok(0.0));
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_does_not_empty_a_full_bucket() {
        let buckets = Buckets::new(6_400, 3_600_000);
        let victim = buckets.place("victim");
        while buckets.fill(victim, 50, 0).is_ok() {}
        for number in 0..100_000_u32 {
            let _ = buckets.fill(buckets.place(number), 10, 1);
            assert!(number % 1_000 != 0 || buckets.len() <= 6_400);
        }
        assert!(buckets.fill(victim, 50, 2).is_err());
    }
}
