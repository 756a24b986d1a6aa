//! Percent encoding of URLs and forms, with the IIS form `%uXXXX`.

use std::borrow::Cow;

use super::{hex, unicode};

/// What the decoder makes of the two characters whose meaning depends on the place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// `%XX` only: paths.
    Path,
    /// `%XX`, and `+` is a space: queries and forms.
    Form,
    /// As `Form`, and `%uXXXX` is its low byte: what SecLang calls `urlDecodeUni`.
    FormUni,
    /// `%XX` and `%uXXXX` as UTF-8, `+` kept: a second decoding of something decoded before.
    Text,
}

/// Decodes `%XX`; `+` stays.
pub(crate) fn decode(input: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', input).is_none() {
        return Cow::Borrowed(input);
    }
    run(input, Dialect::Path).map_or(Cow::Borrowed(input), Cow::Owned)
}

/// Decodes `%XX` and `+`.
pub(crate) fn form_decode(input: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'%', b'+', input).is_none() {
        return Cow::Borrowed(input);
    }
    run(input, Dialect::Form).map_or(Cow::Borrowed(input), Cow::Owned)
}

/// Decodes `%XX` and `%uXXXX` of text that was decoded before; `None` if there is nothing to decode.
pub(crate) fn decode_text(input: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'%', input).and_then(|_| run(input, Dialect::Text))
}

pub(super) fn url_decode(input: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr2(b'%', b'+', input).and_then(|_| run(input, Dialect::Form))
}

pub(super) fn url_decode_uni(input: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr2(b'%', b'+', input).and_then(|_| run(input, Dialect::FormUni))
}

/// One pass over `input`; `None` if nothing changed.
fn run(input: &[u8], dialect: Dialect) -> Option<Vec<u8>> {
    let plus = matches!(dialect, Dialect::Form | Dialect::FormUni);
    let wide = matches!(dialect, Dialect::FormUni | Dialect::Text);
    let mut output = Vec::with_capacity(input.len());
    let mut changed = false;
    let mut rest = input;
    loop {
        match rest {
            [] => break,
            [b'%', b'u' | b'U', a, b, c, d, tail @ ..] if wide => {
                if let Some(code) = hex::number(&[*a, *b, *c, *d]) {
                    if dialect == Dialect::FormUni {
                        output.push(unicode::low_byte(code));
                    } else {
                        unicode::push_folded(&mut output, code);
                    }
                    (changed, rest) = (true, tail);
                    continue;
                }
            }
            [b'%', high, low, tail @ ..] => {
                if let Some(byte) = hex::pair(*high, *low) {
                    output.push(byte);
                    (changed, rest) = (true, tail);
                    continue;
                }
            }
            [b'+', tail @ ..] if plus => {
                output.push(b' ');
                (changed, rest) = (true, tail);
                continue;
            }
            _ => {}
        }
        // Nothing to decode here: copy up to the next byte that could start an escape.
        let next = match rest.get(1..) {
            Some(tail) if plus => memchr::memchr2(b'%', b'+', tail),
            Some(tail) => memchr::memchr(b'%', tail),
            None => None,
        };
        let (plain, tail) =
            rest.split_at_checked(next.map_or(rest.len(), |at| at + 1)).unwrap_or((rest, &[]));
        output.extend_from_slice(plain);
        rest = tail;
    }
    changed.then_some(output)
}

/// Encodes everything but letters, digits and `*`; a space becomes `+`.
pub(super) fn encode(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len());
    for byte in input {
        match byte {
            b' ' => output.push(b'+'),
            b'*' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => output.push(*byte),
            _ => output.extend([b'%', hex::lower(byte >> 4), hex::lower(byte & 15)]),
        }
    }
    output
}
