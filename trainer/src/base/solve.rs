//! Weights: logistic regression with weights from 0 on and an L1 penalty, by coordinate descent.
//!
//! An attack is a bag of windows of which one has to speak (multiple-instance learning, Andrews et al. 2002): each
//! round trains on the window that speaks loudest so far. A harmless request is harmless in every window.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, ensure};
use waf_model::{
    base::{
        KINDS,
        evidence::{self, Evidence},
        file::Weighted,
    },
    injection::Said,
};

use super::{
    corpus::{Corpus, Request},
    vocabulary::{Support, Vocabulary},
};

/// Most pieces of evidence that are weighed.
const CANDIDATES: usize = 12_000;

/// Most that are kept.
const KEPT: usize = 6_000;

/// Smallest weight that is kept.
const LEAST: f64 = 0.1;

/// Rounds of choosing windows.
const ROUNDS: usize = 3;

/// Sweeps over all weights in one round.
const SWEEPS: usize = 25;

/// L1 penalty, in units of one attack.
const PENALTY: f64 = 1.0;

/// Quadratic penalty: where several pieces say the same, each takes a share, so that a variant that lacks one is
/// still known.
const RIDGE: f64 = 0.3;

/// Weight of all harmless windows together, over that of all attacks.
const HARMLESS: f64 = 1000.0;

/// Weight of a harmless window in a header field or cookie, over one elsewhere: those have their own allowance.
const ELSEWHERE: f64 = 0.2;

/// Largest weight: no single piece of evidence decides alone.
const LARGEST: f64 = 8.0;

/// Distinct windows, each a sorted list of pieces of evidence.
#[derive(Default)]
struct Windows {
    known: HashMap<Vec<u32>, u32>,
    list: Vec<Vec<u32>>,
}

impl Windows {
    fn intern(&mut self, window: Vec<u32>) -> u32 {
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        *self.known.entry(window).or_insert_with_key(|window| {
            self.list.push(window.clone());
            next
        })
    }
}

