//! Code points: as one byte for rules, as UTF-8 for text, and as `%uXXXX`.

use super::hex;

/// The byte that rules see for a code point: its low byte, with full-width forms (U+FF01 to U+FF5E) as ASCII.
pub(super) fn low_byte(code: u32) -> u8 {
    let [low, ..] = fold(code).to_le_bytes();
    low
}

/// Appends a code point as UTF-8, full-width forms as ASCII. A lone surrogate becomes U+FFFD.
pub(super) fn push_folded(output: &mut Vec<u8>, code: u32) {
    push(output, fold(code));
}

/// Appends a code point as UTF-8; what is no character becomes U+FFFD.
pub(super) fn push(output: &mut Vec<u8>, code: u32) {
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    output.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

fn fold(code: u32) -> u32 {
    if (0xff01..=0xff5e).contains(&code) { code - 0xfee0 } else { code }
}

/// Writes every multi-byte UTF-8 sequence as `%uXXXX` (more digits beyond U+FFFF). Overlong forms count as
/// the character they hide; bytes that are no sequence stay. `None` if there is none.
pub(super) fn escape(input: &[u8]) -> Option<Vec<u8>> {
    if input.is_ascii() {
        return None;
    }
    let mut output = Vec::with_capacity(input.len() * 2);
    let mut rest = input;
    loop {
        let (code, tail) = match rest {
            [] => break,
            [a @ 0xc0..=0xdf, b @ 0x80..=0xbf, tail @ ..] => (bits(&[a & 0x1f, *b]), tail),
            [a @ 0xe0..=0xef, b @ 0x80..=0xbf, c @ 0x80..=0xbf, tail @ ..] => {
                (bits(&[a & 0x0f, *b, *c]), tail)
            }
            [a @ 0xf0..=0xf7, b @ 0x80..=0xbf, c @ 0x80..=0xbf, d @ 0x80..=0xbf, tail @ ..] => {
                (bits(&[a & 0x07, *b, *c, *d]), tail)
            }
            [byte, tail @ ..] => {
                output.push(*byte);
                rest = tail;
                continue;
            }
        };
        output.extend_from_slice(b"%u");
        let digits = if code > 0xf_ffff {
            6
        } else if code > 0xffff {
            5
        } else {
            4
        };
        for place in (0..digits).rev() {
            let [nibble, ..] = (code >> (4 * place) & 15).to_le_bytes();
            output.push(hex::lower(nibble));
        }
        rest = tail;
    }
    Some(output)
}

fn bits(sequence: &[u8]) -> u32 {
    sequence.iter().fold(0, |code, byte| code << 6 | u32::from(byte & 0x3f))
}
