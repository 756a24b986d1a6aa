//! The `OPERATOR` part of a rule.

use std::{
    net::IpAddr,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aho_corasick::{AhoCorasick, MatchKind};

use super::{
    RuleFile,
    compare::{NumberTest, TextTest},
    lexer::excerpt,
    literals::{ANY, Classes, Needs, byte_mask},
    network::Network,
    pattern::{self, Pattern},
    template::Template,
    tx::number,
};
use crate::injection;

/// A test of one text.
#[derive(Debug)]
pub(super) enum Operator {
    Pattern(Pattern),
    /// A pattern with macros.
    Composed(Template, Composed),
    /// `@pm`: any of some phrases.
    Phrases(AhoCorasick),
    /// A comparison with an argument that may hold macros.
    Text(TextTest, Template),
    Number(NumberTest, Operand),
    Sqli,
    Xss,
    /// Matches if there is a byte that is not in the set.
    ByteRange(Box<[bool; 256]>),
    UrlEncoding,
    Utf8,
    Address(Vec<Network>),
    /// A number with a check digit, found by a pattern.
    Checked(Check, Pattern),
    Always,
    Never,
}

/// The pattern of an `@rx` with macros, which nearly always stand for the same texts: the last one is kept.
#[derive(Debug, Default)]
pub(super) struct Composed(Mutex<Option<(Vec<u8>, Arc<Pattern>)>>);

impl Composed {
    /// The compiled pattern; `None` if it is not valid.
    fn get(&self, text: &[u8]) -> Option<Arc<Pattern>> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, pattern)) = &*last
            && known == text
        {
            return Some(Arc::clone(pattern));
        }
        let (pattern, _) = pattern::compile(std::str::from_utf8(text).ok()?).ok()?;
        let pattern = Arc::new(pattern);
        *last = Some((text.to_vec(), Arc::clone(&pattern)));
        Some(pattern)
    }
}

/// The right side of a numeric comparison.
#[derive(Debug)]
pub(super) enum Operand {
    Fixed(i64),
    Template(Template),
}

/// A check digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// Of payment cards.
    Luhn,
    /// United States social security numbers: areas that are not given out.
    Ssn,
    /// Brazilian tax numbers.
    Cpf,
}

/// An operator as a rule uses it.
#[derive(Debug)]
pub(super) struct Test {
    pub(super) operator: Operator,
    /// `!`: matches where the operator does not.
    pub(super) negated: bool,
    /// Tells the test from all others in this process, if what it says depends on the text alone and is not cheap.
    pub(super) id: Option<u64>,
}

/// A parsed operator: the test, what a text needs to be matched, and what the operator should know but does not.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) test: Test,
    pub(super) needs: Needs,
    pub(super) warning: Option<String>,
}

