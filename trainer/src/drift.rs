//! How far the traffic and the clusters moved since the model in force.

use serde::Serialize;
use waf_model::{
    features::{FEATURES, TABLE},
    model::{Model, RawModel, baseline::MOVED},
};

/// Share of the rows below which a cluster's movement says nothing.
const MASS: f32 = 0.01;

/// How far the traffic and the clusters moved since the model in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Drift {
    /// Population stability index of each feature, largest first.
    pub psi: Vec<(&'static str, f32)>,
    /// How far each cluster's center moved, in usual deviations of the features; largest first.
    pub moved: Vec<f32>,
}

impl Drift {
    /// Share of the features that moved much.
    pub fn moved_features(&self) -> f64 {
        let moved = self.psi.iter().filter(|(_, psi)| *psi > MOVED).count();
        moved as f64 / self.psi.len().max(1) as f64
    }

    /// The middle and the largest movement of the centers.
    pub fn movement(&self) -> (f32, f32) {
        let middle = self.moved.get(self.moved.len() / 2).copied().unwrap_or(0.0);
        (middle, self.moved.first().copied().unwrap_or(0.0))
    }

    /// Compares `candidate` with `current`: `seen` are feature vectors of later traffic as `current` sees it.
    pub fn between(current: &Model, candidate: &Model, seen: &[[f32; FEATURES]]) -> Self {
        let mut now = current.baseline().tally();
        seen.iter().for_each(|vector| now.count(vector));
        let names = TABLE.map(|feature| feature.name);
        let values = if seen.is_empty() { Vec::new() } else { current.baseline().psi(&now) };
        let mut psi: Vec<_> = names.into_iter().zip(values).collect();
        psi.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        Self { psi, moved: movements(current, candidate, seen) }
    }
}

/// How far the centers of matched clusters lie apart: root mean square over the features, each in its own scale.
fn movements(current: &Model, candidate: &Model, seen: &[[f32; FEATURES]]) -> Vec<f32> {
    let scales = scales(seen);
    let centers = |model: &Model| -> Vec<Vec<f32>> {
        let raw = RawModel::from(model).requests;
        let rows = raw.centers.chunks_exact(FEATURES).zip(&raw.mass);
        rows.filter(|(_, mass)| **mass >= MASS).map(|(center, _)| center.to_vec()).collect()
    };
    let (before, after) = (centers(current), centers(candidate));
    // The smaller set finds partners in the larger.
    let (few, many) = if before.len() <= after.len() { (before, after) } else { (after, before) };
    let costs: Vec<Vec<f64>> =
        few.iter().map(|a| many.iter().map(|b| f64::from(apart(a, b, &scales))).collect()).collect();
    let mut moved: Vec<f32> = assign(&costs)
        .into_iter()
        .zip(&costs)
        .filter_map(|(partner, costs)| costs.get(partner).map(|cost| *cost as f32))
        .collect();
    moved.sort_by(|a, b| b.total_cmp(a));
    moved
}

fn apart(a: &[f32], b: &[f32], scales: &[f32]) -> f32 {
    let squares = a.iter().zip(b).zip(scales).map(|((a, b), scale)| ((a - b) / scale).powi(2)).sum::<f32>();
    (squares / a.len().max(1) as f32).sqrt()
}

/// Interquartile range as a standard deviation, at least the feature's floor.
fn scales(seen: &[[f32; FEATURES]]) -> Vec<f32> {
    TABLE
        .iter()
        .enumerate()
        .map(|(column, feature)| {
            let mut values: Vec<f32> = seen.iter().filter_map(|row| row.get(column).copied()).collect();
            values.sort_by(f32::total_cmp);
            let quantile = |share: usize| values.get(values.len() * share / 4).copied().unwrap_or(0.0);
            ((quantile(3) - quantile(1)) / 1.349).max(feature.floor)
        })
        .collect()
}

