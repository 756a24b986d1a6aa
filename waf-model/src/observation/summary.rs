//! ValueSummary: what one value looks like, over all its decoding layers, without the value.
//!
//! Everything here survives padding: sets of characters and character pairs only grow when benign text is added
//! around an attack, and densities are maxima over windows, never means.

use std::{cell::RefCell, sync::LazyLock};

use serde::{Deserialize, Serialize};

use super::{
    ValueKey,
    census::{Census, class, fine_class},
};
use crate::{
    base::{self, Strength},
    injection::Said,
    memo::Memo,
};

thread_local! {
    static SUMMARIES: RefCell<Memo<ValueSummary>> = RefCell::default();
}

/// Changes whenever a summary of the same value would come out differently; part of the schema id.
pub const VERSION: &[u8] = b"summary 3";

/// Fine character classes: letters, digits and so on, then each ASCII punctuation character by itself.
pub const CHARS: usize = 41;

/// Coarse character classes, for pairs.
pub const COARSE: usize = 12;

/// Longest run structure that is hashed, in runs.
const FORM_RUNS: usize = 24;

/// What one value looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ValueSummary {
    /// Bytes of the outermost layer.
    pub bytes: u32,
    /// What the outermost layer is, taken as a whole.
    pub kind: Kind,
    /// Fine character classes present in any layer, one bit each; see [`char_name`].
    pub chars: u64,
    /// Pairs of coarse character classes present in any layer: bit `12 * first + second`.
    pub pairs: [u64; 3],
    /// Hash of the outermost layer's sequence of character-class runs (`letters digits dash digits`).
    pub form: u64,
    /// Keyed hash of the outermost layer; 0 where even that is not kept.
    pub hash: u64,
    /// Shannon entropy of the outermost layer, bits a byte.
    pub entropy: f32,
    /// For numbers: quarter-octaves of the absolute value, negative for negative numbers; else 0.
    pub magnitude: i16,
    /// Layers of decoding below the outermost.
    pub layers: u8,
    /// Attack-language evidence, the maximum over layers and windows.
    pub lexical: Lexical,
    /// Attack evidence by the base that ships with this version, the maximum over layers and windows.
    pub attack: Strength,
}

/// What a value is, taken as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No bytes.
    #[default]
    Empty,
    /// Decimal digits with an optional sign.
    Int,
    /// A decimal number with a fraction or exponent.
    Number,
    /// 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// At least eight hexadecimal digits.
    Hex,
    /// Digits with date and time punctuation.
    Date,
    /// Something like `a@b.c`.
    Email,
    /// Scheme and authority.
    Url,
    /// ASCII letters only.
    Word,
    /// ASCII letters, digits, dash, underscore, dot.
    Slug,
    /// At least sixteen characters of a base64 alphabet.
    Base64,
    /// Words with spaces and everyday punctuation, any script.
    Text,
    /// Everything else.
    Other,
}

/// Number of [`Kind`]s.
pub const KINDS: usize = 13;

/// Attack-language evidence: counts in the densest window of 64 bytes, and the tokenizer's verdicts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lexical {
    /// `'`, `"` and backtick.
    pub quotes: u8,
    /// `<` and `>`.
    pub angles: u8,
    /// Round, square and curly brackets.
    pub brackets: u8,
    /// `;`, `|`, `&`, `$`.
    pub shell: u8,
    /// `../` and `..\`.
    pub traversal: u8,
    /// `--`, `/*`, `*/` and `#`.
    pub comment: u8,
    /// `%` that is left after decoding.
    pub percent: u8,
    /// Control characters other than tab and line ends.
    pub control: u8,
    /// Bytes that are not UTF-8.
    pub invalid: u8,
    /// SQL injection by libinjection's method.
    pub sqli: bool,
    /// Cross-site scripting by libinjection's method.
    pub xss: bool,
}

impl ValueSummary {
    /// Summarizes a value given as its layers, outermost first.
    pub fn of<'a>(mut layers: impl Iterator<Item = &'a [u8]>, key: &ValueKey) -> Self {
        let Some(outer) = layers.next() else { return Self::default() };
        let mut summary = Memo::recall(&SUMMARIES, 0, outer, || Self::of_text(outer));
        summary.hash = key.hash(outer);
        for layer in layers {
            summary.layers = summary.layers.saturating_add(1);
            summary.add_layer(layer, &Census::of(layer));
        }
        summary
    }

    /// Summarizes a value of one layer, without its hash.
    fn of_text(text: &[u8]) -> Self {
        let census = Census::of(text);
        let mut summary = Self {
            bytes: u32::try_from(text.len()).unwrap_or(u32::MAX),
            kind: Kind::of(text, &census),
            form: form(text),
            entropy: entropy(text),
            magnitude: magnitude(text),
            ..Self::default()
        };
        summary.add_layer(text, &census);
        summary
    }

    fn add_layer(&mut self, text: &[u8], census: &Census) {
        self.chars |= census.chars;
        for (all, pairs) in self.pairs.iter_mut().zip(census.pairs) {
            *all |= pairs;
        }
        let said = Said::of(text);
        self.lexical = self.lexical.max(Lexical::of(text, census, said));
        self.attack = self.attack.max(base::shipped().strength(text, said));
    }

    /// Indices of the fine classes present.
    pub fn char_classes(&self) -> impl Iterator<Item = usize> + use<> {
        bits(self.chars)
    }

    /// Indices (`12 * first + second`) of the pairs present.
    pub fn pair_classes(&self) -> impl Iterator<Item = usize> + use<> {
        let pairs = self.pairs;
        pairs.into_iter().enumerate().flat_map(|(word, pairs)| bits(pairs).map(move |bit| 64 * word + bit))
    }
}

