//! From the store into the lake: nothing is acknowledged before it is durable, so nothing is lost, and what is
//! ingested again after a crash replaces its own file, so nothing comes twice.

use std::{
    fs,
    path::Path,
    process,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use waf_model::{
    event::{Event, Review},
    full_record, segment,
};

use crate::{durable, lake::Lake};

pub mod redis;
pub mod segments;

/// Most records of one batch: bounds memory, and the work that a crash repeats.
pub const BATCH: usize = 8192;

/// Where records come from.
pub trait Source {
    /// The next records, at most [`BATCH`]; `None` if there is nothing new now. Without an
    /// [`Self::acknowledge`] in between, the same records come again.
    ///
    /// # Errors
    /// The store is away, or holds what it should not.
    fn read(&mut self) -> Result<Option<Batch>>;

    /// Lets go of the batch that was read last.
    ///
    /// # Errors
    /// The store is away; the batch will come again.
    fn acknowledge(&mut self) -> Result<()>;

    /// Where this is, for messages.
    fn name(&self) -> String;
}

/// Some records of a source.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// Names the events' range: the same records always have the same range.
    pub events_range: String,
    /// The events.
    pub events: Vec<Event>,
    /// Names the reviews' range.
    pub reviews_range: String,
    /// The reviews.
    pub reviews: Vec<Review>,
    /// Names the sealed requests' range.
    pub full_range: String,
    /// Whole requests, sealed as they came.
    pub full: Vec<Vec<u8>>,
    /// Records that could not be read, as they came.
    pub rejected: Vec<Vec<u8>>,
    /// Places where records are lost: damaged frames, entries trimmed before they were read.
    pub damaged: u64,
}

/// What was ingested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Events in the lake.
    pub events: u64,
    /// Reviews in the lake.
    pub reviews: u64,
    /// Whole requests in the lake, sealed.
    pub full: u64,
    /// Records that could not be read; they are kept in `rejected/` in the lake.
    pub rejected: u64,
    /// Places where records are lost.
    pub damaged: u64,
}

/// Takes everything that `source` has now into `lake`.
///
/// # Errors
/// The store or the disk fails; what was not acknowledged comes again.
pub fn drain(source: &mut dyn Source, lake: &Lake) -> Result<Ingested> {
    let mut total = Ingested::default();
    while let Some(batch) = source.read()? {
        lake.write_events(&batch.events_range, &batch.events)?;
        lake.write_reviews(&batch.reviews_range, &batch.reviews)?;
        lake.write_full(&batch.full_range, &batch.full)?;
        keep_rejected(lake.path(), &batch)?;
        failpoint("ingest.before_ack");
        source.acknowledge()?;
        total.add(&batch);
    }
    if total.rejected + total.damaged > 0 {
        tracing::warn!(
            source = source.name(),
            rejected = total.rejected,
            damaged = total.damaged,
            "some records could not be read; rejected ones are kept under rejected/ in the lake"
        );
    }
    Ok(total)
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Ingested {
    /// Whether there was nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds another figure to this one.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.reviews += other.reviews;
        self.full += other.full;
        self.rejected += other.rejected;
        self.damaged += other.damaged;
    }

    fn add(&mut self, batch: &Batch) {
        self.events += batch.events.len() as u64;
        self.reviews += batch.reviews.len() as u64;
        self.full += batch.full.len() as u64;
        self.rejected += batch.rejected.len() as u64;
        self.damaged += batch.damaged;
    }
}

impl Batch {
    /// Reads `record` as an event and keeps it, or keeps it as it came.
    fn take_event(&mut self, record: &[u8]) {
        match Event::decode(record) {
            Ok(event) => self.events.push(event),
            Err(error) => {
                tracing::debug!(%error, "event rejected");
                self.rejected.push(record.to_vec());
            }
        }
    }

    /// Keeps a sealed request, if it is one. It is opened by nobody on its way.
    fn take_full(&mut self, sealed: &[u8]) {
        match full_record::keep_until(sealed) {
            Ok(_) => self.full.push(sealed.to_vec()),
            Err(error) => {
                tracing::debug!(%error, "full record rejected");
                self.rejected.push(sealed.to_vec());
            }
        }
    }

    fn records(&self) -> usize {
        self.events.len() + self.reviews.len() + self.full.len() + self.rejected.len()
    }
}

/// What could not be read is kept in segment frames: a later version may be able to.
fn keep_rejected(lake: &Path, batch: &Batch) -> Result<()> {
    if batch.rejected.is_empty() {
        return Ok(());
    }
    let mut frames = Vec::new();
    for record in &batch.rejected {
        if !segment::append(&mut frames, segment::Kind::Event, record) {
            tracing::warn!(bytes = record.len(), "a record is too large to keep");
        }
    }
    let path = lake.join(format!("rejected/rejected-{}.seg", batch.events_range));
    durable::write(&path, &frames).with_context(|| format!("cannot write {}", path.display()))
}

/// Ends the process at `place` if `PORTCULLIS_FAILPOINT` names it: how tests kill a trainer at the worst moment.
fn failpoint(place: &str) {
    if std::env::var_os("PORTCULLIS_FAILPOINT").is_some_and(|wanted| wanted == place) {
        tracing::error!(place, "PORTCULLIS_FAILPOINT: aborting");
        process::abort();
    }
}

/// Bytes of a file, or `None` if there is none.
fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}
