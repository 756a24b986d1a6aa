//! Regular expressions of rules, each on its own: one large set of them collapses on distinct input.

use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::{
    ParserBuilder,
    hir::{Class, Hir, HirKind, Look},
};

use super::{
    dialect,
    literals::{self, Needs},
};

/// Largest compiled pattern, in bytes.
const SIZE_LIMIT: usize = 4 << 20;
/// Most steps of a pattern that no linear-time engine can run, for one text.
const STEP_LIMIT: usize = 100_000;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Runs in linear time; matches wherever the pattern does.
    linear: Regex,
    /// The pattern itself if it needs look-around, back references or atomic groups. It only sees texts that
    /// `linear` matches, and gives up after [`STEP_LIMIT`].
    exact: Option<Box<fancy_regex::Regex>>,
    /// For patterns such as `^\\d+$`, which a look at each byte answers.
    whole: Option<Box<Whole>>,
}

/// All bytes are of one set, and there are so many of them.
#[derive(Debug)]
struct Whole {
    set: [bool; 256],
    least: usize,
    most: usize,
}

impl Whole {
    /// Reads `^`, a repeated class or byte, and `$`.
    fn of(hir: &Hir) -> Option<Self> {
        let HirKind::Concat(parts) = hir.kind() else { return None };
        let [start, middle, end] = parts.as_slice() else { return None };
        let (HirKind::Look(Look::Start), HirKind::Look(Look::End)) = (start.kind(), end.kind()) else {
            return None;
        };
        let HirKind::Repetition(repetition) = middle.kind() else { return None };
        let mut set = [false; 256];
        let mut allow = |from: u8, to: u8| {
            for place in set.iter_mut().take(usize::from(to) + 1).skip(usize::from(from)) {
                *place = true;
            }
        };
        match repetition.sub.kind() {
            HirKind::Class(Class::Bytes(class)) => {
                class.ranges().iter().for_each(|range| allow(range.start(), range.end()));
            }
            HirKind::Literal(literal) if literal.0.len() == 1 => {
                literal.0.iter().for_each(|byte| allow(*byte, *byte));
            }
            _ => return None,
        }
        let bound = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Some(Self { set, least: bound(repetition.min), most: repetition.max.map_or(usize::MAX, bound) })
    }

    fn holds(&self, text: &[u8]) -> bool {
        (self.least..=self.most).contains(&text.len())
            && text.iter().all(|byte| self.set.get(usize::from(*byte)).copied().unwrap_or(false))
    }
}

impl Pattern {
    /// Where `text` matches. A text that was made to exhaust the steps counts as a match as a whole.
    pub(super) fn find(&self, text: &[u8]) -> Option<Range<usize>> {
        if let Some(whole) = &self.whole {
            return whole.holds(text).then_some(0..text.len());
        }
        let found = self.linear.find(text)?;
        let Some(exact) = &self.exact else { return Some(found.range()) };
        match exact.find(text) {
            Ok(found) => found.map(|found| found.start()..found.end()),
            Err(_) => Some(0..text.len()),
        }
    }

    /// Whether `text` matches, which costs less than to know where.
    pub(super) fn is_match(&self, text: &[u8]) -> bool {
        if let Some(whole) = &self.whole {
            return whole.holds(text);
        }
        self.linear.is_match(text) && (self.exact.is_none() || self.find(text).is_some())
    }

    /// The whole match and its groups, at most `most`.
    pub(super) fn captures(&self, text: &[u8], most: usize) -> Vec<Vec<u8>> {
        if let Some(exact) = &self.exact {
            let Ok(Some(found)) = exact.captures(text) else { return Vec::new() };
            let group = |index| found.get(index).map_or_else(Vec::new, |group| group.as_bytes().to_vec());
            return (0..found.len().min(most)).map(group).collect();
        }
        if self.whole.is_some() {
            return vec![text.to_vec()];
        }
        let Some(found) = self.linear.captures(text) else { return Vec::new() };
        let groups = found.iter().take(most);
        groups.map(|group| group.map_or_else(Vec::new, |group| group.as_bytes().to_vec())).collect()
    }
}

