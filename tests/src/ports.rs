//! Free ports for processes that must be told theirs.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Result, bail};

/// Below the range from which the kernel picks ports of outgoing connections, so that none of those takes a port
/// between this check and the start of the process that was given it.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that nothing listens on; never the same twice in one process.
///
/// # Errors
/// Every port of the range is taken.
pub fn free() -> Result<u16> {
    let size = RANGE.end - RANGE.start;
    // Processes that run side by side start at different places.
    let offset = (std::process::id().wrapping_mul(2_654_435_761) >> 16) as u16 % size;
    for _ in 0..size {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % size;
        let port = RANGE.start + ((u32::from(offset) + u32::from(next)) % u32::from(size)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}