/// The cheapest way to give every row a column of its own (the Hungarian method with potentials, O(n^2 m)); there
/// must be at least as many columns as rows. One column for each row.
fn assign(costs: &[Vec<f64>]) -> Vec<usize> {
    let (n, m) = (costs.len(), costs.first().map_or(0, Vec::len));
    let cost = |row: usize, column: usize| {
        costs.get(row - 1).and_then(|row| row.get(column - 1)).copied().unwrap_or(f64::MAX)
    };
    let at = |cells: &[f64], index: usize| cells.get(index).copied().unwrap_or(0.0);
    // Index 0 stands for "none": rows and columns count from 1.
    let (mut of_row, mut of_column) = (vec![0.0; n + 1], vec![0.0; m + 1]);
    let mut owner = vec![0; m + 1];
    for row in 1..=n {
        if let Some(first) = owner.first_mut() {
            *first = row;
        }
        let mut column = 0;
        let mut least = vec![f64::INFINITY; m + 1];
        let mut via = vec![0; m + 1];
        let mut used = vec![false; m + 1];
        loop {
            used.get_mut(column).into_iter().for_each(|used| *used = true);
            let current = owner.get(column).copied().unwrap_or(0);
            let (mut delta, mut next) = (f64::INFINITY, 0);
            for other in (1..=m).filter(|other| !used.get(*other).copied().unwrap_or(true)) {
                let reduced = cost(current, other) - at(&of_row, current) - at(&of_column, other);
                if let (Some(least), Some(via)) = (least.get_mut(other), via.get_mut(other)) {
                    if reduced < *least {
                        (*least, *via) = (reduced, column);
                    }
                    if *least < delta {
                        (delta, next) = (*least, other);
                    }
                }
            }
            for other in 0..=m {
                if used.get(other).copied().unwrap_or(false) {
                    let row = owner.get(other).copied().unwrap_or(0);
                    of_row.get_mut(row).into_iter().for_each(|potential| *potential += delta);
                    of_column.get_mut(other).into_iter().for_each(|potential| *potential -= delta);
                } else {
                    least.get_mut(other).into_iter().for_each(|least| *least -= delta);
                }
            }
            column = next;
            if column == 0 || owner.get(column).copied().unwrap_or(0) == 0 {
                break;
            }
        }
        while column != 0 {
            let before = via.get(column).copied().unwrap_or(0);
            let row = owner.get(before).copied().unwrap_or(0);
            owner.get_mut(column).into_iter().for_each(|owner| *owner = row);
            column = before;
        }
    }
    let mut columns = vec![0; n];
    for (column, row) in owner.iter().enumerate().skip(1) {
        if let Some(cell) = row.checked_sub(1).and_then(|row| columns.get_mut(row)) {
            *cell = column - 1;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assignment_is_the_cheapest_of_all() {
        let mut state = 7_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 % 100.0
        };
        for _ in 0..50 {
            let costs: Vec<Vec<f64>> = (0..3).map(|_| (0..4).map(|_| random()).collect()).collect();
            let found = assign(&costs);
            let total: f64 = found.iter().enumerate().map(|(row, column)| costs[row][*column]).sum();
            let mut best = f64::INFINITY;
            for a in 0..4 {
                for b in (0..4).filter(|b| *b != a) {
                    for c in (0..4).filter(|c| *c != a && *c != b) {
                        best = best.min(costs[0][a] + costs[1][b] + costs[2][c]);
                    }
                }
            }
            assert!((total - best).abs() < 1e-9, "{costs:?}: {found:?}");
        }
        assert!(assign(&[]).is_empty());
    }

    #[test]
    fn shares_and_middles() {
        let drift = Drift { psi: vec![("a", 0.5), ("b", 0.1)], moved: vec![2.0, 0.5, 0.1] };
        assert_eq!((drift.moved_features(), drift.movement()), (0.5, (0.5, 2.0)));
    }
}
