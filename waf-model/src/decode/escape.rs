//! Backslash escapes of JavaScript, CSS and ANSI C.

use super::{hex, unicode};

/// JavaScript escapes for rules: a code point becomes its low byte. `None` if there is no backslash.
pub(super) fn js(input: &[u8]) -> Option<Vec<u8>> {
    run_js(input, |output, code| output.push(unicode::low_byte(code)))
}

/// JavaScript escapes for text: a code point becomes UTF-8, surrogate pairs joined. `None` if there is no
/// escape that names a character by number.
pub(crate) fn js_text(input: &[u8]) -> Option<Vec<u8>> {
    let named = memchr::memchr_iter(b'\\', input).any(|at| input.get(at..).and_then(js_number).is_some());
    named.then(|| run_js(input, unicode::push_folded)).flatten()
}

fn run_js(input: &[u8], push: impl Fn(&mut Vec<u8>, u32)) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', input)?;
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    loop {
        rest = match rest {
            [] => break,
            [b'\\', b'u' | b'x', ..] if let Some((code, tail)) = js_number(rest) => {
                push(&mut output, code);
                tail
            }
            [b'\\', b'0'..=b'7', ..] => octal(&mut output, rest),
            [b'\\', letter, tail @ ..] => {
                output.push(control(*letter).unwrap_or(*letter));
                tail
            }
            [byte, tail @ ..] => {
                output.push(*byte);
                tail
            }
        };
    }
    Some(output)
}

/// `\uXXXX`, a surrogate pair of them, `\u{X...}` or `\xXX` at the start of `input`.
pub(crate) fn js_number(input: &[u8]) -> Option<(u32, &[u8])> {
    match input {
        [b'\\', b'u', b'{', braced @ ..] => {
            let end = braced.iter().take(9).position(|byte| *byte == b'}')?;
            let (digits, tail) = braced.split_at_checked(end)?;
            Some((hex::number(digits)?, tail.get(1..)?))
        }
        [b'\\', b'u', a, b, c, d, tail @ ..] => {
            let high = hex::number(&[*a, *b, *c, *d])?;
            if let (0xd800..=0xdbff, [b'\\', b'u', a, b, c, d, after @ ..]) = (high, tail)
                && let Some(low @ 0xdc00..=0xdfff) = hex::number(&[*a, *b, *c, *d])
            {
                return Some((0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), after));
            }
            Some((high, tail))
        }
        [b'\\', b'x', high, low, tail @ ..] => Some((u32::from(hex::pair(*high, *low)?), tail)),
        _ => None,
    }
}

/// Appends the byte of up to three octal digits after the backslash; returns what follows.
fn octal<'a>(output: &mut Vec<u8>, input: &'a [u8]) -> &'a [u8] {
    let mut value = 0u8;
    let mut rest = input.get(1..).unwrap_or_default();
    for _ in 0..3 {
        let [digit @ b'0'..=b'7', tail @ ..] = rest else { break };
        // A third digit that would not fit into a byte belongs to the text.
        let Some(larger) = value.checked_mul(8).and_then(|value| value.checked_add(digit - b'0')) else {
            break;
        };
        (value, rest) = (larger, tail);
    }
    output.push(value);
    rest
}

fn control(letter: u8) -> Option<u8> {
    Some(match letter {
        b'a' => 7,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 11,
        _ => return None,
    })
}

/// CSS 2 escapes: up to six digits and one white space after them; any other escaped character stands for
/// itself; an escaped line end vanishes.
pub(super) fn css(input: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', input)?;
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    loop {
        rest = match rest {
            [] | [b'\\'] => break,
            [b'\\', b'\n', tail @ ..] => tail,
            [b'\\', tail @ ..] => {
                let length = tail.iter().take(6).take_while(|byte| byte.is_ascii_hexdigit()).count();
                let (digits, after) = tail.split_at_checked(length).unwrap_or((&[], tail));
                match (hex::number(digits), after) {
                    (Some(code), _) => {
                        output.push(unicode::low_byte(code));
                        match after {
                            [b' ' | b'\t' | b'\n' | b'\r' | 11 | 12, after @ ..] => after,
                            _ => after,
                        }
                    }
                    (None, [byte, after @ ..]) => {
                        output.push(*byte);
                        after
                    }
                    (None, []) => after,
                }
            }
            [byte, tail @ ..] => {
                output.push(*byte);
                tail
            }
        };
    }
    Some(output)
}

/// ANSI C escapes; an unknown one stays as it is.
pub(super) fn ansi_c(input: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', input)?;
    let mut output = Vec::with_capacity(input.len());
    let mut rest = input;
    loop {
        rest = match rest {
            [] => break,
            [b'\\', b'0'..=b'7', ..] => octal(&mut output, rest),
            [b'\\', b'x' | b'X', high, low, tail @ ..] if let Some(byte) = hex::pair(*high, *low) => {
                output.push(byte);
                tail
            }
            [b'\\', letter @ (b'\\' | b'?' | b'\'' | b'"'), tail @ ..] => {
                output.push(*letter);
                tail
            }
            [b'\\', letter, tail @ ..] if let Some(byte) = control(*letter) => {
                output.push(byte);
                tail
            }
            [byte, tail @ ..] => {
                output.push(*byte);
                tail
            }
        };
    }
    Some(output)
}
