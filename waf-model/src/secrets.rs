//! Takes secrets out of a request that is kept as a whole, and leaves its structure: rules find in it what they found in
//! the request, unless that was the secret.
//!
//! Secret is what stands under a name such as `password` or `token`, and what looks like a token or the number of a
//! card. One scan knows pairs, JSON, XML, multipart and plain text alike, also in percent encoding, so that nothing
//! depends on a body being what it claims to be. It takes time in proportion to the input.

use crate::mask::is_known;

/// How pairs end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// At `&`: a query or an urlencoded form.
    Pairs,
    /// Also at quotation marks, blanks and brackets: anything else.
    Free,
}

/// How far back names are looked for, in bytes.
const NAME: usize = 64;
const ELEMENT: usize = 128;
const PART_HEAD: usize = 256;

/// Shortest run of letters and digits that looks like a token.
const TOKEN: usize = 16;

/// `input` without its secrets.
pub fn conceal(input: &[u8], text: Text) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len());
    let mut at = 0;
    while let Some((byte, size)) = unit(input, at) {
        if is_word(byte) {
            at = run(input, at, &mut out);
            continue;
        }
        out.extend_from_slice(input.get(at..at + size).unwrap_or_default());
        let before = input.get(..at).unwrap_or_default();
        at += size;
        let end = match byte {
            b'=' | b':' if is_secret_name(name_before(before)) => {
                let start = skip(input, at, |byte| matches!(byte, b' ' | b'\t'));
                out.extend_from_slice(input.get(at..start).unwrap_or_default());
                at = start;
                value_end(input, at, (byte, size), text)
            }
            b'>' if is_secret_name(element_before(before)) => {
                find(input, at, |byte, size| byte == b'<' && size == 1)
            }
            b'\n' if is_secret_name(part_before(before)) => part_end(input, at),
            _ => continue,
        };
        hide(input.get(at..end).unwrap_or_default(), &mut out);
        at = end;
    }
    out
}

/// A value that is secret as a whole: its marks and the words of attack languages stay.
pub fn conceal_all(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    hide(value, &mut out);
    out
}

/// The value of header `name` (lower case) without its secrets.
pub fn conceal_header(name: &str, value: &[u8]) -> Vec<u8> {
    if matches!(name, "authorization" | "proxy-authorization") {
        let end = memchr::memchr(b' ', value).unwrap_or(0);
        let (scheme, rest) = value.split_at_checked(end).unwrap_or((value, b""));
        return [scheme, &conceal_all(rest)].concat();
    }
    if matches!(name, "cookie" | "set-cookie") {
        let pairs = value.split(|byte| *byte == b';').map(|pair| {
            let end = memchr::memchr(b'=', pair).map_or(0, |at| at + 1);
            let (name, value) = pair.split_at_checked(end).unwrap_or((b"", pair));
            [name, &conceal_all(value)].concat()
        });
        return pairs.collect::<Vec<_>>().join(&b';');
    }
    if is_secret_name(name.as_bytes()) { conceal_all(value) } else { conceal(value, Text::Free) }
}

/// Whether what stands under this name is nobody else's business.
pub fn is_secret_name(name: &[u8]) -> bool {
    const PARTS: [&str; 22] = [
        "passw",
        "passphrase",
        "passcode",
        "pwd",
        "secret",
        "token",
        "apikey",
        "accesskey",
        "privatekey",
        "session",
        "sessid",
        "credential",
        "signature",
        "csrf",
        "xsrf",
        "jwt",
        "oauth",
        "authoriz",
        "saml",
        "cardnumber",
        "creditcard",
        "iban",
    ];
    const WHOLE: [&str; 10] = ["pass", "auth", "sid", "otp", "pin", "cvv", "cvc", "ssn", "card", "xauth"];
    if name.is_empty() || name.len() > NAME * 3 {
        return false;
    }
    let mut plain = String::new();
    let mut at = 0;
    while let Some((byte, size)) = unit(name, at) {
        if byte.is_ascii_alphanumeric() {
            plain.push(char::from(byte.to_ascii_lowercase()));
        }
        at += size;
    }
    PARTS.iter().any(|part| plain.contains(part))
        || WHOLE.contains(&plain.as_str())
        || (plain.ends_with("sid") && plain.len() > 5)
}

