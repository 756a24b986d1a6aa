//! One pass over a text that tells which patterns can match it at all.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering},
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::literals::{ANY, byte_mask};
use crate::memo::Memo;

/// The index of a pattern in the [`Prefilter`].
pub(super) type PatternId = usize;

/// Most bytes of a string that are looked for: what matches so far is rare enough.
const LONGEST: usize = 8;

/// One automaton over what all patterns need.
#[derive(Debug)]
pub(super) struct Prefilter {
    automaton: AhoCorasick,
    /// For each string of the automaton the patterns that it makes possible.
    patterns_of: Vec<Vec<u32>>,
    patterns: usize,
    /// Tells it from all others in this process.
    id: u64,
}

/// Patterns that a remembered text may match; `None`: more than are worth remembering.
type Remembered = Option<(u8, [u16; REMEMBERED])>;

/// Most patterns that are remembered of a text.
const REMEMBERED: usize = 30;

/// Shortest text that is remembered: a shorter one is read in the time that looking it up takes.
const SHORTEST: usize = 12;

thread_local! {
    static SEEN: RefCell<Memo<Remembered>> = RefCell::default();
}

/// [`byte_mask`] of every byte.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and the loop stays inside")]
static MASKS: [u64; 256] = {
    let mut masks = [0; 256];
    let mut byte = 0;
    while byte < masks.len() {
        masks[byte] = byte_mask(byte as u8);
        byte += 1;
    }
    masks
};

/// The classes of the bytes in `text`, and [`ANY`].
pub(super) fn mask_of(text: &[u8]) -> u64 {
    text.iter().fold(ANY, |mask, byte| mask | MASKS.get(usize::from(*byte)).copied().unwrap_or(0))
}

impl Prefilter {
    /// Builds the automaton; pattern `i` needs one of the strings `needs[i]`, which are never none.
    pub(super) fn new(needs: &[Vec<Vec<u8>>]) -> Result<Self, String> {
        let mut by_string: std::collections::BTreeMap<&[u8], Vec<u32>> = std::collections::BTreeMap::new();
        for (strings, pattern) in needs.iter().zip(0..) {
            for string in strings {
                let start = string.get(..LONGEST).unwrap_or(string);
                let patterns = by_string.entry(start).or_default();
                if patterns.last() != Some(&pattern) {
                    patterns.push(pattern);
                }
            }
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(by_string.keys())
            .map_err(|error| {
                format!("the rules need too many strings at once ({error}); load fewer rules")
            })?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Self {
            automaton,
            patterns_of: by_string.into_values().collect(),
            patterns: needs.len(),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// How many patterns there are.
    pub(super) fn len(&self) -> usize {
        self.patterns
    }

    /// Looks at `text` once and tells every pattern that it may match, some of them several times; linear in its
    /// length. `found` says whether it hears of a pattern for the first time.
    pub(super) fn look(&self, text: &[u8], mut found: impl FnMut(u32) -> bool) {
        if text.len() < SHORTEST {
            return self.read(text, |pattern| {
                found(pattern);
            });
        }
        let mut told = false;
        let seen = Memo::recall(&SEEN, self.id, text, || {
            told = true;
            let mut seen: Remembered = Some((0, [0; REMEMBERED]));
            self.read(text, |pattern| {
                if found(pattern) {
                    if let Some((count, patterns)) = &mut seen
                        && let Some(place) = patterns.get_mut(usize::from(*count))
                        && let Ok(pattern) = u16::try_from(pattern)
                    {
                        *place = pattern;
                        *count += 1;
                    } else {
                        seen = None;
                    }
                }
            });
            seen
        });
        match seen {
            _ if told => {}
            Some((count, patterns)) => {
                for pattern in patterns.iter().take(count.into()) {
                    found((*pattern).into());
                }
            }
            None => self.read(text, |pattern| {
                found(pattern);
            }),
        }
    }

    fn read(&self, text: &[u8], mut found: impl FnMut(u32)) {
        for string in self.automaton.find_overlapping_iter(text) {
            for pattern in self.patterns_of.get(string.pattern().as_usize()).into_iter().flatten() {
                found(*pattern);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tells_which_patterns_can_match() {
        let need = |strings: &[&str]| strings.iter().map(|s| s.as_bytes().to_vec()).collect::<Vec<_>>();
        let prefilter =
            Prefilter::new(&[need(&["union", "select"]), need(&["x"]), need(&["lect", "selects"])]).unwrap();
        let look = |text: &[u8]| {
            let mut found = Vec::new();
            prefilter.look(text, |pattern| {
                found.push(pattern);
                true
            });
            found.sort_unstable();
            found.dedup();
            found
        };
        assert_eq!(look(b"a SELECT"), [0, 2]);
        assert_eq!(look(b"Union"), [0]);
        assert_eq!(look(b""), [0; 0]);
        assert_eq!(mask_of(b"uU"), ANY | byte_mask(b'u') | byte_mask(b'U'));
    }
}
