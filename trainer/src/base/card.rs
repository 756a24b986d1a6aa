//! What a trained base was made from, in words for its model card and the terminal.

use std::fmt::Write as _;

use waf_model::base::file::Facts;

use super::{Learned, corpus::Corpus};

/// The figures of one training.
pub fn summary(corpus: &Corpus, facts: &Facts, learned: &Learned) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (name, (attacks, benign)) in corpus.census() {
        let _ = writeln!(text, "  {name:<40} {attacks:>7} attacks {benign:>7} harmless");
    }
    let promise = facts.promise;
    let _ = writeln!(
        text,
        "learned from {} requests of attacks and {} harmless ones\n\
         {} words, {} pieces of evidence, biases {:.2?}, usual at {:?}\n\
         threshold {:.2}: at most {:.2e} of harmless requests to unseen sites are flagged, with {:.0} % confidence \
         (rank {} of {} requests of sites that were held out{})",
        learned.attacks,
        learned.benign,
        facts.words.len(),
        facts.weights.len(),
        facts.bias,
        facts.usual,
        promise.threshold,
        promise.budget,
        promise.confidence * 100.0,
        learned.rank,
        promise.n,
        if promise.certified { "" } else { "; too few for the budget asked for: provisional" },
    );
    text
}