/// Parses `@rx pattern`, `!@eq 0` or a bare pattern; `read` gives the files of a name.
pub(super) fn parse(
    text: &str,
    read: &dyn Fn(&str) -> Result<Vec<RuleFile>, String>,
) -> Result<Parsed, String> {
    let text = text.trim_start();
    let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim_start()));
    let (name, argument) = match text.strip_prefix('@') {
        Some(rest) => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        None => ("rx", text),
    };
    let mut needs = Needs::default();
    let mut warning = None;
    let lower = name.to_ascii_lowercase();
    let operator = match lower.as_str() {
        "rx" | "rxglobal" => {
            // `%{1,3}` is a repetition.
            if argument.split("%{").skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic())) {
                Operator::Composed(Template::parse(argument)?, Composed::default())
            } else {
                let pattern;
                (pattern, needs) = pattern::compile(argument)?;
                Operator::Pattern(pattern)
            }
        }
        "pm" => {
            let words = argument.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()).collect();
            phrases(words, &mut needs)?
        }
        "pmfromfile" | "pmf" => phrases(lines(argument, read)?, &mut needs)?,
        "strmatch" => phrases(vec![argument.as_bytes().to_vec()], &mut needs)?,
        "detectsqli" => {
            needs.classes = Classes::one_of(SYNTAX);
            Operator::Sqli
        }
        "detectxss" => {
            // Neither a tag nor an attribute without one of them.
            needs.classes = Classes::one_of(byte_mask(b'<') | byte_mask(b'='));
            Operator::Xss
        }
        "validatebyterange" => {
            let set = byte_range(argument)?;
            let forbidden = set.iter().zip(0..=u8::MAX).filter(|(allowed, _)| !**allowed);
            needs.classes = Classes::one_of(forbidden.fold(0, |mask, (_, byte)| mask | byte_mask(byte)));
            Operator::ByteRange(Box::new(set))
        }
        "validateurlencoding" => {
            needs.classes = Classes::one_of(byte_mask(b'%'));
            Operator::UrlEncoding
        }
        "validateutf8encoding" => {
            needs.classes = Classes::one_of(byte_mask(u8::MAX));
            Operator::Utf8
        }
        "ipmatch" => Operator::Address(networks(argument.split(','))?),
        "ipmatchfromfile" | "ipmatchf" => {
            let lines = lines(argument, read)?;
            let lines = lines.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>();
            Operator::Address(networks(lines.iter().map(AsRef::as_ref))?)
        }
        "verifycc" => checked(Check::Luhn, argument, &mut needs)?,
        "verifyssn" => checked(Check::Ssn, argument, &mut needs)?,
        "verifycpf" => checked(Check::Cpf, argument, &mut needs)?,
        // What these ask is not in the request, and nothing is fetched while one waits.
        "rbl" | "geolookup" => {
            warning = Some(format!(
                "@{name} needs the network or a database that Portcullis does not have: it never matches; remove the rule or \
                 use a block list"
            ));
            Operator::Never
        }
        "unconditionalmatch" => Operator::Always,
        "nomatch" => Operator::Never,
        other => compared(other, argument)
            .unwrap_or_else(|| Err(format!("operator @{name} is not supported; remove the rule")))?,
    };
    if negated {
        needs = Needs::default();
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let searches = matches!(operator, Operator::Pattern(_) | Operator::Phrases(_) | Operator::Checked(..));
    let id = searches.then(|| NEXT.fetch_add(1, Ordering::Relaxed));
    Ok(Parsed { test: Test { operator, negated, id }, needs, warning })
}

/// Everything but letters, digits and what is not ASCII: without it, neither SQL nor markup can be injected.
const SYNTAX: u64 = {
    let mut mask = 0;
    let mut byte = 0u8;
    while byte < 0x80 {
        if !byte.is_ascii_alphanumeric() && byte != b'_' {
            mask |= byte_mask(byte);
        }
        byte += 1;
    }
    mask & !ANY
};

fn compared(name: &str, argument: &str) -> Option<Result<Operator, String>> {
    use {NumberTest as N, TextTest as T};
    let text = |test| Ok(Operator::Text(test, Template::parse(argument)?));
    let number = |test| {
        let template = Template::parse(argument.trim())?;
        let operand = match template.fixed() {
            Some(text) if argument.trim().parse::<i64>().is_err() => {
                let text = String::from_utf8_lossy(text);
                return Err(format!("`{}` is not a number; write a whole number", excerpt(&text)));
            }
            Some(text) => Operand::Fixed(number(text)),
            None => Operand::Template(template),
        };
        Ok(Operator::Number(test, operand))
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

fn checked(check: Check, argument: &str, needs: &mut Needs) -> Result<Operator, String> {
    let pattern;
    (pattern, *needs) = pattern::compile(argument)?;
    Ok(Operator::Checked(check, pattern))
}

fn networks<'t>(parts: impl Iterator<Item = &'t str>) -> Result<Vec<Network>, String> {
    parts.map(|text| Network::parse(text.trim())).collect()
}

/// The lines of the files called `names`, without comments and empty ones.
fn lines(names: &str, read: &dyn Fn(&str) -> Result<Vec<RuleFile>, String>) -> Result<Vec<Vec<u8>>, String> {
    let mut all = Vec::new();
    for name in names.split_ascii_whitespace() {
        for file in read(name)? {
            let lines = file.bytes.split(|byte| *byte == b'\n');
            let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let meant = lines.filter(|line| !matches!(line.trim_ascii_start(), [] | [b'#', ..]));
            all.extend(meant.map(<[u8]>::to_vec));
        }
    }
    Ok(all)
}

fn phrases(words: Vec<Vec<u8>>, needs: &mut Needs) -> Result<Operator, String> {
    if words.is_empty() {
        return Err("@pm names no phrase; list at least one".to_owned());
    }
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_ascii_lowercase()).collect();
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostFirst)
        .build(&words)
        .map_err(|error| format!("@pm: {error}; use fewer phrases"))?;
    needs.any_of = words;
    Ok(Operator::Phrases(automaton))
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

