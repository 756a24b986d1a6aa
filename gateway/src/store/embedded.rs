//! The default store: one redb file for blocks, segment files for events and reviews; no server needed.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use waf_model::{
    event::{Event, Review},
    keys::ClientKey,
    segment::Kind,
};

use crate::{
    clock,
    store::{
        Block, BlockChange, BlockStore, EventSink, StoreError, StoreFuture,
        raw_block::RawBlock,
        segments::{SEGMENT_BYTES, SegmentLog},
    },
};

/// Blocks by `<scope>:<kind>:<key>`, as JSON.
const BLOCKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blocks");

/// Run-time allow entries by network, with the moment they were added.
const ALLOWED: TableDefinition<'_, &str, u64> = TableDefinition::new("allowed");

/// Most bytes of event segments that wait for the trainer.
pub const EVENTS_CAP: u64 = 1 << 30;

/// Most bytes of segments of whole requests that wait for the trainer.
const FULL_CAP: u64 = 256 << 20;

/// Blocks and allow entries in one redb file, which only this process opens.
#[derive(Debug, Clone)]
pub struct EmbeddedBlocks {
    database: Arc<Database>,
}

impl EmbeddedBlocks {
    /// Opens `<state>/blocks.redb`, making it if it is missing. Blocks until done.
    ///
    /// # Errors
    /// The file cannot be opened: another gateway holds it, or it is damaged.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let path = state.join("blocks.redb");
        let unexpected = |error: &dyn std::fmt::Display| StoreError::Unexpected {
            at: path.display().to_string(),
            what: format!(
                "{error}; stop the other gateway that uses it, or move the file away if it is damaged"
            ),
        };
        let database = Database::create(&path).map_err(|error| unexpected(&error))?;
        let store = Self { database: Arc::new(database) };
        store.write(|_, _| Ok(())).map_err(|error| unexpected(&error))?;
        Ok(store)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(
            &mut redb::Table<'_, &'static str, &'static [u8]>,
            &mut redb::Table<'_, &'static str, u64>,
        ) -> Result<T, redb::StorageError>,
    ) -> Result<T, StoreError> {
        let transaction = self.database.begin_write().map_err(|error| away(&error))?;
        let result = {
            let mut blocks = transaction.open_table(BLOCKS).map_err(|error| away(&error))?;
            let mut allowed = transaction.open_table(ALLOWED).map_err(|error| away(&error))?;
            work(&mut blocks, &mut allowed).map_err(|error| away(&error))?
        };
        transaction.commit().map_err(|error| away(&error))?;
        Ok(result)
    }

    /// Every readable block in force; expired ones are deleted, unreadable ones reported and kept for a person.
    fn load(&self) -> Result<Vec<Arc<Block>>, StoreError> {
        let now_ms = clock::now_ms();
        let (mut found, mut expired) = (Vec::new(), Vec::new());
        {
            let transaction = self.database.begin_read().map_err(|error| away(&error))?;
            let table = transaction.open_table(BLOCKS).map_err(|error| away(&error))?;
            for entry in table.iter().map_err(|error| away(&error))? {
                let (key, value) = entry.map_err(|error| away(&error))?;
                let block = serde_json::from_slice::<RawBlock>(value.value())
                    .map_err(|error| error.to_string())
                    .and_then(|raw| raw.check(now_ms));
                match block {
                    Ok(block) if block.expires_ms <= now_ms => expired.push(key.value().to_owned()),
                    Ok(block) => found.push(Arc::new(block)),
                    Err(error) => {
                        tracing::error!(key = key.value(), %error, "stored block cannot be read; it is not in force");
                    }
                }
            }
        }
        if !expired.is_empty() {
            self.write(|blocks, _| {
                for key in &expired {
                    blocks.remove(key.as_str())?;
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Runs database work off the request threads.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let store = self.clone();
        Box::pin(async move {
            tokio::task::spawn_blocking(move || work(&store))
                .await
                .unwrap_or_else(|error| Err(StoreError::Away(error.to_string())))
        })
    }
}

impl BlockStore for EmbeddedBlocks {
    fn snapshot(&self) -> StoreFuture<'_, Vec<Arc<Block>>> {
        self.blocking(Self::load)
    }

    fn put(&self, block: Arc<Block>) -> StoreFuture<'_, ()> {
        self.blocking(move |store| {
            let value = serde_json::to_vec(&*block).map_err(|error| away(&error))?;
            let key = format!("{}:{}", block.scope, block.client.0);
            store.write(|blocks, _| blocks.insert(key.as_str(), value.as_slice()).map(drop))
        })
    }

    fn release<'a>(&'a self, scope: &'a str, client: &'a ClientKey) -> StoreFuture<'a, bool> {
        let key = format!("{scope}:{client}");
        self.blocking(move |store| store.write(|blocks, _| Ok(blocks.remove(key.as_str())?.is_some())))
    }

    /// Nobody else writes the file, so there is nothing to report; expired blocks are cleared away meanwhile.
    fn changes(&self) -> StoreFuture<'_, Vec<BlockChange>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(Vec::new())
        })
    }

    fn allowed(&self) -> StoreFuture<'_, Vec<String>> {
        self.blocking(|store| {
            let transaction = store.database.begin_read().map_err(|error| away(&error))?;
            let table = transaction.open_table(ALLOWED).map_err(|error| away(&error))?;
            let mut found = Vec::new();
            for entry in table.iter().map_err(|error| away(&error))? {
                found.push(entry.map_err(|error| away(&error))?.0.value().to_owned());
            }
            Ok(found)
        })
    }

    fn set_allowed<'a>(&'a self, network: &'a str, allowed: bool) -> StoreFuture<'a, ()> {
        let network = network.to_owned();
        self.blocking(move |store| {
            store.write(|_, entries| {
                if allowed {
                    entries.insert(network.as_str(), clock::now_ms())?;
                } else {
                    entries.remove(network.as_str())?;
                }
                Ok(())
            })
        })
    }
}

