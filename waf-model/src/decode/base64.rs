//! Base64 in the standard and the URL alphabet.

/// Decodes up to the first byte that is not base64.
pub(super) fn decode(input: &[u8]) -> Vec<u8> {
    octets(input.iter().map_while(|byte| sextet(*byte))).collect()
}

/// Decodes, bytes that are not base64 skipped.
pub(super) fn decode_skipping(input: &[u8]) -> Vec<u8> {
    octets(input.iter().filter_map(|byte| sextet(*byte))).collect()
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
    // Counted before anything is allocated: most words and identifiers come this far, and no further.
    let decoded = || octets(digits.iter().filter_map(|byte| sextet(*byte)));
    let (mut printable, mut length, mut telling) = (0, 0, false);
    for byte in decoded() {
        length += 1;
        printable += usize::from(matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r'));
        telling |= matches!(byte, b' '..=b'~') && !byte.is_ascii_alphanumeric();
    }
    (telling && printable * 10 >= length * 9).then(|| decoded().collect())
}

/// Joins groups of six bits to bytes; bits that make no byte are dropped.
fn octets(digits: impl Iterator<Item = u32>) -> impl Iterator<Item = u8> {
    digits
        .scan((0u32, 0u32), |(bits, held), digit| {
            *bits = (*bits << 6 | digit) & 0xfff;
            *held += 6;
            if *held < 8 {
                return Some(None);
            }
            *held -= 8;
            let [byte, ..] = (*bits >> *held).to_le_bytes();
            Some(Some(byte))
        })
        .flatten()
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
