//! Regular expressions as PCRE writes them, in the words of the two engines that run them.
//!
//! SecLang's patterns are PCRE on bytes. Most of it means the same to the linear-time engine; this module spells out
//! the rest. What no linear-time engine can do (look-around, back references, atomic groups) is left out of the
//! linear form, which therefore matches wherever the exact form does, and more.

use std::borrow::Cow;

/// Both forms of one pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translated {
    /// Matches every text that the pattern matches.
    pub(super) linear: String,
    /// The pattern itself, where `linear` matches more.
    pub(super) exact: Option<String>,
}

/// Translates `pattern`.
pub(super) fn translate(pattern: &str) -> Result<Translated, String> {
    let pattern = with_single_escapes(pattern);
    let mut reader = Reader {
        rest: pattern.as_bytes(),
        linear: String::new(),
        exact: String::new(),
        hard: false,
        depth: 0,
        muted: None,
    };
    reader.run()?;
    Ok(Translated { linear: reader.linear, exact: reader.hard.then_some(reader.exact) })
}

/// Halves runs of four backslashes and more, which rules for Apache have, whose configuration is unescaped before
/// the pattern is read. Two backslashes stay: other servers do not unescape, and there they mean one.
fn with_single_escapes(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains(r"\\\\") {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(start) = rest.find('\\') {
        let (before, run) = rest.split_at(start);
        let after = run.trim_start_matches('\\');
        let length = run.len() - after.len();
        out.push_str(before);
        out.push_str(&"\\".repeat(if length < 4 { length } else { length.div_ceil(2) }));
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

struct Reader<'a> {
    rest: &'a [u8],
    linear: String,
    exact: String,
    hard: bool,
    depth: usize,
    /// The depth of the look-around whose inside the linear form leaves out.
    muted: Option<usize>,
}

impl Reader<'_> {
    fn both(&mut self, text: &str) {
        self.exact.push_str(text);
        if self.muted.is_none() {
            self.linear.push_str(text);
        }
    }

    fn differ(&mut self, linear: &str, exact: &str) {
        self.hard = true;
        self.exact.push_str(exact);
        if self.muted.is_none() {
            self.linear.push_str(linear);
        }
    }

    fn byte(&mut self, byte: u8) {
        let mut text = String::new();
        push_literal(&mut text, byte);
        self.both(&text);
    }

    fn skip(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(first) = self.rest.first().copied() {
            match first {
                b'\\' => self.escape()?,
                b'[' => self.class()?,
                b'(' => self.group()?,
                b')' => {
                    self.skip(1);
                    self.both(")");
                    if self.muted == Some(self.depth) {
                        self.muted = None;
                    }
                    self.depth = self.depth.saturating_sub(1);
                }
                b'{' => match quantifier(self.rest) {
                    Some(length) => self.repetition(length),
                    None => {
                        self.skip(1);
                        self.both("\\{");
                    }
                },
                b'*' | b'+' | b'?' => self.repetition(1),
                b'}' | b']' => {
                    self.skip(1);
                    self.byte(first);
                }
                b'^' | b'$' | b'.' | b'|' => {
                    self.skip(1);
                    self.both(&char::from(first).to_string());
                }
                _ => {
                    self.skip(1);
                    self.byte(first);
                }
            }
        }
        Ok(())
    }

    /// A quantifier of `length` bytes, perhaps lazy or possessive.
    fn repetition(&mut self, length: usize) {
        let text: String = self.rest.iter().take(length).map(|byte| char::from(*byte)).collect();
        self.skip(length);
        self.both(&text);
        match self.rest.first() {
            Some(b'?') => {
                self.skip(1);
                self.both("?");
            }
            Some(b'+') => {
                self.skip(1);
                self.differ("", "+");
            }
            _ => {}
        }
    }

    fn group(&mut self) -> Result<(), String> {
        let named = |rest: &[u8]| {
            let end = rest.iter().position(|byte| *byte == b'>').map(|at| at + 1);
            end.ok_or("the name of a group has no end; write `>` after it")
        };
        let length = match self.rest {
            [b'(', b'?', b'#', tail @ ..] => {
                let comment = tail.iter().position(|byte| *byte == b')').map_or(tail.len(), |at| at + 1);
                return {
                    self.skip(3 + comment);
                    Ok(())
                };
            }
            [b'(', b'?', b'=' | b'!', ..] => return self.look(3),
            [b'(', b'?', b'<', b'=' | b'!', ..] => return self.look(4),
            [b'(', b'?', b'>', ..] => {
                self.skip(3);
                self.depth += 1;
                self.differ("(?:", "(?>");
                return Ok(());
            }
            [b'(', b'?', b'|' | b'(' | b'R' | b'&' | b'0'..=b'9' | b'+', ..]
            | [b'(', b'?', b'-', b'0'..=b'9', ..]
            | [b'(', b'*', ..] => {
                return Err(
                    "the pattern uses recursion, a condition or a verb, which is not supported; write it \
                            without"
                        .to_owned(),
                );
            }
            [b'(', b'?', b'P', b'<', ..] | [b'(', b'?', b'<', ..] => named(self.rest)?,
            [b'(', b'?', tail @ ..] => {
                // Flags: `(?i)` or `(?i:`.
                let flags =
                    tail.iter().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
                2 + flags + 1
            }
            _ => 1,
        };
        let text: String = self.rest.iter().take(length).map(|byte| char::from(*byte)).collect();
        self.skip(length);
        self.both(&text);
        if !text.ends_with(')') {
            self.depth += 1;
        }
        Ok(())
    }

    fn look(&mut self, length: usize) -> Result<(), String> {
        let text: String = self.rest.iter().take(length).map(|byte| char::from(*byte)).collect();
        self.skip(length);
        self.depth += 1;
        self.differ("(?:", &text);
        self.muted = self.muted.or(Some(self.depth));
        // The linear form gets an empty group.
        if self.muted == Some(self.depth) {
            self.linear.push(')');
        }
        Ok(())
    }

    /// An escape outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        let Some(letter) = self.rest.get(1).copied() else {
            return Err("the pattern ends with a backslash; write \\\\ for one".to_owned());
        };
        let digits = |rest: &[u8]| rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        match letter {
            b'1'..=b'9' => {
                let length = digits(self.rest.get(1..).unwrap_or_default());
                let text: String = self.rest.iter().take(1 + length).map(|b| char::from(*b)).collect();
                self.skip(1 + length);
                self.differ("(?s:.*)", &text);
            }
            b'Q' => {
                self.skip(2);
                let end = memchr::memmem::find(self.rest, b"\\E");
                let literal: Vec<u8> =
                    self.rest.iter().take(end.unwrap_or(self.rest.len())).copied().collect();
                self.skip(literal.len() + 2);
                literal.into_iter().for_each(|byte| self.byte(byte));
            }
            b'E' => self.skip(2),
            b'h' => self.replace("[\\t \\xa0]"),
            b'H' => self.replace("[^\\t \\xa0]"),
            b'v' => self.replace("[\\n\\x0b\\x0c\\r]"),
            b'V' => self.replace("[^\\n\\x0b\\x0c\\r]"),
            b'N' => self.replace("[^\\n]"),
            b'R' => self.replace("(?:\\r\\n|[\\n\\x0b\\x0c\\r])"),
            b'Z' => self.replace("(?:\\n?\\z)"),
            b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'b' | b'B' | b'A' | b'z' => {
                let text = format!("\\{}", char::from(letter));
                self.replace(&text);
            }
            b'K' | b'G' | b'X' | b'C' | b'g' | b'k' | b'p' | b'P' => {
                return Err(format!(
                    "the pattern uses \\{}, which is not supported; write it without",
                    char::from(letter)
                ));
            }
            _ => {
                let (byte, length) = escaped(self.rest)?;
                self.skip(length);
                self.byte(byte);
            }
        }
        Ok(())
    }

    fn replace(&mut self, text: &str) {
        self.skip(2);
        self.both(text);
    }

    /// A bracketed class.
    fn class(&mut self) -> Result<(), String> {
        let mut out = String::from("[");
        self.skip(1);
        if self.rest.first() == Some(&b'^') {
            self.skip(1);
            out.push('^');
        }
        let mut first = true;
        // What the byte before was: a range can neither start after a set nor after another range.
        let (mut open, mut in_range) = (false, false);
        loop {
            let Some(byte) = self.rest.first().copied() else {
                return Err("the pattern has an unclosed class; close it with ]".to_owned());
            };
            match self.rest {
                [b']', ..] if !first => {
                    self.skip(1);
                    break;
                }
                [b'[', b':', ..] if let Some(end) = memchr::memmem::find(self.rest, b":]") => {
                    let name: String = self.rest.iter().take(end + 2).map(|b| char::from(*b)).collect();
                    self.skip(end + 2);
                    out.push_str(&name);
                    (open, in_range) = (false, false);
                }
                [b'-', next, ..] if open && !in_range && *next != b']' && !is_set(self.rest) => {
                    self.skip(1);
                    out.push('-');
                    in_range = true;
                }
                [b'\\', letter @ (b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'h' | b'v'), ..] => {
                    out.push_str(match letter {
                        b'h' => "\\t \\xa0",
                        b'v' => "\\n\\x0b\\x0c\\r",
                        b'd' => "\\d",
                        b'D' => "\\D",
                        b'w' => "\\w",
                        b'W' => "\\W",
                        b's' => "\\s",
                        _ => "\\S",
                    });
                    self.skip(2);
                    (open, in_range) = (false, false);
                }
                [b'\\', ..] => {
                    let (byte, length) = match self.rest {
                        [b'\\', b'b', ..] => (8, 2),
                        _ => escaped(self.rest)?,
                    };
                    self.skip(length);
                    push_literal(&mut out, byte);
                    (open, in_range) = (!in_range, false);
                }
                _ => {
                    self.skip(1);
                    push_literal(&mut out, byte);
                    (open, in_range) = (!in_range, false);
                }
            }
            first = false;
        }
        out.push(']');
        self.both(&out);
        Ok(())
    }
}

