//! An isolation forest (Liu, Ting and Zhou 2008) as a second view beside the clusters, in a flat form: to find out
//! whether it would earn a place in the model.

use fastrand::Rng;
use waf_model::features::FEATURES;

type Vector = [f32; FEATURES];

const TREES: usize = 100;

/// Rows that each tree is grown from.
const SAMPLE: usize = 256;

/// No deeper than the mean depth of a tree of [`SAMPLE`] rows: what is isolated later is not an outlier.
const DEPTH: u32 = 8;

/// All trees in one array.
pub(super) struct Forest {
    roots: Vec<u32>,
    nodes: Vec<Node>,
}

enum Node {
    /// Column, cut, and where the part above the cut begins; the part below it is next.
    Split { column: usize, cut: f32, above: u32 },
    /// Depth at which a row that gets here is isolated, on average.
    Leaf(f32),
}

impl Forest {
    /// Grows a forest; the same rows and seed give the same one.
    pub(super) fn grow(rows: &[Vector], seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut forest = Self { roots: Vec::new(), nodes: Vec::new() };
        for _ in 0..TREES {
            let mut sample: Vec<&Vector> =
                (0..SAMPLE).filter_map(|_| rows.get(rng.usize(..rows.len().max(1)))).collect();
            let root = forest.nodes.len() as u32;
            forest.roots.push(root);
            forest.split(&mut sample, 0, &mut rng);
        }
        forest
    }

    fn split(&mut self, rows: &mut [&Vector], depth: u32, rng: &mut Rng) {
        let range = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column).copied());
            cells.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
        };
        let varying: Vec<(usize, (f32, f32))> = (0..FEATURES)
            .map(|column| (column, range(column)))
            .filter(|(_, (low, high))| low < high)
            .collect();
        let chosen = rng.choice(&varying).filter(|_| depth < DEPTH && rows.len() > 1);
        let Some((column, (low, high))) = chosen else {
            return self.nodes.push(Node::Leaf(depth as f32 + unsuccessful(rows.len())));
        };
        let cut = low + rng.f32() * (high - low);
        rows.sort_by_key(|row| row.get(*column).is_some_and(|x| *x > cut));
        let below = rows.partition_point(|row| row.get(*column).is_none_or(|x| *x <= cut));
        let (below, above) = rows.split_at_mut(below);
        let at = self.nodes.len();
        self.nodes.push(Node::Leaf(0.0));
        self.split(below, depth + 1, rng);
        let split = Node::Split { column: *column, cut, above: self.nodes.len() as u32 };
        if let Some(node) = self.nodes.get_mut(at) {
            *node = split;
        }
        self.split(above, depth + 1, rng);
    }

    /// Anomaly score, 0 to 1: `2^(-E(depth) / c(sample))`.
    pub(super) fn score(&self, row: &Vector) -> f32 {
        let depth: f32 = self.roots.iter().map(|root| self.depth(*root as usize, row)).sum();
        (-depth / TREES as f32 / unsuccessful(SAMPLE)).exp2()
    }

    fn depth(&self, mut at: usize, row: &Vector) -> f32 {
        while let Some(node) = self.nodes.get(at) {
            match node {
                Node::Leaf(depth) => return *depth,
                Node::Split { column, cut, above } => {
                    at = if row.get(*column).is_some_and(|x| x > cut) { *above as usize } else { at + 1 };
                }
            }
        }
        0.0
    }
}

/// Mean depth of an unsuccessful search in a binary tree of `rows` rows.
fn unsuccessful(rows: usize) -> f32 {
    let n = rows as f32;
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => 2.0 * ((n - 1.0).ln() + 0.577_215_7) - 2.0 * (n - 1.0) / n,
    }
}
