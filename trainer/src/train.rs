//! From a dataset to a candidate: profiles, and clusters of requests and of clients. The only file with linfa.
//!
//! Features are surprises against profiles, so a row must not be judged by a profile that learned that row: it
//! would look more normal than it is. Clients are dealt into folds; each fold is judged by the profiles of the
//! others, and the final profiles learn from all.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use linfa::{DatasetBase, traits::Fit};
use linfa_clustering::{KMeans, KMeansInit};
use ndarray::{Array2, ArrayView1};
use rand_xoshiro::{Xoshiro256Plus, rand_core::SeedableRng};
use waf_model::{
    client::{CLIENT_FEATURES, CLIENT_TABLE},
    event::ReviewVerdict,
    features::{self, FEATURES, TABLE},
    model::clusters::RawClusters,
    profile::{Profiles, builder::ProfileBuilder},
};

use crate::{
    dataset::{Dataset, Row, Slice, spread},
    sample::Reservoir,
};

/// Parts into which clients are dealt.
const FOLDS: usize = 4;

/// Clients that a person's word counts as: enough to make normal what the person judged harmless.
const REVIEW_CLIENTS: u64 = 10;

/// Most rows that scales are taken from.
const SAMPLE: usize = 200_000;

/// Most rows that k-means sees.
const FIT_SAMPLE: usize = 40_000;

/// Numbers of clusters to choose from.
const CHOICES: [usize; 4] = [4, 8, 16, 32];

/// Rows for each cluster, at least.
const ROWS_A_CLUSTER: usize = 25;

/// Rows below which a cluster is taken for a few oddities that happen to lie together: with a scale of its own it
/// would make everything near them normal.
const LEAST_MEMBERS: usize = 20;

/// Restarts of k-means with other seeds; the best is kept.
const RESTARTS: u64 = 3;

/// More clusters must explain this much more of the variance of unseen rows to be worth it.
const WORTH_IT: f64 = 0.02;

/// Deviations, in scales, beyond which a row pulls a center no farther.
const CLIP: f32 = 8.0;

/// Share of the rows farthest from all centers that is left out of the last fit.
const TRIM: f64 = 0.005;

/// What was learned; to be calibrated.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// What is normal for each endpoint.
    pub profiles: Profiles,
    /// Clusters of requests.
    pub requests: RawClusters,
    /// Clusters of client behavior; none where there are no clients.
    pub clients: Option<RawClusters>,
    /// Requests learned from.
    pub rows: u64,
    /// Clients learned from; 0 where there are none.
    pub client_count: u64,
    /// blake3 of what was learned from, hexadecimal.
    pub inputs: String,
    /// Profiles without what the clients of each fold taught, to judge rows of theirs that were learned from;
    /// empty unless there are such rows outside of the training slice.
    pub without: Vec<Profiles>,
}

/// Learns from the training slice of `dataset`. The same data and seed give the same result.
///
/// # Errors
/// Too little to learn from, or the dataset cannot be read.
pub fn train(dataset: &Dataset, seed: u64) -> Result<Learned> {
    let folds = learn_profiles(dataset)?;
    let mut everything = ProfileBuilder::default();
    folds.iter().for_each(|fold| everything.merge(fold));
    let others = (0..FOLDS)
        .map(|left_out| {
            let mut others = ProfileBuilder::default();
            folds.iter().enumerate().filter(|(fold, _)| *fold != left_out).for_each(|(_, f)| others.merge(f));
            others.finish()
        })
        .collect::<Result<Vec<_>, _>>()?;
    drop(folds);

    let mut requests = Reservoir::new(SAMPLE, seed);
    let mut clients = Reservoir::new(SAMPLE, seed);
    let mut histories = Histories::default();
    let mut distinct = HashSet::new();
    let mut inputs = blake3::Hasher::new();
    let judged = |row: Row| {
        let profiles = others.get(fold(row.client))?;
        Some((features::extract(&row.observation, profiles).vector.0, row.client, row.client_vector))
    };
    dataset.scan_with(Slice::Train, judged, |judged| {
        let (vector, client, behavior) = judged.context("a fold has no profiles")?;
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        inputs.update(&bytes);
        requests.offer(vector);
        if let Some(vector) = behavior {
            distinct.insert(client);
            if vector.is_mature() && histories.telling(client) {
                clients.offer(vector.0);
            }
        }
        Ok(())
    })?;
    let rows = requests.seen();
    let client_rows = clients.into_kept();
    let floors = TABLE.map(|feature| feature.floor);
    let client_floors = CLIENT_TABLE.map(|(_, _, floor)| floor);
    Ok(Learned {
        profiles: everything.finish()?,
        requests: cluster(&flat::<FEATURES>(&requests.into_kept()), &floors, seed)
            .context("there are no requests to learn from; see what was removed, and why")?,
        clients: if client_rows.len() < ROWS_A_CLUSTER {
            None
        } else {
            Some(cluster(&flat::<CLIENT_FEATURES>(&client_rows), &client_floors, seed)?)
        },
        rows,
        client_count: distinct.len() as u64,
        inputs: inputs.finalize().to_hex().to_string(),
        without: if dataset.judged(ReviewVerdict::FalsePositive) > 0 { others } else { Vec::new() },
    })
}

