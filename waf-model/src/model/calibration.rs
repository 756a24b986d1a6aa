//! Calibration: distances of clean, later traffic as p-values, and what a threshold promises.
//!
//! Split conformal prediction (Vovk; Bates et al. 2021, "Testing for outliers with conformal p-values"): with n
//! clean calibration distances, p = (1 + how many of them are at least this far) / (n + 1). Beyond the farthest
//! the tail is extrapolated exponentially, for ranking and evidence only; thresholds come from the data alone.

use serde::{Deserialize, Serialize};

use super::ModelError;
use crate::score::PValue;

/// Distances of clean traffic, as a step function from distance to p-value.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration(RawCalibration);

/// Stored form of [`Calibration`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RawCalibration {
    /// Calibration units.
    pub n: u64,
    /// `(distance, how many units are at least this far)`, by ascending distance and descending count. The far
    /// end is exact, the rest is thinned.
    pub steps: Vec<(f32, u64)>,
    /// Mean excess over the tail's start: the scale of the exponential beyond the last step.
    pub tail_scale: f32,
}

/// Most that the extrapolated tail adds to a surprise.
const TAIL_SURPRISE: f32 = 3.0;

/// Distances kept exactly at the far end.
const EXACT: usize = 4096;

impl RawCalibration {
    /// From the distances of clean, later units. Distances that are not numbers are left out.
    pub fn from_distances(mut distances: Vec<f32>) -> Self {
        distances.retain(|distance| !distance.is_nan());
        distances.sort_by(f32::total_cmp);
        let n = distances.len();
        let bulk = n.saturating_sub(EXACT);
        let kept = |index: &usize| *index >= bulk || index.is_multiple_of(bulk / EXACT + 1);
        let mut steps: Vec<(f32, u64)> = Vec::new();
        for (index, distance) in distances.iter().enumerate().filter(|(index, _)| kept(index)) {
            if steps.last().is_none_or(|(last, _)| last < distance) {
                steps.push((*distance, (n - index) as u64));
            }
        }
        let tail = distances.get(n.saturating_sub((n / 20).clamp(1, 200))..).unwrap_or_default();
        let start = tail.first().copied().unwrap_or(0.0);
        let excess = tail.iter().map(|distance| distance - start).sum::<f32>() / tail.len().max(1) as f32;
        Self { n: n as u64, steps, tail_scale: excess.max(0.05) }
    }
}

impl Calibration {
    /// The p-value of `distance`.
    pub fn p_value(&self, distance: f32) -> PValue {
        let RawCalibration { n, steps, tail_scale } = &self.0;
        // Steps at least as far as `distance` start here; the first of them has their count.
        let at = steps.partition_point(|(step, _)| *step < distance);
        let count = steps.get(at).map_or(0, |(_, count)| *count);
        let p = (count as f32 + 1.0) / (*n as f32 + 1.0);
        if count > 0 {
            return PValue::new(p);
        }
        let farthest = steps.last().map_or(0.0, |(step, _)| *step);
        let beyond =
            ((distance - farthest) / tail_scale * std::f32::consts::LOG10_E).clamp(0.0, TAIL_SURPRISE);
        PValue::new(p * 10f32.powf(-beyond))
    }

    /// Calibration units.
    pub fn n(&self) -> u64 {
        self.0.n
    }
}

impl TryFrom<RawCalibration> for Calibration {
    type Error = ModelError;

    fn try_from(raw: RawCalibration) -> Result<Self, ModelError> {
        let ordered = raw.steps.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1);
        let within =
            raw.steps.iter().all(|(distance, count)| distance.is_finite() && (1..=raw.n).contains(count));
        if !ordered || !within || !raw.tail_scale.is_finite() || raw.tail_scale <= 0.0 {
            return Err(ModelError("calibration steps are not in order, or not finite".to_owned()));
        }
        Ok(Self(raw))
    }
}

impl From<&Calibration> for RawCalibration {
    fn from(calibration: &Calibration) -> Self {
        calibration.0.clone()
    }
}

/// What a threshold promises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Highest rate of false positives: per request, or per client-day.
    pub budget: f64,
    /// Confidence that the true rate is within the budget.
    pub confidence: f64,
    /// Calibration units (requests or client-days) behind it.
    pub n: u64,
    /// At and above it a unit is flagged: a request's distance, or a client's evidence level.
    pub threshold: f32,
    /// Whether the budget asked for could be certified.
    pub standing: Standing,
}

/// Whether a budget is certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Enough clean data: the threshold may block.
    Certified,
    /// Too little data for the budget asked for: `budget` is the tightest that can be certified.
    Provisional,
}

impl Certificate {
    /// Refuses numbers that promise nothing.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        if share(self.budget) && share(self.confidence) && !self.threshold.is_nan() && self.threshold > 0.0 {
            Ok(())
        } else {
            Err(ModelError(format!("certificate is not valid: {self:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_values_count_the_units_at_least_as_far() {
        let calibration =
            Calibration::try_from(RawCalibration::from_distances(vec![3.0, 1.0, 2.0, 2.0])).unwrap();
        for (distance, p) in [(0.5, 1.0), (1.0, 1.0), (1.5, 0.8), (2.0, 0.8), (2.5, 0.4), (3.0, 0.4)] {
            assert!((calibration.p_value(distance).get() - p).abs() < 1e-6, "{distance}");
        }
        assert!(calibration.p_value(3.001).get() <= 0.2);
        assert!(calibration.p_value(f32::INFINITY).get() >= 0.2e-3 * 0.99);
        assert_eq!(calibration.p_value(f32::NAN), calibration.p_value(0.0));
    }

    #[test]
    fn thinning_keeps_p_values_conservative() {
        let distances: Vec<f32> = (0..50_000).map(|i| i as f32).collect();
        let thinned = Calibration::try_from(RawCalibration::from_distances(distances)).unwrap();
        for distance in [10.0, 1234.5, 25_000.0, 47_000.0, 49_999.0] {
            let exact = (50_000.0 - f32::ceil(distance) + 1.0) / 50_001.0;
            let p = thinned.p_value(distance).get();
            assert!((p - exact).abs() < 0.001 + exact * 0.01, "{distance}: {p} for {exact}");
        }
    }
}
