//! A count over the last hour and the last day: cells of five minutes, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds of one cell.
const CELL_MS: u64 = 5 * 60 * 1000;

/// Cells of a day.
const CELLS: usize = 288;

/// What is counted back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// The last hour.
    Hour,
    /// The last day.
    Day,
}

impl Span {
    /// Its cells.
    fn cells(self) -> u64 {
        match self {
            Self::Hour => 12,
            Self::Day => CELLS as u64,
        }
    }
}

/// A count over the last hour and the last day; 2.3 KiB.
#[derive(Debug)]
pub struct Sliding {
    /// Which five minutes since 1970 in the upper half, the count of them in the lower.
    cells: [AtomicU64; CELLS],
}

impl Default for Sliding {
    fn default() -> Self {
        Self { cells: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Sliding {
    /// Counts one at `now_ms`.
    pub fn add(&self, now_ms: u64) {
        let period = now_ms / CELL_MS;
        let Some(cell) = self.cells.get(period as usize % CELLS) else { return };
        if cell.load(Ordering::Relaxed) >> 32 == period {
            cell.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let renewed = |cell: u64| Some(if cell >> 32 == period { cell + 1 } else { period << 32 | 1 });
        // The closure never refuses.
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, renewed);
    }

    /// The count over `span` until `now_ms`, in whole cells: up to five minutes less.
    pub fn total(&self, span: Span, now_ms: u64) -> u64 {
        let last = now_ms / CELL_MS;
        let within = |cell: &u64| (cell >> 32) <= last && last - (cell >> 32) < span.cells();
        let cells = self.cells.iter().map(|cell| cell.load(Ordering::Relaxed));
        cells.filter(within).map(|cell| cell & u64::from(u32::MAX)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;
    const MINUTE: u64 = 60_000;

    #[test]
    fn what_is_older_than_the_span_does_not_count() {
        let count = Sliding::default();
        for minutes in 0..3_000 {
            count.add(NOW + minutes * MINUTE);
        }
        let now = NOW + 2_999 * MINUTE;
        let (hour, day) = (count.total(Span::Hour, now), count.total(Span::Day, now));
        assert!((56..=60).contains(&hour), "{hour}");
        assert!((1436..=1440).contains(&day), "{day}");
        let later = now + 90 * MINUTE;
        assert_eq!(count.total(Span::Hour, later), 0);
        assert!((1346..=1350).contains(&count.total(Span::Day, later)));
        assert_eq!(count.total(Span::Day, later + 1_440 * MINUTE), 0);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let count = Sliding::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|at| count.add(NOW + at * 60)));
            }
        });
        assert_eq!(count.total(Span::Day, NOW + 600_000), 40_000);
    }
}
