//! Base knowledge: what attacks look like on any site, so that a gateway knows them in its first minute.
//!
//! A linear combiner with non-negative weights over evidence that reads as text: `union` before `select`, an
//! unbalanced quote, three steps up the directory tree. Weights are natural log-odds. Evidence adds up within one
//! window of one layer of one value, and the maximum counts, so padding cannot dilute it; nothing that is added
//! to a value takes evidence away. The file format is text ([`mod@file`]), so that the whole knowledge can be read.

use std::sync::LazyLock;

use crate::{
    injection::Said,
    score::Reason,
    values::{Location, Value, Values},
};

pub mod evidence;
pub mod file;
pub mod table;
pub mod token;

use evidence::{Evidence, SIGNS};
use file::BaseError;
use table::{Filter, Table};
use token::{FIXED, Token};

/// The base that ships with this version.
static SHIPPED: LazyLock<Base> =
    LazyLock::new(|| Base::parse(include_str!("../base/base.model")).unwrap_or_default());

/// The base knowledge that ships with this version.
pub fn shipped() -> &'static Base {
    &SHIPPED
}

/// Steps of a [`Strength`] in one unit of natural log-odds.
const STEPS: f32 = 64.0;

/// Attack evidence in one value: natural log-odds over harmless values in steps of 1/64, from 0.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Strength(pub u16);

impl Strength {
    /// Rounds log-odds; what is below 0 or not a number is 0.
    pub fn new(log_odds: f32) -> Self {
        Self((log_odds * STEPS).round().clamp(0.0, 65_535.0) as u16)
    }

    /// The log-odds.
    pub fn get(self) -> f32 {
        f32::from(self.0) / STEPS
    }
}

/// Places in a request that differ in how much strange text is usual there.
pub const PLACES: usize = 4;

/// How the places are called.
pub const PLACE_NAMES: [&str; PLACES] = ["path", "argument", "header", "cookie"];

/// The place that `location` belongs to, as an index into [`PLACE_NAMES`].
pub fn place(location: Location) -> usize {
    match location {
        Location::Path => 0,
        Location::Header => 2,
        Location::Cookie => 3,
        _ => 1,
    }
}

/// Hands out every text of a request that is looked at: the path, and each value's name and layers.
pub fn texts(values: &Values<'_>, mut each: impl FnMut(Location, &[u8])) {
    each(Location::Path, &path_text(values));
    for value in values.items.iter().filter(|value| is_judged(value)) {
        for text in value_texts(value) {
            each(value.location, text);
        }
    }
}

/// Room made for a path; most need no more.
const PATH_BYTES: usize = 128;

/// The whole decoded path, with the deeper layers of each segment after it.
pub fn path_text(values: &Values<'_>) -> Vec<u8> {
    let segments = values.items.iter().filter(|value| value.location == Location::Path);
    segments.flat_map(Value::layers).fold(Vec::with_capacity(PATH_BYTES), |mut path, layer| {
        path.push(b'/');
        path.extend_from_slice(layer);
        path
    })
}

/// The layers of a value, outermost first, and its name if that is more than a plain name.
pub fn value_texts<'a>(value: &'a Value<'_>) -> impl Iterator<Item = &'a [u8]> {
    value.layers().chain(odd_name(value))
}

/// The name of a value if it is more than a plain name.
pub fn odd_name<'a>(value: &'a Value<'_>) -> Option<&'a [u8]> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']');
    (!value.name.iter().all(plain)).then_some(&*value.name)
}

/// Whether a value is one to look at: not part of the path, and not a header field that describes the connection,
/// says nothing and changes on every hop.
pub fn is_judged(value: &Value<'_>) -> bool {
    let framing = value.location == Location::Header
        && matches!(
            &*value.name,
            b"host"
                | b"content-length"
                | b"transfer-encoding"
                | b"connection"
                | b"te"
                | b"via"
                | b"forwarded"
                | b"x-forwarded-for"
                | b"x-forwarded-proto"
                | b"x-forwarded-host"
                | b"x-forwarded-port"
                | b"x-request-id"
                | b"traceparent"
                | b"tracestate"
        );
    value.location != Location::Path && !framing
}

/// Kinds of attack that are told apart: evidence adds up within one kind, and the strongest kind counts.
pub const KINDS: [&str; 11] = [
    "SQL injection",
    "cross-site scripting",
    "path traversal",
    "command injection",
    "code injection",
    "template injection",
    "XML external entities",
    "request forgery or inclusion",
    "NoSQL injection",
    "LDAP or XPath injection",
    "header injection",
];

