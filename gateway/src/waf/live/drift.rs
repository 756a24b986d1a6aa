//! How far live traffic has moved from what the model was calibrated on: the population stability index of each
//! feature, over the last 12 to 24 hours.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::Serialize;
use waf_model::{
    features::{FEATURES, FeatureVector, TABLE},
    model::baseline::{BINS, Baseline, MOVED},
};

/// Milliseconds of one of the two halves that are kept.
const HALF_MS: u64 = 12 * 60 * 60 * 1000;

/// Requests below which shares say nothing.
const LEAST_REQUESTS: u64 = 500;

/// Requests of one half that are all counted; beyond, one of sixteen stands for all. Counting touches as many
/// places as there are features, which threads would keep taking from each other.
const ALL: u64 = 4096;
const STRIDE: u64 = 16;

/// 2^64 over the golden ratio: its multiples lie evenly.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Features that are shown.
const SHOWN: usize = 5;

/// Feature vectors of live traffic, counted in the bins of a baseline; 6 KiB.
#[derive(Debug)]
pub struct LiveDrift {
    halves: [Half; 2],
}

#[derive(Debug)]
struct Half {
    /// Halves of days since 1970.
    number: AtomicU64,
    requests: AtomicU64,
    /// [`BINS`] for each feature.
    bins: Vec<AtomicU32>,
}

/// How far live traffic has moved.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Drift {
    /// Requests compared.
    pub requests: u64,
    /// Share of the features that moved much, by the convention of an index above 0.25.
    pub moved: f64,
    /// The features that moved most, with their index.
    pub most: Vec<(&'static str, f32)>,
    /// Every feature with its index.
    #[serde(skip)]
    pub psi: Vec<(&'static str, f32)>,
}

impl Default for LiveDrift {
    fn default() -> Self {
        let half = || Half {
            number: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            bins: (0..FEATURES * BINS).map(|_| AtomicU32::new(0)).collect(),
        };
        Self { halves: [half(), half()] }
    }
}

impl LiveDrift {
    /// Counts one request in the bins of `baseline`, always the same one.
    pub fn add(&self, baseline: &Baseline, vector: &FeatureVector, now_ms: u64) {
        let number = now_ms / HALF_MS;
        let Some(half) = self.halves.get(number as usize % 2) else { return };
        // Who turns the page clears it; a request in the same instant may be forgotten.
        let is_new = half.number.load(Ordering::Relaxed) != number;
        if is_new && half.number.swap(number, Ordering::Relaxed) != number {
            half.requests.store(0, Ordering::Relaxed);
            half.bins.iter().for_each(|bin| bin.store(0, Ordering::Relaxed));
        }
        let before = half.requests.fetch_add(1, Ordering::Relaxed);
        let weight = match before {
            0..ALL => 1,
            // Scattered, so that nothing periodic in the traffic falls in step with it.
            _ if before.wrapping_mul(SCATTER) < u64::MAX / STRIDE => STRIDE as u32,
            _ => return,
        };
        for (feature, bin) in baseline.bins(&vector.0).enumerate() {
            if let Some(bin) = half.bins.get(feature * BINS + bin) {
                bin.fetch_add(weight, Ordering::Relaxed);
            }
        }
    }

    /// How far traffic has moved from `baseline`; `None` without one, or with too few requests yet.
    pub fn measure(&self, baseline: &Baseline, now_ms: u64) -> Option<Drift> {
        let now = now_ms / HALF_MS;
        let recent = |half: &&Half| {
            let number = half.number.load(Ordering::Relaxed);
            number <= now && now - number <= 1
        };
        let halves: Vec<&Half> = self.halves.iter().filter(recent).collect();
        let requests = halves.iter().map(|half| half.requests.load(Ordering::Relaxed)).sum();
        if baseline.is_empty() || requests < LEAST_REQUESTS {
            return None;
        }
        let rows = |feature: usize, bin: usize| -> u64 {
            let bins = halves.iter().filter_map(|half| half.bins.get(feature * BINS + bin));
            bins.map(|bin| u64::from(bin.load(Ordering::Relaxed))).sum()
        };
        let values = baseline.psi(&baseline.filled(rows));
        let psi: Vec<_> = TABLE.iter().map(|feature| feature.name).zip(values).collect();
        let moved = psi.iter().filter(|(_, psi)| *psi > MOVED).count();
        let mut most = psi.clone();
        most.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        most.truncate(SHOWN);
        Some(Drift { requests, moved: moved as f64 / psi.len().max(1) as f64, most, psi })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(shift: f32) -> Vec<FeatureVector> {
        let mut vectors = vec![FeatureVector([0.0; FEATURES]); 1_000];
        vectors.iter_mut().enumerate().for_each(|(row, vector)| vector.0[3] = (row % 100) as f32 + shift);
        vectors
    }

    #[test]
    fn the_feature_that_moved_is_named_and_old_traffic_forgotten() {
        let rows: Vec<[f32; FEATURES]> = vectors(0.0).iter().map(|vector| vector.0).collect();
        let (baseline, drift) = (Baseline::of(&rows), LiveDrift::default());
        let start = 1_000 * HALF_MS;
        vectors(0.0).iter().for_each(|vector| drift.add(&baseline, vector, start));
        let same = drift.measure(&baseline, start).unwrap();
        assert!(same.requests == 1_000 && same.moved < 1e-9 && same.most[0].1 < 0.01, "{same:?}");
        vectors(40.0).iter().for_each(|vector| drift.add(&baseline, vector, start + HALF_MS));
        let mixed = drift.measure(&baseline, start + HALF_MS).unwrap();
        assert_eq!((mixed.requests, mixed.most[0].0), (2_000, TABLE[3].name));
        let moved = drift.measure(&baseline, start + 2 * HALF_MS).unwrap();
        assert!(
            moved.requests == 1_000 && moved.most[0].1 > mixed.most[0].1 && moved.most[0].1 > MOVED,
            "{moved:?}"
        );
        assert!(moved.moved > 0.0 && moved.psi.len() == FEATURES);
        let later = start + 4 * HALF_MS;
        (0..100).for_each(|_| vectors(0.0).iter().for_each(|vector| drift.add(&baseline, vector, later)));
        let many = drift.measure(&baseline, later).unwrap();
        assert!(many.requests == 100_000 && many.most[0].1 < 0.01, "{many:?}");
        assert_eq!(drift.measure(&baseline, start + 9 * HALF_MS), None);
        assert_eq!(drift.measure(&Baseline::default(), start), None);
    }
}
