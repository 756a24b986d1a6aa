//! Evidence in one layer of a value: its tokens, neighboring tokens, words that follow each other, and its form.

use super::token::{Token, scan};
use crate::{injection::Said, repeats};

/// Tokens of a window: evidence adds up within one, and the strongest window counts, so that padding cannot dilute.
pub const WINDOW: u8 = 32;

/// Most pieces of evidence in one window: six a token, and the form of the whole.
const PIECES: usize = 6 * WINDOW as usize + 24;

/// Tokens between two words of the vocabulary that still follow each other.
const NEAR: u8 = 3;

/// One piece of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// A token.
    Token(Token),
    /// A token right after another.
    Pair(Token, Token),
    /// Three tokens in a row.
    Triple(Token, Token, Token),
    /// A word of the vocabulary after another, with at most three other tokens between them.
    Near(Token, Token),
    /// Something about the whole layer.
    Sign(Sign),
    /// The SQL tokenizer's fingerprint.
    Fingerprint([u8; 5]),
}

/// Something about the whole layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sign {
    /// An odd number of `'`.
    OddSingleQuotes,
    /// An odd number of `"`.
    OddDoubleQuotes,
    /// An odd number of backticks.
    OddBackticks,
    /// A closing bracket that nothing opened.
    ClosesUnopened,
    /// An opening bracket that nothing closes.
    LeftOpen,
    /// `>` before any `<`.
    ClosesTag,
    /// Reads like cross-site scripting.
    Xss,
    /// Reads like SQL injection.
    Sqli,
    /// Three or more steps to a parent directory.
    Climbs,
    /// More punctuation than letters and digits.
    MostlyPunctuation,
}

/// Every sign and how it reads.
pub const SIGNS: [(Sign, &str); 10] = [
    (Sign::OddSingleQuotes, "unbalanced single quote"),
    (Sign::OddDoubleQuotes, "unbalanced double quote"),
    (Sign::OddBackticks, "unbalanced backtick"),
    (Sign::ClosesUnopened, "closes a bracket that is not open"),
    (Sign::LeftOpen, "leaves a bracket open"),
    (Sign::ClosesTag, "closes a tag that is not open"),
    (Sign::Xss, "reads like cross-site scripting"),
    (Sign::Sqli, "reads like SQL injection"),
    (Sign::Climbs, "climbs three or more directories"),
    (Sign::MostlyPunctuation, "mostly punctuation"),
];

/// Pieces found so far, each at the number of its token in the window.
struct Pieces<T> {
    items: [(u8, T); PIECES],
    count: usize,
}

impl<T: Copy + Default + Ord> Pieces<T> {
    fn push(&mut self, at: u8, piece: Option<T>) {
        if let (Some(piece), Some(cell)) = (piece, self.items.get_mut(self.count)) {
            *cell = (at, piece);
            self.count += 1;
        }
    }

    /// Hands out the distinct pieces, and forgets those of the first `tokens` of the window.
    fn flush(&mut self, tokens: u8, signs: &[T], each: &mut impl FnMut(&[T])) {
        if self.count == 0 {
            return each(signs);
        }
        let mut distinct = [T::default(); PIECES];
        let mut count = 0;
        for piece in self.items.iter().take(self.count).map(|(_, piece)| piece).chain(signs) {
            if let Some(cell) = distinct.get_mut(count) {
                *cell = *piece;
                count += 1;
            }
        }
        let found = distinct.get_mut(..count).unwrap_or_default();
        found.sort_unstable();
        let mut kept = 0;
        for at in 0..found.len() {
            let Some(&piece) = found.get(at) else { break };
            if kept == 0 || found.get(kept - 1) != Some(&piece) {
                if let Some(cell) = found.get_mut(kept) {
                    *cell = piece;
                }
                kept += 1;
            }
        }
        each(found.get(..kept).unwrap_or_default());
        let mut left = 0;
        for at in 0..self.count {
            let Some(&(number, piece)) = self.items.get(at) else { break };
            if let (Some(number), Some(cell)) = (number.checked_sub(tokens), self.items.get_mut(left)) {
                *cell = (number, piece);
                left += 1;
            }
        }
        self.count = left;
    }
}

