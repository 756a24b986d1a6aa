//! The parameters of header fields such as `Content-Type` and `Content-Disposition`.

use std::borrow::Cow;

use crate::values::{Departure, Departures};

/// A header field value: its first part, then `; name=value` any number of times.
#[derive(Debug, Clone)]
pub(super) struct Parameters<'a> {
    /// What stands before the first semicolon.
    pub(super) first: &'a [u8],
    list: Vec<(Vec<u8>, Cow<'a, [u8]>)>,
    /// Names of which the value stood in quotation marks, by their place in the list.
    quoted: u32,
    /// White space, quotation marks and semicolons that are not where they should be.
    pub(super) departures: Departures,
    /// Whether parsers disagree about it: a name twice, a bad or unusual quotation.
    pub(super) ambiguous: bool,
}

impl<'a> Parameters<'a> {
    pub(super) fn parse(input: &'a [u8]) -> Self {
        let (first, mut rest) = until(input, b';');
        let mut parsed = Self {
            first: first.trim_ascii(),
            list: Vec::new(),
            quoted: 0,
            departures: Departures::default(),
            ambiguous: false,
        };
        parsed.departures.note(Departure::MissingSemicolon, memchr::memchr(b'=', first).is_some());
        while !rest.is_empty() {
            let name_end = memchr::memchr2(b'=', b';', rest).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(name_end).unwrap_or((rest, b""));
            let [b'=', value @ ..] = after else {
                rest = after.get(1..).unwrap_or_default();
                continue;
            };
            let spaced = name.last().is_some_and(u8::is_ascii_whitespace);
            let name = name.trim_ascii().to_ascii_lowercase();
            let spaced = spaced || value.first().is_some_and(u8::is_ascii_whitespace);
            parsed.departures.note(Departure::BoundaryWhitespace, spaced && name == b"boundary");
            parsed.ambiguous |= name.is_empty() || spaced;
            let value = value.trim_ascii_start();
            let (value, tail) = match value {
                [b'"', quoted @ ..] => {
                    parsed.quoted |= 1 << parsed.list.len();
                    parsed.quoted(quoted)
                }
                _ => parsed.token(value),
            };
            rest = tail;
            parsed.ambiguous |= parsed.list.iter().any(|(known, _)| *known == name);
            // Nobody has that many; without a bound the search for repeats would be quadratic.
            if parsed.list.len() == 16 {
                parsed.ambiguous = true;
                break;
            }
            parsed.list.push((name, value));
        }
        parsed
    }

    /// The first value of parameter `name` (lower case).
    pub(super) fn get(&self, name: &[u8]) -> Option<&Cow<'a, [u8]>> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Whether the first value of parameter `name` (lower case) stands in quotation marks.
    pub(super) fn is_quoted(&self, name: &[u8]) -> bool {
        let at = self.list.iter().position(|(known, _)| known == name);
        at.is_some_and(|at| self.quoted & (1 << at) != 0)
    }

    fn token(&mut self, input: &'a [u8]) -> (Cow<'a, [u8]>, &'a [u8]) {
        let (value, tail) = until(input, b';');
        let value = value.trim_ascii();
        let marked = value.iter().any(|byte| matches!(byte, b'"' | b'\'' | b'\\'));
        self.ambiguous |= self.departures.note(Departure::InvalidQuoting, marked);
        self.ambiguous |= value.iter().any(|byte| matches!(byte, 0..=b' ' | 0x7f));
        let run_on = value.iter().any(u8::is_ascii_whitespace) && value.contains(&b'=');
        self.departures.note(Departure::MissingSemicolon, run_on);
        (Cow::Borrowed(value), tail)
    }

    /// The rest of a quoted string after its opening mark. Browsers write a mark inside as `%22`, other clients
    /// put a backslash before it, and parsers differ on what a backslash means.
    fn quoted(&mut self, input: &'a [u8]) -> (Cow<'a, [u8]>, &'a [u8]) {
        let mut rest = input;
        let mut value = Vec::new();
        let mut escaped = false;
        loop {
            let at = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            let (plain, mark) = rest.split_at_checked(at).unwrap_or((rest, b""));
            value.extend_from_slice(plain);
            rest = match mark {
                [b'\\', byte @ (b'"' | b'\\'), tail @ ..] => {
                    // `\\"` ends the value for some parsers and continues it for others.
                    let unclear = *byte == b'"' || tail.first() == Some(&b'"');
                    self.ambiguous |= self.departures.note(Departure::InvalidQuoting, unclear);
                    escaped = true;
                    value.push(*byte);
                    tail
                }
                [b'\\', tail @ ..] => {
                    value.push(b'\\');
                    tail
                }
                [b'"', tail @ ..] => {
                    let (between, next) = until(tail, b';');
                    let run_on = !between.trim_ascii().is_empty();
                    self.ambiguous |= self.departures.note(Departure::MissingSemicolon, run_on);
                    let length = input.len() - tail.len() - 1;
                    return match input.get(..length) {
                        Some(raw) if !escaped => (Cow::Borrowed(raw), next),
                        _ => (Cow::Owned(value), next),
                    };
                }
                _ => {
                    self.ambiguous |= self.departures.note(Departure::InvalidQuoting, true);
                    return (Cow::Owned(value), b"");
                }
            };
        }
    }
}

/// What stands before the first `mark`, and what after it.
fn until(input: &[u8], mark: u8) -> (&[u8], &[u8]) {
    match memchr::memchr(mark, input).and_then(|at| input.split_at_checked(at)) {
        Some((before, after)) => (before, after.get(1..).unwrap_or_default()),
        None => (input, b""),
    }
}
