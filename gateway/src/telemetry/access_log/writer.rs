//! Lines on their way to standard output: gathered in memory, written together by a thread of its own.
//!
//! A request only appends to a buffer. Nothing wakes the thread: it looks by itself, so that a thousand requests
//! cost one system call and not a thousand.

use std::{
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long a line may wait.
const FLUSH: Duration = Duration::from_millis(50);

/// Bytes that may wait for a slow terminal or disk; beyond that lines are dropped and counted.
const MOST_BYTES: usize = 32 << 20;

/// Where lines are put; cheap to share.
#[derive(Debug, Clone, Default)]
pub(super) struct Writer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Vec<u8>>,
    dropped: AtomicU64,
    ended: AtomicBool,
}

/// Writes until it is dropped, and then what is left.
#[derive(Debug)]
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// A writer to `out`, with the thread behind it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> std::io::Result<(Self, Flusher)> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.flush_until_ended(out)
        })?;
        Ok((Self(Arc::clone(&shared)), Flusher { shared, thread: Some(thread) }))
    }

    /// Appends one whole line, or counts it as dropped.
    pub(super) fn append(&self, line: &[u8]) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() + line.len() > MOST_BYTES {
            drop(lines);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.extend_from_slice(line);
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn flush_until_ended(&self, mut out: impl Write) {
        let mut batch = Vec::new();
        loop {
            // Read before the lines are taken: what was appended before the end is then among them.
            let ended = self.ended.load(Ordering::Acquire);
            std::mem::swap(&mut batch, &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
            if !batch.is_empty() {
                if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                    let lost = batch.iter().filter(|byte| **byte == b'\n').count();
                    self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
                }
                batch.clear();
                // A burst's buffer is not kept for ever.
                batch.shrink_to(1 << 20);
            }
            if ended {
                return;
            }
            thread::park_timeout(FLUSH);
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic in there was already reported by the thread itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place that can be read while it is written to, and that refuses when told to.
    #[derive(Clone, Default)]
    struct Place(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Write for Place {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let mut place = self.0.lock().unwrap();
            if place.1 {
                return Err(std::io::Error::other("full"));
            }
            place.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_arrives_whole_and_the_last_ones_at_the_end() {
        let place = Place::default();
        let (writer, flusher) = Writer::start(place.clone()).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let writer = writer.clone();
                thread::spawn(move || {
                    (0..500).for_each(|line| writer.append(format!("{number} {line}\n").as_bytes()));
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(flusher);
        let text = String::from_utf8(place.0.lock().unwrap().0.clone()).unwrap();
        for number in 0..4 {
            let lines: Vec<&str> =
                text.lines().filter_map(|l| l.strip_prefix(&format!("{number} "))).collect();
            assert_eq!(lines, (0..500).map(|line| line.to_string()).collect::<Vec<_>>());
        }
        assert_eq!(writer.dropped(), 0);
    }

    #[test]
    fn what_cannot_be_kept_or_written_is_counted() {
        let place = Place::default();
        place.0.lock().unwrap().1 = true;
        let (writer, flusher) = Writer::start(place).unwrap();
        writer.append(&vec![b'x'; MOST_BYTES + 1]);
        writer.append(b"a\n");
        writer.append(b"b\n");
        drop(flusher);
        assert_eq!(writer.dropped(), 3);
    }
}
