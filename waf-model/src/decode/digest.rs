//! SHA-1, which rules use to make short keys (never for security here).

/// The SHA-1 digest (FIPS 180-4).
pub(super) fn sha1(input: &[u8]) -> [u8; 20] {
    let mut state = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let (blocks, rest) = input.as_chunks::<64>();
    blocks.iter().for_each(|block| compress(&mut state, block));
    let mut last = rest.to_vec();
    last.push(0x80);
    last.resize(if rest.len() < 56 { 56 } else { 120 }, 0);
    last.extend((input.len() as u64).wrapping_mul(8).to_be_bytes());
    last.as_chunks::<64>().0.iter().for_each(|block| compress(&mut state, block));
    let mut output = [0; 20];
    for (bytes, word) in output.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    output
}

fn compress(state: &mut [u32; 5], block: &[u8; 64]) {
    // Only the last sixteen words of the schedule are ever needed.
    let mut words = [0u32; 16];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for round in 0..80 {
        let [word, _, third, _, _, _, _, _, ninth, _, _, _, _, fourteenth, _, _] = words;
        let next = (word ^ third ^ ninth ^ fourteenth).rotate_left(1);
        let (mixed, constant) = match round {
            0..20 => (b & c | !b & d, 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        let sum =
            a.rotate_left(5).wrapping_add(mixed).wrapping_add(e).wrapping_add(constant).wrapping_add(word);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum);
        words.rotate_left(1);
        words[15] = next;
    }
    for (total, part) in state.iter_mut().zip([a, b, c, d, e]) {
        *total = total.wrapping_add(part);
    }
}
