//! The `OPERATOR` part of a rule.

use std::{net::IpAddr, ops::Range};

use aho_corasick::{AhoCorasick, MatchKind};
use regex::bytes::Regex;

use super::{
    lexer::excerpt,
    network::Network,
    pattern::{self, Needs},
    template::Template,
};

/// A test of one text.
#[derive(Debug)]
pub(super) enum Operator {
    Pattern(Regex),
    /// `@pm`: any of some phrases.
    Phrases(AhoCorasick),
    /// A comparison with an argument that may hold macros.
    Text(TextTest, Template),
    Number(NumberTest, Template),
    Sqli,
    Xss,
    /// Matches if there is a byte that is not in the set.
    ByteRange(Box<[bool; 256]>),
    Utf8,
    Address(Vec<Network>),
    Always,
    Never,
}

/// How a text is compared with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    Contains,
    ContainsWord,
    BeginsWith,
    EndsWith,
    Equals,
    Within,
}

/// How a number is compared with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberTest {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// An operator as a rule uses it.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) operator: Operator,
    /// `!`: matches where the operator does not.
    pub(super) negated: bool,
}

/// Parses `@rx pattern`, `!@eq 0` or a bare pattern; also returns what a text needs to be matched.
pub(super) fn parse(text: &str) -> Result<(Test, Needs), String> {
    let text = text.trim_start();
    let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim_start()));
    let (name, argument) = match text.strip_prefix('@') {
        Some(rest) => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        None => ("rx", text),
    };
    let mut needs = Needs::default();
    let lower = name.to_ascii_lowercase();
    let operator = match lower.as_str() {
        "rx" => {
            // `%{1,3}` is a repetition.
            if argument.split("%{").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic())) {
                return Err(
                    "macros in the pattern of @rx are not supported yet; write the text out".to_owned()
                );
            }
            let regex;
            (regex, needs) = pattern::compile(argument)?;
            Operator::Pattern(regex)
        }
        "pm" => {
            let automaton;
            (automaton, needs.any_of) = phrases(argument)?;
            Operator::Phrases(automaton)
        }
        "detectsqli" => Operator::Sqli,
        "detectxss" => Operator::Xss,
        "validatebyterange" => Operator::ByteRange(Box::new(byte_range(argument)?)),
        "validateutf8encoding" => Operator::Utf8,
        "ipmatch" => Operator::Address(
            argument.split(',').map(|text| Network::parse(text.trim())).collect::<Result<_, _>>()?,
        ),
        "unconditionalmatch" => Operator::Always,
        "nomatch" => Operator::Never,
        other => compared(other, argument)
            .unwrap_or_else(|| Err(format!("operator @{name} is not supported yet; remove the rule")))?,
    };
    Ok((Test { operator, negated }, needs))
}

fn compared(name: &str, argument: &str) -> Option<Result<Operator, String>> {
    use {NumberTest as N, TextTest as T};
    let text = |test| Ok(Operator::Text(test, Template::parse(argument)?));
    let number = |test| {
        let template = Template::parse(argument.trim())?;
        if template.fixed().is_some_and(|text| parse_number(text).is_none()) {
            return Err(format!("`{}` is not a number; write a whole number", excerpt(argument)));
        }
        Ok(Operator::Number(test, template))
    };
    Some(match name {
        "contains" => text(T::Contains),
        "containsword" => text(T::ContainsWord),
        "beginswith" => text(T::BeginsWith),
        "endswith" => text(T::EndsWith),
        "streq" => text(T::Equals),
        "within" => text(T::Within),
        "eq" => number(N::Equal),
        "gt" => number(N::Greater),
        "ge" => number(N::GreaterOrEqual),
        "lt" => number(N::Less),
        "le" => number(N::LessOrEqual),
        _ => return None,
    })
}

fn phrases(argument: &str) -> Result<(AhoCorasick, Vec<Vec<u8>>), String> {
    let words: Vec<Vec<u8>> =
        argument.split_ascii_whitespace().map(|word| word.to_ascii_lowercase().into_bytes()).collect();
    if words.is_empty() {
        return Err("@pm names no phrase; list at least one".to_owned());
    }
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostFirst)
        .build(&words)
        .map_err(|error| format!("@pm: {error}; use fewer phrases"))?;
    Ok((automaton, words))
}

fn byte_range(argument: &str) -> Result<[bool; 256], String> {
    let mut set = [false; 256];
    for part in argument.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u8>(), last.trim().parse::<u8>()) else {
            return Err(format!("@validateByteRange: `{part}` is not a byte or a range; write 10,13,32-126"));
        };
        for byte in first..=last {
            if let Some(slot) = set.get_mut(usize::from(byte)) {
                *slot = true;
            }
        }
    }
    Ok(set)
}

