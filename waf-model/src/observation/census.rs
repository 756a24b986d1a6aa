//! Census: what one pass over a text finds out about its bytes.
//!
//! Summaries ask many small questions of every value; each is answered from here instead of by a pass of its own.

use super::summary::{CHARS, COARSE, Lexical};

/// Bytes of a block; densities are taken over two blocks that follow each other, so that windows overlap by half and
/// a cluster of up to a block is always seen whole.
const BLOCK: usize = 32;

/// What one pass over a text finds out about its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Census {
    /// Fine character classes present, one bit each; see [`super::summary::char_name`].
    pub chars: u64,
    /// Pairs of coarse character classes present: bit `12 * first + second`.
    pub pairs: [u64; 3],
    /// Counts of marks in the densest window: one byte each, in the order of [`Mark`].
    marks: [u8; 8],
}

/// What is counted in windows.
#[derive(Clone, Copy)]
enum Mark {
    Quotes,
    Angles,
    Brackets,
    Shell,
    Traversal,
    Comment,
    Percent,
    Control,
}

impl Mark {
    /// One such mark among the counts, which are the bytes of a word: a window is too short to overflow one.
    const fn one(self) -> u64 {
        1 << (8 * self as u32)
    }
}

/// What there is to know about one byte.
#[derive(Clone, Copy)]
struct Facts {
    /// What it counts for by itself.
    marks: u64,
    /// What it counts for right after `after`.
    paired: u64,
    after: u8,
    fine: u8,
    coarse: u8,
}

/// The facts about every byte.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, and the loop stays inside")]
static FACTS: [Facts; 256] = {
    let mut facts = [Facts { marks: 0, paired: 0, after: 0, fine: 0, coarse: 0 }; 256];
    let mut at = 0;
    while at < facts.len() {
        facts[at] = facts_of(at as u8);
        at += 1;
    }
    facts
};

const fn facts_of(byte: u8) -> Facts {
    let marks = match byte {
        b'\'' | b'"' | b'`' => Mark::Quotes.one(),
        b'<' | b'>' => Mark::Angles.one(),
        b'(' | b')' | b'[' | b']' | b'{' | b'}' => Mark::Brackets.one(),
        b';' | b'|' | b'&' | b'$' => Mark::Shell.one(),
        b'%' => Mark::Percent.one(),
        b'#' => Mark::Comment.one(),
        0..=8 | 11 | 12 | 14..=31 | 127 => Mark::Control.one(),
        _ => 0,
    };
    let (after, paired) = match byte {
        b'-' => (b'-', Mark::Comment.one()),
        b'*' => (b'/', Mark::Comment.one()),
        b'/' => (b'*', Mark::Comment.one()),
        b'.' => (b'.', Mark::Traversal.one()),
        _ => (0, 0),
    };
    Facts { marks, paired, after, fine: fine_class(byte), coarse: coarse_class(byte) }
}

fn facts(byte: u8) -> Facts {
    // A byte is always inside a table of 256.
    FACTS.get(usize::from(byte)).copied().unwrap_or(facts_of(byte))
}

impl Census {
    /// Reads `text` once.
    pub fn of(text: &[u8]) -> Self {
        let mut chars = 0u64;
        let mut followers = [0u16; 16];
        // A row that is not read: nothing comes before the first byte.
        let (mut previous, mut row) = (0, COARSE);
        let mut block_before = 0u64;
        let mut densest = [0u8; 8];
        for block in text.chunks(BLOCK) {
            let mut marks = 0u64;
            for &byte in block {
                let facts = facts(byte);
                chars |= 1 << facts.fine;
                if let Some(followers) = followers.get_mut(row) {
                    *followers |= 1 << facts.coarse;
                }
                marks += facts.marks;
                if previous == facts.after {
                    marks += facts.paired;
                }
                previous = byte;
                row = usize::from(facts.coarse);
            }
            // Both blocks together hold 64 bytes at most, which a count of eight bits can take.
            for (most, count) in densest.iter_mut().zip((block_before + marks).to_le_bytes()) {
                *most = count.max(*most);
            }
            block_before = marks;
        }
        Self { chars, pairs: joined(followers), marks: densest }
    }

    /// Whether a byte of a class of `classes` is there.
    pub fn has(&self, classes: u64) -> bool {
        self.chars & classes != 0
    }

    /// Whether every byte is of a class of `classes`.
    pub fn only(&self, classes: u64) -> bool {
        self.chars & !classes == 0
    }

