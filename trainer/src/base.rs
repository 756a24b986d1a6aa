//! Trains the base knowledge that ships with the gateway, from labelled files and the generators of `datasets`.
//!
//! Same inputs, same seed, same bytes. The data is only counted: what ends up in the file are words and operators
//! that several attack strings from several lists share, each with a weight.
//!
//! Read [`learn`] first: corpus -> vocabulary -> weights -> threshold.

use anyhow::Result;
use waf_model::{
    base::{Base, KINDS, PLACES, Promise, Strength, file::Facts},
    injection::Said,
};

use crate::conformal;

pub mod card;
pub mod corpus;
pub mod solve;
pub mod split;
pub mod vocabulary;

use corpus::{Corpus, Request};

/// Highest share of harmless requests to unseen sites that may be flagged.
pub const BUDGET: f64 = 6e-4;

/// The same for harmless requests that are not recorded browsing: texts that people write, of which one request may
/// hold pages, and values without a site.
pub const TEXT_BUDGET: f64 = 3e-4;

/// Confidence that the true share is within the budget.
pub const CONFIDENCE: f64 = 0.95;

/// What a base was learned from, in figures.
#[derive(Debug, Clone, Copy, Default)]
pub struct Learned {
    /// Distinct attacks.
    pub attacks: usize,
    /// Harmless requests.
    pub benign: usize,
    /// Harmless requests behind the threshold.
    pub calibration: usize,
    /// Rank of the threshold among them.
    pub rank: u64,
}

/// Parts of the sites in turn held out to set the threshold by.
const FOLDS: u32 = 3;

/// Learns from the requests for which `fit` holds.
///
/// The threshold is set by cross-conformal prediction (Vovk 2015): each site is scored by a base that was learned
/// without it, and the pooled scores are ranked as in split conformal prediction. Every site then counts for
/// weights and threshold alike.
///
/// # Errors
/// Too little to learn from or to calibrate with.
pub fn learn(corpus: &Corpus, fit: &dyn Fn(&Request) -> bool) -> Result<(Facts, Learned)> {
    let chosen: Vec<&Request> = corpus.requests.iter().filter(|request| fit(request)).collect();
    let (mut strangers, mut others) = (Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let held_out = |request: &&&Request| !request.attack && fold_of(request) == fold;
        let rest: Vec<&Request> = chosen.iter().filter(|request| !held_out(request)).copied().collect();
        let base = Base::parse(&weigh(corpus, &rest)?.write())?;
        let by_kind = corpus.by_kind(&base);
        for request in chosen.iter().filter(held_out) {
            let kept = if request.browsing { &mut strangers } else { &mut others };
            kept.push(loudest(corpus, &by_kind, request));
        }
    }
    let mut facts = weigh(corpus, &chosen)?;
    others.extend(words_alone(&facts)?);
    (facts.bias, facts.usual) = allowances(&strangers, &others);
    let mut scores: Vec<f32> = strangers.iter().map(|loud| score(&facts, loud)).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let n = scores.len() as u64;
    let Some(rank) = conformal::rank(n, BUDGET, CONFIDENCE) else {
        anyhow::bail!("no harmless requests of recorded sites are left to set the threshold by");
    };
    let at = usize::try_from(rank.k - 1).unwrap_or(usize::MAX);
    // What exceeds the k-th largest is flagged; scores come in steps, so the next step is where flagging begins.
    facts.promise = Promise {
        threshold: (scores.get(at).copied().unwrap_or(0.0) + 1.0 / 64.0).max(FLAGGED),
        budget: rank.budget as f32,
        confidence: CONFIDENCE as f32,
        n,
        certified: rank.reached,
    };
    let attacks = chosen.iter().filter(|request| request.attack).count();
    Ok((facts, Learned { attacks, benign: chosen.len() - attacks, calibration: scores.len(), rank: rank.k }))
}

/// The fold of a request's site.
fn fold_of(request: &Request) -> u32 {
    // What comes from no site is held out by its content.
    if request.browsing { request.group % FOLDS } else { (request.payload % u64::from(FOLDS)) as u32 }
}

