//! Baseline: how each feature was spread in clean, later traffic; what comes is compared with it.
//!
//! The population stability index of two spreads over the same bins is the sum of (now - then) * ln(now / then).
//! By convention, not theory, below 0.1 nothing moved, and above 0.25 much did.

use serde::{Deserialize, Serialize};

use super::ModelError;
use crate::features::FEATURES;

/// Rows below which no baseline is kept: shares of so few say nothing.
const LEAST_ROWS: usize = 100;

/// Most edges of one feature.
const EDGES: usize = 16;

/// Most bins of one feature.
pub const BINS: usize = EDGES + 1;

/// By convention, a feature moved much beyond this population stability index.
pub const MOVED: f32 = 0.25;

/// How each feature was spread; empty if it is not known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Baseline(Vec<RawSpread>);

/// How one feature was spread.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RawSpread {
    /// Upper ends of all bins but the last, ascending; each belongs to its bin.
    pub edges: Vec<f32>,
    /// Rows in each bin, one more than edges.
    pub rows: Vec<u64>,
}

impl Baseline {
    /// The spread of `rows`, over bins of about a tenth of them each; of features that hardly vary, fewer.
    pub fn of(rows: &[[f32; FEATURES]]) -> Self {
        if rows.len() < LEAST_ROWS {
            return Self::default();
        }
        let spread = |column: usize| {
            let mut values: Vec<f32> = rows.iter().filter_map(|row| row.get(column).copied()).collect();
            values.sort_by(f32::total_cmp);
            let quantile = |share: usize| values.get(values.len() * share / 100).copied().unwrap_or(0.0);
            let mut edges: Vec<f32> =
                (1..10).map(|tenth| quantile(10 * tenth)).chain([quantile(99)]).collect();
            edges.dedup();
            let mut spread = RawSpread { rows: vec![0; edges.len() + 1], edges };
            values.iter().for_each(|value| spread.count(*value));
            spread
        };
        Self((0..FEATURES).map(spread).collect())
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An empty tally over the same bins, to count live traffic in.
    pub fn tally(&self) -> Self {
        let empty = |spread: &RawSpread| RawSpread { rows: vec![0; spread.rows.len()], ..spread.clone() };
        Self(self.0.iter().map(empty).collect())
    }

    /// The bin of each feature that `vector` falls in, in order; none if nothing is known.
    pub fn bins<'a>(&'a self, vector: &'a [f32; FEATURES]) -> impl Iterator<Item = usize> + 'a {
        self.0.iter().zip(vector).map(|(spread, value)| spread.bin(*value))
    }

    /// A tally over the same bins, counted elsewhere: `rows` is asked for feature and bin.
    pub fn filled(&self, rows: impl Fn(usize, usize) -> u64) -> Self {
        let fill = |(feature, spread): (usize, &RawSpread)| RawSpread {
            rows: (0..spread.rows.len()).map(|bin| rows(feature, bin)).collect(),
            edges: spread.edges.clone(),
        };
        Self(self.0.iter().enumerate().map(fill).collect())
    }

    /// Counts one feature vector.
    pub fn count(&mut self, vector: &[f32; FEATURES]) {
        self.0.iter_mut().zip(vector).for_each(|(spread, value)| spread.count(*value));
    }

    /// Population stability index of each feature between this baseline and a tally over its bins.
    pub fn psi(&self, now: &Self) -> Vec<f32> {
        self.0.iter().zip(&now.0).map(|(then, now)| psi(&then.rows, &now.rows)).collect()
    }
}

impl RawSpread {
    fn bin(&self, value: f32) -> usize {
        self.edges.partition_point(|edge| *edge < value)
    }

    fn count(&mut self, value: f32) {
        let bin = self.bin(value);
        self.rows.get_mut(bin).into_iter().for_each(|rows| *rows += 1);
    }
}

/// Half a row is added to every bin, so that an empty one is rare and not impossible.
fn psi(then: &[u64], now: &[u64]) -> f32 {
    let total = |rows: &[u64]| rows.iter().sum::<u64>() as f64 + 0.5 * rows.len() as f64;
    let (total_then, total_now) = (total(then), total(now));
    let term = |(then, now): (&u64, &u64)| {
        let (then, now) = ((*then as f64 + 0.5) / total_then, (*now as f64 + 0.5) / total_now);
        (now - then) * (now / then).ln()
    };
    then.iter().zip(now).map(term).sum::<f64>() as f32
}

impl TryFrom<Vec<RawSpread>> for Baseline {
    type Error = ModelError;

    fn try_from(raw: Vec<RawSpread>) -> Result<Self, ModelError> {
        let fits = |spread: &RawSpread| {
            spread.edges.len() <= EDGES
                && spread.rows.len() == spread.edges.len() + 1
                && spread.edges.iter().all(|edge| edge.is_finite())
                && spread.edges.is_sorted()
                && spread.rows.iter().all(|rows| *rows <= u64::from(u32::MAX))
        };
        if !(raw.is_empty() || raw.len() == FEATURES) || !raw.iter().all(fits) {
            return Err(ModelError("the baseline does not fit the feature table".to_owned()));
        }
        Ok(Self(raw))
    }
}

impl From<&Baseline> for Vec<RawSpread> {
    fn from(baseline: &Baseline) -> Self {
        baseline.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(shift: f32) -> Vec<[f32; FEATURES]> {
        (0..2000)
            .map(|row| {
                let mut vector = [0.0; FEATURES];
                vector[0] = (row % 100) as f32 + shift;
                vector
            })
            .collect()
    }

    #[test]
    fn the_same_spread_is_stable_and_a_moved_one_is_not() {
        let baseline = Baseline::of(&rows(0.0));
        let against = |rows: &[[f32; FEATURES]]| {
            let mut now = baseline.tally();
            rows.iter().for_each(|row| now.count(row));
            baseline.psi(&now)
        };
        let same = against(&rows(0.0));
        assert!(same.iter().all(|psi| *psi < 1e-6), "{same:?}");
        let mut counted = vec![[0; BINS]; FEATURES];
        for row in rows(0.0) {
            baseline.bins(&row).zip(&mut counted).for_each(|(bin, rows)| rows[bin] += 1);
        }
        assert_eq!(baseline.filled(|feature, bin| counted[feature][bin]), baseline);
        let moved = against(&rows(30.0));
        assert!(moved[0] > 0.25 && moved[1..].iter().all(|psi| *psi < 1e-6), "{moved:?}");
    }

    #[test]
    fn it_is_stored_and_checked() {
        let baseline = Baseline::of(&rows(0.0));
        let raw: Vec<RawSpread> = (&baseline).into();
        assert_eq!(Baseline::try_from(raw.clone()).unwrap(), baseline);
        assert!(Baseline::try_from(raw[1..].to_vec()).is_err());
        let mut wrong = raw;
        wrong[0].rows.pop();
        assert!(Baseline::try_from(wrong).is_err());
        assert!(Baseline::of(&rows(0.0)[..50]).is_empty());
    }
}
