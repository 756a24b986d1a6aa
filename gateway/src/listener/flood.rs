//! How many frames of HTTP/2 that carry nothing a client may send: the HTTP library answers each, without end.

/// Bytes before each frame's payload (RFC 9113, 4.1).
const HEADER: usize = 9;

/// Frames that a client may send at once.
const BURST: u32 = 1000;

/// Milliseconds after which it may send one more: ten a second.
const PACE_MS: u64 = 100;

/// What a request earns: its windows and priorities.
const REQUEST: u32 = 2;

/// What taking a request back costs: half of the requests may be taken back for any time.
const RESET: u32 = 4;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    header: [u8; HEADER],
    /// Bytes of the header that came.
    have: usize,
    /// Bytes of the payload that are to come.
    skip: usize,
    left: u32,
    paced_ms: u64,
    earned: u64,
}

/// More frames came than may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Frames {
    pub(super) fn new() -> Self {
        Self { header: [0; HEADER], have: 0, skip: 0, left: BURST, paced_ms: 0, earned: 0 }
    }

    /// Counts up what may be sent: `now_ms` is the connection's age, `earned` what its responses earned so far.
    pub(super) fn earn(&mut self, now_ms: u64, earned: u64) {
        let paces = now_ms.saturating_sub(self.paced_ms) / PACE_MS;
        self.paced_ms += paces * PACE_MS;
        let more = paces.saturating_add(earned.saturating_sub(self.earned));
        self.earned = earned;
        self.left = self.left.saturating_add(u32::try_from(more).unwrap_or(BURST)).min(BURST);
    }

    /// Takes bytes as they pass.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = (HEADER - self.have).min(bytes.len());
            let (part, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            for (to, from) in self.header.iter_mut().skip(self.have).zip(part) {
                *to = *from;
            }
            self.have += part.len();
            bytes = rest;
            if self.have == HEADER {
                self.have = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        let ends_stream = flags & 1 == 1;
        let cost = match kind {
            0 if self.skip > 0 || ends_stream => 0,
            1 => {
                self.left = self.left.saturating_add(REQUEST).min(BURST);
                0
            }
            3 => RESET,
            _ => 1,
        };
        self.left = self.left.checked_sub(cost).ok_or(Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1][..], payload].concat()
    }

    #[test]
    fn frames_that_carry_something_are_free() {
        let mut frames = Frames::new();
        let request = [frame(1, 4, b"head"), frame(0, 0, b"data"), frame(0, 1, b"")].concat();
        for piece in request.repeat(5_000).chunks(7) {
            frames.feed(piece).unwrap();
        }
        assert_eq!(frames.left, BURST);
    }

    #[test]
    fn others_are_counted_and_earned_anew() {
        for (one, count) in [
            (frame(4, 0, &[0; 6]), 1000),
            (frame(6, 0, &[0; 8]), 1000),
            (frame(8, 0, &[0; 4]), 1000),
            (frame(0, 0, b""), 1000),
            (frame(9, 0, b""), 1000),
            (frame(66, 0, b"x"), 1000),
            (frame(3, 0, &[0; 4]), 250),
            ([frame(1, 4, b"head"), frame(3, 0, &[0; 4])].concat(), 499),
        ] {
            let mut frames = Frames::new();
            frames.feed(&one.repeat(count)).unwrap();
            assert_eq!(frames.feed(&one), Err(Flood), "{one:?}");
            let mut frames = Frames::new();
            frames.feed(&one.repeat(count)).unwrap();
            frames.earn(150, 3);
            assert_eq!(frames.left, 4, "{one:?}");
        }
    }
}