/// What a threshold promises on sites that were not learned from.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Promise {
    /// Log-odds from which on a request is flagged.
    pub threshold: f32,
    /// Highest share of harmless requests that are flagged.
    pub budget: f32,
    /// Confidence that the true share is within the budget.
    pub confidence: f32,
    /// Harmless requests of sites held out of training behind the promise.
    pub n: u64,
    /// Whether `n` is enough for the budget that was asked for.
    pub certified: bool,
}

/// The window of a layer that looks most like an attack.
struct Strongest {
    /// Evidence for its kind, in log-odds.
    log_odds: f32,
    /// Index into [`KINDS`].
    kind: usize,
    /// The pieces of evidence in it, as indices of entries.
    found: Vec<u16>,
}

/// The base knowledge, ready to score. The default knows nothing and flags nothing.
#[derive(Debug, Clone, Default)]
pub struct Base {
    id: String,
    promise: Promise,
    /// Log-odds that each kind needs before anything counts.
    bias: [f32; KINDS.len()],
    /// Evidence that is usual at each place, in log-odds.
    usual: [f32; PLACES],
    words: Vec<Box<str>>,
    lexicon: Table<Token>,
    /// Each piece of evidence, and where its weights begin in `by_kind`; they end where the next one's begin.
    entries: Vec<(Evidence, u32)>,
    by_kind: Vec<(u8, f32)>,
    weights: Table<u16>,
    known: Filter,
}

impl Base {
    /// Its checksum, hexadecimal; empty for no knowledge at all.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What its threshold promises.
    pub fn promise(&self) -> &Promise {
        &self.promise
    }

    /// Whether a request with `log_odds` is to be flagged.
    pub fn flags(&self, log_odds: f32) -> bool {
        !self.is_empty() && log_odds >= self.promise.threshold
    }

    /// Pieces of evidence known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Evidence in one layer of a value, of which the tokenizers said `said`.
    pub fn strength(&self, layer: &[u8], said: Said) -> Strength {
        let strongest = self.by_kind(layer, said).into_iter().zip(self.bias).map(|(sum, bias)| sum - bias);
        Strength::new(strongest.fold(0.0, f32::max))
    }

    /// The evidence for each kind in its strongest window, biases not taken off.
    pub fn by_kind(&self, layer: &[u8], said: Said) -> [f32; KINDS.len()] {
        let mut strongest = [0.0f32; KINDS.len()];
        self.windows(layer, said, |found| {
            for (strongest, sum) in strongest.iter_mut().zip(self.sums(found)) {
                *strongest = strongest.max(sum);
            }
        });
        strongest
    }

    /// Log-odds of a value at `location` with evidence `strength`, where `usual` is known to be normal there.
    pub fn log_odds(&self, location: Location, strength: Strength, usual: Strength) -> f32 {
        let usual_here = self.usual.get(place(location)).copied().unwrap_or(0.0);
        (strength.get() - usual_here.max(usual.get())).max(0.0)
    }

    /// The window of `layer` that looks most like an attack, and like which kind.
    fn strongest(&self, layer: &[u8]) -> Strongest {
        let mut strongest = Strongest { log_odds: f32::NEG_INFINITY, kind: 0, found: Vec::new() };
        self.windows(layer, Said::of(layer), |found| {
            for (kind, (sum, bias)) in self.sums(found).into_iter().zip(self.bias).enumerate() {
                if sum - bias > strongest.log_odds {
                    strongest = Strongest { log_odds: sum - bias, kind, found: found.to_vec() };
                }
            }
        });
        strongest
    }

    /// The evidence in a window for its kind, strongest first: how each piece reads, and its weight.
    fn pieces(&self, window: &Strongest) -> Vec<(String, f32)> {
        let mut pieces: Vec<_> = window
            .found
            .iter()
            .filter_map(|at| {
                let (evidence, _) = self.entries.get(usize::from(*at))?;
                let (_, weight) =
                    self.weights_of(*at).iter().find(|(of, _)| usize::from(*of) == window.kind)?;
                Some((self.describe(*evidence), *weight))
            })
            .collect();
        pieces.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        pieces
    }

