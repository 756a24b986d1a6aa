//! The parameters of header fields such as `Content-Type` and `Content-Disposition`.

use std::borrow::Cow;

/// A header field value: its first part, then `; name=value` any number of times.
#[derive(Debug, Clone)]
pub(super) struct Parameters<'a> {
    /// What stands before the first semicolon.
    pub(super) first: &'a [u8],
    list: Vec<(Vec<u8>, Cow<'a, [u8]>)>,
    /// Whether parsers disagree about it: a name twice, a bad or unusual quotation.
    pub(super) ambiguous: bool,
}

impl<'a> Parameters<'a> {
    pub(super) fn parse(input: &'a [u8]) -> Self {
        let (first, mut rest) = until(input, b';');
        let mut parsed = Self { first: first.trim_ascii(), list: Vec::new(), ambiguous: false };
        while !rest.is_empty() {
            let name_end = memchr::memchr2(b'=', b';', rest).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(name_end).unwrap_or((rest, b""));
            let [b'=', value @ ..] = after else {
                rest = after.get(1..).unwrap_or_default();
                continue;
            };
            parsed.ambiguous |= name.last().is_some_and(u8::is_ascii_whitespace);
            let name = name.trim_ascii().to_ascii_lowercase();
            parsed.ambiguous |= name.is_empty() || value.first().is_some_and(u8::is_ascii_whitespace);
            let value = value.trim_ascii_start();
            let (value, tail) = match value {
                [b'"', quoted @ ..] => parsed.quoted(quoted),
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

    fn token(&mut self, input: &'a [u8]) -> (Cow<'a, [u8]>, &'a [u8]) {
        let (value, tail) = until(input, b';');
        let value = value.trim_ascii();
        self.ambiguous |= value.iter().any(|byte| matches!(byte, 0..=b' ' | b'"' | b'\'' | b'\\' | 0x7f));
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
                    self.ambiguous |= *byte == b'"' || tail.first() == Some(&b'"');
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
                    self.ambiguous |= !between.trim_ascii().is_empty();
                    let length = input.len() - tail.len() - 1;
                    return match input.get(..length) {
                        Some(raw) if !escaped => (Cow::Borrowed(raw), next),
                        _ => (Cow::Owned(value), next),
                    };
                }
                _ => {
                    self.ambiguous = true;
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
