//! Clusters and their flat scoring kernel: the distance to the nearest cluster, in that cluster's own scale.

use serde::{Deserialize, Serialize};

use super::ModelError;
use crate::features::Side;

/// Most that one feature can add to a squared distance, so that no single column decides alone.
pub const FEATURE_CAP: f32 = 100.0;

/// Most clusters.
const CLUSTERS: usize = 1024;

/// k clusters in d dimensions; row-major `[k, d]` arrays.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    dimensions: usize,
    centers: Vec<f32>,
    scales: Vec<f32>,
    /// 1 / scale.
    tightness: Vec<f32>,
    /// Usual range of each feature in each cluster.
    usual: Vec<(f32, f32)>,
    /// Share of the training rows in each cluster.
    mass: Vec<f32>,
    sides: Vec<Side>,
}

/// Stored form of [`Clusters`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RawClusters {
    /// d.
    pub dimensions: usize,
    /// `[k, d]` centers.
    pub centers: Vec<f32>,
    /// `[k, d]` scales, each greater than 0.
    pub scales: Vec<f32>,
    /// `[k, d]` 1st and 99th percentile of the rows of each cluster.
    pub usual: Vec<(f32, f32)>,
    /// `[k]` shares of the training rows.
    pub mass: Vec<f32>,
}

/// The nearest cluster.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nearest {
    /// Its index.
    pub cluster: u16,
    /// Root of the capped sum of squared deviations in units of the cluster's scale.
    pub distance: f32,
}

impl Clusters {
    /// Checks shapes and numbers; `sides` has one entry a dimension.
    ///
    /// # Errors
    /// A shape that does not fit, a number that is not finite, a scale that is not positive, or no cluster.
    pub fn new(raw: RawClusters, sides: &[Side]) -> Result<Self, ModelError> {
        let k = raw.mass.len();
        let cells = k.saturating_mul(raw.dimensions);
        let fits = raw.dimensions == sides.len()
            && (1..=CLUSTERS).contains(&k)
            && [raw.centers.len(), raw.scales.len(), raw.usual.len()].iter().all(|len| *len == cells);
        if !fits {
            return Err(ModelError(format!(
                "{k} clusters in {} dimensions with {} centers, {} scales, {} ranges; {} dimensions expected",
                raw.dimensions,
                raw.centers.len(),
                raw.scales.len(),
                raw.usual.len(),
                sides.len(),
            )));
        }
        let ranges = raw.usual.iter().flat_map(|(low, high)| [low, high]);
        if let Some(bad) =
            raw.centers.iter().chain(&raw.mass).chain(ranges).find(|number| !number.is_finite())
        {
            return Err(ModelError(format!("a cluster holds {bad}")));
        }
        if let Some(bad) = raw.scales.iter().find(|scale| !scale.is_normal() || **scale <= 0.0) {
            return Err(ModelError(format!("a cluster has scale {bad}")));
        }
        Ok(Self {
            dimensions: raw.dimensions,
            centers: raw.centers,
            tightness: raw.scales.iter().map(|scale| 1.0 / scale).collect(),
            scales: raw.scales,
            usual: raw.usual,
            mass: raw.mass,
            sides: sides.to_vec(),
        })
    }

    /// The cluster nearest to `x`. A value that is not a number counts as the farthest.
    pub fn nearest(&self, x: &[f32]) -> Nearest {
        let mut best = Nearest { cluster: 0, distance: f32::INFINITY };
        for cluster in 0..self.mass.len() {
            let squared: f32 = self.shares(cluster, x).sum();
            if squared < best.distance {
                best = Nearest { cluster: u16::try_from(cluster).unwrap_or(u16::MAX), distance: squared };
            }
        }
        Nearest { distance: best.distance.sqrt(), ..best }
    }

    /// What each feature adds to the squared distance from `cluster`.
    pub fn shares<'a>(&'a self, cluster: usize, x: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        let row = |cells: &'a [f32]| cells.chunks_exact(self.dimensions).nth(cluster).unwrap_or_default();
        row(&self.centers).iter().zip(row(&self.tightness)).zip(&self.sides).zip(x).map(
            |(((center, tightness), side), x)| {
                let deviation = (x - center) * tightness;
                let deviation = if *side == Side::Above { deviation.max(0.0) } else { deviation };
                let squared = deviation * deviation;
                if squared < FEATURE_CAP { squared } else { FEATURE_CAP }
            },
        )
    }

    /// The usual range of each feature in `cluster`.
    pub fn usual(&self, cluster: usize) -> &[(f32, f32)] {
        self.usual.chunks_exact(self.dimensions).nth(cluster).unwrap_or_default()
    }

    /// Number of clusters.
    pub fn count(&self) -> usize {
        self.mass.len()
    }

    /// Share of the training rows in each cluster.
    pub fn mass(&self) -> &[f32] {
        &self.mass
    }
}

impl From<&Clusters> for RawClusters {
    fn from(clusters: &Clusters) -> Self {
        Self {
            dimensions: clusters.dimensions,
            centers: clusters.centers.clone(),
            scales: clusters.scales.clone(),
            usual: clusters.usual.clone(),
            mass: clusters.mass.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> RawClusters {
        RawClusters {
            dimensions: 2,
            centers: vec![0.0, 0.0, 10.0, 10.0],
            scales: vec![1.0, 1.0, 2.0, 2.0],
            usual: vec![(0.0, 1.0); 4],
            mass: vec![0.5, 0.5],
        }
    }

    #[test]
    fn the_nearest_cluster_is_measured_in_its_own_scale() {
        let clusters = Clusters::new(two(), &[Side::Both, Side::Above]).unwrap();
        assert_eq!(clusters.nearest(&[3.0, 0.0]), Nearest { cluster: 0, distance: 3.0 });
        assert_eq!(clusters.nearest(&[8.0, 10.0]), Nearest { cluster: 1, distance: 1.0 });
        assert_eq!(clusters.nearest(&[0.0, -9.0]).distance, 0.0, "less than usual is fine for this column");
        assert_eq!(clusters.nearest(&[f32::NAN, 0.0]).distance, FEATURE_CAP.sqrt(), "not a number is far");
    }

    #[test]
    fn bad_shapes_and_numbers_are_refused() {
        let sides = [Side::Both, Side::Both];
        for spoil in [
            |raw: &mut RawClusters| raw.mass.clear(),
            |raw: &mut RawClusters| raw.centers.truncate(3),
            |raw: &mut RawClusters| raw.centers[0] = f32::NAN,
            |raw: &mut RawClusters| raw.scales[0] = 0.0,
            |raw: &mut RawClusters| raw.dimensions = usize::MAX,
        ] {
            let mut raw = two();
            spoil(&mut raw);
            assert!(Clusters::new(raw, &sides).is_err());
        }
    }
}
