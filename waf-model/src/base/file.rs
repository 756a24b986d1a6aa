//! The file form of a base: text, one fact a line, a checksum over all of it.
//!
//! ```text
//! portcullis base 1
//! blake3 <hexadecimal, of everything after this line>
//! threshold <log-odds> budget <share> confidence <share> n <requests> certified <yes|no>
//! bias <log-odds for each kind of attack>
//! usual <log-odds for path, argument, header, cookie>
//! word <text>                      the vocabulary in order: words that are told apart
//! token <weights> <text>           tab-separated, as are all lines below; weights are kind:log-odds, by commas
//! pair <weights> <text> <text>
//! triple <weights> <text> <text> <text>
//! near <weights> <text> <text>
//! sign <weights> <text>
//! sqli <weights> <fingerprint>
//! ```

use std::fmt::Write as _;

use super::{
    Base, KINDS, PLACES, Promise,
    evidence::{Evidence, SIGNS},
    table::{self, Table},
    token::{FIXED, Token, WORD_BYTES},
};

/// First line of the format.
const MAGIC: &str = "portcullis base 1";

/// Most words, and most pieces of evidence.
const MOST: usize = 16_384;

/// Why a file is not a base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("base, line {line}: {message}")]
pub struct BaseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// A piece of evidence and its weights: kind of attack, log-odds.
pub type Weighted = (Evidence, Vec<(u8, f32)>);

/// What a base is made of, as the trainer puts it together. Tokens from [`FIXED`] on are indices into `words`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// What the threshold promises.
    pub promise: Promise,
    /// Log-odds that each kind needs before anything counts.
    pub bias: [f32; KINDS.len()],
    /// Evidence that is usual at each place.
    pub usual: [f32; PLACES],
    /// The vocabulary.
    pub words: Vec<String>,
    /// Evidence and its weights: kind, log-odds.
    pub weights: Vec<Weighted>,
}

impl Facts {
    /// The file form.
    pub fn write(&self) -> String {
        let mut body = String::new();
        let Promise { threshold, budget, confidence, n, certified } = self.promise;
        let certified = if certified { "yes" } else { "no" };
        let list = |numbers: &[f32]| {
            numbers.iter().map(|number| format!("{number:.3}")).collect::<Vec<_>>().join(" ")
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            "threshold {threshold:.3} budget {budget} confidence {confidence} n {n} certified {certified}\n\
             bias {}\nusual {}",
            list(&self.bias),
            list(&self.usual)
        );
        for word in &self.words {
            let _ = writeln!(body, "word\t{word}");
        }
        let text = |token: Token| {
            let word = || self.words.get(usize::try_from(token.0.checked_sub(FIXED)?).ok()?).cloned();
            token.text().or_else(word).unwrap_or_default()
        };
        for (evidence, weights) in &self.weights {
            let weight = weights
                .iter()
                .map(|(kind, weight)| format!("{kind}:{weight:.3}"))
                .collect::<Vec<_>>()
                .join(",");
            let _ = match *evidence {
                Evidence::Token(token) => writeln!(body, "token\t{weight}\t{}", text(token)),
                Evidence::Pair(a, b) => writeln!(body, "pair\t{weight}\t{}\t{}", text(a), text(b)),
                Evidence::Triple(a, b, c) => {
                    writeln!(body, "triple\t{weight}\t{}\t{}\t{}", text(a), text(b), text(c))
                }
                Evidence::Near(a, b) => writeln!(body, "near\t{weight}\t{}\t{}", text(a), text(b)),
                Evidence::Sign(sign) => {
                    let name = SIGNS.iter().find(|(known, _)| *known == sign).map_or("", |(_, name)| name);
                    writeln!(body, "sign\t{weight}\t{name}")
                }
                Evidence::Fingerprint(print) => {
                    writeln!(body, "sqli\t{weight}\t{}", String::from_utf8_lossy(&print))
                }
            };
        }
        format!("{MAGIC}\nblake3 {}\n{body}", blake3::hash(body.as_bytes()).to_hex())
    }
}

