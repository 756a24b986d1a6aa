//! Repeats: what a long text says over and over is read once. A megabyte of `()` holds no more evidence than a
//! kilobyte of it, and costs a thousand times as much to look at.

use std::borrow::Cow;

/// Texts up to this size are read as they are, in bytes.
const SHORT: usize = 8 * 1024;

/// Longest piece whose repetitions are found, in bytes.
const PERIOD: usize = 256;

/// Bytes that must repeat for a run to be looked at.
const PROBE: usize = 64;

/// How far apart runs are looked for, in bytes: one that is worth shortening is much longer.
const STEP: usize = 1024;

/// How many repetitions are kept at least: so many that every window of 32 tokens, in every position that it takes
/// over the run, is among them (a piece holds a token or more, and windows begin at every 16th).
const KEPT: usize = 48;

/// Bytes of a run that are kept in any case.
const KEPT_BYTES: usize = 1024;

/// `text` with its long repetitions shortened. An even number of pieces is left out of each, so that quotes stay open
/// or closed and whatever follows follows the same piece as before. Linear in the length of `text`.
pub(crate) fn shortened(text: &[u8]) -> Cow<'_, [u8]> {
    if text.len() <= SHORT {
        return Cow::Borrowed(text);
    }
    let mut short = Vec::new();
    // Where what is not copied yet begins, and where to look for the next run.
    let (mut rest, mut at) = (0, 0);
    while at + PROBE < text.len() {
        let Some(period) = period(text.get(at..).unwrap_or_default()) else {
            at += STEP;
            continue;
        };
        let (first, second) =
            (text.get(at..).unwrap_or_default(), text.get(at + period..).unwrap_or_default());
        let run = period + common(first, second);
        let keep = (KEPT * period).max(KEPT_BYTES);
        let left_out = run.saturating_sub(keep) / (2 * period) * (2 * period);
        if left_out > 0 {
            short.extend_from_slice(text.get(rest..at + keep).unwrap_or_default());
            rest = at + keep + left_out;
        }
        at += run.max(STEP);
    }
    if rest == 0 {
        return Cow::Borrowed(text);
    }
    short.extend_from_slice(text.get(rest..).unwrap_or_default());
    Cow::Owned(short)
}

/// The shortest piece that `text` begins by repeating.
fn period(text: &[u8]) -> Option<usize> {
    let probe = text.get(..PROBE)?;
    let near = text.get(1..).map(|near| near.get(..PROBE + PERIOD - 1).unwrap_or(near))?;
    memchr::memmem::find(near, probe).map(|at| at + 1)
}

/// How many bytes two texts have in common from their beginnings on.
fn common(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let equal = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    let (a, b) = (a.get(equal..).unwrap_or_default(), b.get(equal..).unwrap_or_default());
    equal + a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_repetition_becomes_short_and_what_is_around_it_stays() {
        let text = format!("a=1&b={}' or 1=1-- {}end", "()".repeat(200_000), "xyz".repeat(100_001));
        let short = shortened(text.as_bytes());
        assert!(short.len() < 16 * 1024, "{}", short.len());
        let short = String::from_utf8(short.into_owned()).unwrap();
        assert!(short.starts_with("a=1&b=()()") && short.ends_with("xyzend"), "{short}");
        assert!(short.contains("()()' or 1=1-- xyzxyz"));
    }

    #[test]
    fn quotes_stay_open_or_closed() {
        for count in [100_000, 100_001] {
            let text = "'".repeat(count);
            assert_eq!(shortened(text.as_bytes()).len() % 2, count % 2);
        }
    }

    #[test]
    fn what_does_not_repeat_is_left_alone() {
        let mut seed = 1_u32;
        let mut byte = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        let text: Vec<u8> = (0..200_000).map(|_| byte()).collect();
        assert!(matches!(shortened(&text), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_is_left_out_but_repetitions(
            piece in "[a-c'() ]{1,9}", count in 1_usize..9000, before in "[a-z]{0,40}", after in "[a-z]{0,2000}"
        ) {
            let text = format!("{before}{}{after}", piece.repeat(count));
            let short = shortened(text.as_bytes());
            prop_assert!(short.starts_with(before.as_bytes()) && short.ends_with(after.as_bytes()));
            prop_assert_eq!((text.len() - short.len()) % 2, 0);
            let quotes = |text: &[u8]| text.iter().filter(|byte| **byte == b'\'').count() % 2;
            prop_assert_eq!(quotes(text.as_bytes()), quotes(&short));
        }
    }
}
