//! The vocabulary: words of attacks that several payloads from several lists share.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Result, ensure};
use waf_model::base::token::{FIXED, Token, scan};

use super::corpus::{Corpus, Request};

/// Distinct payloads that a word or a piece of evidence needs, so that nothing private gets into the file.
pub const PAYLOADS: u32 = 5;

/// Files or lists that they must come from.
pub const GROUPS: u32 = 2;

/// Most words.
const WORDS: usize = 2500;

/// Shortest word, in bytes.
const SHORTEST: usize = 2;

/// How much more often a word must occur in attacks than in harmless requests to be told apart: natural log-odds.
const LOG_ODDS: f64 = 1.0;

/// Words that are told apart, in order.
#[derive(Debug, Default)]
pub struct Vocabulary {
    /// The words.
    pub words: Vec<String>,
    index: HashMap<Vec<u8>, Token>,
}

impl Vocabulary {
    /// Texts that say nothing whatever the word is: the word by itself, and as the name of a program with its
    /// version, as header fields have it.
    pub fn harmless(&self) -> impl Iterator<Item = Vec<u8>> {
        self.words.iter().flat_map(|word| harmless(word))
    }

    /// The token of `word`.
    pub fn token(&self, word: &[u8]) -> Option<Token> {
        self.index.get(word).copied()
    }
}

/// In how many payloads and groups something occurs; each payload counts once.
#[derive(Debug, Default)]
pub struct Support {
    /// Distinct payloads.
    pub payloads: u32,
    /// Distinct groups, up to [`GROUPS`].
    groups: Vec<u32>,
}

impl Support {
    /// Counts one payload of `group`.
    pub fn add(&mut self, group: u32) {
        self.payloads += 1;
        if self.groups.len() < GROUPS as usize && !self.groups.contains(&group) {
            self.groups.push(group);
        }
    }

    /// Whether it is enough to be published.
    pub fn suffices(&self) -> bool {
        self.payloads >= PAYLOADS && self.groups.len() >= GROUPS as usize
    }
}

/// Chooses the words by what attacks have and harmless requests do not.
///
/// # Errors
/// There are no attacks, or nothing harmless.
pub fn choose(corpus: &Corpus, chosen: &[&Request]) -> Result<Vocabulary> {
    let mut attack: HashMap<Vec<u8>, Support> = HashMap::new();
    let mut benign: HashMap<Vec<u8>, u32> = HashMap::new();
    let (mut payloads, mut texts) = (HashSet::new(), HashSet::new());
    for request in chosen {
        if request.attack {
            if payloads.insert(request.payload) {
                for word in words(corpus, request.texts.iter().copied()) {
                    attack.entry(word).or_default().add(request.group);
                }
            }
        } else {
            for text in &request.texts {
                if texts.insert(*text) {
                    for word in words(corpus, std::iter::once(*text)) {
                        *benign.entry(word).or_default() += 1;
                    }
                }
            }
        }
    }
    ensure!(
        !payloads.is_empty() && !texts.is_empty(),
        "the files hold no attacks, or nothing harmless: both are needed"
    );
    let mut ranked: Vec<(f64, Vec<u8>)> = attack
        .into_iter()
        .filter(|(word, support)| word.len() >= SHORTEST && support.suffices())
        .filter_map(|(word, support)| {
            let rate = |count: u32, total: usize| (f64::from(count) + 0.5) / (total as f64 + 1.0);
            let harmless = rate(benign.get(&word).copied().unwrap_or(0), texts.len());
            let odds = (rate(support.payloads, payloads.len()) / harmless).ln();
            (odds >= LOG_ODDS).then(|| (odds * f64::from(support.payloads).sqrt(), word))
        })
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    ranked.truncate(WORDS);
    let words: BTreeMap<Vec<u8>, ()> = ranked.into_iter().map(|(_, word)| (word, ())).collect();
    let mut vocabulary = Vocabulary::default();
    for (at, word) in words.into_keys().enumerate() {
        vocabulary.words.push(String::from_utf8_lossy(&word).into_owned());
        vocabulary.index.insert(word, Token(FIXED + u32::try_from(at).unwrap_or(0)));
    }
    Ok(vocabulary)
}

/// Texts that say nothing whatever the word is.
pub fn harmless(word: &str) -> [Vec<u8>; 3] {
    [word.to_owned(), format!("{word}/1.0"), format!("{word}/2.31.0 (x)")].map(String::into_bytes)
}

fn words(corpus: &Corpus, texts: impl Iterator<Item = u32>) -> HashSet<Vec<u8>> {
    let mut found = HashSet::new();
    for text in texts.filter_map(|text| corpus.texts.get(text as usize)) {
        scan(
            &text.bytes,
            |word| {
                if word.is_ascii() && !found.contains(word) {
                    found.insert(word.to_vec());
                }
                None
            },
            |_| {},
        );
    }
    found
}