impl Test {
    /// Where `text` matches; with `!` that is all of it.
    pub(super) fn find(&self, text: &[u8], expand: impl Fn(&Template) -> Vec<u8>) -> Option<Range<usize>> {
        match (&self.operator, self.negated) {
            (operator, false) => operator.find(text, expand),
            (Operator::Pattern(pattern), true) => (!pattern.is_match(text)).then_some(0..text.len()),
            (operator, true) => operator.find(text, expand).is_none().then_some(0..text.len()),
        }
    }
}

impl Operator {
    /// Where `text` matches; `expand` gives the value of an argument. Negation is not applied.
    pub(super) fn find(&self, text: &[u8], expand: impl Fn(&Template) -> Vec<u8>) -> Option<Range<usize>> {
        let all = 0..text.len();
        match self {
            Self::Pattern(pattern) => pattern.find(text),
            Self::Composed(template, composed) => composed.get(&expand(template))?.find(text),
            Self::Phrases(automaton) => automaton.find(text).map(|found| found.range()),
            Self::Text(test, template) => match template.fixed() {
                Some(argument) => test.find(text, argument),
                None => test.find(text, &expand(template)),
            },
            Self::Number(test, operand) => test.holds(number(text), operand.value(expand)).then_some(all),
            Self::Sqli => injection::sqli(text).is_some().then_some(all),
            Self::Xss => injection::xss(text).then_some(all),
            Self::ByteRange(set) => {
                let allowed = |byte: &u8| set.get(usize::from(*byte)).copied().unwrap_or(false);
                text.iter().position(|byte| !allowed(byte)).map(|at| at..at + 1)
            }
            Self::UrlEncoding => memchr::memchr_iter(b'%', text)
                .find(|at| {
                    let digits = text.get(at + 1..at + 3);
                    digits.is_none_or(|digits| !digits.iter().all(u8::is_ascii_hexdigit))
                })
                .map(|at| at..text.len().min(at + 3)),
            Self::Utf8 => match std::str::from_utf8(text) {
                Ok(_) => None,
                Err(error) => Some(error.valid_up_to()..text.len().min(error.valid_up_to() + 1)),
            },
            Self::Address(networks) => {
                let address: IpAddr = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
                networks.iter().any(|network| network.contains(address)).then_some(all)
            }
            Self::Checked(check, pattern) => {
                let mut from = 0;
                while let Some(found) = text.get(from..).and_then(|rest| pattern.find(rest)) {
                    let range = from + found.start..from + found.end;
                    if text.get(range.clone()).is_some_and(|found| check.holds(found)) {
                        return Some(range);
                    }
                    from = range.end.max(from + 1);
                }
                None
            }
            Self::Always => Some(all),
            Self::Never => None,
        }
    }

