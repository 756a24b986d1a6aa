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

/// A moment as HTTP writes it: `Thu, 31 Dec 2026 00:00:00 GMT`; the latest that can be written for later ones.
pub fn http_date(at_ms: u64) -> String {
    // httpdate panics beyond the year 9999; nothing here may.
    const YEAR_9999_MS: u64 = 253_402_300_799_000;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(at_ms.min(YEAR_9999_MS)))
}

/// When the day (UTC) of a moment ends.
pub fn end_of_day(at_ms: u64) -> u64 {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    (at_ms / DAY_MS).saturating_add(1).saturating_mul(DAY_MS)
}

/// When the month (UTC) of a moment ends.
pub fn end_of_month(at_ms: u64) -> u64 {
    let text = text(at_ms);
    let mut fields = text.split('-').map(|digits| digits.parse::<u32>().ok());
    let next = match (fields.next().flatten(), fields.next().flatten()) {
        (Some(year), Some(12)) => Some(format!("{}-01-01T00:00:00Z", year + 1)),
        (Some(year), Some(month)) => Some(format!("{year}-{:02}-01T00:00:00Z", month + 1)),
        _ => None,
    };
    next.and_then(|next| parse(&next)).unwrap_or(u64::MAX)
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
        let at = |text| parse(text).unwrap();
        assert_eq!(end_of_day(at("2026-11-24T15:00:00Z")), at("2026-11-25T00:00:00Z"));
        assert_eq!(end_of_day(at("2026-11-25T00:00:00Z")), at("2026-11-26T00:00:00Z"));
        assert_eq!(end_of_month(at("2026-02-28T23:59:59Z")), at("2026-03-01T00:00:00Z"));
        assert_eq!(end_of_month(at("2026-12-01T00:00:00Z")), at("2027-01-01T00:00:00Z"));
        assert_eq!(parse("1700000000123"), Some(1_700_000_000_123));
    }
}
