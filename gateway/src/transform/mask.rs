//! Masks in responses: named fields of JSON, numbers of payment cards, and keys that open something.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::json::{Edits, NotJson};
use crate::config::Toggle;

/// What is masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Fields of JSON.
    pub fields: Edits,
    /// Numbers of payment cards.
    pub cards: Toggle,
    /// Keys and tokens of known forms.
    pub keys: Toggle,
    /// What becomes of a body that cannot be looked through.
    pub beyond: Beyond,
}

/// What becomes of a response that cannot be looked through as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    /// It is withheld.
    Withhold,
    /// It goes as it is, and is counted.
    Pass,
}

/// Keys by the forms that their makers gave them; private keys with what follows their first line.
static KEYS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let forms = [
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
        r"\bgh[oprsu]_[0-9A-Za-z]{36,255}\b",
        r"\bgithub_pat_[0-9A-Za-z_]{22,255}\b",
        r"\bglpat-[0-9A-Za-z_-]{20,}",
        r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}",
        r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,}\b",
        r"\bAIza[0-9A-Za-z_-]{35}",
        r"\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*",
        r"-----BEGIN [0-9A-Z ]*PRIVATE KEY-----[0-9A-Za-z+/=\s\\:,.-]*",
    ];
    Regex::new(&format!("(?-u){}", forms.join("|"))).ok()
});

/// First digits and numbers of digits of card numbers in use (ISO/IEC 7812 and the schemes' own lists): the lowest and
/// highest of the first four digits, and the lengths.
const SCHEMES: [(u32, u32, &[usize]); 11] = [
    (4000, 4999, &[13, 16, 19]),
    (5100, 5599, &[16]),
    (2221, 2720, &[16]),
    (3400, 3499, &[15]),
    (3700, 3799, &[15]),
    (6011, 6011, &[16, 19]),
    (6440, 6599, &[16, 19]),
    (3528, 3589, &[16, 19]),
    (3000, 3059, &[14]),
    (3600, 3899, &[14]),
    (6200, 6299, &[16, 17, 18, 19]),
];

impl Mask {
    /// The text without what is masked.
    ///
    /// # Errors
    /// Fields are to be masked in what says that it is JSON, and is not.
    pub fn apply(&self, text: &[u8], is_json: bool) -> Result<Vec<u8>, NotJson> {
        let mut text =
            if is_json && !self.fields.is_empty() { self.fields.apply(text)? } else { text.to_vec() };
        if self.cards == Toggle::On {
            text = cards(&text, is_json);
        }
        if self.keys == Toggle::On
            && let Some(keys) = &*KEYS
        {
            text = keys.replace_all(&text, &b"***"[..]).into_owned();
        }
        Ok(text)
    }
}

/// Digits of card numbers but the last four become `*`; a number in JSON becomes 0.
fn cards(text: &[u8], is_json: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if !byte.is_ascii_digit() {
            out.push(byte);
            at += 1;
            continue;
        }
        match card(text, at) {
            Some(end) if starts_alone(text, at) => {
                let number = text.get(at..end).unwrap_or_default();
                if is_json && is_bare(text, at, end) {
                    out.push(b'0');
                } else {
                    let digits = number.iter().filter(|byte| byte.is_ascii_digit()).count();
                    let mut seen = 0;
                    out.extend(number.iter().map(|byte| {
                        seen += usize::from(byte.is_ascii_digit());
                        if byte.is_ascii_digit() && seen + 4 <= digits { b'*' } else { *byte }
                    }));
                }
                at = end;
            }
            // No other number starts within the same digits.
            _ => {
                let end = text
                    .get(at..)
                    .unwrap_or_default()
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                out.extend_from_slice(text.get(at..at + end).unwrap_or_default());
                at += end;
            }
        }
    }
    out
}

/// Whether what starts at `at` is no end of a word or of a fraction.
fn starts_alone(text: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|at| text.get(at));
    let is_fraction = before == Some(&b'.')
        && at.checked_sub(2).and_then(|at| text.get(at)).is_some_and(u8::is_ascii_digit);
    // A line feed before it may be written in two characters.
    let is_escape = matches!(before, Some(b'n' | b'r' | b't'))
        && at.checked_sub(2).and_then(|at| text.get(at)) == Some(&b'\\');
    !is_fraction && before.is_none_or(|byte| is_escape || !(byte.is_ascii_alphanumeric() || *byte == b'_'))
}