/// The byte at `at`, percent decoding undone, and how many bytes it takes.
fn unit(input: &[u8], at: usize) -> Option<(u8, usize)> {
    let digit = |at: usize| input.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let byte = *input.get(at)?;
    match (byte, digit(at + 1), digit(at + 2)) {
        (b'%', Some(high), Some(low)) => Some((u8::try_from(high * 16 + low).unwrap_or(b'%'), 3)),
        _ => Some((byte, 1)),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The first unit from `at` on that is `wanted`, or the end.
fn find(input: &[u8], mut at: usize, wanted: impl Fn(u8, usize) -> bool) -> usize {
    while let Some((byte, size)) = unit(input, at) {
        if wanted(byte, size) {
            return at;
        }
        at += size;
    }
    input.len()
}

fn skip(input: &[u8], at: usize, blank: impl Fn(u8) -> bool) -> usize {
    find(input, at, |byte, _| !blank(byte))
}

/// Copies a run of word characters, unless it looks like a token or a number of a card; returns its end.
fn run(input: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    if let Some(end) = card(input, at, out) {
        return end;
    }
    let end = skip(input, at, is_word);
    if !is_token(input, at, end) {
        out.extend_from_slice(input.get(at..end).unwrap_or_default());
        return end;
    }
    out.push(b'x');
    // Base64 has two more characters, and signed tokens have parts: what goes on in the same way belongs to it.
    let mut end = end;
    while let Some((b'+' | b'/' | b'.' | b'-' | b'~', size)) = unit(input, end) {
        let next = skip(input, end + size, is_word);
        if !is_random(input, end + size, next) {
            break;
        }
        end = next;
    }
    end
}

/// Counts letters of both cases and digits.
fn kinds(input: &[u8], mut at: usize, end: usize) -> (usize, usize, usize) {
    let (mut small, mut large, mut digits) = (0, 0, 0);
    while at < end
        && let Some((byte, size)) = unit(input, at)
    {
        small += usize::from(byte.is_ascii_lowercase());
        large += usize::from(byte.is_ascii_uppercase());
        digits += usize::from(byte.is_ascii_digit());
        at += size;
    }
    (small, large, digits)
}

fn is_token(input: &[u8], at: usize, end: usize) -> bool {
    if end.saturating_sub(at) < TOKEN {
        return false;
    }
    let (small, large, digits) = kinds(input, at, end);
    let letters = small + large;
    letters + digits >= TOKEN && (digits >= 2 && letters >= 2 || digits >= TOKEN)
}

fn is_random(input: &[u8], at: usize, end: usize) -> bool {
    let (small, large, digits) = kinds(input, at, end);
    digits > 0 || (small > 0 && large > 1)
}

/// Writes the number of a card, if one starts at `at`, with zeros for its digits; returns its end.
fn card(input: &[u8], at: usize, out: &mut Vec<u8>) -> Option<usize> {
    let mut digits = Vec::new();
    let mut shown = Vec::new();
    let (mut end, mut next) = (at, at);
    while let Some((byte, size)) = unit(input, next).filter(|_| digits.len() < 20) {
        let raw = input.get(next..next + size).unwrap_or_default();
        if byte.is_ascii_digit() {
            digits.push(u32::from(byte - b'0'));
            shown.push(b'0');
            end = next + size;
        } else if matches!(byte, b' ' | b'-' | b'+') && end == next && !digits.is_empty() {
            shown.extend_from_slice(raw);
        } else {
            break;
        }
        next += size;
    }
    let alone = unit(input, end).is_none_or(|(byte, _)| !is_word(byte));
    if !(13..=19).contains(&digits.len()) || !alone || !passes_luhn(&digits) {
        return None;
    }
    // A blank after the last digit is not part of it.
    while shown.last().is_some_and(|byte| *byte != b'0') && end < next {
        shown.pop();
        next -= 1;
    }
    out.extend_from_slice(&shown);
    Some(end)
}

/// The check digit of card numbers, ISO/IEC 7812-1.
fn passes_luhn(digits: &[u32]) -> bool {
    let weighed = digits.iter().rev().enumerate().map(|(at, digit)| match at % 2 {
        0 => *digit,
        _ => digit * 2 / 10 + digit * 2 % 10,
    });
    weighed.sum::<u32>().is_multiple_of(10)
}

/// Writes a secret: its marks, blanks and the words of attack languages stay, other words become `x`, numbers `0`.
fn hide(value: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some((byte, size)) = unit(value, at) {
        if byte == b'\\' {
            // What is escaped in JSON must stay so.
            let escaped = value.get(at + size);
            let hex = value.get(at + size + 1..at + size + 5);
            let unicode =
                escaped == Some(&b'u') && hex.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            if unicode {
                out.push(b'x');
                at += size + 5;
            } else {
                let end = (at + size + usize::from(escaped.is_some_and(u8::is_ascii))).min(value.len());
                out.extend_from_slice(value.get(at..end).unwrap_or_default());
                at = end;
            }
            continue;
        }
        if !is_word(byte) && !byte.is_ascii_control() || matches!(byte, b'\r' | b'\n' | b'\t') {
            out.extend_from_slice(value.get(at..at + size).unwrap_or_default());
            at += size;
            continue;
        }
        let hidden =
            |byte| is_word(byte) || byte.is_ascii_control() && !matches!(byte, b'\r' | b'\n' | b'\t');
        let end = skip(value, at, hidden);
        let raw = value.get(at..end).unwrap_or_default();
        let (small, large, digits) = kinds(value, at, end);
        match raw {
            _ if is_known(raw) => out.extend_from_slice(raw),
            _ if small + large == 0 && digits == raw.len() => out.push(b'0'),
            _ => out.push(b'x'),
        }
        at = end;
    }
}

/// The end of `input` that may be a name before a separator, without its quotation marks.
fn name_before(input: &[u8]) -> &[u8] {
    let tail = input.get(input.len().saturating_sub(NAME)..).unwrap_or(input).trim_ascii_end();
    let tail = tail.strip_suffix(b"%22").or(tail.strip_suffix(b"\"")).unwrap_or(tail);
    let tail = tail.strip_suffix(b"\\").unwrap_or(tail);
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.[]%".contains(byte);
    let length = tail.iter().rev().take_while(|byte| is_name(byte)).count();
    let name = tail.get(tail.len() - length..).unwrap_or_default();
    // In nested encodings only what follows the last encoded separator is the name.
    let cut = ["%26", "%3D", "%3d", "%22", "%3F", "%3f", "%2C", "%2c", "%7B", "%7b"].iter();
    let starts =
        cut.filter_map(|mark| memchr::memmem::rfind(name, mark.as_bytes()).map(|at| at + mark.len()));
    name.get(starts.max().unwrap_or(0)..).unwrap_or_default()
}

/// The name of the element whose start tag ends with `input`.
fn element_before(input: &[u8]) -> &[u8] {
    let tail = input.get(input.len().saturating_sub(ELEMENT)..).unwrap_or(input);
    let Some(open) = memchr::memrchr(b'<', tail) else { return b"" };
    let tag = tail.get(open + 1..).unwrap_or_default();
    let length = tag.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte)).count();
    tag.get(..length).unwrap_or_default()
}

