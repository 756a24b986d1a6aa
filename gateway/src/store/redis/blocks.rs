//! Blocks and run-time allow entries in Redis: hashes with a time to live that people may read, write and delete.
//!
//! Two ways lead from a change to every gateway: the stream of changes at once, and a look at all keys every two
//! seconds, which also finds what people did with `redis-cli`. A key that vanished before its time is a release,
//! unless Redis itself lost its memory: a marker key and the server's run id tell the two apart.

mod keyspace;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use redis::{Value, cmd, streams::StreamReadReply};
use tokio::sync::Mutex;
use waf_model::keys::{self, ClientKey};

pub use crate::store::redis::blocks::keyspace::scan;
use crate::{
    clock,
    store::{
        Block, BlockChange, BlockStore, StoreError, StoreFuture,
        raw_block::{canonical, fields},
        redis::{
            blocks::keyspace::{Generation, Seen, look, new_epoch, split},
            link::Link,
        },
    },
};

/// Pause between two looks at all keys.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Entries of the stream of changes that are kept; whoever is further behind finds all by looking.
const CHANGES_CAP: &str = "10000";

/// Moments that differ by less are the same: the remaining time is read in steps.
const SLACK_MS: u64 = 1_500;

/// Blocks as hashes `portcullis:block:<scope>:<kind>:<key>`.
#[derive(Debug)]
pub struct RedisBlocks {
    link: Link,
    /// Blocks on the stream of changes.
    tail: Link,
    state: Mutex<State>,
}

/// What this gateway knows to be in Redis.
#[derive(Debug, Default)]
struct State {
    known: HashMap<String, Known>,
    allowed: BTreeSet<String>,
    generation: Option<Generation>,
    last_change: String,
    looked: Option<Instant>,
    took: Duration,
    /// Keys that cannot be read and were complained about.
    reported: HashSet<String>,
}

#[derive(Debug, Clone)]
struct Known {
    block: Arc<Block>,
    since: Instant,
}

impl RedisBlocks {
    pub(super) fn new(link: Link, tail: Link) -> Self {
        Self { link, tail, state: Mutex::default() }
    }

    /// Looks at all keys and compares them with what is known.
    async fn look(&self) -> Result<Vec<BlockChange>, StoreError> {
        let started = Instant::now();
        let known: HashSet<String> = self.state.lock().await.known.keys().cloned().collect();
        let mut found = look(&self.link, |key| known.contains(key)).await?;
        let missing: Vec<String> = {
            let state = self.state.lock().await;
            state
                .known
                .iter()
                .filter(|(key, known)| known.since < started && !found.blocks.contains_key(*key))
                .map(|(key, _)| key.clone())
                .collect()
        };
        // A walk over the keys may miss one that was written meanwhile: ask for it by name.
        let exist = keyspace::fetch(&self.link, &missing, |_| true).await?;
        found.blocks.extend(exist);
        // Read last: had Redis been emptied before any of the answers above, it would show here.
        let generation = Generation::read(&self.link).await?;
        let mut state = self.state.lock().await;
        let before = state.generation.as_ref();
        // Before the first whole look only what was put from here is known, and nobody can tell whether Redis
        // was emptied since: a block that is written once more does no harm, one that is forgotten does.
        let lost_memory = before.is_none_or(|before| *before != generation);
        let first_look = before.is_none();
        let mut changes = Vec::new();
        let mut repush = Vec::new();
        for key in missing {
            if found.blocks.contains_key(&key) {
                continue;
            }
            let Some(known) = state.known.remove(&key) else { continue };
            if known.block.expires_ms <= clock::now_ms().saturating_add(SLACK_MS) {
                continue;
            }
            if lost_memory {
                repush.push((key, known));
            } else {
                changes.push(released(&known.block));
            }
        }
        for (key, seen) in found.blocks {
            state.merge(key, seen, &mut changes);
        }
        let mut allow_again = Vec::new();
        if lost_memory {
            allow_again = state.allowed.difference(&found.allowed).cloned().collect();
            found.allowed.extend(allow_again.iter().cloned());
        }
        state.allowed = found.allowed;
        if lost_memory && !(first_look && repush.is_empty() && allow_again.is_empty()) {
            tracing::warn!(
                blocks = repush.len(),
                allowed = allow_again.len(),
                "Redis lost its memory (restarted, failed over or emptied): what is known here is written again"
            );
        }
        let again: Vec<_> = repush.iter().map(|(_, known)| Arc::clone(&known.block)).collect();
        state.known.extend(repush);
        // From here on nothing may end this early: the changes are noted as known already.
        match self.write_again(&again, &allow_again, generation).await {
            Ok(generation) => state.generation = Some(generation),
            // With the old generation kept, the next look writes them again.
            Err(error) => tracing::warn!(%error, "Redis is not complete yet"),
        }
        state.looked = Some(Instant::now());
        state.took = started.elapsed();
        Ok(changes)
    }

