//! Segment frames: how events and reviews lie in an append-only file, so that a torn or damaged tail is seen.
//!
//! A frame is `length: u32 LE | checksum: first 4 bytes of blake3(payload) | payload`; a payload is one kind
//! byte (`0` event, `1` review, `2` sealed full record) and the record's wire form. Segment files are named by the sequence number of
//! their first frame, 20 digits, `.seg`.

/// Largest payload that is written or read, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Bytes before each payload.
pub const FRAME_HEADER: usize = 8;

/// What a payload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An [`crate::event::Event`] in its wire form.
    Event,
    /// A [`crate::event::Review`] in its wire form.
    Review,
    /// A [`crate::full_record::FullRecord`], sealed.
    Full,
}

/// Appends one frame to `out`. Records larger than [`MAX_PAYLOAD`] are not written; returns whether it was.
#[must_use]
pub fn append(out: &mut Vec<u8>, kind: Kind, record: &[u8]) -> bool {
    let Ok(length) = u32::try_from(record.len() + 1) else { return false };
    if record.len() + 1 > MAX_PAYLOAD {
        return false;
    }
    let kind = [match kind {
        Kind::Event => 0,
        Kind::Review => 1,
        Kind::Full => 2,
    }];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(&[&kind, record]));
    out.extend_from_slice(&kind);
    out.extend_from_slice(record);
    true
}

/// What stands at the start of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole frame.
    Whole {
        /// What it holds.
        kind: Kind,
        /// The record's wire form.
        record: &'a [u8],
        /// Bytes of the frame with its header: where the next one starts.
        size: usize,
    },
    /// Not all of the frame is there yet (or a crash tore it).
    Partial,
    /// The checksum does not match, or the length is impossible; what follows cannot be read.
    Damaged,
}

/// Reads the frame at the start of `bytes`; [`Frame::Partial`] at the end of the file.
pub fn read(bytes: &[u8]) -> Frame<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Frame::Partial };
    let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Frame::Partial };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > MAX_PAYLOAD {
        return Frame::Damaged;
    }
    let Some(payload) = rest.get(..length) else { return Frame::Partial };
    let (Some((kind, record)), true) = (payload.split_first(), checksum(&[payload]) == *sum) else {
        return Frame::Damaged;
    };
    let kind = match kind {
        0 => Kind::Event,
        1 => Kind::Review,
        2 => Kind::Full,
        _ => return Frame::Damaged,
    };
    Frame::Whole { kind, record, size: FRAME_HEADER + length }
}

fn checksum(parts: &[&[u8]]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_reads_back_and_a_torn_or_changed_one_does_not() {
        let mut file = Vec::new();
        assert!(append(&mut file, Kind::Event, b"first"));
        assert!(append(&mut file, Kind::Review, b""));
        let Frame::Whole { kind, record, size } = read(&file) else { panic!("whole") };
        assert_eq!((kind, record), (Kind::Event, &b"first"[..]));
        assert!(matches!(read(&file[size..]), Frame::Whole { kind: Kind::Review, record: b"", .. }));
        for cut in 0..size {
            assert_eq!(read(&file[..cut]), Frame::Partial, "cut at {cut}");
        }
        for at in FRAME_HEADER..size {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert_eq!(read(&changed), Frame::Damaged, "changed at {at}");
        }
    }
}
