//! SQL and script injection by libinjection's method, which a kept library implements.
//!
//! The library reads every text token by token, which is by far the most expensive thing that is done to an ordinary
//! value. So it is only asked about texts that could possibly have one of its fingerprints. Rules, observation and
//! base knowledge all ask here.

use std::{cell::RefCell, collections::HashSet, panic::catch_unwind, sync::LazyLock};

use libinjectionrs::sqli::sqli_data::SQL_KEYWORDS;

use crate::{memo::Memo, repeats};

/// The kinds of the first tokens of injected SQL, as libinjection writes them; filled up with dots.
pub type Fingerprint = [u8; 5];

/// What stands for a fingerprint where the library broke down.
const UNKNOWN: Fingerprint = *b".....";

/// What the detectors say of one text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// SQL injection, with its fingerprint.
    pub sqli: Option<Fingerprint>,
    /// Cross-site scripting.
    pub xss: bool,
}

impl Said {
    /// Asks both detectors.
    pub fn of(text: &[u8]) -> Self {
        Self { sqli: sqli(text), xss: xss(text) }
    }
}

/// The fingerprint of `text` if it reads like injected SQL.
///
/// The library is a port of C code, not known to be free of panics: a text that made it break down was made to, and
/// is taken for what it looks for.
pub fn sqli(text: &[u8]) -> Option<Fingerprint> {
    if may_be_sqli(text) { Memo::recall_any(&FINGERPRINTS, 0, text, || fingerprint(text)) } else { None }
}

thread_local! {
    static FINGERPRINTS: RefCell<Memo<Option<Fingerprint>>> = RefCell::default();
    static SCRIPTS: RefCell<Memo<bool>> = RefCell::default();
}

fn fingerprint(text: &[u8]) -> Option<Fingerprint> {
    catch_unwind(|| {
        let found = libinjectionrs::detect_sqli(&repeats::shortened(text));
        found.is_injection().then(|| {
            let given = found.fingerprint.as_ref().map(|print| print.as_bytes()).unwrap_or_default();
            let mut print = UNKNOWN;
            for (cell, byte) in print.iter_mut().zip(given.iter().filter(|byte| byte.is_ascii_graphic())) {
                *cell = *byte;
            }
            print
        })
    })
    .unwrap_or(Some(UNKNOWN))
}

/// Whether `text` reads like injected markup or script; see [`sqli`] for a break-down.
pub fn xss(text: &[u8]) -> bool {
    let reads = || libinjectionrs::detect_xss(&repeats::shortened(text)).is_injection();
    let ask = || catch_unwind(reads).unwrap_or(true);
    may_be_xss(text) && Memo::recall_any(&SCRIPTS, 0, text, ask)
}

/// Markup opens with a bracket, and an attribute says nothing without a value.
fn may_be_xss(text: &[u8]) -> bool {
    memchr::memchr2(b'<', b'=', text).is_some()
}

/// What a byte can be to the SQL detector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A part of a word or number.
    Word,
    /// It makes strings, variables, comments, groups or logic: a fingerprint may be without keywords.
    Mark,
    /// Anything else.
    Other,
}

/// The role of every byte.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and the loop stays inside")]
static ROLES: [Role; 256] = {
    let mut roles = [Role::Other; 256];
    let mut byte = 0;
    while byte < roles.len() {
        roles[byte] = match byte as u8 {
            b'\'' | b'"' | b'`' | b'(' | b')' | b'#' | b'$' | b'@' | b'&' | b'|' | b'{' | b'}' | b'\\' => {
                Role::Mark
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => Role::Word,
            _ => Role::Other,
        };
        byte += 1;
    }
    roles
};

fn role(byte: u8) -> Role {
    ROLES.get(usize::from(byte)).copied().unwrap_or(Role::Other)
}

/// Longest of the [`Words`].
const LONGEST: usize = 31;

/// The first words of all keywords that a fingerprint must hold if it holds no string, variable, comment or group:
/// those that select, combine, order, change or compare. (`IF` becomes a statement after a semicolon.)
struct Words {
    words: HashSet<Vec<u8>>,
    /// Lengths of the words that begin with a byte, one bit each: most words of a text need no look into the set.
    lengths: [u32; 256],
}

static WORDS: LazyLock<Words> = LazyLock::new(|| {
    let telling = SQL_KEYWORDS.iter().filter(|keyword| b"UEBTk&v".contains(&keyword.token_type));
    let first = telling.filter_map(|keyword| keyword.word.split([' ', '.']).next());
    let words: HashSet<_> = first.chain(["IF"]).map(|word| word.to_ascii_lowercase().into_bytes()).collect();
    let mut lengths = [0; 256];
    for word in &words {
        if let Some(lengths) = word.first().and_then(|first| lengths.get_mut(usize::from(*first))) {
            *lengths |= 1 << word.len().min(LONGEST);
        }
    }
    Words { words, lengths }
});

/// Whether the library could find one of its fingerprints in `text`: without marks, every one of them has a keyword.
fn may_be_sqli(text: &[u8]) -> bool {
    let words = &*WORDS;
    let mut word = None;
    let mut previous = 0;
    for (at, &byte) in text.iter().enumerate() {
        match role(byte) {
            Role::Word => word = word.or(Some(at)),
            Role::Mark => return true,
            Role::Other => {
                let begun = word.take().and_then(|from| text.get(from..at));
                if begun.is_some_and(|run| words.tell(run))
                    || matches!((previous, byte), (b'-', b'-') | (b'/', b'*'))
                {
                    return true;
                }
            }
        }
        previous = byte;
    }
    word.and_then(|from| text.get(from..)).is_some_and(|run| words.tell(run))
}

impl Words {
    /// Whether a run of letters and digits is a keyword, or ends with one after a number.
    fn tell(&self, run: &[u8]) -> bool {
        if self.hold(run) {
            return true;
        }
        if !run.first().is_some_and(u8::is_ascii_digit) {
            return false;
        }
        // Numbers may have a base, an exponent and a suffix.
        let number =
            run.iter().take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'x' | b'X')).count();
        (run.len().saturating_sub(LONGEST).max(1)..=number)
            .any(|start| run.get(start..).is_some_and(|tail| self.hold(tail)))
    }

    fn hold(&self, word: &[u8]) -> bool {
        let Some(first) = word.first() else { return false };
        let lengths = self.lengths.get(usize::from(first.to_ascii_lowercase())).copied().unwrap_or_default();
        if word.len() < 2 || word.len() > LONGEST || lengths >> word.len() & 1 == 0 {
            return false;
        }
        let mut lower = [0; LONGEST];
        let Some(place) = lower.get_mut(..word.len()) else { return false };
        place.copy_from_slice(word);
        place.make_ascii_lowercase();
        self.words.contains(&*place)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn agrees(text: &[u8]) -> bool {
        may_be_sqli(text)
            || !catch_unwind(|| libinjectionrs::detect_sqli(text).is_injection()).unwrap_or(false)
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
            assert!(!may_be_sqli(text.as_bytes()), "{text}");
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
            assert!(may_be_sqli(text.as_bytes()), "{text}");
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

        #[test]
        fn what_is_passed_over_is_no_script(
            text in "([\"'` />a:]|on[a-z]{3,9}|href|style|src|javascript:|data:|script|\\x00|\\t){0,9}",
        ) {
            prop_assert!(may_be_xss(text.as_bytes()) || !libinjectionrs::detect_xss(text.as_bytes()).is_injection());
        }
    }
}