    /// Why a value called `name` at `location` is suspicious, given its layers.
    pub fn reason<'a>(
        &self,
        location: Location,
        name: &str,
        layers: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Reason> {
        let windows = layers.map(|layer| self.strongest(layer));
        let strongest = windows.max_by(|a, b| a.log_odds.total_cmp(&b.log_odds))?;
        let said: Vec<String> = self
            .pieces(&strongest)
            .into_iter()
            .take(6)
            .map(|(text, weight)| format!("{text} ({weight:.1})"))
            .collect();
        let kind = KINDS.get(strongest.kind).copied().unwrap_or_default();
        let observed = self.log_odds(location, Strength::new(strongest.log_odds), Strength::default());
        let place = match (location, name) {
            (Location::Path, _) => "the path".to_owned(),
            (_, "") => format!("the {}", PLACE_NAMES.get(place(location)).copied().unwrap_or("value")),
            (_, name) => format!("{} `{name}`", PLACE_NAMES.get(place(location)).copied().unwrap_or("value")),
        };
        Some(Reason {
            feature: "base".to_owned(),
            share: 1.0,
            observed,
            usual: (0.0, self.promise.threshold),
            text: format!("{place} looks like {kind}: {}", said.join(", ")),
        })
    }

    fn windows(&self, layer: &[u8], said: Said, each: impl FnMut(&[u16])) {
        evidence::windows(
            layer,
            said,
            |word| self.lexicon.find(table::hash(word), |token| self.word(token) == Some(word)),
            |evidence| {
                if !self.known.passes(evidence) {
                    return None;
                }
                let known =
                    |at: u16| self.entries.get(usize::from(at)).is_some_and(|(known, _)| *known == evidence);
                self.weights.find(table::hash_evidence(evidence), known)
            },
            each,
        );
    }

    fn word(&self, token: Token) -> Option<&[u8]> {
        let at = usize::try_from(token.0.checked_sub(FIXED)?).ok()?;
        self.words.get(at).map(|word| word.as_bytes())
    }

    /// The weights of one piece of evidence, by kind.
    fn weights_of(&self, at: u16) -> &[(u8, f32)] {
        let from = self.entries.get(usize::from(at)).map_or(0, |(_, from)| *from as usize);
        let to = self.entries.get(usize::from(at) + 1).map_or(self.by_kind.len(), |(_, to)| *to as usize);
        self.by_kind.get(from..to).unwrap_or_default()
    }

    fn sums(&self, found: &[u16]) -> [f32; KINDS.len()] {
        let mut sums = [0.0; KINDS.len()];
        for (kind, weight) in found.iter().flat_map(|at| self.weights_of(*at)) {
            if let Some(sum) = sums.get_mut(usize::from(*kind)) {
                *sum += weight;
            }
        }
        sums
    }

    fn token_text(&self, token: Token) -> String {
        token
            .text()
            .or_else(|| Some(String::from_utf8_lossy(self.word(token)?).into_owned()))
            .unwrap_or_default()
    }

    /// A piece of evidence in words.
    fn describe(&self, evidence: Evidence) -> String {
        let text = |token| self.token_text(token);
        match evidence {
            Evidence::Token(token) => format!("contains `{}`", text(token)),
            Evidence::Pair(Token::START, next) => format!("starts with `{}`", text(next)),
            Evidence::Pair(previous, Token::END) => format!("ends with `{}`", text(previous)),
            Evidence::Pair(previous, next) => {
                format!("contains `{}` next to `{}`", text(previous), text(next))
            }
            Evidence::Triple(Token::START, a, b) => format!("starts with `{} {}`", text(a), text(b)),
            Evidence::Triple(a, b, Token::END) => format!("ends with `{} {}`", text(a), text(b)),
            Evidence::Triple(a, b, c) => format!("contains `{} {} {}`", text(a), text(b), text(c)),
            Evidence::Near(first, second) => {
                format!("contains `{}` before `{}`", text(first), text(second))
            }
            Evidence::Sign(sign) => SIGNS
                .iter()
                .find(|(known, _)| *known == sign)
                .map(|(_, text)| (*text).to_owned())
                .unwrap_or_default(),
            Evidence::Fingerprint(print) => {
                format!("has the SQL fingerprint {}", String::from_utf8_lossy(&print))
            }
        }
    }

    /// Reads the file format.
    ///
    /// # Errors
    /// A damaged or foreign file, with the line.
    pub fn parse(text: &str) -> Result<Self, BaseError> {
        file::parse(text)
    }
}

#[cfg(test)]
mod tests;