/// The end of the longest card number that starts at `at`, with single blanks or dashes between its digits.
fn card(text: &[u8], at: usize) -> Option<usize> {
    let mut digits = Vec::with_capacity(19);
    let (mut next, mut found) = (at, None);
    while let Some(digit) = text.get(next).filter(|byte| byte.is_ascii_digit()) {
        digits.push(u32::from(digit - b'0'));
        next += 1;
        let after = text.get(next);
        let ends = match after {
            Some(b'.') => !text.get(next + 1).is_some_and(u8::is_ascii_digit),
            Some(byte) => !(byte.is_ascii_alphanumeric() || *byte == b'_'),
            None => true,
        };
        if ends && is_card(&digits) {
            found = Some(next);
        }
        if digits.len() == 19 {
            break;
        }
        if matches!(after, Some(b' ' | b'-')) {
            next += 1;
        }
    }
    found
}

fn is_card(digits: &[u32]) -> bool {
    let Some(first) = digits.get(..4) else { return false };
    let first = first.iter().fold(0, |number, digit| number * 10 + digit);
    let is_known = SCHEMES
        .iter()
        .any(|(low, high, lengths)| (*low..=*high).contains(&first) && lengths.contains(&digits.len()));
    // The check digit, ISO/IEC 7812-1.
    let weighed = digits.iter().rev().enumerate().map(|(at, digit)| match at % 2 {
        0 => *digit,
        _ => digit * 2 / 10 + digit * 2 % 10,
    });
    is_known && weighed.sum::<u32>().is_multiple_of(10)
}

/// Whether these digits are a number of JSON rather than part of a text. In doubt they are: a text that a comma begins
/// loses its digits, which is no harm.
fn is_bare(text: &[u8], at: usize, end: usize) -> bool {
    let before = text.get(..at).unwrap_or_default().trim_ascii_end().last();
    let after = text.get(end..).unwrap_or_default().trim_ascii_start().first();
    matches!(before, None | Some(b':' | b',' | b'[')) && matches!(after, None | Some(b',' | b'}' | b']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str, is_json: bool) -> String {
        let mask =
            Mask { fields: Edits::default(), cards: Toggle::On, keys: Toggle::On, beyond: Beyond::Withhold };
        String::from_utf8(mask.apply(text.as_bytes(), is_json).unwrap()).unwrap()
    }

    #[test]
    fn numbers_of_cards_are_masked_and_others_are_not() {
        for (text, expected) in [
            ("4111111111111111", "************1111"),
            ("pay 5500-0000-0000-0004 2024", "pay ****-****-****-0004 2024"),
            ("3782 822463 10005.", "**** ****** *0005."),
            ("a\\n4111111111111111\\nb", "a\\n************1111\\nb"),
        ] {
            assert_eq!(masked(text, false), expected);
            assert_eq!(
                masked(&format!("{{\"a\": \"x {text}\"}}"), true),
                format!("{{\"a\": \"x {expected}\"}}")
            );
        }
        for text in [
            "4111111111111112",
            "14111111111111111",
            "x4111111111111111",
            "0.4111111111111111",
            "4111111111111111.5",
            "1764007012345",
            "4111  1111 1111 1111",
            "6f1e4111111111111111",
            "4111111111111111a",
        ] {
            assert_eq!(masked(text, false), text);
        }
        assert_eq!(
            masked("{\"a\":4111111111111111, \"b\":[ 5500000000000004 ]}", true),
            "{\"a\":0, \"b\":[ 0 ]}"
        );
    }

    #[test]
    fn keys_are_masked_and_ids_are_not() {
        for (text, expected) in [
            ("{\"k\":\"AKIAIOSFODNN7EXAMPLE\"}", "{\"k\":\"***\"}"),
            ("ghp_0123456789abcdefghijABCDEFGHIJ456789", "***"),
            ("sk_live_0123456789abcdefABCD", "***"),
            ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "Bearer ***"),
            ("-----BEGIN RSA PRIVATE KEY-----\\nMIIE+/=\\n-----END RSA PRIVATE KEY-----\\n\"", "***\""),
        ] {
            assert_eq!(masked(text, true), expected);
        }
        for text in [
            "0190b3a4-1111-7222-8333-444455556666",
            "d41d8cd98f00b204e9800998ecf8427e",
            "BAKIAIOSFODNN7EXAMPLE",
        ] {
            assert_eq!(masked(text, true), text);
        }
    }
}
