//! A map of the clusters: where they lie in the two directions in which the traffic varies most, and what they are.

use serde::Serialize;
use waf_model::{
    features::{FEATURES, TABLE},
    model::{Model, RawModel},
};

/// Requests drawn.
const POINTS: usize = 1500;

/// Steps of the power iteration.
const STEPS: usize = 60;

/// Clusters and some requests, in two dimensions.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Map {
    /// Clusters, the largest first.
    pub clusters: Vec<Spot>,
    /// Requests: where they lie, and the number of their cluster in `clusters`.
    pub points: Vec<(f32, f32, usize)>,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spot {
    /// What sets it apart.
    pub name: String,
    /// Share of the requests learned from.
    pub mass: f32,
    /// Where it lies.
    pub at: (f32, f32),
}

impl Map {
    /// The clusters of `model`, and where `vectors` lie among them.
    pub fn of(model: &Model, vectors: &[[f32; FEATURES]]) -> Self {
        let raw = RawModel::from(model).requests;
        let (middle, scale) = scaling(vectors);
        let scaled = |x: &[f32]| -> Vec<f32> {
            let deviation = |((x, m), s): ((&f32, &f32), &f32)| ((x - m) / s).clamp(-8.0, 8.0);
            x.iter().zip(&middle).zip(&scale).map(deviation).collect()
        };
        let rows: Vec<Vec<f32>> =
            vectors.iter().step_by((vectors.len() / POINTS).max(1)).map(|vector| scaled(vector)).collect();
        let first = direction(&rows, None);
        let second = direction(&rows, Some(&first));
        let place = |x: &[f32]| (dot(x, &first), dot(x, &second));
        let mut order: Vec<usize> = (0..raw.mass.len()).collect();
        order.sort_by(|a, b| raw.mass.get(*b).unwrap_or(&0.0).total_cmp(raw.mass.get(*a).unwrap_or(&0.0)));
        let centers: Vec<&[f32]> = raw.centers.chunks_exact(FEATURES).collect();
        let clusters = order
            .iter()
            .filter_map(|index| Some((centers.get(*index)?, raw.mass.get(*index)?)))
            .map(|(center, mass)| {
                let center = scaled(center);
                Spot { name: name(&center), mass: *mass, at: place(&center) }
            })
            .collect();
        let points = vectors
            .iter()
            .step_by((vectors.len() / POINTS).max(1))
            .zip(&rows)
            .map(|(vector, row)| {
                let nearest = usize::from(model.clusters().nearest(vector).cluster);
                let (x, y) = place(row);
                (x, y, order.iter().position(|index| *index == nearest).unwrap_or(0))
            })
            .collect();
        Self { clusters, points }
    }
}

/// The two features in which a center is farthest from the middle of all requests.
fn name(center: &[f32]) -> String {
    let mut features: Vec<(f32, &str)> =
        center.iter().zip(&TABLE).map(|(x, feature)| (*x, feature.name)).collect();
    features.sort_by(|(a, _), (b, _)| b.abs().total_cmp(&a.abs()));
    let told: Vec<String> = features
        .iter()
        .filter(|(x, _)| x.abs() >= 0.5)
        .take(2)
        .map(|(x, name)| format!("{} {}", if *x > 0.0 { "more" } else { "less" }, name.replace('_', " ")))
        .collect();
    if told.is_empty() { "the usual request".to_owned() } else { told.join(", ") }
}

fn scaling(vectors: &[[f32; FEATURES]]) -> (Vec<f32>, Vec<f32>) {
    TABLE
        .iter()
        .enumerate()
        .map(|(column, feature)| {
            let mut values: Vec<f32> = vectors.iter().filter_map(|row| row.get(column).copied()).collect();
            values.sort_by(f32::total_cmp);
            let quantile = |quarter: usize| values.get(values.len() * quarter / 4).copied().unwrap_or(0.0);
            (quantile(2), ((quantile(3) - quantile(1)) / 1.349).max(feature.floor))
        })
        .unzip()
}

/// The direction in which `rows` vary most, at a right angle to `other`: power iteration on their covariance.
fn direction(rows: &[Vec<f32>], other: Option<&[f32]>) -> Vec<f32> {
    let count = rows.len().max(1) as f32;
    let mut mean = vec![0.0; FEATURES];
    rows.iter().for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / count));
    // Any start that favors no column; the same every time.
    let mut axis: Vec<f32> = (0..FEATURES).map(|column| 1.0 + (column % 7) as f32 * 0.1).collect();
    for _ in 0..STEPS {
        let mut next = vec![0.0; FEATURES];
        for row in rows {
            let along = dot(row, &axis) - dot(&mean, &axis);
            for ((next, x), mean) in next.iter_mut().zip(row).zip(&mean) {
                *next += along * (x - mean);
            }
        }
        if let Some(other) = other {
            let along = dot(&next, other);
            next.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
        }
        let length = dot(&next, &next).sqrt();
        if length < 1e-6 {
            break;
        }
        axis = next.into_iter().map(|x| x / length).collect();
    }
    axis
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_direction_is_the_longest_and_the_second_at_a_right_angle() {
        let rows: Vec<Vec<f32>> = (0..200)
            .map(|row| {
                let mut x = vec![0.0; FEATURES];
                x[3] = (row % 20) as f32;
                x[5] = (row / 20) as f32 * 0.5;
                x
            })
            .collect();
        let first = direction(&rows, None);
        let second = direction(&rows, Some(&first));
        assert!(first[3].abs() > 0.99 && second[5].abs() > 0.99, "{first:?} {second:?}");
    }

    #[test]
    fn a_cluster_is_named_by_what_sets_it_apart() {
        let mut center = vec![0.0; FEATURES];
        assert_eq!(name(&center), "the usual request");
        center[3] = 4.0;
        center[0] = -2.0;
        assert_eq!(name(&center), "more query bytes, less path bytes");
    }
}