/// The field name in the head of the part of a multipart body that ends with `input` and a line feed.
fn part_before(input: &[u8]) -> &[u8] {
    if !(input.ends_with(b"\n\r") || input.ends_with(b"\n")) {
        return b"";
    }
    let tail = input.get(input.len().saturating_sub(PART_HEAD)..).unwrap_or(input);
    let start = memchr::memmem::rfind(tail, b"\n--").unwrap_or(0);
    let head = tail.get(start..).unwrap_or_default();
    let Some(at) = memchr::memmem::find(head, b"name=") else { return b"" };
    let name = head.get(at + 5..).unwrap_or_default();
    let name = name.strip_prefix(b"\"").unwrap_or(name);
    let length = name.iter().take_while(|byte| !b"\";\r\n".contains(byte)).count();
    name.get(..length).unwrap_or_default()
}

/// Where the part ends whose content starts at `at`.
fn part_end(input: &[u8], at: usize) -> usize {
    let rest = input.get(at..).unwrap_or_default();
    if rest.starts_with(b"--") {
        return at;
    }
    memchr::memmem::find(rest, b"\n--").map_or(input.len(), |found| at + found)
}

/// Where the value ends that starts at `at`, after a separator of so many bytes.
fn value_end(input: &[u8], at: usize, (separator, size): (u8, usize), text: Text) -> usize {
    let Some((first, first_size)) = unit(input, at) else { return input.len() };
    let whole_pair = separator == b'=' && size == 1 && text == Text::Pairs;
    if whole_pair {
        return find(input, at, |byte, size| byte == b'&' && size == 1);
    }
    match first {
        b'"' | b'\'' => string_end(input, at + first_size, (first, first_size)),
        b'\\' if input.get(at + 1) == Some(&b'"') => string_end(input, at + 2, (b'\\', 1)),
        b'{' | b'[' => nested_end(input, at),
        _ => find(input, at, |byte, found| {
            let ends = match separator {
                b'=' => b"&\"'<> ;,\r\n".contains(&byte),
                _ => b"&\"<>,}]\r\n".contains(&byte),
            };
            // What is encoded once more than its separator belongs to the value.
            ends && (found == 1 || size == 3)
        }),
    }
}

/// The closing mark of a string: one that is written as the opening one was, and not escaped.
fn string_end(input: &[u8], mut at: usize, (mark, size): (u8, usize)) -> usize {
    while let Some((byte, found)) = unit(input, at) {
        if byte == mark && found == size {
            return at;
        }
        let escaped = if byte == b'\\' { unit(input, at + found).map_or(0, |(_, size)| size) } else { 0 };
        at += found + escaped;
    }
    input.len()
}

/// The end of an object or array.
fn nested_end(input: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some((byte, size)) = unit(input, at) {
        match byte {
            b'"' => at = string_end(input, at + size, (byte, size)),
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at = (at + size).min(input.len());
        if depth == 0 {
            return at;
        }
    }
    input.len()
}

#[cfg(test)]
mod tests;