/// Picks moments of a client's history to learn from: after 1, 2, 4, 8, ... mature requests, so that every stage
/// is seen and no busy client drowns the others.
#[derive(Debug, Default)]
pub struct Histories(HashMap<u64, u32>);

impl Histories {
    /// Counts one mature request of `client`; whether to learn from it.
    pub fn telling(&mut self, client: u64) -> bool {
        let count = self.0.entry(client).or_default();
        *count = count.saturating_add(1);
        count.is_power_of_two()
    }
}

/// Clusters of a few feature vectors.
///
/// # Errors
/// There are none, or k-means fails.
pub fn cluster_vectors(rows: &[[f32; FEATURES]], seed: u64) -> Result<RawClusters> {
    cluster(&flat::<FEATURES>(rows), &TABLE.map(|feature| feature.floor), seed)
}

/// One cluster of a few feature vectors.
///
/// # Errors
/// There are none.
pub fn one_cluster(rows: &[[f32; FEATURES]]) -> Result<RawClusters> {
    let x = flat::<FEATURES>(rows);
    if x.nrows() == 0 {
        bail!("no rows");
    }
    let floors = TABLE.map(|feature| feature.floor);
    let center = Array2::zeros((1, FEATURES));
    Ok(describe(&x, &vec![0; x.nrows()], &center, &floors))
}

fn learn_profiles(dataset: &Dataset) -> Result<Vec<ProfileBuilder>> {
    let mut folds = vec![ProfileBuilder::default(); FOLDS];
    dataset.scan_with(
        Slice::Train,
        |row| (fold(row.client), row),
        |(fold, row)| {
            if let Some(builder) = folds.get_mut(fold) {
                builder.learn(&row.observation, row.client);
            }
            Ok(())
        },
    )?;
    // What a person judged harmless is learned from wherever it lies.
    dataset.scan_judged(ReviewVerdict::FalsePositive, |_, row| {
        if let Some(builder) = folds.get_mut(fold(row.client)) {
            let voices = (0..REVIEW_CLIENTS).map(|voice| row.client ^ spread(voice, "review"));
            builder.learn_judged(&row.observation, voices);
        }
        Ok(())
    })?;
    Ok(folds)
}

/// The fold of a client.
pub fn fold(client: u64) -> usize {
    (spread(client, "fold") % FOLDS as u64) as usize
}

/// Rows as one matrix; a row with anything that is not finite would poison its center and is left out.
fn flat<const D: usize>(rows: &[[f32; D]]) -> Array2<f32> {
    let finite: Vec<f32> =
        rows.iter().filter(|row| row.iter().all(|x| x.is_finite())).flatten().copied().collect();
    Array2::from_shape_vec((finite.len() / D, D), finite).unwrap_or_else(|_| Array2::zeros((0, D)))
}

/// Finds clusters among the rows of `x`, and how far rows usually are from each. `floors` are the smallest
/// scales, one a column.
///
/// # Errors
/// There are no rows, or k-means fails.
fn cluster(x: &Array2<f32>, floors: &[f32], seed: u64) -> Result<RawClusters> {
    if x.nrows() == 0 {
        bail!("no rows");
    }
    let scaler = Scaler::of(x, floors);
    let scaled = scaler.scale(x);
    let sample = every_nth(&scaled, FIT_SAMPLE);
    let centers = if sample.nrows() < CHOICES.first().map_or(1, |k| k * ROWS_A_CLUSTER) {
        fit(&sample, 1, seed)?
    } else {
        let k = choose_k(&sample, seed)?;
        refit_trimmed(&sample, fit(&sample, k, seed)?)?
    };
    Ok(describe(x, &assign(&scaled, &centers), &scaler.unscale(&centers), floors))
}