impl Operator {
    /// Where `text` matches; `expand` gives the value of an argument. Negation is not applied.
    pub(super) fn find(&self, text: &[u8], expand: impl Fn(&Template) -> Vec<u8>) -> Option<Range<usize>> {
        let all = 0..text.len();
        match self {
            Self::Pattern(regex) => regex.find(text).map(|found| found.range()),
            Self::Phrases(automaton) => automaton.find(text).map(|found| found.range()),
            Self::Text(test, template) => match template.fixed() {
                Some(argument) => test.find(text, argument),
                None => test.find(text, &expand(template)),
            },
            Self::Number(test, template) => {
                let argument = match template.fixed() {
                    Some(argument) => parse_number(argument),
                    None => parse_number(&expand(template)),
                };
                // As in ModSecurity a text that is no number counts as 0.
                test.holds(parse_number(text).unwrap_or(0), argument.unwrap_or(0)).then_some(all)
            }
            Self::Sqli => (has_syntax(text) && detected(text, libinjectionrs_sqli)).then_some(all),
            Self::Xss => (has_syntax(text) && detected(text, libinjectionrs_xss)).then_some(all),
            Self::ByteRange(set) => {
                let allowed = |byte: &u8| set.get(usize::from(*byte)).copied().unwrap_or(false);
                text.iter().position(|byte| !allowed(byte)).map(|at| at..at + 1)
            }
            Self::Utf8 => match std::str::from_utf8(text) {
                Ok(_) => None,
                Err(error) => Some(error.valid_up_to()..text.len().min(error.valid_up_to() + 1)),
            },
            Self::Address(networks) => {
                let address: IpAddr = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
                networks.iter().any(|network| network.contains(address)).then_some(all)
            }
            Self::Always => Some(all),
            Self::Never => None,
        }
    }
}

impl TextTest {
    fn find(self, text: &[u8], argument: &[u8]) -> Option<Range<usize>> {
        let all = 0..text.len();
        match self {
            Self::Contains => memchr::memmem::find(text, argument).map(|start| start..start + argument.len()),
            Self::ContainsWord => memchr::memmem::find_iter(text, argument)
                .map(|start| start..start + argument.len())
                .find(|range| {
                    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
                    ![before, text.get(range.end)].into_iter().flatten().any(|byte| is_word(*byte))
                }),
            Self::BeginsWith => text.starts_with(argument).then_some(0..argument.len()),
            Self::EndsWith => text.ends_with(argument).then(|| text.len() - argument.len()..text.len()),
            Self::Equals => (text == argument).then_some(all),
            Self::Within => memchr::memmem::find(argument, text).map(|_| all),
        }
    }
}

impl NumberTest {
    fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Reads a whole number; `None` if there is none.
pub(super) fn parse_number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Whether there is anything but one word: neither SQL nor markup can be injected without.
fn has_syntax(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii() && !is_word(*byte))
}

fn libinjectionrs_sqli(text: &[u8]) -> bool {
    libinjectionrs::detect_sqli(text).is_injection()
}

fn libinjectionrs_xss(text: &[u8]) -> bool {
    libinjectionrs::detect_xss(text).is_injection()
}

/// Runs a detector of the library, which is not known to be free of panics; where it cannot say, a text that was
/// made to confuse it is taken for what it looks for.
fn detected(text: &[u8], detect: impl Fn(&[u8]) -> bool) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| detect(text))).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(operator: &str, text: &str) -> Option<Range<usize>> {
        parse(operator).unwrap().0.operator.find(text.as_bytes(), |_| Vec::new())
    }

    #[test]
    fn each_operator() {
        for (operator, hit, miss) in [
            ("@rx b+", "abb", "a"),
            ("b+", "abb", "a"),
            ("@pm foo bar", "xBARx", "baz"),
            ("@contains a b", "xa b", "ab"),
            ("@containsWord or", "1 or 2", "for"),
            ("@beginsWith ab", "abc", "xab"),
            ("@endsWith bc", "abc", "bcd"),
            ("@streq abc", "abc", "abcd"),
            ("@within GET POST", "GET", "PUT"),
            ("@eq 3", " 3", "4"),
            ("@gt 3", "4", "3"),
            ("@ge 3", "3", "2"),
            ("@lt 3", "x", "3"),
            ("@le 3", "3", "4"),
            ("@detectSQLi", "1' or '1'='1", "it's fine"),
            ("@detectXSS", "<script>alert(1)</script>", "a < b"),
            ("@validateByteRange 1-127", "a\0", "ab"),
            ("@ipMatch 10.0.0.0/8,::1", "10.2.3.4", "11.0.0.1"),
            ("@unconditionalMatch", "", "-"),
        ] {
            assert!(find(operator, hit).is_some(), "{operator} {hit}");
            assert!(miss == "-" || find(operator, miss).is_none(), "{operator} {miss}");
        }
        assert_eq!(find("@noMatch", "x"), None);
        assert!(parse("@validateUtf8Encoding").unwrap().0.operator.find(b"a\xff", |_| Vec::new()).is_some());
        assert!(parse("!@rx a").unwrap().0.negated);
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        for (operator, part) in [
            ("@geoLookup", "@geoLookup is not supported"),
            ("@eq abc", "not a number"),
            ("@pm", "no phrase"),
            ("@validateByteRange 1-300", "1-300"),
            ("@ipMatch 10.0.0.0/40", "10.0.0.0/40"),
            ("@rx %{tx.x}", "macros"),
        ] {
            let error = parse(operator).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