/// Whether the hyphen at the start of `rest` stands before a set, where it means itself.
fn is_set(rest: &[u8]) -> bool {
    matches!(
        rest,
        [b'-', b'\\', b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'h' | b'v', ..] | [b'-', b'[', b':', ..]
    )
}

/// The length of `{n}`, `{n,}` or `{n,m}` at the start of `rest`.
fn quantifier(rest: &[u8]) -> Option<usize> {
    let end = rest.iter().position(|byte| *byte == b'}')?;
    let inner = rest.get(1..end)?;
    let (least, most) =
        match inner.iter().position(|byte| *byte == b',').and_then(|at| inner.split_at_checked(at)) {
            Some((least, most)) => (least, most.get(1..).unwrap_or_default()),
            None => (inner, &[][..]),
        };
    let digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    (!least.is_empty() && digits(least) && digits(most)).then_some(end + 1)
}

/// The byte that an escape stands for, and the length of the escape.
fn escaped(rest: &[u8]) -> Result<(u8, usize), String> {
    let hex = |text: &[u8]| u32::from_str_radix(std::str::from_utf8(text).unwrap_or("x"), 16).unwrap_or(0);
    Ok(match rest {
        [b'\\', b'x', b'{', braced @ ..] => {
            let end = braced.iter().position(|byte| *byte == b'}').unwrap_or(braced.len());
            let code = hex(braced.get(..end).unwrap_or_default());
            let byte = u8::try_from(code)
                .map_err(|_| "the pattern names a character beyond \\xff; write its bytes".to_owned())?;
            (byte, 3 + end + 1)
        }
        [b'\\', b'x', tail @ ..] => {
            let length = tail.iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
            let code = if length == 0 { 0 } else { hex(tail.get(..length).unwrap_or_default()) };
            (u8::try_from(code).unwrap_or(0), 2 + length)
        }
        [b'\\', tail @ ..] if matches!(tail, [b'0'..=b'7', ..]) => {
            let length = tail.iter().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            let digits = tail.get(..length).unwrap_or_default();
            let code = digits.iter().fold(0u32, |code, digit| code * 8 + u32::from(digit - b'0'));
            (u8::try_from(code & 0xff).unwrap_or(0), 1 + length)
        }
        [b'\\', b'c', letter, ..] => (letter.to_ascii_uppercase() ^ 0x40, 3),
        [b'\\', letter, ..] => {
            let byte = match letter {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'f' => 12,
                b'a' => 7,
                b'e' => 27,
                other => *other,
            };
            (byte, 2)
        }
        _ => return Err("the pattern ends with a backslash; write \\\\ for one".to_owned()),
    })
}

