//! The thread that writes the log, and the files that it writes to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Entry, Head, Order, Shared,
    chain::{self, TORN},
    line,
};

/// Most entries that are written at once.
const BATCH: usize = 1024;

/// Most entries that are kept in memory while the disk takes none.
const KEPT: usize = 10_000;

/// Pause before the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The files of a log, and where the next entry goes.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    rotate: u64,
    /// The file that is written to.
    file: Option<File>,
    /// Whether a write failed in a way that only reading the files again can tell what is there.
    unclear: bool,
    /// Its length, as far as it was written by whole batches.
    length: u64,
    head: Head,
    /// What stands behind the last entry and is none.
    remains: Option<Remains>,
}

#[derive(Debug)]
struct Remains {
    bytes: u64,
    hash: String,
    /// What has to be written so that the next entry begins a line.
    ending: &'static str,
}

impl Log {
    /// Opens the log in `directory`, which is made if there is none, behind its last entry.
    ///
    /// # Errors
    /// A file or the directory cannot be read or made.
    pub(super) fn open(directory: &Path, rotate: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut log = Self {
            directory: directory.to_owned(),
            rotate,
            file: None,
            unclear: false,
            length: 0,
            head: Head::default(),
            remains: None,
        };
        log.find_end()?;
        Ok(log)
    }

    /// The last entry.
    pub(super) fn head(&self) -> Head {
        self.head
    }

    /// Finds the last entry, and what stands behind it.
    fn find_end(&mut self) -> io::Result<()> {
        let files = chain::files(&self.directory)?;
        let mut behind: Vec<u8> = Vec::new();
        (self.head, self.remains) = (Head::default(), None);
        for path in files.iter().rev() {
            let text = fs::read(path)?;
            let Some((head, end)) = last_entry(&text) else {
                behind.splice(..0, text);
                continue;
            };
            self.head = head;
            behind.splice(..0, text.get(end..).unwrap_or_default().iter().copied());
            break;
        }
        // The end of the last entry's line belongs to it.
        let entry_ended = self.head.seq == 0 || behind.first() == Some(&b'\n');
        if self.head.seq != 0 && entry_ended {
            behind.remove(0);
        }
        let ended = if behind.is_empty() { entry_ended } else { behind.last() == Some(&b'\n') };
        let ending = if ended { "" } else { "\n" };
        if !behind.is_empty() || !ended {
            let unended = behind.is_empty();
            behind.extend_from_slice(ending.as_bytes());
            let bytes = if unended { 0 } else { behind.len() as u64 };
            self.remains = Some(Remains { bytes, hash: blake3::hash(&behind).to_string(), ending });
        }
        if let Some(path) = files.last() {
            let file = OpenOptions::new().append(true).open(path)?;
            self.length = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Appends entries and waits until they are on the disk; nothing of them stays if that fails.
    ///
    /// # Errors
    /// The disk does not take them.
    pub(super) fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if self.unclear {
            self.find_end()?;
            self.unclear = false;
        }
        let mut head = self.head;
        let mut text = String::new();
        if let Some(remains) = &self.remains {
            text.push_str(remains.ending);
            if remains.bytes > 0 {
                let torn = json!({ "bytes": remains.bytes, "blake3": remains.hash });
                let object = "bytes before this entry that are none";
                head = push(&mut text, &Entry::by_gateway(TORN, object, Value::Null, torn), head);
            }
        } else if self.length >= self.rotate {
            self.file = None;
        }
        for entry in entries {
            head = push(&mut text, entry, head);
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.next_file().inspect_err(|_| self.unclear = true)?,
        };
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            // What stays behind if this fails, too, is found and stated when the file is opened again.
            match file.set_len(self.length) {
                Ok(()) => self.file = Some(file),
                Err(_) => self.unclear = true,
            }
            return Err(error);
        }
        self.length += text.len() as u64;
        self.file = Some(file);
        (self.head, self.remains) = (head, None);
        Ok(())
    }

    /// Begins a file, named by the entry that it begins with.
    fn next_file(&mut self) -> io::Result<File> {
        let path = self.directory.join(format!("{:012}.jsonl", self.head.seq.saturating_add(1)));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        File::open(&self.directory)?.sync_all()?;
        self.length = 0;
        Ok(file)
    }
}

fn push(text: &mut String, entry: &Entry, head: Head) -> Head {
    let (line, head) = line::write(entry, head);
    text.push_str(&line);
    head
}

/// The last line that is an entry, and where it ends, without its line end.
fn last_entry(text: &[u8]) -> Option<(Head, usize)> {
    let mut end = text.len();
    loop {
        let start = text.get(..end)?.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if let Some((_, head)) = line::read(text.get(start..end)?) {
            return Some((head, end));
        }
        end = start.checked_sub(1)?;
    }
}

/// The thread.
pub(super) struct Writer {
    log: Log,
    orders: Receiver<Order>,
    shared: Arc<Shared>,
    /// Entries that are not on the disk yet.
    pending: Vec<Entry>,
    /// Entries that were dropped here, because too many are pending.
    dropped: u64,
    /// Of those that were lost, how many the log states.
    stated: u64,
}

impl Writer {
    pub(super) fn new(log: Log, orders: Receiver<Order>, shared: Arc<Shared>) -> Self {
        Self { log, orders, shared, pending: Vec::new(), dropped: 0, stated: 0 }
    }

    /// Runs until nobody is left who could order something.
    pub(super) fn run(mut self) {
        let mut waiting = Vec::new();
        loop {
            let first = if self.pending.is_empty() {
                self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.orders.recv_timeout(RETRY)
            };
            let mut next = match first {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.write(),
            };
            while let Some(order) = next.take() {
                match order {
                    Order::Write(entry) => self.keep(*entry),
                    Order::Settle(tell) => waiting.push(tell),
                }
                if self.pending.len() < BATCH {
                    next = self.orders.try_recv().ok();
                }
            }
            self.write();
            let settled = self.pending.is_empty();
            for tell in waiting.drain(..) {
                // Who asked may have stopped waiting.
                let _ = tell.send(settled);
            }
        }
    }

    fn keep(&mut self, entry: Entry) {
        if self.pending.len() < KEPT {
            self.pending.push(entry);
        } else {
            self.dropped += 1;
            self.shared.lost.inc();
        }
    }

    fn write(&mut self) {
        let lost = self.dropped + self.shared.overflowed.load(Ordering::Relaxed);
        let mut entries = self.pending.clone();
        if lost > self.stated {
            let count = json!({ "entries": lost - self.stated });
            entries.push(Entry::by_gateway(
                "audit.lost",
                "entries that were never written",
                Value::Null,
                count,
            ));
        }
        if entries.is_empty() {
            return;
        }
        match self.log.append(&entries) {
            Ok(()) => {
                self.stated = lost;
                self.pending.clear();
                self.shared.written.inc_by(entries.len() as u64);
                self.shared.set_head(self.log.head());
                if self.shared.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the audit log is written again");
                }
            }
            Err(error) => {
                self.shared.errors.inc();
                if !self.shared.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the audit log cannot be written; entries wait in memory");
                }
            }
        }
    }
}