/// Hands out, window by window, the distinct pieces of evidence in `text`. `word` looks a lower-case word up,
/// `resolve` turns evidence into what is wanted of it, `None` where nothing is.
pub fn windows<T: Copy + Default + Ord>(
    text: &[u8],
    said: Said,
    word: impl FnMut(&[u8]) -> Option<Token>,
    mut resolve: impl FnMut(Evidence) -> Option<T>,
    mut each: impl FnMut(&[T]),
) {
    let mut signs = [T::default(); SIGNS.len() + 1];
    let mut count = 0;
    let fingerprint = said.sqli.map(Evidence::Fingerprint);
    for sign in signs_of(text, said).map(Evidence::Sign).chain(fingerprint) {
        if let (Some(piece), Some(cell)) = (resolve(sign), signs.get_mut(count)) {
            *cell = piece;
            count += 1;
        }
    }
    let signs = signs.get(..count).unwrap_or_default();
    let mut pieces = Pieces { items: [(0, T::default()); PIECES], count: 0 };
    // The number of the next token in the window.
    let mut at = 0;
    let mut first_window = true;
    let mut previous = Token::START;
    let mut before = None;
    let mut soft = None;
    let mut last_word: Option<(Token, u8)> = None;
    let mut take = |token: Token| {
        pieces.push(at, resolve(Evidence::Token(token)));
        if token.is_soft() {
            soft = Some(token);
        } else {
            pieces.push(at, resolve(Evidence::Pair(previous, token)));
            if let Some(before) = before {
                pieces.push(at, resolve(Evidence::Triple(before, previous, token)));
            }
            if let Some(soft) = soft.take() {
                pieces.push(at, resolve(Evidence::Pair(soft, token)));
            }
            if let Some((word, distance)) = last_word
                && token.is_known_word()
                && distance > 0
            {
                pieces.push(at, resolve(Evidence::Near(word, token)));
            }
            last_word = match last_word {
                _ if token.is_known_word() => Some((token, 0)),
                Some((word, distance)) if distance < NEAR => Some((word, distance + 1)),
                _ => None,
            };
            before = Some(previous);
            previous = token;
        }
        at += 1;
        if at == WINDOW {
            pieces.flush(WINDOW / 2, signs, &mut each);
            at = WINDOW / 2;
            first_window = false;
        }
    };
    scan(&repeats::shortened(text), word, &mut take);
    take(Token::END);
    if pieces.count > 0 || first_window {
        pieces.flush(u8::MAX, signs, &mut each);
    }
}

/// What one byte says about the layer it stands in.
#[derive(Clone, Copy)]
struct Facts {
    /// Letters, digits, spaces and whatever is not ASCII.
    is_plain: bool,
    /// A bit for each kind of quote.
    quote: u8,
    /// Whether it opens a bracket, or closes one.
    opens: i8,
    is_slash: bool,
}

/// The facts about every byte.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and the loop stays inside")]
static FACTS: [Facts; 256] = {
    let mut facts = [Facts { is_plain: false, quote: 0, opens: 0, is_slash: false }; 256];
    let mut at = 0;
    while at < facts.len() {
        let byte = at as u8;
        facts[at] = Facts {
            is_plain: matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | 0x80..),
            quote: match byte {
                b'\'' => 1,
                b'"' => 2,
                b'`' => 4,
                _ => 0,
            },
            opens: match byte {
                b'(' | b'[' | b'{' => 1,
                b')' | b']' | b'}' => -1,
                _ => 0,
            },
            is_slash: matches!(byte, b'/' | b'\\'),
        };
        at += 1;
    }
    facts
};

/// The loop has no branches: random text would take every one of them by surprise.
fn signs_of(text: &[u8], said: Said) -> impl Iterator<Item = Sign> + use<> {
    let (mut odd, mut plain, mut climbs) = (0u8, 0usize, 0usize);
    let (mut depth, mut unopened) = (0i64, false);
    let mut before = [0, 0];
    for &byte in text {
        let Some(facts) = FACTS.get(usize::from(byte)) else { continue };
        odd ^= facts.quote;
        plain += usize::from(facts.is_plain);
        climbs += usize::from(facts.is_slash & (before == *b".."));
        unopened |= (facts.opens < 0) & (depth <= 0);
        depth += i64::from(facts.opens);
        before = [before[1], byte];
    }
    let closes_tag = memchr::memchr2(b'<', b'>', text).is_some_and(|at| text.get(at) == Some(&b'>'));
    let found = [
        odd & 1 != 0,
        odd & 2 != 0,
        odd & 4 != 0,
        unopened,
        depth > 0,
        closes_tag,
        said.xss,
        said.sqli.is_some(),
        climbs >= 3,
        text.len() >= 4 && plain * 2 < text.len(),
    ];
    SIGNS.into_iter().zip(found).filter(|(_, found)| *found).map(|((sign, _), _)| sign)
}
