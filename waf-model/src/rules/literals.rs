//! What a text must contain before a pattern can match it, read off the pattern.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Most strings that a part of a pattern is expanded to.
const MOST_STRINGS: usize = 256;
/// Longest string that a part of a pattern is expanded to.
const LONGEST_STRING: usize = 24;
/// Shortest string worth looking for; a single byte is left to the byte mask.
const SHORTEST_STRING: usize = 2;
/// Most mask conditions kept of one pattern, or of one of its branches.
const MOST_MASKS: usize = 4;
/// Most branches of an alternation that are looked at one by one.
const MOST_BRANCHES: usize = 32;

/// What a text must contain before a pattern can match it; empty where nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// At least one of these strings, in lower case; ASCII case is ignored.
    pub(super) any_of: Vec<Vec<u8>>,
    pub(super) classes: Classes,
}

/// Which classes of bytes ([`byte_mask`]) a text must have; the default asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Classes {
    /// At least one class of each of these.
    all: Vec<u64>,
    /// The same for each branch of an alternation, of which one must hold; none: there is no alternation.
    branches: Vec<Vec<u64>>,
}

impl Classes {
    /// At least one class of `mask`.
    pub(super) fn one_of(mask: u64) -> Self {
        Self { all: vec![mask], branches: Vec::new() }
    }

    /// Whether a text whose bytes are of the classes `present` has what is needed.
    pub(super) fn hold(&self, present: u64) -> bool {
        let all = |masks: &Vec<u64>| masks.iter().all(|needed| needed & present != 0);
        all(&self.all) && (self.branches.is_empty() || self.branches.iter().any(all))
    }
}

/// Set in the mask of every text, also of the empty one.
pub(super) const ANY: u64 = 1 << 63;
/// The classes of letters.
const LETTERS: u64 = byte_mask(b'a') | byte_mask(b'A');

/// The class of a byte: every ASCII punctuation mark is one of its own.
pub(super) const fn byte_mask(byte: u8) -> u64 {
    let bit = match byte {
        b'!'..=b'/' => byte - b'!',
        b':'..=b'@' => byte - b':' + 15,
        b'['..=b'`' => byte - b'[' + 22,
        b'{'..=b'~' => byte - b'{' + 28,
        b'0'..=b'9' => 32,
        b'a'..=b'z' => 33,
        b'A'..=b'Z' => 38,
        b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c => 34,
        0 => 35,
        0x01..=0x1f | 0x7f => 36,
        0x80.. => 37,
    };
    1 << bit
}

/// What every text that matches `hir` contains.
pub(super) fn needs(hir: &Hir) -> Needs {
    let classes = Classes { all: rarest(masks(hir)), branches: branches(hir).unwrap_or_default() };
    Needs { any_of: strings(hir).best().unwrap_or_default(), classes }
}

/// The conditions that fewest texts fulfil.
fn rarest(mut masks: Vec<u64>) -> Vec<u64> {
    masks.sort_unstable_by_key(|mask| mask.count_ones());
    masks.dedup();
    masks.truncate(MOST_MASKS);
    masks
}

