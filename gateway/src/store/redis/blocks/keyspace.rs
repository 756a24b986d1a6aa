//! Reading blocks and allow entries from Redis keys, and telling whether Redis still has its memory.

use std::collections::{BTreeSet, HashMap};

use redis::{Value, cmd};
use waf_model::keys::{self, ClientKey};

use crate::{
    clock,
    store::{
        Block, StoreError,
        model_directory::{hex, new_site_key},
        raw_block::RawBlock,
        redis::link::Link,
    },
};

/// Marker that vanishes with everything else when Redis is emptied.
pub(super) const EPOCH: &str = "portcullis:epoch";

/// Keys in one pipeline.
const CHUNK: usize = 500;

/// What stands under one block key.
#[derive(Debug)]
pub(super) enum Seen {
    /// All of it.
    Block(Box<Block>),
    /// When it ends; the rest is known.
    Expiry(u64),
    /// Nothing that can be read, and why.
    Unreadable(String),
}

/// All blocks and allow entries at one moment.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// By key.
    pub(super) blocks: HashMap<String, Seen>,
    /// In the text that was written.
    pub(super) allowed: BTreeSet<String>,
}

/// What changes when Redis loses its memory: the marker, and the server that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) epoch: Option<String>,
    run: Option<String>,
}

impl Generation {
    pub(super) async fn read(link: &Link) -> Result<Self, StoreError> {
        let epoch = link.ask(cmd("GET").arg(EPOCH)).await?;
        // Some accounts may not ask for it; then the marker alone has to do.
        let run = match link.ask::<String>(cmd("INFO").arg("server")).await {
            Ok(info) => info.lines().find_map(|line| line.strip_prefix("run_id:").map(str::to_owned)),
            Err(StoreError::Away(error)) if error.contains("NOPERM") => None,
            Err(error) => return Err(error),
        };
        Ok(Self { epoch, run })
    }
}

/// Sets the marker, unless another gateway was faster.
pub(super) async fn new_epoch(link: &Link) -> Result<(), StoreError> {
    link.ask(cmd("SET").arg(EPOCH).arg(hex(&new_site_key()?)).arg("NX")).await
}

/// Reads all blocks and allow entries; of blocks for which `known` holds only when they end.
pub(super) async fn look(link: &Link, known: impl Fn(&str) -> bool) -> Result<Look, StoreError> {
    // One walk for `portcullis:block:` and `portcullis:allow:`.
    let keys = scan(link, "portcullis:[ab]l*:*").await?;
    let mut found = Look::default();
    let mut blocks = Vec::new();
    for key in keys {
        if let Some(network) = key.strip_prefix(keys::ALLOW_PREFIX) {
            found.allowed.insert(network.to_owned());
        } else if key.starts_with(keys::BLOCK_PREFIX) {
            blocks.push(key);
        }
    }
    found.blocks = fetch(link, &blocks, known).await?;
    Ok(found)
}

/// Reads the blocks under `names`; of those for which `known` holds only when they end. What does not exist is
/// left out.
pub(super) async fn fetch(
    link: &Link,
    names: &[String],
    known: impl Fn(&str) -> bool,
) -> Result<HashMap<String, Seen>, StoreError> {
    let mut found = HashMap::new();
    for chunk in names.chunks(CHUNK) {
        let mut pipeline = redis::pipe();
        // A key of another type is one person's mistake, and no reason to read none.
        pipeline.ignore_errors();
        for key in chunk {
            pipeline.cmd("PTTL").arg(key);
            if !known(key) {
                pipeline.cmd("HGETALL").arg(key);
            }
        }
        let mut answers = link.ask_all::<Vec<Value>>(&pipeline).await?.into_iter();
        for key in chunk {
            let left: i64 =
                answers.next().and_then(|value| redis::from_redis_value(value).ok()).unwrap_or(-2);
            let fields = if known(key) { None } else { answers.next() };
            let expires_ms = match u64::try_from(left) {
                Ok(left) => clock::now_ms().saturating_add(left),
                Err(_) if left == -1 => u64::MAX,
                Err(_) => continue,
            };
            let seen = match fields {
                None => Seen::Expiry(expires_ms),
                Some(fields) => match read(key, fields, expires_ms) {
                    Ok(block) => Seen::Block(Box::new(block)),
                    Err(error) => Seen::Unreadable(error),
                },
            };
            found.insert(key.clone(), seen);
        }
    }
    Ok(found)
}

fn read(key: &str, fields: Value, expires_ms: u64) -> Result<Block, String> {
    let fields: HashMap<String, String> = redis::from_redis_value(fields)
        .map_err(|_| "not a hash of texts; write it with HSET <key> reason \"…\"".to_owned())?;
    let (scope, client) =
        split(key).ok_or("the key is not portcullis:block:<scope>:ip|key|session:<client>")?;
    let raw = RawBlock::from_fields(fields.iter().map(|(name, text)| (name.as_str(), text.as_str())))?;
    RawBlock {
        client: client.to_string(),
        scope: Some(scope.to_owned()),
        expires_ms: Some(expires_ms),
        ..raw
    }
    .check(clock::now_ms())
}

/// Scope and client of a block key, as they are spelled there.
pub(super) fn split(key: &str) -> Option<(&str, ClientKey)> {
    let (scope, client) = key.strip_prefix(keys::BLOCK_PREFIX)?.split_once(':')?;
    Some((scope, ClientKey::parse(client)?))
}

/// All keys that match a pattern, in pages, so that Redis is never held up.
///
/// # Errors
/// Redis does not answer or refuses.
pub async fn scan(link: &Link, pattern: &str) -> Result<Vec<String>, StoreError> {
    let mut found = BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) =
            link.ask(cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1000)).await?;
        found.extend(keys.into_iter().filter_map(|key| String::from_utf8(key).ok()));
        if next == 0 {
            return Ok(found.into_iter().collect());
        }
        cursor = next;
    }
}
