//! Who changed what, and when: a log of everything that changes the gateway's state, chained so that a change to it
//! shows.
//!
//! Each entry is one line of JSON that ends with the hash of itself and of the entry before. Requests and orders only
//! queue an entry; one thread writes, so that a slow or full disk delays nobody.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::clock;

pub mod chain;
pub mod line;
pub mod mask;
mod writer;

pub use chain::Head;

/// Name of the directory with the log, in the state directory.
pub const DIRECTORY: &str = "audit";

/// Entries that may wait for the writer.
const QUEUE: usize = 4096;

/// Longest that an order waits for its entry to be on the disk.
const SETTLE: Duration = Duration::from_secs(2);

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The gateway itself, on evidence or on its own schedule.
    Gateway,
    /// Somebody else who writes to the shared store: another gateway, or a person with `redis-cli`.
    Store,
    /// A user of this machine, by the admin socket.
    User(u32),
    /// Who holds the admin token of this name.
    Token(String),
    /// Who shows a certificate with this name to an admin listener.
    Certificate(String),
    /// A consumer, by a route that publishes the admin API.
    Consumer(String),
    /// Nobody who is known.
    Nobody,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("gateway"),
            Self::Store => f.write_str("store"),
            Self::User(uid) => write!(f, "uid:{uid}"),
            Self::Token(name) => write!(f, "token:{name}"),
            Self::Certificate(name) => write!(f, "certificate:{name}"),
            Self::Consumer(name) => write!(f, "consumer:{name}"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

/// One thing that was done.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who did it.
    pub actor: Actor,
    /// The address it was ordered from, if it came by a network.
    pub from: Option<String>,
    /// What was done, such as `block.release`.
    pub action: &'static str,
    /// What to: a client, a route, a model, a file.
    pub object: String,
    /// What was so before; null if there was nothing.
    pub before: Value,
    /// What is so since; null if there is nothing any more.
    pub after: Value,
}

impl Entry {
    /// What the gateway did by itself, now.
    pub fn by_gateway(action: &'static str, object: impl Into<String>, before: Value, after: Value) -> Self {
        let (actor, object) = (Actor::Gateway, object.into());
        Self { at_ms: clock::now_ms(), actor, from: None, action, object, before, after }
    }
}

/// What is told to the writer.
enum Order {
    Write(Box<Entry>),
    /// Says whether everything before it is on the disk.
    Settle(oneshot::Sender<bool>),
}

/// What writer and readers share.
#[derive(Debug)]
struct Shared {
    head: Mutex<Head>,
    failing: AtomicBool,
    /// Entries that the queue had no room for.
    overflowed: AtomicU64,
    written: Counter,
    lost: Counter,
    errors: Counter,
    seq: Gauge,
}

/// The way into the log; cheap to share, never waits.
#[derive(Debug, Clone)]
pub struct Audit {
    queue: SyncSender<Order>,
    shared: Arc<Shared>,
}

/// How the log fares.
#[derive(Debug, serde::Serialize)]
pub struct Standing {
    /// Number of the last entry on the disk.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
    /// Entries that were never written.
    pub lost: u64,
    /// Whether the disk does not take any now.
    pub failing: bool,
}

impl Audit {
    /// Goes on with the log in `directory`, in files of about `rotate` bytes.
    ///
    /// # Errors
    /// The directory or the file cannot be opened or read, or the system gives no thread.
    pub fn start(directory: &Path, rotate: u64) -> std::io::Result<Self> {
        let log = writer::Log::open(directory, rotate)?;
        let shared = Arc::new(Shared::new(log.head()));
        let (queue, orders) = sync_channel(QUEUE);
        let writer = writer::Writer::new(log, orders, Arc::clone(&shared));
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        Ok(Self { queue, shared })
    }

    /// A log that keeps nothing and counts all of it as lost, for tests of other parts.
    pub fn nowhere() -> Self {
        let (queue, _) = sync_channel(1);
        Self { queue, shared: Arc::new(Shared::new(Head::default())) }
    }

    /// Queues an entry.
    pub fn record(&self, entry: Entry) {
        match self.queue.try_send(Order::Write(Box::new(entry))) {
            Ok(()) => {}
            // Stated in the log itself as soon as it can be written to.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.overflowed.fetch_add(1, Ordering::Relaxed);
                self.shared.lost.inc();
            }
        }
    }

    /// Waits, for two seconds at most, until what was queued is on the disk; `false` if it is not.
    pub async fn settled(&self) -> bool {
        let settle = async {
            let (tell, told) = oneshot::channel();
            let mut order = Order::Settle(tell);
            loop {
                match self.queue.try_send(order) {
                    Ok(()) => return told.await.unwrap_or(false),
                    Err(TrySendError::Full(again)) => order = again,
                    Err(TrySendError::Disconnected(_)) => return false,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SETTLE, settle).await.unwrap_or(false)
    }

    /// The last entry on the disk, and what was lost.
    pub fn standing(&self) -> Standing {
        let head = *self.shared.head();
        Standing {
            seq: head.seq,
            hash: head.hash.to_string(),
            lost: self.shared.lost.get(),
            failing: self.shared.failing.load(Ordering::Relaxed),
        }
    }

    /// Registers its metrics.
    pub fn register(&self, registry: &mut Registry) {
        let Shared { written, lost, errors, seq, .. } = &*self.shared;
        registry.register("audit_entries", "Entries written to the audit log", written.clone());
        registry.register("audit_lost", "Entries of the audit log that were never written", lost.clone());
        registry.register("audit_errors", "Times the audit log could not be written to", errors.clone());
        registry.register("audit_sequence", "Number of the last entry of the audit log", seq.clone());
    }
}

impl Shared {
    fn new(head: Head) -> Self {
        let shared = Self {
            head: Mutex::new(head),
            failing: AtomicBool::new(false),
            overflowed: AtomicU64::new(0),
            written: Counter::default(),
            lost: Counter::default(),
            errors: Counter::default(),
            seq: Gauge::default(),
        };
        shared.set_head(head);
        shared
    }

    fn head(&self) -> std::sync::MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_head(&self, head: Head) {
        *self.head() = head;
        self.seq.set(i64::try_from(head.seq).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
