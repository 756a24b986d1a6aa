//! A hash table that is built once and read on every token: open addressing, fixed hash, at most half full.

use super::evidence::Evidence;

/// Maps hashes to small items; the caller tells equal hashes apart.
#[derive(Debug, Clone, Default)]
pub struct Table<T> {
    slots: Vec<Option<(u32, T)>>,
}

impl<T: Copy> Table<T> {
    /// Holds each item under its hash.
    pub fn new(items: &[(u64, T)]) -> Self {
        let size = (items.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![None; size];
        for (hash, item) in items {
            let mut at = *hash as usize & (size - 1);
            while slots.get(at).is_some_and(Option::is_some) {
                at = (at + 1) & (size - 1);
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = Some(((hash >> 32) as u32, *item));
            }
        }
        Self { slots }
    }

    /// The item under `hash` for which `is` holds.
    pub fn find(&self, hash: u64, is: impl Fn(T) -> bool) -> Option<T> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        // Ends at a free slot: the table is at most half full.
        while let Some(Some((high, item))) = self.slots.get(at) {
            if *high == (hash >> 32) as u32 && is(*item) {
                return Some(*item);
            }
            at = (at + 1) & mask;
        }
        None
    }
}

/// Says quickly of most pieces of evidence that nothing is known about them: a Bloom filter with one hash function,
/// small enough for the nearest cache.
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<u64>);

/// Bits of a [`Filter`], as a power of two.
const FILTER_BITS: u32 = 15;

impl Filter {
    /// Lets `evidence` pass.
    pub fn new(evidence: impl Iterator<Item = Evidence>) -> Self {
        let mut words = vec![0; 1 << (FILTER_BITS - 6)];
        for (word, bit) in evidence.map(Self::place) {
            if let Some(word) = words.get_mut(word) {
                *word |= bit;
            }
        }
        Self(words)
    }

    /// Whether `evidence` may be known.
    pub fn passes(&self, evidence: Evidence) -> bool {
        let (word, bit) = Self::place(evidence);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Multiplicative hashing; every part has an odd factor of its own.
    fn place(evidence: Evidence) -> (usize, u64) {
        let (kind, first, second, third) = parts(evidence);
        let hash = (first ^ kind << 13).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ second.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ third.wrapping_mul(0x1656_67b1_9e37_79f9);
        let bit = hash >> (64 - FILTER_BITS);
        ((bit >> 6) as usize, 1 << (bit & 63))
    }
}

/// Hash of a word: FNV-1a, its bits mixed.
pub fn hash(word: &[u8]) -> u64 {
    mix(word.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// Hash of a piece of evidence.
pub fn hash_evidence(evidence: Evidence) -> u64 {
    let (kind, first, second, third) = parts(evidence);
    mix(mix(kind << 60 ^ first << 32 ^ second) ^ third)
}

/// A piece of evidence as numbers: its kind, and up to three parts.
fn parts(evidence: Evidence) -> (u64, u64, u64, u64) {
    match evidence {
        Evidence::Token(token) => (1, u64::from(token.0), 0, 0),
        Evidence::Pair(first, second) => (2, u64::from(first.0), u64::from(second.0), 0),
        Evidence::Near(first, second) => (3, u64::from(first.0), u64::from(second.0), 0),
        Evidence::Triple(a, b, c) => (6, u64::from(a.0), u64::from(b.0), u64::from(c.0)),
        Evidence::Sign(sign) => (4, sign as u64, 0, 0),
        Evidence::Fingerprint([a, b, c, d, e]) => {
            (5, u64::from(u32::from_le_bytes([a, b, c, d])), u64::from(e), 0)
        }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}