/// Indices of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            bit
        })
    })
}

impl Lexical {
    fn of(text: &[u8], census: &Census, said: Said) -> Self {
        let invalid = if census.has(class::FOREIGN) {
            text.utf8_chunks().filter(|chunk| !chunk.invalid().is_empty()).count().min(255)
        } else {
            0
        };
        Self { invalid: invalid as u8, sqli: said.sqli.is_some(), xss: said.xss, ..census.lexical() }
    }

    fn max(self, other: Self) -> Self {
        Self {
            quotes: self.quotes.max(other.quotes),
            angles: self.angles.max(other.angles),
            brackets: self.brackets.max(other.brackets),
            shell: self.shell.max(other.shell),
            traversal: self.traversal.max(other.traversal),
            comment: self.comment.max(other.comment),
            percent: self.percent.max(other.percent),
            control: self.control.max(other.control),
            invalid: self.invalid.max(other.invalid),
            sqli: self.sqli || other.sqli,
            xss: self.xss || other.xss,
        }
    }
}

impl Kind {
    /// What `text` is, taken as a whole; `census` is its census.
    pub fn of(text: &[u8], census: &Census) -> Self {
        const NUMERIC: u64 = class::DIGITS | class::of(b"-+");
        const SLUG: u64 = class::LETTERS | class::DIGITS | class::of(b"-_.");
        const BASE64: u64 = class::LETTERS | class::DIGITS | class::of(b"+/=-_");
        const TEXT: u64 = class::LETTERS | class::DIGITS | class::FOREIGN | class::of(b" ,.!?-':\n\r_");
        const DATE: u64 = class::DIGITS | class::of(b"-/:. TZ+");
        let all = |test: fn(&u8) -> bool| text.iter().all(test);
        let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
        let has_digit = census.has(class::DIGITS);
        let alphanumeric = census.only(class::LETTERS | class::DIGITS);
        match () {
            () if text.is_empty() => Self::Empty,
            () if census.only(NUMERIC) && has_digit && unsigned.iter().all(u8::is_ascii_digit) => Self::Int,
            () if number(text).is_some() => Self::Number,
            () if text.len() == 36 && all(|b| b.is_ascii_hexdigit() || *b == b'-') => Self::Uuid,
            () if text.len() >= 8 && has_digit && alphanumeric && all(u8::is_ascii_hexdigit) => Self::Hex,
            () if text.len() >= 8 && has_digit && census.only(DATE) && all(is_date) => Self::Date,
            () if census.has(class::of(b"@")) && is_email(text) => Self::Email,
            () if census.only(class::GRAPHIC)
                && census.has(class::of(b":"))
                && text.array_windows().any(|three| three == b"://") =>
            {
                Self::Url
            }
            () if census.only(class::LETTERS) => Self::Word,
            () if census.only(SLUG) => Self::Slug,
            () if text.len() >= 16 && census.only(BASE64) => Self::Base64,
            // Line ends are of one class with tabs.
            () if census.only(TEXT) && !(census.has(class::of(b"\n")) && text.contains(&b'\t')) => Self::Text,
            () => Self::Other,
        }
    }
}

fn is_date(byte: &u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'/' | b':' | b'.' | b' ' | b'T' | b'Z' | b'+')
}

fn is_email(text: &[u8]) -> bool {
    let mut parts = text.split(|b| *b == b'@');
    let (Some(local), Some(domain), None) = (parts.next(), parts.next(), parts.next()) else { return false };
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'\'');
    !local.is_empty() && local.iter().all(plain) && domain.contains(&b'.') && domain.iter().all(plain)
}

