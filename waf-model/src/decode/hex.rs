//! Hexadecimal digits, and bytes written in them.

/// The value of one digit.
pub(super) fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The value of two digits.
pub(super) fn pair(high: u8, low: u8) -> Option<u8> {
    Some(digit(high)? << 4 | digit(low)?)
}

/// The value of a run of digits, at most `u32::MAX`; `None` if empty or not all digits.
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |sum, byte| {
        let value = u32::from(digit(*byte)?);
        Some(sum.saturating_mul(16).saturating_add(value))
    })
}

/// Decodes pairs of digits; an odd last digit is dropped. `None` if anything is not a digit.
pub(super) fn decode(input: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = input.as_chunks::<2>();
    if rest.iter().any(|byte| digit(*byte).is_none()) {
        return None;
    }
    pairs.iter().map(|[high, low]| pair(*high, *low)).collect()
}

/// Encodes every byte as two lower-case digits.
pub(super) fn encode(input: &[u8]) -> Vec<u8> {
    input.iter().flat_map(|byte| [lower(byte >> 4), lower(byte & 15)]).collect()
}

/// The lower-case digit for a value below 16.
pub(super) fn lower(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + (value - 10) % 6 }
}
