//! The one place that reads the wall clock, and the text form of a moment.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970 now; 0 on a machine whose clock is before that.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// A duration in whole milliseconds, saturating.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The text form of a moment: RFC 3339 with milliseconds; `never` for one that humans will not see.
pub fn text(at_ms: u64) -> String {
    // humantime panics beyond the year 9999; nothing here may.
    const YEAR_9999_MS: u64 = 253_402_300_799_000;
    if at_ms >= YEAR_9999_MS {
        return "never".to_owned();
    }
    UNIX_EPOCH
        .checked_add(Duration::from_millis(at_ms))
        .map_or_else(|| "never".to_owned(), |time| humantime::format_rfc3339_millis(time).to_string())
}

/// Reads RFC 3339 text, or milliseconds since 1970 in decimal.
pub fn parse(text: &str) -> Option<u64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_back_from_its_text() {
        for at in [0, 1, 1_700_000_000_123] {
            assert_eq!(parse(&text(at)), Some(at));
        }
        assert_eq!(text(u64::MAX), "never");
        assert_eq!(parse("never"), None);
        assert_eq!(parse("1700000000123"), Some(1_700_000_000_123));
    }
}