/// Reads the file form.
pub(super) fn parse(text: &str) -> Result<Base, BaseError> {
    let wrong = |line: usize, message: &str| BaseError { line, message: message.to_owned() };
    let rest = text
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.strip_prefix('\n'))
        .ok_or_else(|| wrong(1, "not a base of this format"))?;
    let (sum, body) = rest.split_once('\n').ok_or_else(|| wrong(2, "ends early"))?;
    let id = sum.strip_prefix("blake3 ").ok_or_else(|| wrong(2, "no checksum"))?;
    if blake3::hash(body.as_bytes()).to_hex().as_str() != id {
        return Err(wrong(2, "the checksum does not match: the file was changed"));
    }
    let mut base = Base { id: id.to_owned(), ..Base::default() };
    let mut lexicon = Vec::new();
    let mut weights = Vec::new();
    for (index, line) in body.lines().enumerate() {
        let number = index + 3;
        let wrong = |message: &str| BaseError { line: number, message: message.to_owned() };
        let positive = |text: &str| {
            let number: f32 = text.parse().map_err(|_| wrong("not a number"))?;
            if number.is_finite() && number >= 0.0 {
                Ok(number)
            } else {
                Err(wrong("must be finite and not negative"))
            }
        };
        if base.words.len() > MOST || base.entries.len() > MOST {
            return Err(wrong("larger than any base"));
        }
        match *line.split(['\t']).collect::<Vec<_>>() {
            [line] => match *line.split(' ').collect::<Vec<_>>() {
                [
                    "threshold",
                    threshold,
                    "budget",
                    budget,
                    "confidence",
                    confidence,
                    "n",
                    n,
                    "certified",
                    certified,
                ] => {
                    base.promise = Promise {
                        threshold: positive(threshold)?,
                        budget: positive(budget)?,
                        confidence: positive(confidence)?,
                        n: n.parse().map_err(|_| wrong("not a number"))?,
                        certified: certified == "yes",
                    };
                }
                ["bias", ref biases @ ..] => {
                    base.bias = numbers(biases, &positive)?.ok_or_else(|| wrong("not one bias a kind"))?;
                }
                ["usual", ref usual @ ..] => {
                    base.usual = numbers(usual, &positive)?.ok_or_else(|| wrong("not one a place"))?;
                }
                _ => return Err(wrong("not a line of a base")),
            },
            ["word", word] => {
                let in_order = base.words.last().is_none_or(|last| **last < *word);
                if word.is_empty() || word.len() > WORD_BYTES || !in_order {
                    return Err(wrong("not a word, or out of order"));
                }
                let token = Token(FIXED + base.words.len() as u32);
                lexicon.push((table::hash(word.as_bytes()), token));
                base.words.push(word.into());
            }
            [kind, by_kind, ref parts @ ..] => {
                let evidence =
                    read_evidence(kind, parts, &base.words).ok_or_else(|| wrong("unknown evidence"))?;
                weights.push((table::hash_evidence(evidence), base.entries.len() as u16));
                base.entries.push((evidence, base.by_kind.len() as u32));
                for pair in by_kind.split(',') {
                    let (kind, weight) = pair.split_once(':').ok_or_else(|| wrong("not kind:log-odds"))?;
                    let kind: u8 = kind.parse().map_err(|_| wrong("not the number of a kind"))?;
                    if usize::from(kind) >= KINDS.len() {
                        return Err(wrong("a kind that there is not"));
                    }
                    base.by_kind.push((kind, positive(weight)?));
                }
            }
            [] => {}
        }
    }
    if base.promise.threshold <= 0.0 {
        return Err(wrong(3, "no threshold"));
    }
    base.lexicon = Table::new(&lexicon);
    base.weights = Table::new(&weights);
    base.known = table::Filter::new(base.entries.iter().map(|(evidence, _)| *evidence));
    Ok(base)
}

/// Exactly `N` numbers, or `None`.
fn numbers<const N: usize>(
    texts: &[&str],
    read: &impl Fn(&str) -> Result<f32, BaseError>,
) -> Result<Option<[f32; N]>, BaseError> {
    let numbers = texts.iter().map(|text| read(text)).collect::<Result<Vec<f32>, BaseError>>()?;
    Ok(numbers.try_into().ok())
}

fn read_evidence(kind: &str, parts: &[&str], words: &[Box<str>]) -> Option<Evidence> {
    let token = |text: &str| {
        Token::fixed(text).or_else(|| {
            let at = words.binary_search_by(|word| (**word).cmp(text)).ok()?;
            Some(Token(FIXED + u32::try_from(at).ok()?))
        })
    };
    Some(match (kind, parts) {
        ("token", [text]) => Evidence::Token(token(text)?),
        ("pair", [a, b]) => Evidence::Pair(token(a)?, token(b)?),
        ("triple", [a, b, c]) => Evidence::Triple(token(a)?, token(b)?, token(c)?),
        ("near", [a, b]) => Evidence::Near(token(a)?, token(b)?),
        ("sign", [text]) => Evidence::Sign(SIGNS.iter().find(|(_, name)| name == text)?.0),
        ("sqli", [print]) => Evidence::Fingerprint(print.as_bytes().try_into().ok()?),
        _ => return None,
    })
}