/// Robust scales of columns.
struct Scaler {
    medians: Vec<f32>,
    scales: Vec<f32>,
}

impl Scaler {
    fn of(x: &Array2<f32>, floors: &[f32]) -> Self {
        let (mut medians, mut scales) = (Vec::new(), Vec::new());
        for (column, floor) in x.columns().into_iter().zip(floors) {
            let sorted = sorted(column.iter().copied());
            medians.push(quantile(&sorted, 0.5));
            // The interquartile range of a normal distribution is 1.349 standard deviations.
            scales.push(((quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / 1.349).max(*floor));
        }
        Self { medians, scales }
    }

    fn scale(&self, x: &Array2<f32>) -> Array2<f32> {
        let mut scaled = x.clone();
        for mut row in scaled.rows_mut() {
            for ((x, median), scale) in row.iter_mut().zip(&self.medians).zip(&self.scales) {
                *x = ((*x - median) / scale).clamp(-CLIP, CLIP);
            }
        }
        scaled
    }

    fn unscale(&self, scaled: &Array2<f32>) -> Array2<f32> {
        let mut x = scaled.clone();
        for mut row in x.rows_mut() {
            for ((x, median), scale) in row.iter_mut().zip(&self.medians).zip(&self.scales) {
                *x = *x * scale + median;
            }
        }
        x
    }
}

/// The smallest k of which the next is not worth it, judged on rows that were not fitted.
fn choose_k(x: &Array2<f32>, seed: u64) -> Result<usize> {
    let part = |wanted: fn(usize) -> bool| {
        let rows: Vec<usize> = (0..x.nrows()).filter(|row| wanted(*row)).collect();
        x.select(ndarray::Axis(0), &rows)
    };
    let (fitted, unseen) = (every_nth(&part(|row| row % 5 != 0), 10_000), part(|row| row % 5 == 0));
    let distortion =
        |centers: &Array2<f32>| distances(&unseen, centers).into_iter().map(f64::from).sum::<f64>();
    let variance = distortion(&fit(&fitted, 1, seed)?);
    let mut best = (1, variance);
    for k in CHOICES.into_iter().filter(|k| k * ROWS_A_CLUSTER <= fitted.nrows()) {
        let remaining = distortion(&fit(&fitted, k, seed)?);
        if best.1 - remaining < WORTH_IT * variance {
            break;
        }
        best = (k, remaining);
    }
    Ok(best.0)
}

/// k-means from several seeds. Each run is a fit of its own: with `n_runs`, linfa 0.8 counts the memberships of
/// its last run, whichever was the best.
fn fit(x: &Array2<f32>, k: usize, seed: u64) -> Result<Array2<f32>> {
    let mut best: Option<(f64, Array2<f32>)> = None;
    for restart in 0..RESTARTS {
        // No two seeds share a restart, or "over several seeds" would repeat one result.
        let random = Xoshiro256Plus::seed_from_u64(seed.wrapping_mul(RESTARTS).wrapping_add(restart));
        let model = KMeans::params_with_rng(k, random)
            .n_runs(1)
            .max_n_iterations(60)
            .tolerance(1e-3)
            .init_method(KMeansInit::KMeansPlusPlus)
            .fit(&DatasetBase::from(x.view()))
            .with_context(|| format!("k-means with {k} clusters of {} rows", x.nrows()))?;
        let centers = model.centroids().clone();
        let inertia = distances(x, &centers).into_iter().map(f64::from).sum::<f64>();
        if centers.iter().all(|x| x.is_finite()) && best.as_ref().is_none_or(|(least, _)| inertia < *least) {
            best = Some((inertia, centers));
        }
    }
    best.map(|(_, centers)| centers).context("k-means found no finite centers")
}

/// k-means-- (Chawla and Gionis 2013): once more without the farthest rows, so that outliers own no center.
fn refit_trimmed(x: &Array2<f32>, centers: Array2<f32>) -> Result<Array2<f32>> {
    let distances = distances(x, &centers);
    let limit = quantile(&sorted(distances.iter().copied()), 1.0 - TRIM);
    let near: Vec<usize> =
        (0..x.nrows()).filter(|row| distances.get(*row).is_some_and(|d| *d <= limit)).collect();
    let model = KMeans::params_with_rng(centers.nrows(), Xoshiro256Plus::seed_from_u64(0))
        .n_runs(1)
        .max_n_iterations(30)
        .tolerance(1e-3)
        .init_method(KMeansInit::Precomputed(centers))
        .fit(&DatasetBase::from(x.select(ndarray::Axis(0), &near)))
        .context("k-means without the farthest rows")?;
    Ok(model.centroids().clone())
}

/// Squared distance of each row to its nearest center.
fn distances(x: &Array2<f32>, centers: &Array2<f32>) -> Vec<f32> {
    x.rows().into_iter().map(|row| nearest(row, centers).1).collect()
}

fn assign(x: &Array2<f32>, centers: &Array2<f32>) -> Vec<usize> {
    x.rows().into_iter().map(|row| nearest(row, centers).0).collect()
}

fn nearest(row: ArrayView1<'_, f32>, centers: &Array2<f32>) -> (usize, f32) {
    let mut best = (0, f32::INFINITY);
    for (index, center) in centers.rows().into_iter().enumerate() {
        let squared = row.iter().zip(center).map(|(x, c)| (x - c) * (x - c)).sum::<f32>();
        if squared < best.1 {
            best = (index, squared);
        }
    }
    best
}

/// Scales, ranges and shares of the clusters; those that own next to nothing are dropped.
fn describe(x: &Array2<f32>, owner: &[usize], centers: &Array2<f32>, floors: &[f32]) -> RawClusters {
    let dimensions = x.ncols();
    let mut members = vec![Vec::new(); centers.nrows()];
    for (row, owner) in owner.iter().enumerate() {
        members.get_mut(*owner).into_iter().for_each(|members| members.push(row));
    }
    let least = (x.nrows() / 2000).max(LEAST_MEMBERS).min(members.iter().map(Vec::len).max().unwrap_or(0));
    let mut clusters = RawClusters { dimensions, ..RawClusters::default() };
    for rows in members.iter().filter(|rows| rows.len() >= least) {
        let own = x.select(ndarray::Axis(0), rows);
        for (column, floor) in own.columns().into_iter().zip(floors) {
            let sorted = sorted(column.iter().copied());
            let center = quantile(&sorted, 0.5);
            clusters.centers.push(center);
            clusters.scales.push(spread_around(center, &sorted).max(*floor));
            clusters.usual.push((quantile(&sorted, 0.01), quantile(&sorted, 0.99)));
        }
        clusters.mass.push(rows.len() as f32 / x.nrows() as f32);
    }
    clusters
}

/// Root mean square deviation from `center`, with the extreme percents pulled in: what is rare but usual counts,
/// what is extreme does not.
fn spread_around(center: f32, sorted: &[f32]) -> f32 {
    let (low, high) = (quantile(sorted, 0.005), quantile(sorted, 0.995));
    let squares = sorted.iter().map(|x| f64::from(x.clamp(low, high) - center).powi(2)).sum::<f64>();
    (squares / sorted.len().max(1) as f64).sqrt() as f32
}

fn every_nth(x: &Array2<f32>, limit: usize) -> Array2<f32> {
    let step = x.nrows().div_ceil(limit).max(1);
    let rows: Vec<usize> = (0..x.nrows()).step_by(step).collect();
    x.select(ndarray::Axis(0), &rows)
}

fn sorted(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values
}

/// The value below which `share` of `sorted` lie; 0 for none.
fn quantile(sorted: &[f32], share: f64) -> f32 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use rand_xoshiro::rand_core::RngCore;