    /// The counts as evidence.
    pub fn lexical(&self) -> Lexical {
        let [quotes, angles, brackets, shell, traversal, comment, percent, control] = self.marks;
        Lexical {
            quotes,
            angles,
            brackets,
            shell,
            traversal,
            comment,
            percent,
            control,
            ..Lexical::default()
        }
    }
}

/// The rows of followers of each class, one after the other.
fn joined(followers: [u16; 16]) -> [u64; 3] {
    let mut pairs = [0u64; 3];
    for (class, followers) in followers.into_iter().take(COARSE).enumerate() {
        let (word, shift) = (COARSE * class / 64, COARSE * class % 64);
        let bits = u128::from(followers) << shift;
        for (at, part) in [bits as u64, (bits >> 64) as u64].into_iter().enumerate() {
            if let Some(word) = pairs.get_mut(word + at) {
                *word |= part;
            }
        }
    }
    pairs
}

/// Sets of fine classes.
pub mod class {
    use super::fine_class;

    /// The classes of `bytes`.
    pub const fn of(bytes: &[u8]) -> u64 {
        let mut set = 0;
        let mut rest = bytes;
        while let [byte, tail @ ..] = rest {
            set |= 1 << fine_class(*byte);
            rest = tail;
        }
        set
    }

    /// ASCII letters.
    pub const LETTERS: u64 = of(b"aA");
    /// Decimal digits.
    pub const DIGITS: u64 = of(b"0");
    /// Bytes beyond ASCII.
    pub const FOREIGN: u64 = of(&[0x80, 0xc0]);
    /// Printable ASCII other than space.
    pub const GRAPHIC: u64 = LETTERS | DIGITS | of(b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~");
}

/// The fine class of a byte, below [`CHARS`]: letters, digits and so on, then each ASCII punctuation character by
/// itself.
pub const fn fine_class(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        b' ' => 3,
        b'\t' | b'\n' | b'\r' => 4,
        0 => 5,
        0x80..=0xbf => 6,
        0xc0..=0xff => 7,
        b'!'..=b'/' => 9 + (byte - b'!'),
        b':'..=b'@' => 24 + (byte - b':'),
        b'['..=b'`' => 31 + (byte - b'['),
        b'{'..=b'~' => 37 + (byte - b'{'),
        _ => 8,
    }
}

/// The coarse class of a byte, below [`COARSE`].
const fn coarse_class(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        b' ' | b'\t' | b'\n' | b'\r' => 3,
        b'\'' | b'"' | b'`' => 4,
        b'<' | b'>' => 5,
        b'(' | b')' | b'[' | b']' | b'{' | b'}' => 6,
        b',' | b';' | b':' | b'&' | b'|' => 7,
        b'-' | b'_' => 8,
        b'.' | b'/' => 9,
        b'!'..=b'~' => 10,
        _ => 11,
    }
}

const _: () = assert!(CHARS <= 64 && COARSE < 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::summary::char_name;

    #[test]
    fn every_byte_has_a_class_and_a_name() {
        for byte in 0..=255u8 {
            assert!(usize::from(fine_class(byte)) < CHARS && usize::from(coarse_class(byte)) < COARSE);
            if byte.is_ascii_punctuation() {
                let name = char_name(usize::from(fine_class(byte)));
                assert_eq!(name, char::from(byte).to_string(), "byte {byte}");
            }
            assert_eq!(class::GRAPHIC >> fine_class(byte) & 1 == 1, byte.is_ascii_graphic(), "byte {byte}");
        }
    }

    #[test]
    fn pairs_are_those_of_neighbors() {
        let pair = |first: u8, second: u8| {
            let bit = COARSE * usize::from(coarse_class(first)) + usize::from(coarse_class(second));
            let mut pairs = [0u64; 3];
            pairs[bit / 64] |= 1 << (bit % 64);
            pairs
        };
        for first in 0..=255u8 {
            assert_eq!(Census::of(&[first]).pairs, [0; 3]);
            for second in [b'a', b'7', b'\'', b'.', b'~', 0xff] {
                assert_eq!(Census::of(&[first, second]).pairs, pair(first, second), "{first} {second}");
            }
        }
    }

    #[test]
    fn marks_are_counted_in_the_densest_window() {
        for spaces in 0..100 {
            let text = format!("'{}\"`' ../ -- /* */ #{}'", " ".repeat(spaces), " ".repeat(200 - spaces));
            let found = Census::of(text.as_bytes()).lexical();
            assert!((3..=5).contains(&found.quotes), "{spaces}: {found:?}");
            assert_eq!((found.traversal, found.comment), (1, 4), "{spaces}: {found:?}");
        }
        let full = Census::of(&[b'%'; 500]).lexical();
        assert_eq!(full.percent, 64);
    }
}
