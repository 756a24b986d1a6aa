//! One pass over a text that tells which patterns can match it at all.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::pattern::{Needs, byte_mask};

/// The index of a pattern in the [`Prefilter`].
pub(super) type PatternId = usize;

/// One automaton over what all patterns need.
#[derive(Debug)]
pub(super) struct Prefilter {
    automaton: AhoCorasick,
    /// For each string of the automaton the patterns that it makes possible.
    patterns_of: Vec<Vec<PatternId>>,
    /// Patterns that need no string.
    always: Vec<u64>,
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

/// What one pass found out about a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// A bit for each pattern that can match.
    pub(super) possible: Vec<u64>,
    /// The byte classes present.
    pub(super) mask: u64,
}

impl Sight {
    pub(super) fn allows(&self, pattern: PatternId) -> bool {
        self.possible.get(pattern / 64).is_some_and(|word| word & (1 << (pattern % 64)) != 0)
    }

    /// Adds what another text allows.
    pub(super) fn merge(&mut self, other: &Self) {
        self.possible.resize(self.possible.len().max(other.possible.len()), 0);
        for (word, more) in self.possible.iter_mut().zip(&other.possible) {
            *word |= more;
        }
        self.mask |= other.mask;
    }
}

impl Prefilter {
    /// Builds the automaton; pattern `i` needs `needs[i]`.
    pub(super) fn new(needs: &[Needs]) -> Result<Self, String> {
        let mut always = vec![0u64; needs.len().div_ceil(64)];
        let mut by_string: std::collections::BTreeMap<&[u8], Vec<PatternId>> =
            std::collections::BTreeMap::new();
        for (pattern, needs) in needs.iter().enumerate() {
            for string in &needs.any_of {
                by_string.entry(string).or_default().push(pattern);
            }
            if needs.any_of.is_empty()
                && let Some(word) = always.get_mut(pattern / 64)
            {
                *word |= 1 << (pattern % 64);
            }
        }
        for patterns in by_string.values_mut() {
            patterns.dedup();
        }
        let automaton = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(by_string.keys())
            .map_err(|error| {
                format!("the rules need too many strings at once ({error}); load fewer rules")
            })?;
        Ok(Self { automaton, patterns_of: by_string.into_values().collect(), always })
    }

    /// Looks at `text` once; linear in its length.
    pub(super) fn look(&self, text: &[u8]) -> Sight {
        let mut sight = Sight {
            possible: self.always.clone(),
            mask: text
                .iter()
                .fold(0, |mask, byte| mask | MASKS.get(usize::from(*byte)).copied().unwrap_or(0)),
        };
        for found in self.automaton.find_overlapping_iter(text) {
            for pattern in self.patterns_of.get(found.pattern().as_usize()).into_iter().flatten() {
                if let Some(word) = sight.possible.get_mut(pattern / 64) {
                    *word |= 1 << (pattern % 64);
                }
            }
        }
        sight
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tells_which_patterns_can_match() {
        let need = |strings: &[&str]| Needs {
            any_of: strings.iter().map(|s| s.as_bytes().to_vec()).collect(),
            masks: Vec::new(),
        };
        let prefilter = Prefilter::new(&[need(&["union", "select"]), need(&[]), need(&["lect"])]).unwrap();
        let sight = prefilter.look(b"a SELECT");
        assert_eq!([0, 1, 2].map(|p| sight.allows(p)), [true, true, true]);
        let sight = prefilter.look(b"Union");
        assert_eq!([0, 1, 2].map(|p| sight.allows(p)), [true, true, false]);
        assert_eq!(sight.mask, byte_mask(b'u'));
    }
}
