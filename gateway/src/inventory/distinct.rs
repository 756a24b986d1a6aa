//! How many different clients there were, in 256 bytes.

use serde::Serialize;

use crate::store::model_directory::{hex, unhex};

/// Registers; the error of a count is about 1.04 / sqrt(256) = 6.5 %.
const REGISTERS: usize = 256;

/// A set of which only the size is known, approximately: HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007), with
/// linear counting while it is small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distinct(Box<[u8; REGISTERS]>);

impl Default for Distinct {
    fn default() -> Self {
        Self(Box::new([0; REGISTERS]))
    }
}

impl Distinct {
    /// Adds a member by its hash, of which every bit is as good as random.
    pub fn add(&mut self, hash: u64) {
        let [place, ..] = hash.to_le_bytes();
        let rank = u8::try_from((hash >> 8).trailing_zeros().min(55) + 1).unwrap_or(u8::MAX);
        if let Some(register) = self.0.get_mut(usize::from(place)) {
            *register = (*register).max(rank);
        }
    }

    /// Adds every member of another set.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(mine, other)| *mine = (*mine).max(*other));
    }

    /// About how many members there are.
    pub fn count(&self) -> u64 {
        let registers = REGISTERS as f64;
        let sum: f64 = self.0.iter().map(|rank| 0.5_f64.powi(i32::from(*rank))).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        let empty = self.0.iter().filter(|rank| **rank == 0).count();
        let count = if estimate <= 2.5 * registers && empty > 0 {
            registers * (registers / empty as f64).ln()
        } else {
            estimate
        };
        count.round() as u64
    }

    /// Reads what was written as text.
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex::<REGISTERS>(text).map(|registers| Self(Box::new(registers)))
    }
}

impl Serialize for Distinct {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&*self.0))
    }
}

#[cfg(test)]
mod tests {
    use waf_model::{keys::keyed_hash, observation::ValueKey};

    use super::*;

    #[test]
    fn counts_are_close_and_sets_can_be_merged() {
        let hash = |at: u64| keyed_hash(&ValueKey([3; 16]), &at.to_string());
        for size in [0, 1, 2, 10, 100, 1_000, 50_000] {
            let (mut even, mut odd) = (Distinct::default(), Distinct::default());
            for at in 0..size {
                if at % 2 == 0 {
                    even.add(hash(at))
                } else {
                    odd.add(hash(at))
                }
                even.add(hash(at));
            }
            even.merge(&odd);
            let count = even.count();
            let error = (count as f64 - size as f64).abs();
            assert!(error <= 0.15 * size as f64, "{count} for {size}");
        }
        let mut set = Distinct::default();
        (0..500).for_each(|at| set.add(hash(at)));
        let text = serde_json::to_value(&set).unwrap();
        assert_eq!(Distinct::from_hex(text.as_str().unwrap()), Some(set));
        assert_eq!(Distinct::from_hex("00"), None);
    }
}
