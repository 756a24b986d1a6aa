//! HTML character references.

use super::unicode;

/// Decodes references for rules: a code below 256 becomes that byte. `None` if there is none.
pub(super) fn decode(input: &[u8]) -> Option<Vec<u8>> {
    run(input, true)
}

/// Decodes references for text: every code becomes UTF-8. `None` if there is none.
pub(crate) fn decode_text(input: &[u8]) -> Option<Vec<u8>> {
    run(input, false)
}

fn run(input: &[u8], bytes: bool) -> Option<Vec<u8>> {
    memchr::memchr(b'&', input)?;
    let mut output = Vec::with_capacity(input.len());
    let mut changed = false;
    let mut rest = input;
    while let Some(at) = memchr::memchr(b'&', rest) {
        let (plain, reference) = rest.split_at_checked(at)?;
        output.extend_from_slice(plain);
        if let Some((code, tail)) = one(reference, bytes) {
            match u8::try_from(code) {
                Ok(byte) if bytes => output.push(byte),
                _ => unicode::push(&mut output, code),
            }
            changed = true;
            rest = tail;
        } else {
            output.push(b'&');
            rest = reference.get(1..).unwrap_or_default();
        }
    }
    output.extend_from_slice(rest);
    changed.then_some(output)
}

/// The reference at the start of `input` (which starts with `&`) and what follows it. The semicolon may be
/// missing, as in browsers, except after the names that browsers know only with it.
fn one(input: &[u8], lax: bool) -> Option<(u32, &[u8])> {
    let (code, tail) = match input {
        [b'&', b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
        [b'&', b'#', digits @ ..] => number(digits, 10)?,
        [b'&', name @ ..] => return named(name, lax),
        _ => return None,
    };
    Some((code, tail.strip_prefix(b";").unwrap_or(tail)))
}

/// A run of digits of the given base. Too large a number is U+FFFD, as in browsers.
fn number(input: &[u8], base: u32) -> Option<(u32, &[u8])> {
    let length = input.iter().take_while(|byte| char::from(**byte).is_digit(base)).count();
    let (digits, tail) = input.split_at_checked(length).filter(|(digits, _)| !digits.is_empty())?;
    let code = digits.iter().fold(0u32, |sum, byte| {
        sum.saturating_mul(base).saturating_add(char::from(*byte).to_digit(base).unwrap_or(0))
    });
    Some((code, tail))
}

fn named(input: &[u8], lax: bool) -> Option<(u32, &[u8])> {
    let length = input.iter().take(LONGEST).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let (name, tail) = input.split_at_checked(length)?;
    // Rules know only the names below: they look for `&newline;` as it is written.
    if !lax
        && let Some(tail) = tail.strip_prefix(b";")
        && let Some((_, code)) = NAMES.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
    {
        return Some((u32::from(*code), tail));
    }
    ["quot", "amp", "lt", "gt", "nbsp"].into_iter().find_map(|known| {
        let (start, tail) = input.split_at_checked(known.len())?;
        let (_, code) = NAMES.iter().find(|(name, _)| *name == known)?;
        // `?a=1&lt=2` is a query, which browsers leave alone; rules expect even that to be decoded.
        let query = matches!(tail, [b'=' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z', ..]);
        (start.eq_ignore_ascii_case(known.as_bytes()) && (lax || !query))
            .then_some((u32::from(*code), tail.strip_prefix(b";").unwrap_or(tail)))
    })
}

/// Longest name in [`NAMES`].
const LONGEST: usize = 8;

/// The references that stand for ASCII characters, and the non-breaking space. In any case, which is laxer
/// than browsers and what rules expect.
const NAMES: [(&str, u8); 40] = [
    ("quot", b'"'),
    ("amp", b'&'),
    ("lt", b'<'),
    ("gt", b'>'),
    ("nbsp", 0xa0),
    ("apos", b'\''),
    ("tab", b'\t'),
    ("newline", b'\n'),
    ("excl", b'!'),
    ("num", b'#'),
    ("dollar", b'$'),
    ("percnt", b'%'),
    ("lpar", b'('),
    ("rpar", b')'),
    ("ast", b'*'),
    ("midast", b'*'),
    ("plus", b'+'),
    ("comma", b','),
    ("period", b'.'),
    ("sol", b'/'),
    ("colon", b':'),
    ("semi", b';'),
    ("equals", b'='),
    ("quest", b'?'),
    ("commat", b'@'),
    ("lsqb", b'['),
    ("lbrack", b'['),
    ("bsol", b'\\'),
    ("rsqb", b']'),
    ("rbrack", b']'),
    ("hat", b'^'),
    ("lowbar", b'_'),
    ("underbar", b'_'),
    ("grave", b'`'),
    ("lcub", b'{'),
    ("lbrace", b'{'),
    ("verbar", b'|'),
    ("vert", b'|'),
    ("rcub", b'}'),
    ("rbrace", b'}'),
];
