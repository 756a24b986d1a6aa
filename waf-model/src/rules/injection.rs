//! SQL and script injection by libinjection's method, which a kept library implements.
//!
//! The library reads every text token by token, which is by far the most expensive thing that a rule set does to an
//! ordinary value. So it is only asked about texts that could possibly have one of its fingerprints.

use std::{collections::HashSet, sync::LazyLock};

use libinjectionrs::sqli::sqli_data::SQL_KEYWORDS;

use super::literals::byte_mask;

/// Whether `text` reads like injected SQL.
pub(super) fn is_sqli(text: &[u8], mask: u64) -> bool {
    may_be_sqli(text, mask) && detected(text, |text| libinjectionrs::detect_sqli(text).is_injection())
}

/// Whether `text` reads like injected markup or script.
pub(super) fn is_xss(text: &[u8]) -> bool {
    detected(text, |text| libinjectionrs::detect_xss(text).is_injection())
}

/// The fingerprint of injected SQL.
pub(super) fn fingerprint(text: &[u8]) -> Option<Vec<u8>> {
    let detect = || libinjectionrs::detect_sqli(text).fingerprint;
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(detect));
    found.ok().flatten().map(|print| print.as_bytes().to_vec())
}

/// Runs a detector of the library, which is not known to be free of panics; where it cannot say, a text that was
/// made to confuse it is taken for what it looks for.
fn detected(text: &[u8], detect: impl Fn(&[u8]) -> bool) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| detect(text))).unwrap_or(true)
}

/// Bytes that make strings, variables, comments, groups and logic.
const MARKS: u64 = {
    let marks = b"'\"`()#$@&|{}\\";
    let (mut mask, mut index) = (0, 0);
    while index < marks.len() {
        mask |= mark(marks, index);
        index += 1;
    }
    mask
};

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and the loop above stays inside")]
const fn mark(marks: &[u8], index: usize) -> u64 {
    byte_mask(marks[index])
}

/// Longest word of [`WORDS`].
const LONGEST: usize = 32;

/// The first words of all keywords that a fingerprint must hold if it holds no string, variable, comment or group:
/// those that select, combine, order, change or compare. (`IF` becomes a statement after a semicolon.)
static WORDS: LazyLock<HashSet<Vec<u8>>> = LazyLock::new(|| {
    let telling = SQL_KEYWORDS.iter().filter(|keyword| b"UEBTk&v".contains(&keyword.token_type));
    let first = telling.filter_map(|keyword| keyword.word.split([' ', '.']).next());
    first.chain(["IF"]).map(|word| word.to_ascii_lowercase().into_bytes()).collect()
});

/// Whether the library could find one of its fingerprints in `text`: without marks, every one of them has a keyword.
fn may_be_sqli(text: &[u8], mask: u64) -> bool {
    if mask & MARKS != 0 {
        return true;
    }
    let pair = |first, second| text.array_windows().any(|[a, b]| *a == first && *b == second);
    (mask & byte_mask(b'-') != 0 && pair(b'-', b'-'))
        || (mask & byte_mask(b'*') != 0 && pair(b'/', b'*'))
        || text.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_')).any(is_telling)
}

/// Whether a run of letters and digits is a keyword, or ends with one after a number.
fn is_telling(run: &[u8]) -> bool {
    if is_keyword(run) {
        return true;
    }
    // Numbers may have a base, an exponent and a suffix.
    let number =
        run.iter().take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'X')).count();
    let first = run.first().is_some_and(u8::is_ascii_digit);
    first
        && (run.len().saturating_sub(LONGEST).max(1)..=number)
            .any(|start| run.get(start..).is_some_and(is_keyword))
}

fn is_keyword(word: &[u8]) -> bool {
    let mut lower = [0; LONGEST];
    let Some(place) = lower.get_mut(..word.len()).filter(|place| place.len() > 1) else { return false };
    place.copy_from_slice(word);
    place.make_ascii_lowercase();
    WORDS.contains(&*place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::{super::prefilter::mask_of, *};

    fn agrees(text: &[u8]) -> bool {
        may_be_sqli(text, mask_of(text))
            || !detected(text, |text| libinjectionrs::detect_sqli(text).is_injection())
    }

    #[test]
    fn every_fingerprint_without_marks_has_a_telling_keyword() {
        let prints = SQL_KEYWORDS.iter().filter(|keyword| keyword.token_type == b'F');
        let plain =
            prints.filter(|print| !print.word.contains(['S', 'C', '(', ')', 'V', '{', '}', 'X', '\\']));
        let silent: Vec<_> = plain
            .filter(|print| !print.word.contains(['U', 'E', 'B', 'T', '&', 'K']))
            .map(|print| print.word)
            .collect();
        assert_eq!(silent, [""; 0]);
    }

    #[test]
    fn ordinary_texts_are_not_looked_at() {
        for text in
            ["blue running shoes 42", "https://shop.example.com/products?page=1", "8f14e45fceea167a5a36dedd"]
        {
            assert!(!may_be_sqli(text.as_bytes(), mask_of(text.as_bytes())), "{text}");
        }
        for text in [
            "1 union select 2",
            "1UNION SELECT 2",
            "1e5select x",
            "1 or 1=1",
            "x;drop table y",
            "1--",
            "0x1fand 1",
        ] {
            assert!(may_be_sqli(text.as_bytes(), mask_of(text.as_bytes())), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn what_is_passed_over_is_no_injection(
            text in "(( |1|7e3|0x1f|x|y|,|;|=|\\.|<|!|\\*|/|-|\\+|%|:|~|\\?|\\[|\\]|\\^|in|is|like|not|div|mod|if|null|date|int|char|sleep|true|collate|id|as|by|where|to|on){0,9})",
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            prop_assert!(agrees(text.as_bytes()), "{text}");
            prop_assert!(agrees(&bytes));
        }
    }
}