fn number(text: &[u8]) -> Option<f64> {
    if text.len() > 40
        || !text.iter().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'))
    {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Quarter-octaves: coarse enough to hide the number, fine enough to see that a quantity is out of range.
fn magnitude(text: &[u8]) -> i16 {
    number(text).map_or(0, |number| {
        let octaves = ((number.abs() + 1.0).log2() * 4.0).round().min(4096.0);
        (octaves * number.signum()) as i16
    })
}

/// Hash of the sequence of runs; letters of both cases are one class here.
fn form(text: &[u8]) -> u64 {
    use std::hash::Hasher as _;
    let mut runs = [0u8; FORM_RUNS];
    let mut count = 0;
    let mut previous = None;
    for &byte in text {
        let class = if byte.is_ascii_alphabetic() { 0 } else { fine_class(byte) };
        if previous != Some(class) {
            let Some(run) = runs.get_mut(count) else { break };
            *run = class;
            previous = Some(class);
            count += 1;
        }
    }
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(runs.get(..count).unwrap_or_default());
    hasher.finish()
}

/// `n log2 n` for small `n`: most bytes occur a few times only.
static N_LOG_N: LazyLock<[f32; 64]> =
    LazyLock::new(|| std::array::from_fn(|n| if n == 0 { 0.0 } else { n as f32 * (n as f32).log2() }));

/// Shannon entropy in bits a byte, of at most the first 8 KiB: `log2 N - (sum of n log2 n) / N` over the counts `n`
/// of the bytes that occur.
fn entropy(text: &[u8]) -> f32 {
    let text = text.get(..8192).unwrap_or(text);
    if text.is_empty() {
        return 0.0;
    }
    let mut counts = [0u16; 256];
    for &byte in text {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let known = &*N_LOG_N;
    let n_log_n = |count: u16| {
        let n = f32::from(count);
        known.get(usize::from(count)).copied().unwrap_or_else(|| n * n.log2())
    };
    // Every byte takes its count with it: what occurs is visited once, without a walk over all that could.
    let mut sum = 0.0;
    for &byte in text {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            sum += n_log_n(std::mem::take(count));
        }
    }
    let total = text.len() as f32;
    (total.log2() - sum / total).max(0.0)
}

/// The fine class `class` in words, for explanations.
pub fn char_name(class: usize) -> &'static str {
    const NAMES: [&str; CHARS] = [
        "lower-case letters",
        "upper-case letters",
        "digits",
        "space",
        "tab or line end",
        "NUL",
        "non-ASCII",
        "non-ASCII",
        "control characters",
        "!",
        "\"",
        "#",
        "$",
        "%",
        "&",
        "'",
        "(",
        ")",
        "*",
        "+",
        ",",
        "-",
        ".",
        "/",
        ":",
        ";",
        "<",
        "=",
        ">",
        "?",
        "@",
        "[",
        "\\",
        "]",
        "^",
        "_",
        "`",
        "{",
        "|",
        "}",
        "~",
    ];
    NAMES.get(class).copied().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ValueKey = ValueKey([7; 16]);

    fn summary(text: &str) -> ValueSummary {
        ValueSummary::of(std::iter::once(text.as_bytes()), &KEY)
    }

    #[test]
    fn kinds() {
        for (text, kind) in [
            ("", Kind::Empty),
            ("-17", Kind::Int),
            ("3.5", Kind::Number),
            ("550e8400-e29b-41d4-a716-446655440000", Kind::Uuid),
            ("deadbeef01", Kind::Hex),
            ("2026-11-23T10:00:00Z", Kind::Date),
            ("jane@example.com", Kind::Email),
            ("https://example.com/a?b=c", Kind::Url),
            ("hello", Kind::Word),
            ("hello-world_2.0", Kind::Slug),
            ("aGVsbG8gd29ybGQhIQ==", Kind::Base64),
            ("Vino Rioja, año 2019", Kind::Text),
            ("1' or 1=1", Kind::Other),
        ] {
            assert_eq!(Kind::of(text.as_bytes(), &Census::of(text.as_bytes())), kind, "{text}");
        }
    }

    #[test]
    fn padding_does_not_hide_what_is_there() {
        let bare = summary("1' or 1=1-- -").lexical;
        let padded = format!("{}1' or 1=1-- -{}", "lorem ipsum ".repeat(400), " dolor sit".repeat(400));
        let padded = summary(&padded);
        assert!(padded.lexical.quotes >= bare.quotes && padded.lexical.comment >= bare.comment);
        let bare = summary("1' or 1=1-- -");
        assert_eq!(padded.chars & bare.chars, bare.chars);
        for (padded, bare) in padded.pairs.iter().zip(bare.pairs) {
            assert_eq!(padded & bare, bare);
        }
    }

    #[test]
    fn the_same_structure_has_the_same_form() {
        assert_eq!(summary("12345678Z").form, summary("87654321A").form);
        assert_ne!(summary("12345678Z").form, summary("Z12345678").form);
        assert_ne!(summary("12345678Z").form, summary("12345678Z'").form);
    }
}
