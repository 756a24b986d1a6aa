//! Trains the base knowledge that ships with the gateway, from labelled files and the generators of `datasets`.
//!
//! Same inputs, same seed, same bytes. The data is only counted: what ends up in the file are words and operators
//! that several attack strings from several lists share, each with a weight.
//!
//! Read [`learn`] first: corpus -> vocabulary -> weights -> threshold.

use anyhow::Result;
use waf_model::base::{Base, PLACES, Promise, file::Facts};

use crate::conformal;

pub mod card;
pub mod corpus;
pub mod solve;
pub mod split;
pub mod vocabulary;

use corpus::{Corpus, Request};

/// Highest share of harmless requests to unseen sites that may be flagged.
pub const BUDGET: f64 = 6e-4;

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
    let mut scores = Vec::new();
    for fold in 0..FOLDS {
        let held_out = |request: &&&Request| !request.attack && fold_of(request) == fold;
        let rest: Vec<&Request> = chosen.iter().filter(|request| !held_out(request)).copied().collect();
        let base = Base::parse(&weigh(corpus, &rest)?.write())?;
        let strengths = corpus.strengths(&base);
        let browsing = chosen.iter().filter(held_out).filter(|request| request.browsing);
        let mut tops: Vec<(f32, &Request)> = browsing.clone().map(|r| (corpus.score(&base, &strengths, r), *r)).collect();
        tops.sort_by(|a, b| b.0.total_cmp(&a.0));
        if std::env::var("TOPS").is_ok() {
            for (score, request) in tops.iter().take(12) {
                let text = request.texts.iter().max_by_key(|t| strengths.get(**t as usize)).unwrap();
                let text = corpus.texts.get(*text as usize).unwrap();
                eprintln!("TOP {score:.2} {} {:?} {:?} {:?}", request.group, text.location, String::from_utf8_lossy(text.bytes.get(..200).unwrap_or(&text.bytes)), base.pieces(&text.bytes).iter().take(9).collect::<Vec<_>>());
            }
            eprintln!("usual {:?} bias {}", base.usual(), base.bias());
        }
        scores.extend(browsing.map(|request| corpus.score(&base, &strengths, request)));
    }
    let mut facts = weigh(corpus, &chosen)?;
    scores.sort_by(|a, b| b.total_cmp(a));
    let n = scores.len() as u64;
    let Some(rank) = conformal::rank(n, BUDGET, CONFIDENCE) else {
        anyhow::bail!("no harmless requests of recorded sites are left to set the threshold by");
    };
    let at = usize::try_from(rank.k - 1).unwrap_or(usize::MAX);
    // What exceeds the k-th largest is flagged; scores come in steps, so the next step is where flagging begins.
    facts.promise = Promise {
        threshold: scores.get(at).copied().unwrap_or(0.0) + 1.0 / 64.0,
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
    request.group % FOLDS
}

/// Vocabulary, weights and what is usual where; the promise is left open.
fn weigh(corpus: &Corpus, chosen: &[&Request]) -> Result<Facts> {
    let vocabulary = vocabulary::choose(corpus, chosen)?;
    let (weights, bias) = solve::weigh(corpus, chosen, &vocabulary)?;
    let promise = Promise { threshold: 1.0, ..Promise::default() };
    let mut facts = Facts { promise, bias, usual: [0.0; PLACES], words: vocabulary.words, weights };
    facts.usual = usual(corpus, &Base::parse(&facts.write())?, chosen);
    Ok(facts)
}

/// Evidence that is usual at each place beyond the place with least of it: strange text is at home in cookies and
/// header fields. Taken from the requests that were learned from, so that the calibration stays untouched.
fn usual(corpus: &Corpus, base: &Base, chosen: &[&Request]) -> [f32; PLACES] {
    let strengths = corpus.strengths(base);
    let mut scores: [Vec<f32>; PLACES] = Default::default();
    for request in chosen.iter().filter(|request| !request.attack && request.browsing) {
        let mut most = [0.0f32; PLACES];
        for text in &request.texts {
            let place = corpus.place(*text);
            if let Some(most) = most.get_mut(place) {
                *most = most.max(strengths.get(*text as usize).map_or(0.0, |strength| strength.get()));
            }
        }
        for (scores, most) in scores.iter_mut().zip(most) {
            scores.push(most);
        }
    }
    let quantiles = scores.map(|mut scores| {
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.get((scores.len() as f64 * BUDGET / PLACES as f64) as usize).copied().unwrap_or(0.0)
    });
    let least = quantiles.iter().take(2).copied().fold(f32::INFINITY, f32::min);
    quantiles.map(|quantile| (quantile - least).max(0.0))
}
