//! The base on sites and attacks that it never saw: halves by site and by payload, over several seeds.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use waf_model::base::Base;

use super::{
    CONFIDENCE,
    corpus::{Corpus, Request},
    learn,
};
use crate::conformal;

/// Points from which on rules reject.
pub const REJECTED: u32 = 5;

/// Which side of a split a request is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It is learned from.
    Fit,
    /// It is judged.
    Test,
}

/// How attacks are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// By normalized payload: each file is on both sides, no payload is.
    Payload,
    /// By list: whole lists are on one side. Harder: the other half's authors are strangers.
    List,
}

/// Flagged of all, by rules alone, the base alone, and both together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Distinct attacks, or harmless requests.
    pub all: u64,
    /// Flagged by rules.
    pub rules: u64,
    /// Flagged by the base.
    pub base: u64,
    /// Flagged by either.
    pub both: u64,
}

/// Figures of every seed, by family of attack or kind of harmless requests.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<(bool, String), Vec<Count>>,
    thresholds: Vec<f32>,
}

/// The side of `request` in the split of `seed`.
pub fn side(request: &Request, seed: u64, by: By) -> Side {
    if request.generated {
        return Side::Fit;
    }
    // Sites are split as wholes, everything else by its content.
    let key = match (request.browsing, request.attack, by) {
        (true, ..) | (_, true, By::List) => u64::from(request.group),
        _ => request.payload,
    };
    let [draw, ..] = *blake3::hash(&[key.to_le_bytes(), seed.to_le_bytes()].concat()).as_bytes();
    if draw < 128 { Side::Fit } else { Side::Test }
}

/// Learns on one half and judges the other, for each seed. Files in `unseen` are only judged.
///
/// # Errors
/// A half is too small to learn from.
pub fn evaluate(
    corpus: &Corpus,
    seeds: std::ops::RangeInclusive<u64>,
    by: By,
    unseen: &dyn Fn(&Request) -> bool,
    mut missed: impl FnMut(&str, &[u8], f32, f32),
) -> Result<Table> {
    let mut table = Table::default();
    for seed in seeds {
        let side = |request: &Request| match unseen(request) {
            true => Side::Test,
            false => side(request, seed, by),
        };
        let fit = |request: &Request| side(request) == Side::Fit && request.is_learnable();
        let (facts, _) = learn(corpus, &fit)?;
        let base = Base::parse(&facts.write())?;
        let strengths = corpus.strengths(&base);
        let threshold = base.promise().threshold;
        table.thresholds.push(threshold);
        let mut counts: BTreeMap<(bool, String), Count> = BTreeMap::new();
        let mut judged = std::collections::HashSet::new();
        for request in corpus.requests.iter().filter(|request| side(request) == Side::Test) {
            // An attack counts once, however many ways it is placed in.
            if request.attack && !judged.insert(request.payload) {
                continue;
            }
            let score = corpus.score(&base, &strengths, request);
            let name = match (request.attack, request.browsing) {
                (true, _) => request.family.to_owned(),
                (false, true) => "browsing".to_owned(),
                (false, false) => corpus.files.get(usize::from(request.file)).cloned().unwrap_or_default(),
            };
            let count = counts.entry((request.attack, name.clone())).or_default();
            let (by_rules, by_base) = (request.points >= REJECTED, score >= threshold);
            count.all += 1;
            count.rules += u64::from(by_rules);
            count.base += u64::from(by_base);
            count.both += u64::from(by_rules || by_base);
            if request.attack != (by_rules || by_base) {
                let loudest = request.texts.iter().max_by_key(|text| {
                    let index = **text as usize;
                    let length = corpus.texts.get(index).map_or(0, |text| text.bytes.len());
                    (request.attack && corpus.place(**text) == 1, strengths.get(index), length)
                });
                let text = loudest.and_then(|text| corpus.texts.get(*text as usize));
                let kind = if request.attack || by_base { &name } else { "rules" };
                missed(kind, text.map_or(&[], |text| &text.bytes), score, threshold);
            }
        }
        for (row, count) in counts {
            table.rows.entry(row).or_default().push(count);
        }
    }
    Ok(table)
}

/// The interval in which a share lies with 95 % confidence, of `hits` in `all` (Clopper and Pearson 1934).
fn interval(hits: u64, all: u64) -> (f64, f64) {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let solve = |k: u64, probability: f64| {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            if conformal::at_least(all, middle, k) < probability { low = middle } else { high = middle }
        }
        low
    };
    let low = if hits == 0 { 0.0 } else { solve(hits, tail) };
    let high = if hits >= all { 1.0 } else { solve(hits + 1, 1.0 - tail) };
    (low, high)
}

impl Table {
    /// Median over the seeds of the share that `of` counts.
    fn median(counts: &[Count], of: fn(&Count) -> u64) -> f64 {
        let mut shares: Vec<f64> = counts.iter().map(|c| of(c) as f64 / c.all.max(1) as f64).collect();
        shares.sort_by(f64::total_cmp);
        shares.get(shares.len() / 2).copied().unwrap_or(0.0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} seeds; thresholds {:.2?}", self.thresholds.len(), self.thresholds)?;
        writeln!(
            f,
            "{:<34} {:>7} {:>9} {:>9} {:>9}   both: 95 % interval, and all seeds",
            "share flagged (median of seeds), %", "n", "rules", "base", "both"
        )?;
        let mut totals = [Vec::new(), Vec::new(), Vec::new()];
        for ((attack, name), counts) in &self.rows {
            let shares @ [rules, base, both] = [
                Self::median(counts, |count| count.rules),
                Self::median(counts, |count| count.base),
                Self::median(counts, |count| count.both),
            ];
            let mut by_size: Vec<&Count> = counts.iter().collect();
            by_size.sort_by(|a, b| {
                (a.both as f64 / a.all.max(1) as f64).total_cmp(&(b.both as f64 / b.all.max(1) as f64))
            });
            let Some(middle) = by_size.get(by_size.len() / 2) else { continue };
            let (low, high) = interval(middle.both, middle.all);
            let each: Vec<String> = counts
                .iter()
                .map(|c| format!("{:.3}", 100.0 * c.both as f64 / c.all.max(1) as f64))
                .collect();
            let kind = if *attack { "attack" } else { "harmless" };
            writeln!(
                f,
                "{:<34} {:>7} {:>9.3} {:>9.3} {:>9.3}   {:.3} to {:.3}   [{}]",
                format!("{kind} {name}"),
                middle.all,
                rules * 100.0,
                base * 100.0,
                both * 100.0,
                low * 100.0,
                high * 100.0,
                each.join(" ")
            )?;
            if *attack && name != "other" && name != "fragment" {
                for (total, share) in totals.iter_mut().zip(shares) {
                    total.push(share);
                }
            }
        }
        let mean = |shares: &[f64]| 100.0 * shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        let [rules, base, both] = &totals;
        writeln!(
            f,
            "{:<34} {:>7} {:>9.3} {:>9.3} {:>9.3}",
            "mean over the attack families",
            rules.len(),
            mean(rules),
            mean(base),
            mean(both)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_tables() {
        let (low, high) = interval(0, 100);
        assert!(low == 0.0 && (high - 0.036_217).abs() < 1e-5, "{high}");
        let (low, high) = interval(97, 100);
        assert!((low - 0.914_8).abs() < 1e-3 && (high - 0.993_8).abs() < 1e-3, "{low} {high}");
    }
}
