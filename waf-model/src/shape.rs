//! What may be kept of a name or a path segment: a word stays, whatever could be a value becomes its class.
//!
//! Names and paths of an API are written by its developers and are safe to store; identifiers, tokens and search
//! terms are not. The two are told apart by form alone, so that the same text always has the same shape.

use std::borrow::Cow;

use smol_str::{SmolStr, SmolStrBuilder};

use crate::decode::percent_decode;

/// Longest word that is kept, in bytes.
const WORD_BYTES: usize = 32;

/// Room made for a path template; most need no more.
const PATH_BYTES: usize = 48;

/// Most letters of a word part without a vowel or a separator; longer runs look random.
const CONSONANT_RUN: usize = 5;

/// The shape of one path segment or of one plain name: itself if it is a word, else a class such as `{int}`.
pub fn shape(text: &[u8]) -> Cow<'_, str> {
    if let Some((stem, extension)) = split_extension(text) {
        let stem = shape(stem);
        let kept = !stem.starts_with('{') && text.len() <= WORD_BYTES;
        return if kept { word(text) } else { Cow::Owned(format!("{stem}.{extension}")) };
    }
    match () {
        () if text.is_empty() => Cow::Borrowed(""),
        () if text.iter().all(u8::is_ascii_digit) => Cow::Borrowed("{int}"),
        () if is_uuid(text) => Cow::Borrowed("{uuid}"),
        () if text.len() >= 8
            && text.iter().all(u8::is_ascii_hexdigit)
            && text.iter().any(u8::is_ascii_digit) =>
        {
            Cow::Borrowed("{hex}")
        }
        () if is_word(text) => word(text),
        () if text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) => {
            Cow::Borrowed("{slug}")
        }
        () => Cow::Borrowed("{text}"),
    }
}

/// The template of a path given as decoded segments: `/orders/{int}`.
pub fn path<'a>(segments: impl Iterator<Item = &'a [u8]>) -> String {
    let mut template = String::with_capacity(PATH_BYTES);
    for segment in segments {
        template.push('/');
        template.push_str(&shape(segment));
    }
    if template.is_empty() {
        template.push('/');
    }
    template
}

/// The template of a path as it came.
pub fn raw_path(path: &[u8]) -> String {
    let segments = path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty());
    let decoded: Vec<_> = segments.map(percent_decode).collect();
    self::path(decoded.iter().map(|segment| &**segment))
}

/// The shape of a parameter name; parts joined by dots and brackets (`items[].sku`) are shaped one by one.
pub fn name(name: &[u8]) -> SmolStr {
    let is_joint = |byte: &u8| matches!(byte, b'.' | b'[' | b']');
    if !name.iter().any(is_joint) {
        return shape(name).into();
    }
    let mut shaped = SmolStrBuilder::new();
    let mut bytes = 0;
    let mut rest = name;
    while !rest.is_empty() {
        let end = rest.iter().position(is_joint).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        let part = shape(part);
        shaped.push_str(&part);
        bytes += part.len();
        rest = match tail.split_first() {
            Some((joint, tail)) => {
                shaped.push(char::from(*joint));
                bytes += 1;
                tail
            }
            None => tail,
        };
        if bytes > 4 * WORD_BYTES {
            shaped.push_str("{text}");
            break;
        }
    }
    shaped.finish()
}

fn word(text: &[u8]) -> Cow<'_, str> {
    // Words are ASCII by construction; the fallback keeps the function total.
    std::str::from_utf8(text).map_or(Cow::Borrowed("{text}"), Cow::Borrowed)
}

/// `name.ext` with an extension of one to five letters or digits that starts with a letter.
fn split_extension(text: &[u8]) -> Option<(&[u8], &str)> {
    let dot = text.iter().rposition(|&b| b == b'.').filter(|&at| at > 0)?;
    let (stem, extension) = (text.get(..dot)?, text.get(dot + 1..)?);
    let extension_like = (1..=5).contains(&extension.len())
        && extension.first().is_some_and(u8::is_ascii_alphabetic)
        && extension.iter().all(u8::is_ascii_alphanumeric);
    extension_like.then(|| std::str::from_utf8(extension).ok().map(|extension| (stem, extension)))?
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A word as developers write them: letters in parts, at most two digits, not random-looking.
fn is_word(text: &[u8]) -> bool {
    text.len() <= WORD_BYTES
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'$' | b'~' | b':'))
        && text.iter().any(u8::is_ascii_alphabetic)
        && text.iter().filter(|b| b.is_ascii_digit()).count() <= 2
        && text.split(|b| !b.is_ascii_alphabetic()).all(|part| part.len() <= 20 && !looks_random(part))
        && text.split(|b| matches!(b, b'-' | b'_')).count() <= 4
}

/// Long consonant runs or frequent changes of case, as in tokens.
fn looks_random(letters: &[u8]) -> bool {
    let (mut run, mut longest, mut raised) = (0, 0, 0);
    let mut previous_lower = false;
    for letter in letters {
        let vowel = matches!(letter.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
        run = if vowel || letter.is_ascii_uppercase() && previous_lower { 0 } else { run + 1 };
        longest = longest.max(run);
        raised += usize::from(previous_lower && letter.is_ascii_uppercase());
        previous_lower = letter.is_ascii_lowercase();
    }
    longest > CONSONANT_RUN || raised > 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_and_values_become_classes() {
        for (text, expected) in [
            ("orders", "orders"),
            ("getUserProfile", "getUserProfile"),
            ("tienda1", "tienda1"),
            ("v2", "v2"),
            ("x-forwarded-for", "x-forwarded-for"),
            ("index.jsp", "index.jsp"),
            ("photo-38192.jpg", "{slug}.jpg"),
            ("app.3f9c8a7e.js", "{text}.js"),
            ("12345", "{int}"),
            ("550e8400-e29b-41d4-a716-446655440000", "{uuid}"),
            ("deadbeef01", "{hex}"),
            ("a-very-long-title-of-a-post-about-things", "{slug}"),
            ("O'Brien", "{text}"),
            ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "{slug}"),
            ("hunter2hunter22", "{slug}"),
            ("dKfjQwPzLmNaXcVb", "{slug}"),
            ("jane@example.com", "{text}.com"),
            ("", ""),
        ] {
            assert_eq!(shape(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn names_are_shaped_part_by_part() {
        assert_eq!(name(b"items[].sku"), "items[].sku");
        assert_eq!(name(b"by_id.550e8400-e29b-41d4-a716-446655440000.qty"), "by_id.{uuid}.qty");
        assert_eq!(name(b"filter[price]"), "filter[price]");
        assert_eq!(path([&b"orders"[..], b"17"].into_iter()), "/orders/{int}");
        assert_eq!(path(std::iter::empty()), "/");
        assert_eq!(raw_path(b"/%6frders//17/"), "/orders/{int}");
    }
}
