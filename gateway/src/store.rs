//! What outlives one gateway process: blocks, events and models, behind three traits.
//!
//! The request path never waits for a store. It reads in-memory copies; the tasks that keep those copies in
//! step are the only callers of these traits.

pub mod embedded;
pub mod embedded_quotas;
pub mod model_directory;
pub mod raw_block;
pub mod record_key;
pub mod redis;
pub mod segments;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use serde::Serialize;
use waf_model::{
    event::{Event, Review},
    keys::ClientKey,
    score::Explanation,
};

/// A boxed future, so that the traits can be used as objects.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer; what is known stays in force.
    #[error("store is away: {0}")]
    Away(String),
    /// It answered with something this version does not understand.
    #[error("store holds something unexpected at {at}: {what}")]
    Unexpected {
        /// Key or file.
        at: String,
        /// What is wrong and how to mend it.
        what: String,
    },
}

/// A blocked client. [`raw_block::RawBlock`] is its readable form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Block {
    /// Who.
    pub client: ClientKeyText,
    /// Route name, or `all`.
    pub scope: String,
    /// One line: why.
    pub reason: String,
    /// Evidence level when blocked.
    pub score: f32,
    /// Budget of the certificate behind it, in words; empty for rules and people.
    pub budget: String,
    /// Sequence number of the model, 0 for none.
    pub model: u64,
    /// Milliseconds since 1970 of the first request that counted.
    pub first_seen_ms: u64,
    /// Milliseconds since 1970 of the request that tipped it.
    pub last_seen_ms: u64,
    /// How often this client has been blocked, from 1: each time four times as long.
    pub count: u32,
    /// Milliseconds since 1970 when it ends.
    pub expires_ms: u64,
    /// Who made it: `gateway`, `operator`.
    pub origin: BlockOrigin,
    /// The request that tipped it, if any.
    pub request_id: Option<String>,
    /// Rules and features behind it.
    pub explanation: BlockExplanation,
}

/// Who made a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockOrigin {
    /// Evidence reached the threshold.
    Gateway,
    /// A person.
    Operator,
}

/// What stands behind a block.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlockExplanation {
    /// Rules that matched, as `id message`, most frequent first.
    pub rules: Vec<String>,
    /// What the model found on the request that tipped it.
    pub model: Option<Explanation>,
    /// Requests that added evidence, newest last: `(milliseconds since 1970, request id, evidence after it)`.
    pub timeline: Vec<(u64, String, f32)>,
}

/// A [`ClientKey`] that serializes as its text form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientKeyText(pub ClientKey);

impl Serialize for ClientKeyText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What changed in the shared set of blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockChange {
    /// A block was made or renewed.
    Blocked(Arc<Block>),
    /// A block ended before its time: a person released the client.
    Released {
        /// Route name, or `all`.
        scope: String,
        /// Who.
        client: ClientKey,
    },
}

/// Requests of one key to be charged to a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Keyed hash of what is counted apart.
    pub key: u64,
    /// How many requests.
    pub count: u64,
    /// When the period ends, in milliseconds since 1970; of quotas alone.
    pub ends_ms: u64,
}

/// Rates that all gateways share.
pub trait RateStore: Send + Sync {
    /// Charges requests, of which one uses up `every`; answers for each key how many microseconds its theoretical
    /// arrival time (GCRA) lies ahead.
    fn charge_rates<'a>(
        &'a self,
        limit: &'a str,
        every: Duration,
        charges: &'a [Charge],
    ) -> StoreFuture<'a, Vec<u64>>;
}

/// Inventories that gateways show each other.
pub trait InventoryStore: Send + Sync + std::fmt::Debug {
    /// Puts this gateway's in place of what it published before.
    fn publish<'a>(&'a self, inventory: &'a [u8]) -> StoreFuture<'a, ()>;

    /// Those of all other gateways.
    fn others(&self) -> StoreFuture<'_, Vec<Vec<u8>>>;
}

/// How much of each quota is used up.
pub trait QuotaStore: Send + Sync {
    /// Charges requests; answers for each key how many were charged in its period.
    fn charge_quotas<'a>(&'a self, limit: &'a str, charges: &'a [Charge]) -> StoreFuture<'a, Vec<u64>>;
}

/// The shared set of blocks and the allow list kept at run time.
pub trait BlockStore: Send + Sync {
    /// Every block in force.
    fn snapshot(&self) -> StoreFuture<'_, Vec<Arc<Block>>>;
    /// Makes or renews a block.
    fn put(&self, block: Arc<Block>) -> StoreFuture<'_, ()>;
    /// Ends a block; `false` if there was none.
    fn release<'a>(&'a self, scope: &'a str, client: &'a ClientKey) -> StoreFuture<'a, bool>;
    /// Waits for changes by others since the last call, at most a few seconds; may be empty.
    fn changes(&self) -> StoreFuture<'_, Vec<BlockChange>>;
    /// Networks and addresses allowed at run time, in CIDR form.
    fn allowed(&self) -> StoreFuture<'_, Vec<String>>;
    /// Adds (`true`) or removes (`false`) a run-time allow entry.
    fn set_allowed<'a>(&'a self, network: &'a str, allowed: bool) -> StoreFuture<'a, ()>;
}

/// Where events and reviews go.
pub trait EventSink: Send + Sync {
    /// Appends a batch; on an error none or some were written, and repeats are dropped by id later.
    fn append<'a>(&'a self, events: &'a [Event]) -> StoreFuture<'a, ()>;
    /// Appends a review.
    fn review<'a>(&'a self, review: &'a Review) -> StoreFuture<'a, ()>;
    /// Appends sealed requests; how many older ones were deleted unread to stay within the cap.
    fn append_full<'a>(&'a self, sealed: &'a [Vec<u8>]) -> StoreFuture<'a, u64>;
    /// How many events the store deleted unread since the last call, to stay within its cap.
    fn take_lost(&self) -> u64;
}

/// Where models come from.
pub trait ModelSource: Send + Sync {
    /// Sequence number of the published model, if any.
    fn current(&self) -> StoreFuture<'_, Option<u64>>;
    /// The artifact's bytes.
    fn fetch(&self, seq: u64) -> StoreFuture<'_, Vec<u8>>;
    /// Every artifact that is kept, ascending.
    fn list(&self) -> StoreFuture<'_, Vec<u64>>;
    /// The sequence number that a person chose last with [`Self::set_current`]: the one model that may replace a
    /// newer one.
    fn chosen(&self) -> StoreFuture<'_, Option<u64>>;
    /// Makes `seq` the published model on a person's order (promote, rollback), and records it as chosen. The
    /// trainer publishes without this.
    fn set_current(&self, seq: u64) -> StoreFuture<'_, ()>;
    /// The sequence number that a gateway put in force last: the champion of a gateway that has none of its own.
    fn in_force(&self) -> StoreFuture<'_, Option<u64>>;
    /// Notes that a gateway put `seq` in force.
    fn set_in_force(&self, seq: u64) -> StoreFuture<'_, ()>;
    /// The site's observation key; made and kept on first use.
    fn site_key(&self) -> StoreFuture<'_, [u8; 16]>;
}

#[cfg(test)]
pub(crate) mod tests;
