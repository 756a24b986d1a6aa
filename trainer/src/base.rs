//! Trains the base knowledge that ships with the gateway, from labelled files and the generators of `datasets`.
//!
//! Same inputs, same seed, same bytes. The data is only counted: what ends up in the file are words and operators
//! that several attack strings from several lists share, each with a weight.
//!
//! Read [`learn`] first: corpus -> vocabulary -> weights -> threshold.

use anyhow::{Result, ensure};
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

/// Learns from the requests for which `fit` holds; sets the threshold by those for which `calibrate` holds.
///
/// # Errors
/// Too little to learn from or to calibrate with.
pub fn learn(
    corpus: &Corpus,
    fit: &dyn Fn(&Request) -> bool,
    calibrate: &dyn Fn(&Request) -> bool,
) -> Result<(Facts, Learned)> {
    let chosen: Vec<&Request> = corpus.requests.iter().filter(|request| fit(request)).collect();
    let vocabulary = vocabulary::choose(corpus, &chosen)?;
    let (weights, bias) = solve::weigh(corpus, &chosen, &vocabulary)?;
    let mut facts = Facts {
        promise: Promise { threshold: 1.0, budget: 1.0, confidence: 0.0, n: 0, certified: false },
        bias: 0.0,
        usual: [0.0; PLACES],
        words: vocabulary.words,
        weights,
    };
    facts.bias = bias;
    let raw = Base::parse(&facts.write())?;
    facts.usual = usual(corpus, &raw, &chosen);
    let base = Base::parse(&facts.write())?;
    let calibration: Vec<&Request> = corpus.requests.iter().filter(|r| !r.attack && calibrate(r)).collect();
    ensure!(
        !calibration.is_empty(),
        "no harmless requests are left to set the threshold by; give more sites"
    );
    let strengths = corpus.strengths(&base);
    let mut scores: Vec<f32> = calibration.iter().map(|r| corpus.score(&base, &strengths, r)).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let n = scores.len() as u64;
    let Some(rank) = conformal::rank(n, BUDGET, CONFIDENCE) else {
        anyhow::bail!("no harmless requests to set the threshold by");
    };
    let at = usize::try_from(rank.k - 1).unwrap_or(usize::MAX);
    // What exceeds the k-th largest is flagged; scores come in steps, so the next step is where flagging begins.
    let threshold = scores.get(at).copied().unwrap_or(0.0) + 1.0 / 64.0;
    facts.promise = Promise {
        threshold,
        budget: rank.budget as f32,
        confidence: CONFIDENCE as f32,
        n,
        certified: rank.reached,
    };
    let attacks = chosen.iter().filter(|request| request.attack).count();
    Ok((facts, Learned { attacks, benign: chosen.len() - attacks, calibration: scores.len(), rank: rank.k }))
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