    use super::*;

    /// `count` rows around each of `centers`.
    fn blobs(centers: &[[f32; 2]], count: usize, seed: u64) -> Array2<f32> {
        let mut random = Xoshiro256Plus::seed_from_u64(seed);
        let mut noise = || (0..12).map(|_| random.next_u64() as f32 / u64::MAX as f32).sum::<f32>() - 6.0;
        let rows: Vec<[f32; 2]> = (0..count * centers.len())
            .map(|at| centers[at % centers.len()].map(|x| x + 0.3 * noise()))
            .collect();
        flat(&rows)
    }

    const FOUR: [[f32; 2]; 4] = [[0.0, 0.0], [20.0, 0.0], [0.0, 20.0], [20.0, 20.0]];

    #[test]
    fn clear_clusters_are_found_with_their_scale_and_share() {
        let found = cluster(&blobs(&FOUR, 500, 1), &[0.1, 0.1], 7).unwrap();
        assert_eq!(found.mass.len(), 4);
        for center in FOUR {
            let nearest =
                found.centers.chunks(2).position(|c| c.iter().zip(center).all(|(a, b)| (a - b).abs() < 0.2));
            let nearest = nearest.unwrap_or_else(|| panic!("{center:?} in {:?}", found.centers));
            assert!((found.mass[nearest] - 0.25).abs() < 0.01);
            assert!((found.scales[2 * nearest] - 0.3).abs() < 0.05, "{:?}", found.scales);
        }
    }

