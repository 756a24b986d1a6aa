//! A calendar day in UTC, as partitions are named.

use std::fmt;

const DAY_MS: u64 = 86_400_000;

/// A day, counted from 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Day(i64);

impl Day {
    /// The day of a moment given in milliseconds since 1970.
    pub fn of(at_ms: u64) -> Self {
        Self(i64::try_from(at_ms / DAY_MS).unwrap_or(i64::MAX))
    }

    /// Reads `YYYY-MM-DD`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let mut part = |digits: usize| {
            let part = parts.next()?;
            (part.len() >= digits && part.bytes().all(|b| b.is_ascii_digit())).then_some(part)?.parse().ok()
        };
        let day = Self::from_civil(part(4)?, part(2)?, part(2)?);
        (day.to_string() == text).then_some(day)
    }

    /// The moment it begins, in milliseconds since 1970; 0 for days before.
    pub fn start_ms(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0).saturating_mul(DAY_MS)
    }

    /// How many days this is before `later`; negative if after.
    pub fn days_before(self, later: Self) -> i64 {
        later.0.saturating_sub(self.0)
    }

    /// Days from civil, after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    fn from_civil(year: i64, month: i64, day: i64) -> Self {
        let year = if month <= 2 { year - 1 } else { year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Self(era * 146_097 + day_of_era - 719_468)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.saturating_add(719_468);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_named_as_the_calendar_does() {
        for (at_ms, name) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_785_542_399_999, "2026-07-31"),
            (1_785_542_400_000, "2026-08-01"),
        ] {
            assert_eq!(Day::of(at_ms).to_string(), name);
            assert_eq!(Day::parse(name), Some(Day::of(at_ms)));
        }
        for wrong in ["2026-02-30", "2026-2-3", "x", "2026-01-01-", "2026-13-01", "", "-1-01-01"] {
            assert_eq!(Day::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Day::of(0).days_before(Day::of(86_400_000 * 3)), 3);
    }

    #[test]
    fn every_day_reads_back() {
        for days in 0..80_000 {
            let day = Day::of(days * DAY_MS);
            assert_eq!(Day::parse(&day.to_string()), Some(day));
        }
    }
}