/// Compiles the pattern of an `@rx` as PCRE would read it in ModSecurity: bytes, `.` takes line ends, `$` is the
/// end of the text only.
pub(super) fn compile(pattern: &str) -> Result<(Pattern, Needs), String> {
    let translated = dialect::translate(pattern)?;
    let linear = builder(&translated.linear).build().map_err(|error| complaint(&error))?;
    let exact = translated.exact.map(|exact| {
        fancy_regex::RegexBuilder::new(&exact)
            .bytes_mode(fancy_regex::BytesMode::Ascii)
            .dot_matches_new_line(true)
            .backtrack_limit(STEP_LIMIT)
            .delegate_size_limit(SIZE_LIMIT)
            .build()
            .map_err(|error| format!("the pattern is not valid: {error}; mend the pattern"))
    });
    let exact = exact.transpose()?.map(Box::new);
    let hir = parse(&translated.linear);
    let needs = hir.as_ref().map(literals::needs).unwrap_or_default();
    let whole = hir.as_ref().and_then(Whole::of).filter(|_| exact.is_none()).map(Box::new);
    Ok((Pattern { linear, exact, whole }, needs))
}

fn parse(pattern: &str) -> Option<Hir> {
    ParserBuilder::new().unicode(false).utf8(false).dot_matches_new_line(true).build().parse(pattern).ok()
}

/// Compiles the pattern of a selector, which ignores case as names do.
pub(super) fn selector(pattern: &str) -> Result<Regex, String> {
    let translated = dialect::translate(pattern)?;
    if translated.exact.is_some() {
        return Err("a selector cannot use look-around, back references or atomic groups; write it without"
            .to_owned());
    }
    builder(&translated.linear).case_insensitive(true).build().map_err(|error| complaint(&error))
}

fn builder(pattern: &str) -> RegexBuilder {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).dot_matches_new_line(true).size_limit(SIZE_LIMIT);
    builder
}

fn complaint(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!(
                "the pattern compiles to more than {limit} bytes; make its repetitions smaller or split it"
            )
        }
        error => {
            // The first lines only repeat the pattern.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("the pattern is not valid: {reason}; mend the pattern")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pattern_beyond_linear_time_is_exact_and_bounded() {
        let (pattern, needs) = compile(r"(\w+) like \1(?!x)").unwrap();
        assert_eq!(pattern.find(b"\xff ab like ab"), Some(2..12));
        assert_eq!(pattern.captures(b"ab like ab", 10), [b"ab like ab".to_vec(), b"ab".to_vec()]);
        assert_eq!(pattern.find(b"ab like cd"), None);
        assert_eq!(needs.any_of, [b" like ".to_vec()]);
        let (slow, _) = compile(r"^(?:(a+)b?)+\1c(?!d)").unwrap();
        assert!(slow.find(format!("{}cd", "a".repeat(60)).as_bytes()).is_some());
    }

    #[test]
    fn a_pattern_of_one_class_agrees_with_the_engine() {
        for pattern in [r"^\d+$", r"^[a-c]*$", "^x{2,3}$", "^.*$", r"^\d$", r"^0?$"] {
            let (found, _) = compile(pattern).unwrap();
            let engine = Regex::new(&format!("(?s-u){pattern}")).unwrap();
            for text in ["", "0", "12", "1a", "abc", "xx", "xxxx", "\n"] {
                assert_eq!(
                    found.is_match(text.as_bytes()),
                    engine.is_match(text.as_bytes()),
                    "{pattern} {text:?}"
                );
                assert_eq!(found.find(text.as_bytes()).is_some(), engine.is_match(text.as_bytes()));
            }
        }
    }

    #[test]
    fn mistakes_say_what_to_do() {
        assert!(compile("(a").unwrap_err().contains("unclosed group"));
        assert!(compile(r"(?:\w{1000}){1000}").unwrap_err().contains("split"));
    }
}