/// Weighs the evidence in `chosen`, for each kind of attack by itself.
///
/// # Errors
/// Nothing that several attacks share was found.
pub fn weigh(corpus: &Corpus, chosen: &[&Request], vocabulary: &Vocabulary) -> Result<Vec<Weighted>> {
    let candidates = candidates(corpus, chosen, vocabulary);
    ensure!(
        !candidates.is_empty(),
        "no evidence is shared by several attacks of several lists; give more of them"
    );
    let numbers: HashMap<Evidence, u32> =
        candidates.iter().enumerate().map(|(at, (evidence, _))| (*evidence, at as u32)).collect();
    let mut windows = Windows::default();
    let mut harmless: BTreeMap<u32, f64> = BTreeMap::new();
    let mut bags: Vec<(Bag, u8, f64)> = Vec::new();
    let mut of_text: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut payloads = HashSet::new();
    let mut counted: HashSet<(u32, u32)> = HashSet::new();
    let family_sizes = family_sizes(chosen);
    for request in chosen {
        if request.attack && !payloads.insert(request.payload) {
            continue;
        }
        let mut bag = Bag::default();
        for text in &request.texts {
            let found = of_text.entry(*text).or_insert_with(|| {
                let mut found = Vec::new();
                each_window(
                    corpus,
                    *text,
                    vocabulary,
                    |evidence| numbers.get(&evidence).copied(),
                    |window| {
                        found.push(windows.intern(window.to_vec()));
                    },
                );
                found.sort_unstable();
                found.dedup();
                found
            });
            let place = corpus.place(*text);
            if request.attack {
                let windows = found.iter().map(|window| (place, *window));
                bag.extend(windows);
            } else {
                let weight = if place < 2 { 1.0 } else { ELSEWHERE };
                for window in found {
                    // A window counts once a site, however often the site repeats it.
                    if counted.insert((*window, request.group)) {
                        *harmless.entry(*window).or_default() += weight;
                    }
                }
            }
        }
        if request.attack {
            let size = family_sizes.get(request.family).copied().unwrap_or(1.0);
            bags.push((bag, request.kind, (1000.0 / size).sqrt().max(1.0)));
        }
    }
    for text in vocabulary.harmless() {
        let resolve = |evidence| numbers.get(&evidence).copied();
        let note = |window: &[u32]| {
            *harmless.entry(windows.intern(window.to_vec())).or_default() += 1.0;
        };
        evidence::windows(&text, Said::default(), |word| vocabulary.token(word), resolve, note);
    }
    let mut found: BTreeMap<Evidence, Vec<(u8, f32)>> = BTreeMap::new();
    for kind in 0..KINDS.len() as u8 {
        let bags: Vec<(Vec<u32>, f64)> = bags
            .iter()
            .filter(|(_, of, _)| *of == kind)
            .map(|(bag, _, mass)| (speakers(bag, &harmless), *mass))
            .filter(|(bag, _)| !bag.is_empty())
            .collect();
        for (evidence, weight) in weigh_kind(&candidates, &windows.list, &harmless, &bags) {
            found.entry(evidence).or_default().push((kind, weight));
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    let strongest = |weights: &[(u8, f32)]| weights.iter().map(|(_, weight)| *weight).fold(0.0, f32::max);
    found.sort_by(|a, b| strongest(&b.1).total_cmp(&strongest(&a.1)).then_with(|| a.0.cmp(&b.0)));
    found.truncate(KEPT);
    found.sort_by_key(|(evidence, _)| *evidence);
    Ok(found)
}

/// The weights for one kind of attack.
fn weigh_kind(
    candidates: &[(Evidence, f64)],
    windows: &[Vec<u32>],
    harmless: &BTreeMap<u32, f64>,
    bags: &[(Vec<u32>, f64)],
) -> Vec<(Evidence, f32)> {
    let mut weights: Vec<f64> = candidates.iter().map(|(_, odds)| odds.clamp(0.0, 2.0)).collect();
    let mut bias = 4.0;
    for _ in 0..ROUNDS {
        let problem = Problem::of(windows, harmless, bags, &weights);
        bias = problem.solve(&mut weights, bias);
    }
    candidates
        .iter()
        .zip(&weights)
        .filter(|(_, weight)| **weight >= LEAST)
        .map(|((evidence, _), weight)| (*evidence, *weight as f32))
        .collect()
}

/// Windows of one attack, each with its place.
type Bag = Vec<(usize, u32)>;

/// The windows that may be what makes a request an attack: none that harmless requests hold too; arguments first,
/// then the path, then the rest, which differs from the harmless for reasons of its own.
fn speakers(bag: &Bag, harmless: &BTreeMap<u32, f64>) -> Vec<u32> {
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<u32> {
        let fit = |(place, window): &&(usize, u32)| wanted(*place) && !harmless.contains_key(window);
        bag.iter().filter(fit).map(|(_, window)| *window).collect()
    };
    [of(&|place| place == 1), of(&|place| place == 0), of(&|place| place > 1)]
        .into_iter()
        .find(|windows| !windows.is_empty())
        .unwrap_or_default()
}

fn family_sizes(chosen: &[&Request]) -> BTreeMap<&'static str, f64> {
    let mut sizes = BTreeMap::new();
    let mut payloads = HashSet::new();
    for request in chosen.iter().filter(|request| request.attack && payloads.insert(request.payload)) {
        *sizes.entry(request.family).or_default() += 1.0;
    }
    sizes
}

fn each_window<T: Copy + Default + Ord>(
    corpus: &Corpus,
    text: u32,
    vocabulary: &Vocabulary,
    resolve: impl FnMut(Evidence) -> Option<T>,
    each: impl FnMut(&[T]),
) {
    if let Some(text) = corpus.texts.get(text as usize) {
        evidence::windows(&text.bytes, text.said, |word| vocabulary.token(word), resolve, each);
    }
}

/// Evidence with enough support that is more frequent in attacks, with its log-odds.
fn candidates(corpus: &Corpus, chosen: &[&Request], vocabulary: &Vocabulary) -> Vec<(Evidence, f64)> {
    let mut attack: HashMap<Evidence, Support> = HashMap::new();
    let mut benign: HashMap<Evidence, u32> = HashMap::new();
    let (mut payloads, mut texts) = (HashSet::new(), HashSet::new());
    let in_text = |text: u32| {
        let mut found = HashSet::new();
        each_window(
            corpus,
            text,
            vocabulary,
            |evidence| {
                found.insert(evidence);
                None::<u32>
            },
            |_| {},
        );
        found
    };
    for request in chosen.iter().filter(|request| request.attack) {
        if payloads.insert(request.payload) {
            let found: HashSet<Evidence> = request.texts.iter().flat_map(|text| in_text(*text)).collect();
            for evidence in found {
                attack.entry(evidence).or_default().add(request.group);
            }
        }
    }
    attack.retain(|_, support| support.suffices());
    for text in chosen.iter().filter(|request| !request.attack).flat_map(|request| &request.texts) {
        if corpus.place(*text) < 2 && texts.insert(*text) {
            for evidence in in_text(*text).into_iter().filter(|evidence| attack.contains_key(evidence)) {
                *benign.entry(evidence).or_default() += 1;
            }
        }
    }
    let mut ranked: Vec<(Evidence, f64, f64)> = attack
        .into_iter()
        .filter_map(|(evidence, support)| {
            let rate = |count: u32, total: usize| (f64::from(count) + 0.5) / (total as f64 + 1.0);
            let harmless = rate(benign.get(&evidence).copied().unwrap_or(0), texts.len());
            let odds = (rate(support.payloads, payloads.len()) / harmless).ln();
            (odds > 0.5).then(|| (evidence, odds, odds * f64::from(support.payloads).sqrt()))
        })
        .collect();
    ranked.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    ranked.truncate(CANDIDATES);
    let mut ranked: Vec<_> = ranked.into_iter().map(|(evidence, odds, _)| (evidence, odds)).collect();
    ranked.sort_by_key(|(evidence, _)| *evidence);
    ranked
}

/// One round's training set: rows of evidence, +1 or -1, and how much each counts; by columns.
struct Problem {
    columns: Vec<Vec<u32>>,
    attack: Vec<bool>,
    mass: Vec<f64>,
}

impl Problem {
    fn of(
        windows: &[Vec<u32>],
        harmless: &BTreeMap<u32, f64>,
        bags: &[(Vec<u32>, f64)],
        weights: &[f64],
    ) -> Self {
        let sum = |window: u32| -> f64 {
            let pieces = windows.get(window as usize).map(Vec::as_slice).unwrap_or_default();
            pieces.iter().filter_map(|piece| weights.get(*piece as usize)).sum()
        };
        let mut spoken: BTreeMap<u32, f64> = BTreeMap::new();
        let mut attacks = 0.0;
        for (bag, mass) in bags {
            let loudest = bag.iter().copied().max_by(|a, b| sum(*a).total_cmp(&sum(*b)).then(b.cmp(a)));
            if let Some(loudest) = loudest {
                *spoken.entry(loudest).or_default() += mass;
                attacks += mass;
            }
        }
        let total: f64 = harmless.values().sum();
        let scale = HARMLESS * attacks / total.max(1.0);
        let mut problem =
            Self { columns: vec![Vec::new(); weights.len()], attack: Vec::new(), mass: Vec::new() };
        let rows = spoken.iter().map(|(window, mass)| (window, *mass, true));
        for (window, mass, attack) in
            rows.chain(harmless.iter().map(|(window, mass)| (window, mass * scale, false)))
        {
            let row = problem.mass.len() as u32;
            problem.mass.push(mass);
            problem.attack.push(attack);
            for piece in windows.get(*window as usize).map(Vec::as_slice).unwrap_or_default() {
                if let Some(column) = problem.columns.get_mut(*piece as usize) {
                    column.push(row);
                }
            }
        }
        problem
    }

    /// Coordinate descent with Newton steps (Yuan, Ho, Lin 2012), projected to weights from 0 on. Returns the bias.
    fn solve(&self, weights: &mut [f64], mut bias: f64) -> f64 {
        let mut margins = vec![-bias; self.mass.len()];
        for (column, weight) in self.columns.iter().zip(weights.iter()) {
            for row in column {
                if let Some(margin) = margins.get_mut(*row as usize) {
                    *margin += weight;
                }
            }
        }
        let every: Vec<u32> = (0..self.mass.len() as u32).collect();
        for _ in 0..SWEEPS {
            let step = self.step(&every, &margins, 0.0, 0.0);
            let step = step.clamp(-1.0, 1.0);
            bias -= step;
            margins.iter_mut().for_each(|margin| *margin += step);
            for (column, weight) in self.columns.iter().zip(weights.iter_mut()) {
                if column.is_empty() {
                    *weight = 0.0;
                    continue;
                }
                let step = self.step(column, &margins, PENALTY + RIDGE * *weight, RIDGE).clamp(-1.0, 1.0);
                let next = (*weight + step).clamp(0.0, LARGEST);
                let moved = next - *weight;
                if moved.abs() > 1e-9 {
                    *weight = next;
                    for row in column {
                        if let Some(margin) = margins.get_mut(*row as usize) {
                            *margin += moved;
                        }
                    }
                }
            }
        }
        bias
    }

    /// The Newton step along one column.
    fn step(&self, column: &[u32], margins: &[f64], penalty: f64, ridge: f64) -> f64 {
        let (mut slope, mut curvature) = (penalty, ridge);
        for row in column {
            let row = *row as usize;
            let (Some(margin), Some(mass), Some(attack)) =
                (margins.get(row), self.mass.get(row), self.attack.get(row))
            else {
                continue;
            };
            let p = 1.0 / (1.0 + (-margin).exp());
            slope += mass * if *attack { p - 1.0 } else { p };
            curvature += mass * p * (1.0 - p);
        }
        -slope / curvature.max(1e-3)
    }
}