/// What the branches of the pattern's largest alternation need; `None` if there is none, or if one of them needs
/// nothing.
fn branches(hir: &Hir) -> Option<Vec<Vec<u64>>> {
    match hir.kind() {
        HirKind::Capture(capture) => branches(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => branches(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().filter_map(branches).max_by_key(Vec::len),
        HirKind::Alternation(parts) => {
            let inner = |part| {
                let own = masks(part);
                let with_own = |branch: Vec<u64>| rarest([own.as_slice(), &branch].concat());
                branches(part).map_or_else(
                    || vec![rarest(own.clone())],
                    |inner| inner.into_iter().map(with_own).collect(),
                )
            };
            let mut all: Vec<_> = parts.iter().flat_map(inner).collect();
            all.sort_unstable();
            all.dedup();
            (all.len() <= MOST_BRANCHES && all.iter().all(|masks| !masks.is_empty())).then_some(all)
        }
        _ => None,
    }
}

/// Strings that some part of a pattern can match.
type Strings = Vec<Vec<u8>>;

/// What is known of one part of a pattern.
struct Known {
    /// All the part can match, if that is a short list.
    exact: Option<Strings>,
    /// Each match contains one string of each of these lists.
    required: Vec<Strings>,
}

impl Known {
    const NOTHING: Self = Self { exact: None, required: Vec::new() };

    /// The list that is least likely to be found in a text that the part does not match.
    fn best(self) -> Option<Strings> {
        let usable = |list: &Strings| shortest(list) >= SHORTEST_STRING;
        self.required
            .into_iter()
            .chain(self.exact)
            .filter(usable)
            .max_by_key(|list| (shortest(list).min(6), usize::MAX - list.len()))
    }
}

fn shortest(list: &Strings) -> usize {
    list.iter().map(Vec::len).min().unwrap_or(0)
}

fn strings(hir: &Hir) -> Known {
    let exact = |list| Known { exact: Some(list), required: Vec::new() };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => exact(vec![Vec::new()]),
        HirKind::Literal(literal) => exact(vec![literal.0.to_ascii_lowercase()]),
        HirKind::Class(class) => class_strings(class).map_or(Known::NOTHING, exact),
        HirKind::Capture(capture) => strings(&capture.sub),
        HirKind::Repetition(repetition) => {
            let inner = strings(&repetition.sub);
            match (repetition.min, repetition.max, inner.exact) {
                (0, Some(1), Some(mut list)) => {
                    list.push(Vec::new());
                    exact(list)
                }
                (0, _, _) => Known::NOTHING,
                (1, Some(1), list) => Known { exact: list, required: inner.required },
                (least, _, list) => {
                    let mut required = inner.required;
                    let twice = list.as_ref().filter(|_| least > 1).and_then(|list| cross(list, list));
                    required.extend(twice.or(list));
                    Known { exact: None, required }
                }
            }
        }
        HirKind::Concat(parts) => concat(parts),
        HirKind::Alternation(parts) => alternation(parts),
    }
}

fn concat(parts: &[Hir]) -> Known {
    let mut required = Vec::new();
    let mut run: Option<Strings> = Some(vec![Vec::new()]);
    let mut whole = true;
    for part in parts {
        let known = strings(part);
        required.extend(known.required);
        let joined = match (&run, &known.exact) {
            (Some(run), Some(next)) => cross(run, next),
            _ => None,
        };
        if joined.is_none() {
            whole = false;
            required.extend(run.take());
            run = Some(known.exact.unwrap_or_else(|| vec![Vec::new()]));
        } else {
            run = joined;
        }
    }
    if whole {
        return Known { exact: run, required };
    }
    required.extend(run);
    Known { exact: None, required }
}

fn cross(left: &Strings, right: &Strings) -> Option<Strings> {
    if left.len() * right.len() > MOST_STRINGS {
        return None;
    }
    let joined: Strings =
        left.iter().flat_map(|l| right.iter().map(move |r| [l.as_slice(), r].concat())).collect();
    joined.iter().all(|string| string.len() <= LONGEST_STRING).then_some(joined)
}

fn alternation(parts: &[Hir]) -> Known {
    let known: Vec<Known> = parts.iter().map(strings).collect();
    let total: usize = known.iter().map(|k| k.exact.as_ref().map_or(MOST_STRINGS + 1, Vec::len)).sum();
    if total <= MOST_STRINGS {
        return Known {
            exact: Some(known.into_iter().filter_map(|k| k.exact).flatten().collect()),
            required: Vec::new(),
        };
    }
    match known.into_iter().map(Known::best).collect::<Option<Vec<_>>>() {
        Some(lists) => Known { exact: None, required: vec![lists.concat()] },
        None => Known::NOTHING,
    }
}

/// The members of a small class, in lower case.
fn class_strings(class: &Class) -> Option<Strings> {
    const MOST: usize = 16;
    let mut out: Strings = Vec::new();
    match class {
        Class::Bytes(class) => {
            for range in class.ranges() {
                for byte in range.start()..=range.end() {
                    out.push(vec![byte.to_ascii_lowercase()]);
                }
            }
        }
        Class::Unicode(class) => {
            if class.ranges().iter().map(regex_syntax::hir::ClassUnicodeRange::len).sum::<usize>() > 4 * MOST
            {
                return None;
            }
            for range in class.ranges() {
                for c in range.start()..=range.end() {
                    out.push(c.to_ascii_lowercase().to_string().into_bytes());
                }
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    (out.len() <= MOST).then_some(out)
}

/// Conditions on the byte classes of a text, all of which must hold: it has a byte of one of these classes.
fn masks(hir: &Hir) -> Vec<u64> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Vec::new(),
        HirKind::Literal(literal) => literal.0.iter().map(|byte| byte_mask(*byte)).collect(),
        HirKind::Class(class) => vec![class_mask(class)],
        HirKind::Capture(capture) => masks(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min == 0 => Vec::new(),
        HirKind::Repetition(repetition) => masks(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().flat_map(masks).collect(),
        HirKind::Alternation(parts) => {
            // Of each branch the rarest condition: few classes, and no letters.
            let rarest = |part: &Hir| {
                masks(part).into_iter().min_by_key(|mask| (mask & LETTERS != 0, mask.count_ones()))
            };
            let joined = parts.iter().map(rarest).try_fold(0, |all, mask| mask.map(|mask| all | mask));
            joined.into_iter().collect()
        }
    }
}

fn class_mask(class: &Class) -> u64 {
    let ascii = |byte: u32| u8::try_from(byte).map_or(byte_mask(u8::MAX), byte_mask);
    let ranges: Vec<(u32, u32)> = match class {
        Class::Bytes(class) => {
            class.ranges().iter().map(|r| (u32::from(r.start()), u32::from(r.end()))).collect()
        }
        Class::Unicode(class) => {
            class.ranges().iter().map(|r| (u32::from(r.start()), u32::from(r.end()))).collect()
        }
    };
    ranges.iter().flat_map(|(start, end)| *start..=(*end).min(0x100)).fold(0, |all, byte| all | ascii(byte))
        // A range that starts beyond was cut off above.
        | if ranges.iter().any(|(_, end)| *end > 0x7f) { byte_mask(u8::MAX) } else { 0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{super::pattern, *};

    fn any_of(pattern: &str) -> Vec<String> {
        let mut found: Vec<String> = pattern::compile(pattern)
            .unwrap()
            .1
            .any_of
            .into_iter()
            .map(|s| String::from_utf8_lossy(&s).into_owned())
            .collect();
        found.sort();
        found
    }

    #[test]
    fn required_strings() {
        assert_eq!(any_of(r"(?i)\bunion\s+(?:all\s+)?select\b"), ["select"]);
        assert_eq!(any_of(r"(?:sleep|benchmark)\s*\("), ["benchmark", "sleep"]);
        assert_eq!(any_of(r"\d+x?\w*"), [""; 0]);
        assert_eq!(any_of(r"(?:abc.*|xyz\d+)"), ["abc", "xyz"]);
        assert_eq!(any_of(r"(?:abc.*|\d+)"), [""; 0]);
        assert_eq!(any_of(r"ab?cd"), ["abcd", "acd"]);
    }

    #[test]
    fn required_classes() {
        let needs = pattern::compile(r#"['"]\s*\d"#).unwrap().1;
        assert!(needs.classes.all.contains(&(byte_mask(b'\'') | byte_mask(b'"'))));
        assert!(!needs.classes.all.contains(&byte_mask(b' ')));
        assert!(
            pattern::compile(r"[‘’]").unwrap().1.classes.all.iter().all(|mask| mask & byte_mask(0xe2) != 0)
        );
    }

    #[test]
    fn one_branch_must_have_all_it_needs() {
        let needs = pattern::compile(r"x(?:\.\.[/\\]|%\d|;)").unwrap().1;
        let holds = |text: &str| needs.classes.hold(text.bytes().fold(0, |all, byte| all | byte_mask(byte)));
        for (text, expected) in [("x../", true), ("x%4", true), ("x;", true), ("x.", false), ("x%/", false)] {
            assert_eq!(holds(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_needed_never_hides_a_match() {
        for (pattern, text) in [
            (r"(?i)<script[^>]*>", "<ScRiPt x>"),
            (r"(?i)(?:k1|s2)", "K1"),
            (r"a{2,}b|c+", "aab"),
            (r"^(?:x|yy)?z$", "z"),
            (r"^\s*(?:\.\./|a;|(?:<b|%))c", " %c"),
        ] {
            let (regex, needs) = pattern::compile(pattern).unwrap();
            assert!(regex.find(text.as_bytes()).is_some());
            let lower = text.to_ascii_lowercase();
            let strings = needs.any_of.is_empty()
                || needs.any_of.iter().any(|s| lower.contains(std::str::from_utf8(s).unwrap()));
            let present = text.bytes().fold(0, |all, byte| all | byte_mask(byte));
            assert!(strings && needs.classes.hold(present), "{pattern}");
        }
    }
}
