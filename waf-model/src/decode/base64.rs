//! Base64 in the standard and the URL alphabet.

/// Decodes up to the first byte that is not base64.
pub(super) fn decode(input: &[u8]) -> Vec<u8> {
    sextets(input.iter().map_while(|byte| sextet(*byte)), input.len())
}

/// Decodes, bytes that are not base64 skipped.
pub(super) fn decode_skipping(input: &[u8]) -> Vec<u8> {
    sextets(input.iter().filter_map(|byte| sextet(*byte)), input.len())
}

/// Decodes `input` if it is strictly base64 of at least nine bytes of printable ASCII text that holds more
/// than letters and digits: something a person or a program wrote, not an identifier that happens to decode.
pub(crate) fn text(input: &[u8]) -> Option<Vec<u8>> {
    if input.len() < 12 {
        return None;
    }
    let padding = input.iter().rev().take_while(|byte| **byte == b'=').count();
    let (digits, _) = input.split_at_checked(input.len() - padding)?;
    let padded =
        if padding == 0 { digits.len() % 4 != 1 } else { padding <= 2 && input.len().is_multiple_of(4) };
    if !padded || digits.iter().any(|byte| sextet(*byte).is_none()) {
        return None;
    }
    let output = sextets(digits.iter().filter_map(|byte| sextet(*byte)), digits.len());
    let printable = output.iter().filter(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r')).count();
    let telling = output.iter().any(|byte| matches!(byte, b' '..=b'~') && !byte.is_ascii_alphanumeric());
    (telling && printable * 10 >= output.len() * 9).then_some(output)
}

fn sextets(digits: impl Iterator<Item = u32>, length: usize) -> Vec<u8> {
    let mut output = Vec::with_capacity(length / 4 * 3 + 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits {
        bits = bits << 6 | digit;
        held += 6;
        if held >= 8 {
            held -= 8;
            let [byte, ..] = (bits >> held).to_le_bytes();
            output.push(byte);
        }
        bits &= 0xff;
    }
    output
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

/// Encodes in the standard alphabet with padding.
pub(super) fn encode(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len() / 3 * 4 + 4);
    for chunk in input.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            output.push(if place > chunk.len() { b'=' } else { letter(bits >> (18 - 6 * place) & 63) });
        }
    }
    output
}

fn letter(sextet: u32) -> u8 {
    let [value, ..] = sextet.to_le_bytes();
    match value {
        0..=25 => b'A' + value,
        26..=51 => b'a' + (value - 26),
        52..=61 => b'0' + (value - 52),
        62 => b'+',
        _ => b'/',
    }
}