    #[test]
    fn the_same_rows_and_seed_give_the_same_bits() {
        let x = blobs(&FOUR, 300, 3);
        assert_eq!(cluster(&x, &[0.1, 0.1], 5).unwrap(), cluster(&x, &[0.1, 0.1], 5).unwrap());
    }

    #[test]
    fn rows_that_are_not_numbers_poison_nothing() {
        let mut rows: Vec<[f32; 2]> = (0..200).map(|at| [(at % 2) as f32 * 10.0, 1.0]).collect();
        rows.extend([[f32::NAN, 1.0], [1.0, f32::INFINITY]]);
        let x = flat(&rows);
        assert_eq!(x.nrows(), 200);
        let found = cluster(&x, &[0.5, 0.5], 1).unwrap();
        assert!(found.centers.iter().chain(&found.scales).all(|x| x.is_finite()));
        assert_eq!(found.scales[1], 0.5, "a column that never varied gets the floor");
    }

    #[test]
    fn far_outliers_own_no_cluster() {
        let mut x = blobs(&FOUR, 500, 1).rows().into_iter().map(|r| [r[0], r[1]]).collect::<Vec<_>>();
        x.extend([[1e6, -1e6], [1e7, 3.0]]);
        let found = cluster(&flat(&x), &[0.1, 0.1], 7).unwrap();
        assert!(found.centers.iter().all(|c| c.abs() < 30.0), "{:?}", found.centers);
    }

    #[test]
    fn few_rows_and_equal_rows_are_no_trouble() {
        assert_eq!(cluster(&flat(&[[1.0, 2.0]]), &[0.5, 0.5], 1).unwrap().mass, [1.0]);
        let equal = cluster(&flat(&[[1.0_f32, 2.0]; 1000]), &[0.5, 0.5], 1).unwrap();
        assert!((equal.mass.iter().sum::<f32>() - 1.0).abs() < 0.01);
        assert!(cluster(&flat::<2>(&[]), &[0.5, 0.5], 1).is_err());
    }

    #[test]
    fn linfa_counts_memberships_of_its_last_run_which_is_why_runs_are_our_own() {
        // Should this fail, linfa has mended KMeans::cluster_count and `fit` may use n_runs.
        let x = blobs(&[[0.0, 0.0], [3.0, 0.0], [9.0, 0.0], [9.0, 2.0], [30.0, 0.0]], 40, 2);
        let mut differs = false;
        for seed in 0..20 {
            let model = KMeans::params_with_rng(4, Xoshiro256Plus::seed_from_u64(seed))
                .n_runs(5)
                .init_method(KMeansInit::Random)
                .fit(&DatasetBase::from(x.view()))
                .unwrap();
            let mut counted = vec![0.0; 4];
            assign(&x, model.centroids()).into_iter().for_each(|owner| counted[owner] += 1.0);
            differs |= counted != model.cluster_count().to_vec();
        }
        assert!(differs);
    }

    #[test]
    fn a_busy_client_teaches_little_more_than_a_quiet_one() {
        let mut histories = Histories::default();
        assert_eq!((0..1000).filter(|_| histories.telling(1)).count(), 10);
        assert_eq!((0..9).filter(|_| histories.telling(2)).count(), 4);
    }
}