/// A byte that means itself, in and out of classes.
fn push_literal(out: &mut String, byte: u8) {
    match byte {
        b'A'..=b'Z'
        | b'a'..=b'z'
        | b'0'..=b'9'
        | b' '
        | b'_'
        | b'"'
        | b'\''
        | b'<'
        | b'>'
        | b'='
        | b','
        | b';'
        | b':'
        | b'%'
        | b'@'
        | b'!'
        | b'`'
        | b'/' => out.push(char::from(byte)),
        byte => out.push_str(&format!("\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn plain_patterns_keep_their_meaning() {
        for (pattern, linear) in [
            (r"(?i)\bunion\s+(?:all\s+)?select\b", r"(?i)\bunion\s+(?:all\s+)?select\b"),
            (r"\<\/a", r"</a"),
            (r"[\w-.]", r"[\w\x2d\x2e]"),
            (r"[[\]a]", r"[\x5b\x5da]"),
            (r"[]a]", r"[\x5da]"),
            (r"[a-c-e]", r"[a-c\x2de]"),
            (r"${x}", r"$\{x\x7d"),
            (r"a{2,3}b{x", r"a{2,3}b\{x"),
            (r"\h\x5c\x{ff}é", r"[\t \xa0]\x5c\xff\xc3\xa9"),
            (r"[[:alpha:]_]", r"[[:alpha:]_]"),
            (r"(?#x)a\Q.*\Eb", r"a\x2e\x2ab"),
        ] {
            let found = translate(pattern).unwrap();
            assert_eq!((found.linear.as_str(), &found.exact), (linear, &None), "{pattern}");
        }
    }

    #[test]
    fn what_is_not_linear_has_two_forms() {
        for (pattern, linear, exact) in [
            (r"<\?(?!xml)x", r"<\x3f(?:)x", r"<\x3f(?!xml)x"),
            (r"(?<!a(?:b|c));", r"(?:);", r"(?<!a(?:b|c));"),
            (r"(\w+)=\1", r"(\w+)=(?s:.*)", r"(\w+)=\1"),
            (r"a++(?>b|c)", r"a+(?:b|c)", r"a++(?>b|c)"),
        ] {
            let found = translate(pattern).unwrap();
            assert_eq!((found.linear.as_str(), found.exact.as_deref()), (linear, Some(exact)), "{pattern}");
        }
    }

    #[test]
    fn escapes_for_apache_are_taken_back() {
        for (pattern, expected) in [
            (r"[\\\\/]", r"[\\/]"),
            (r"a\\\\u0041", r"a\\u0041"),
            (r"\\\\\.", r"\\\."),
            (r"[\\/]\d", r"[\\/]\d"),
        ] {
            assert_eq!(with_single_escapes(pattern), expected);
        }
    }

    #[test]
    fn mistakes() {
        for pattern in ["[a", "a\\", "a(?<b", "(?P<b)", r"(?R)", r"\x{1234}", r"\pL"] {
            assert!(translate(pattern).unwrap_err().contains(';'), "{pattern}");
        }
    }
}