    /// What `capture` keeps of a match at `fragment`, at most `most` texts.
    pub(super) fn captures(&self, text: &[u8], fragment: &[u8], most: usize) -> Vec<Vec<u8>> {
        match self {
            Self::Pattern(pattern) => pattern.captures(text, most),
            Self::Sqli => injection::sqli(text).map(|print| trimmed(&print)).into_iter().collect(),
            _ => vec![fragment.to_vec()],
        }
    }
}

/// A fingerprint as libinjection writes it, without what fills it up.
fn trimmed(print: &injection::Fingerprint) -> Vec<u8> {
    print.iter().copied().filter(|kind| *kind != b'.').collect()
}

impl Operand {
    pub(super) fn value(&self, expand: impl Fn(&Template) -> Vec<u8>) -> i64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Template(template) => number(&expand(template)),
        }
    }
}

impl Check {
    fn holds(self, found: &[u8]) -> bool {
        let digits: Vec<u32> = found
            .iter()
            .filter(|byte| byte.is_ascii_digit())
            .map(|digit| u32::from(digit - b'0'))
            .take(32)
            .collect();
        let value =
            |digits: Option<&[u32]>| digits.unwrap_or_default().iter().fold(0, |sum, digit| sum * 10 + digit);
        match self {
            Self::Luhn => {
                let sum = digits.iter().rev().enumerate().fold(0, |sum, (place, digit)| match place % 2 {
                    0 => sum + digit,
                    _ => sum + digit * 2 - if *digit > 4 { 9 } else { 0 },
                });
                digits.len() >= 2 && sum.is_multiple_of(10)
            }
            Self::Ssn => {
                let (area, group, serial) =
                    (value(digits.get(..3)), value(digits.get(3..5)), value(digits.get(5..9)));
                digits.len() == 9 && area != 0 && area != 666 && area < 740 && group != 0 && serial != 0
            }
            Self::Cpf => {
                let digit = |length: u32| {
                    let weights = (2..=length + 1).rev();
                    let sum: u32 = digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum();
                    Some(if sum % 11 < 2 { 0 } else { 11 - sum % 11 })
                };
                digits.len() == 11
                    && digits.iter().any(|other| Some(other) != digits.first())
                    && digit(9) == digits.get(9).copied()
                    && digit(10) == digits.get(10).copied()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(operator: &str) -> Result<Parsed, String> {
        super::parse(operator, &|path| {
            let bytes = b"# a comment\nfoo bar\r\n\n10.0.0.0/8\n".to_vec();
            (path == "list")
                .then(|| vec![RuleFile { name: path.to_owned(), bytes }])
                .ok_or_else(|| "no".to_owned())
        })
    }

    fn find(operator: &str, text: &str) -> Option<Range<usize>> {
        parse(operator).unwrap().test.operator.find(text.as_bytes(), |_| Vec::new())
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
            ("@pmFromFile list", "a FOO BAR", "foo"),
            ("@validateUrlEncoding", "a%2", "a%20"),
            ("@verifyCC \\d{16}", "4111111111111111", "4111111111111112"),
            ("@verifySSN \\d{3}-\\d\\d-\\d{4}", "123-45-6789", "666-45-6789"),
            ("@verifyCPF [0-9.-]+", "529.982.247-25", "529.982.247-26"),
        ] {
            assert!(find(operator, hit).is_some(), "{operator} {hit}");
            assert!(miss == "-" || find(operator, miss).is_none(), "{operator} {miss}");
        }
        assert_eq!(find("@noMatch", "x"), None);
        assert!(
            parse("@validateUtf8Encoding").unwrap().test.operator.find(b"a\xff", |_| Vec::new()).is_some()
        );
        assert!(parse("!@rx a").unwrap().test.negated);
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        for (operator, part) in [
            ("@inspectFile x", "@inspectFile is not supported"),
            ("@eq abc", "not a number"),
            ("@pm", "no phrase"),
            ("@validateByteRange 1-300", "1-300"),
            ("@ipMatch 10.0.0.0/40", "10.0.0.0/40"),
            ("@rx %{tpyo.x}", "tpyo"),
        ] {
            let error = parse(operator).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