    /// Writes what Redis lost, and the marker that it did; clears expired entries from the index.
    async fn write_again(
        &self,
        blocks: &[Arc<Block>],
        allowed: &[String],
        generation: Generation,
    ) -> Result<Generation, StoreError> {
        for block in blocks {
            self.write(block).await?;
        }
        for network in allowed {
            self.write_allowed(network, true).await?;
        }
        self.link
            .ask::<()>(cmd("ZREMRANGEBYSCORE").arg(&[keys::BLOCK_INDEX, "-inf"]).arg(clock::now_ms()))
            .await?;
        if generation.epoch.is_some() {
            return Ok(generation);
        }
        new_epoch(&self.link).await?;
        Generation::read(&self.link).await
    }

    /// Waits for entries in the stream of changes and reads the blocks that they name.
    async fn tail(&self, wait: Duration) -> Result<Vec<BlockChange>, StoreError> {
        let last = self.state.lock().await.last_change.clone();
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(1000).arg("BLOCK").arg(clock::millis(wait).max(1));
        read.arg("STREAMS").arg(keys::CHANGES).arg(&last);
        let Some(reply) = self.tail.wait::<Option<StreamReadReply>>(&read, wait).await? else {
            return Ok(Vec::new());
        };
        let mut named = BTreeSet::new();
        let mut last = last;
        for entry in reply.keys.into_iter().flat_map(|stream| stream.ids) {
            if let Some(key) = entry.get::<String>("key")
                && split(&key).is_some()
            {
                named.insert(key);
            }
            last = entry.id;
        }
        let named: Vec<String> = named.into_iter().collect();
        let mut found = keyspace::fetch(&self.link, &named, |_| false).await?;
        let mut state = self.state.lock().await;
        let mut changes = Vec::new();
        for key in named {
            match found.remove(&key) {
                Some(seen) => state.merge(key, seen, &mut changes),
                None => {
                    if let Some(known) = state.known.remove(&key)
                        && known.block.expires_ms > clock::now_ms()
                    {
                        changes.push(released(&known.block));
                    }
                }
            }
        }
        state.last_change = last;
        Ok(changes)
    }

    async fn write(&self, block: &Block) -> Result<(), StoreError> {
        let key = keys::block(&block.scope, &block.client.0);
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("HSET").arg(&key);
        for (name, value) in fields(block) {
            pipeline.arg(name).arg(value);
        }
        pipeline.ignore();
        if block.expires_ms == u64::MAX {
            pipeline.cmd("PERSIST").arg(&key).ignore();
            pipeline.cmd("ZADD").arg(&[keys::BLOCK_INDEX, "+inf", &key]).ignore();
        } else {
            pipeline.cmd("PEXPIREAT").arg(&key).arg(block.expires_ms).ignore();
            pipeline.cmd("ZADD").arg(keys::BLOCK_INDEX).arg(block.expires_ms).arg(&key).ignore();
        }
        announce(&mut pipeline, "block", &key);
        self.link.ask_all::<()>(&pipeline).await
    }

    async fn write_allowed(&self, network: &str, allowed: bool) -> Result<(), StoreError> {
        let key = format!("{}{network}", keys::ALLOW_PREFIX);
        if allowed {
            self.link.ask(cmd("SET").arg(key).arg(clock::text(clock::now_ms()))).await
        } else {
            self.link.ask(cmd("DEL").arg(key)).await
        }
    }
}