/// Events and reviews as segment files in `<state>/events`, sealed requests in `<state>/records`: however many there
/// are, no event makes room for them.
#[derive(Debug, Clone)]
pub struct SegmentSink {
    log: Arc<Mutex<SegmentLog>>,
    full: Arc<Mutex<SegmentLog>>,
    lost: Arc<AtomicU64>,
}

impl SegmentSink {
    /// Opens the log below `state`. Blocks until done.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(state: &Path, cap: u64) -> Result<Self, StoreError> {
        let open = |name: &str, cap| {
            let directory = state.join(name);
            let log = SegmentLog::open(&directory, cap, SEGMENT_BYTES)
                .map_err(|error| super::model_directory::away(&directory, &error))?;
            Ok(Arc::new(Mutex::new(log)))
        };
        Ok(Self { log: open("events", cap)?, full: open("records", FULL_CAP)?, lost: Arc::default() })
    }

    fn append_records(&self, records: Vec<(Kind, Vec<u8>)>) -> StoreFuture<'static, ()> {
        let sink = self.clone();
        Box::pin(async move {
            let appended = tokio::task::spawn_blocking(move || {
                let mut log = sink.log.lock().unwrap_or_else(PoisonError::into_inner);
                let lost = log.append(records.iter().map(|(kind, record)| (*kind, record.as_slice())))?;
                if lost > 0 {
                    sink.lost.fetch_add(lost, Ordering::Relaxed);
                    tracing::warn!(
                        lost,
                        "events deleted before the trainer read them: it is stopped or too slow; see portcullis_events_lost_total"
                    );
                }
                Ok::<(), std::io::Error>(())
            });
            match appended.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(StoreError::Away(format!("event segments: {error}"))),
                Err(error) => Err(StoreError::Away(error.to_string())),
            }
        })
    }
}

impl EventSink for SegmentSink {
    fn append<'a>(&'a self, events: &'a [Event]) -> StoreFuture<'a, ()> {
        self.append_records(events.iter().map(|event| (Kind::Event, event.encode())).collect())
    }

    fn review<'a>(&'a self, review: &'a Review) -> StoreFuture<'a, ()> {
        self.append_records(vec![(Kind::Review, review.encode())])
    }

    fn append_full<'a>(&'a self, sealed: &'a [Vec<u8>]) -> StoreFuture<'a, u64> {
        let (log, sealed) = (Arc::clone(&self.full), sealed.to_vec());
        Box::pin(async move {
            let appended = tokio::task::spawn_blocking(move || {
                let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                log.append(sealed.iter().map(|record| (Kind::Full, record.as_slice())))
            });
            match appended.await {
                Ok(Ok(lost)) => Ok(lost),
                Ok(Err(error)) => Err(StoreError::Away(format!("segments of full records: {error}"))),
                Err(error) => Err(StoreError::Away(error.to_string())),
            }
        })
    }

    fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

fn away(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Away(error.to_string())
}
