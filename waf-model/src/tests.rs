//! For tests: that work grows with its input and no faster.

use std::time::{Duration, Instant};

/// Asserts that `work` on sixty-four times the input takes at most ten times as much as it may; what is not linear
/// takes four thousand times as long.
pub(crate) fn grows_linearly(what: &str, work: impl Fn(&[u8]), pattern: &[u8]) {
    let best = |length: usize, clock: fn() -> Duration| {
        let input = pattern.repeat(length / pattern.len().max(1));
        let times = (0..3).map(|_| {
            let start = clock();
            work(&input);
            clock().saturating_sub(start)
        });
        times.min().unwrap_or_default()
    };
    best(1 << 10, wall);
    // The processor's clock does not run while others have the machine, but is too coarse for what is short.
    let (small, large) = (best(1 << 12, wall), best(1 << 18, on_processor));
    assert!(large < small * 640 + Duration::from_millis(100), "{what}: {small:?} {large:?}");
}

fn wall() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

/// Time that this thread was on a processor, where the system tells it.
fn on_processor() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(wall, Duration::from_nanos)
}