impl State {
    /// Takes over what was seen under `key`; notes a change if it is one.
    fn merge(&mut self, key: String, seen: Seen, changes: &mut Vec<BlockChange>) {
        let block = match seen {
            Seen::Block(block) => {
                self.reported.remove(&key);
                match self.known.get(&key) {
                    Some(known) if same(&known.block, &block) => return,
                    _ => Arc::new(*block),
                }
            }
            Seen::Expiry(expires_ms) => match self.known.get(&key) {
                Some(known) if known.block.expires_ms.abs_diff(expires_ms) > SLACK_MS => {
                    Arc::new(Block { expires_ms, ..Block::clone(&known.block) })
                }
                _ => return,
            },
            Seen::Unreadable(error) => {
                if self.reported.len() < 1_000 && self.reported.insert(key.clone()) {
                    tracing::error!(%key, %error, "block in Redis cannot be read and is not in force; mend or delete it");
                }
                return;
            }
        };
        changes.push(BlockChange::Blocked(Arc::clone(&block)));
        self.known.insert(key, Known { block, since: Instant::now() });
    }
}

impl BlockStore for RedisBlocks {
    fn snapshot(&self) -> StoreFuture<'_, Vec<Arc<Block>>> {
        Box::pin(async move {
            let newest: Vec<(String, Value)> =
                self.link.ask(cmd("XREVRANGE").arg(&[keys::CHANGES, "+", "-", "COUNT", "1"])).await?;
            self.state.lock().await.last_change =
                newest.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id);
            self.look().await?;
            let state = self.state.lock().await;
            Ok(state.known.values().map(|known| Arc::clone(&known.block)).collect())
        })
    }

    fn put(&self, block: Arc<Block>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let key = keys::block(&block.scope, &block.client.0);
            self.write(&block).await?;
            self.state.lock().await.known.insert(key, Known { block, since: Instant::now() });
            Ok(())
        })
    }

    fn release<'a>(&'a self, scope: &'a str, client: &'a ClientKey) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            // People may have spelled the key in another way than we do.
            let mut names = BTreeSet::from([keys::block(scope, client)]);
            for key in self.state.lock().await.known.keys() {
                if let Some((other_scope, other)) = split(key)
                    && other_scope == scope
                    && canonical(&other).as_ref() == Some(client)
                {
                    names.insert(key.clone());
                }
            }
            let mut pipeline = redis::pipe();
            pipeline.atomic();
            for key in &names {
                pipeline.cmd("DEL").arg(key);
                pipeline.cmd("ZREM").arg(keys::BLOCK_INDEX).arg(key).ignore();
                announce(&mut pipeline, "release", key);
            }
            let deleted: Vec<u64> = self.link.ask_all(&pipeline).await?;
            let mut state = self.state.lock().await;
            for key in &names {
                state.known.remove(key);
            }
            Ok(deleted.iter().sum::<u64>() > 0)
        })
    }

    fn changes(&self) -> StoreFuture<'_, Vec<BlockChange>> {
        Box::pin(async move {
            let wait = {
                let state = self.state.lock().await;
                // Looking at very many keys takes a while; most of the time Redis is left to its other work.
                let pause = LOOK_EVERY.max(state.took * 4);
                state.looked.map_or(Duration::ZERO, |at| pause.saturating_sub(at.elapsed()))
            };
            if wait.is_zero() { self.look().await } else { self.tail(wait.min(LOOK_EVERY)).await }
        })
    }

    fn allowed(&self) -> StoreFuture<'_, Vec<String>> {
        Box::pin(async move { Ok(self.state.lock().await.allowed.iter().cloned().collect()) })
    }

    fn set_allowed<'a>(&'a self, network: &'a str, allowed: bool) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.write_allowed(network, allowed).await?;
            let mut state = self.state.lock().await;
            if allowed {
                state.allowed.insert(network.to_owned());
            } else {
                state.allowed.remove(network);
            }
            Ok(())
        })
    }
}

fn announce(pipeline: &mut redis::Pipeline, kind: &str, key: &str) {
    pipeline
        .cmd("XADD")
        .arg(&[keys::CHANGES, "MAXLEN", "~", CHANGES_CAP, "*", "kind", kind, "key", key])
        .ignore();
}

fn released(block: &Block) -> BlockChange {
    BlockChange::Released { scope: block.scope.clone(), client: block.client.0.clone() }
}

/// Whether two readings of a block say the same; the times of missing fields are those of the reading.
fn same(known: &Block, seen: &Block) -> bool {
    known.expires_ms.abs_diff(seen.expires_ms) <= SLACK_MS
        && known.reason == seen.reason
        && known.count == seen.count
        && known.request_id == seen.request_id
}