/// The evidence of one request, by place and kind.
type Loudest = [[f32; KINDS.len()]; PLACES];

fn loudest(corpus: &Corpus, by_kind: &[[f32; KINDS.len()]], request: &Request) -> Loudest {
    let mut loudest = Loudest::default();
    for text in &request.texts {
        let (Some(loudest), Some(found)) =
            (loudest.get_mut(corpus.place(*text)), by_kind.get(*text as usize))
        else {
            continue;
        };
        for (loudest, found) in loudest.iter_mut().zip(found) {
            *loudest = loudest.max(*found);
        }
    }
    loudest
}

/// The evidence in every word of the vocabulary that stands alone or names a program: as harmless as any other.
fn words_alone(facts: &Facts) -> Result<Vec<Loudest>> {
    let base = Base::parse(&facts.write())?;
    let evidence = |text: Vec<u8>| {
        let found = base.by_kind(&text, Said::default());
        [[0.0; KINDS.len()], found, found, [0.0; KINDS.len()]]
    };
    Ok(facts.words.iter().flat_map(|word| vocabulary::harmless(word)).map(evidence).collect())
}

/// What the finished base will make of a request.
fn score(facts: &Facts, loudest: &Loudest) -> f32 {
    let at_place = |(found, usual): (&[f32; KINDS.len()], &f32)| {
        let strongest = found.iter().zip(facts.bias).map(|(found, bias)| found - bias).fold(0.0, f32::max);
        (Strength::new(strongest).get() - usual).max(0.0)
    };
    loudest.iter().zip(&facts.usual).map(at_place).fold(0.0, f32::max)
}

/// Log-odds that arguments and paths of strangers need to be flagged; what is below is kept apart from nothing.
const FLAGGED: f32 = 4.0;

/// What is asked for beyond the strangest harmless request that was held out: the next site brings stranger ones,
/// and often many times the same.
const MARGIN: f32 = 1.0;

/// The bias of each kind, so that each takes an equal share of the budget at the same score; and what is usual in
/// header fields and cookies beyond that.
fn allowances(strangers: &[Loudest], others: &[Loudest]) -> ([f32; KINDS.len()], [f32; PLACES]) {
    let top = |mut scores: Vec<f32>, share: f64| {
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.get((scores.len() as f64 * share) as usize).copied().unwrap_or(0.0)
    };
    let mut bias = [0.0; KINDS.len()];
    for (kind, bias) in bias.iter_mut().enumerate() {
        let of = |at: &[f32; KINDS.len()]| at.get(kind).copied().unwrap_or(0.0);
        let highest = |of_whom: &[Loudest], share: f64| {
            let scores = of_whom.iter().map(|[path, argument, ..]| of(path).max(of(argument))).collect();
            top(scores, share)
        };
        let share = |budget: f64| budget / KINDS.len() as f64;
        let strangest = highest(strangers, share(BUDGET)).max(highest(others, share(TEXT_BUDGET)));
        *bias = (strangest - FLAGGED + MARGIN).max(0.0);
    }
    let mut usual = [0.0; PLACES];
    for (place, usual) in usual.iter_mut().enumerate().skip(2) {
        let of = |loud: &Loudest| {
            let found = loud.get(place).copied().unwrap_or_default();
            found.iter().zip(bias).map(|(found, bias)| found - bias).fold(0.0, f32::max)
        };
        *usual = (top(strangers.iter().map(of).collect(), BUDGET / 4.0) - FLAGGED).max(0.0);
    }
    (bias, usual)
}

/// Vocabulary and weights; biases and the promise are left open.
fn weigh(corpus: &Corpus, chosen: &[&Request]) -> Result<Facts> {
    let vocabulary = vocabulary::choose(corpus, chosen)?;
    let weights = solve::weigh(corpus, chosen, &vocabulary)?;
    let promise = Promise { threshold: 1.0, ..Promise::default() };
    Ok(Facts { promise, bias: [0.0; KINDS.len()], usual: [0.0; PLACES], words: vocabulary.words, weights })
}
