//! The blocks and run-time allow entries in force, in memory; kept in step with the store by a task.
//!
//! Lookups touch one shard of a map and the networks for a moment; they never wait for a store.

pub mod networks;
pub mod sync;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::sync::Notify;
use waf_model::keys::ClientKey;

use crate::{audit, block_list::networks::Networks, clock, store::Block};

/// Most blocks in force at once; 0.5 to 1 KiB each. Beyond it new ones are refused and counted.
pub const MAX_BLOCKS: usize = 1_000_000;

const SHARDS: usize = 64;

/// Blocks in force and networks allowed at run time.
#[derive(Debug)]
pub struct BlockList {
    hasher: RandomState,
    shards: Vec<RwLock<HashMap<ClientKey, Vec<Arc<Block>>>>>,
    networks: RwLock<Networks<Vec<Arc<Block>>>>,
    size: AtomicUsize,
    refused: AtomicUsize,
    allowed: ArcSwap<Allowed>,
    orders: Mutex<Orders>,
    /// Orders were taken and are being told to the store.
    telling: AtomicBool,
    wake: Notify,
}

/// What the store has not been told yet, the latest order for each key.
#[derive(Debug, Default)]
struct Orders {
    blocks: HashMap<(String, ClientKey), Order>,
    allowed: HashMap<String, Allow>,
}

impl Orders {
    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.allowed.is_empty()
    }
}

#[derive(Debug, Clone)]
enum Order {
    Put(Arc<Block>),
    Release,
}

/// Whether a network is added to the allow list or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// Added.
    Add,
    /// Removed.
    Remove,
}

#[derive(Debug, Default)]
struct Allowed {
    texts: BTreeSet<String>,
    networks: Networks<()>,
}

impl Default for BlockList {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            networks: RwLock::default(),
            size: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            allowed: ArcSwap::default(),
            orders: Mutex::default(),
            telling: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }
}

impl BlockList {
    /// The block on any of `keys` (narrowest first) for `route`, if one is in force at `now_ms`. Never waits.
    pub fn find(&self, keys: &[ClientKey], route: &str, now_ms: u64) -> Option<Arc<Block>> {
        if self.size.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let holds =
            |block: &&Arc<Block>| block.expires_ms > now_ms && (block.scope == "all" || block.scope == route);
        let networks = self.read_networks();
        for key in keys {
            if let Some(block) = self.read(key).get(key).and_then(|blocks| blocks.iter().find(holds)) {
                return Some(Arc::clone(block));
            }
            let ClientKey::Address(text) = key else { continue };
            if networks.is_empty() {
                continue;
            }
            let Some(network) = networks::parse(text) else { continue };
            // The narrowest comes last.
            if let Some(block) = networks.covering(network).flatten().filter(holds).last() {
                return Some(Arc::clone(block));
            }
        }
        None
    }

    /// Whether `address` was allowed at run time.
    pub fn allows(&self, address: IpAddr) -> bool {
        let allowed = self.allowed.load();
        !allowed.networks.is_empty()
            && allowed.networks.covering(IpNet::from(address.to_canonical())).next().is_some()
    }

    /// Puts a block in force here at once, and hands it to the store in the background.
    pub fn block(&self, block: impl Into<Arc<Block>>) {
        let block = block.into();
        if self.insert(Arc::clone(&block)) {
            let key = (block.scope.clone(), block.client.0.clone());
            self.orders().blocks.insert(key, Order::Put(block));
            self.wake.notify_one();
        }
    }

    /// Ends a block here at once, and in the store in the background; the block, if there was one.
    pub fn release(&self, scope: &str, client: &ClientKey) -> Option<Arc<Block>> {
        let removed = self.remove(scope, client)?;
        self.orders().blocks.insert((scope.to_owned(), client.clone()), Order::Release);
        self.wake.notify_one();
        Some(removed)
    }

    /// Adds or removes a run-time allow entry here at once, and in the store in the background.
    pub fn set_allowed(&self, network: IpNet, allow: Allow) {
        let text = network.trunc().to_string();
        let mut texts = self.allowed.load().texts.clone();
        match allow {
            Allow::Add => texts.insert(text.clone()),
            Allow::Remove => texts.remove(&text),
        };
        self.orders().allowed.insert(text, allow);
        self.replace_allowed(texts);
        self.wake.notify_one();
    }

    /// Every block in force at `now_ms`, the latest first.
    pub fn in_force(&self, now_ms: u64) -> Vec<Arc<Block>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            found.extend(shard.values().flatten().cloned());
        }
        found.extend(self.read_networks().values().flatten().cloned());
        found.retain(|block| block.expires_ms > now_ms);
        found.sort_by(|a, b| b.last_seen_ms.cmp(&a.last_seen_ms).then_with(|| a.client.cmp(&b.client)));
        found
    }

    /// The run-time allow entries, in CIDR form.
    pub fn allow_entries(&self) -> Vec<String> {
        self.allowed.load().texts.iter().cloned().collect()
    }

    /// How many blocks were refused because [`MAX_BLOCKS`] were in force, since the last call.
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed) as u64
    }

    /// Waits until the store has been told everything.
    pub async fn settled(&self) {
        loop {
            {
                // The flag changes under this lock only.
                let orders = self.orders();
                if orders.is_empty() && !self.telling.load(Ordering::Relaxed) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many blocks are held, expired ones that were not purged yet included.
    pub fn len(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a block in force that the store knows already; `false` if there are too many.
    pub fn insert(&self, block: Arc<Block>) -> bool {
        let key = block.client.0.clone();
        let known = self.holds_key(&key);
        if !known && self.len() >= MAX_BLOCKS {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let replace = |blocks: &mut Vec<Arc<Block>>| {
            let before = blocks.len();
            blocks.retain(|other| other.scope != block.scope);
            blocks.push(Arc::clone(&block));
            blocks.len() - before
        };
        let added = match network_of(&key) {
            Some(network) => replace(self.write_networks().entry(network)),
            None => replace(self.write(&key).entry(key.clone()).or_default()),
        };
        self.size.fetch_add(added, Ordering::Relaxed);
        true
    }

    fn remove(&self, scope: &str, client: &ClientKey) -> Option<Arc<Block>> {
        let take = |blocks: &mut Vec<Arc<Block>>| {
            let at = blocks.iter().position(|block| block.scope == scope)?;
            Some(blocks.swap_remove(at))
        };
        let removed = match network_of(client) {
            Some(network) => {
                let mut networks = self.write_networks();
                let removed = take(networks.entry(network));
                if networks.get(network).is_some_and(Vec::is_empty) {
                    networks.remove(network);
                }
                removed
            }
            None => match self.write(client).entry(client.clone()) {
                Entry::Occupied(mut entry) => {
                    let removed = take(entry.get_mut());
                    if entry.get().is_empty() {
                        entry.remove();
                    }
                    removed
                }
                Entry::Vacant(_) => None,
            },
        };
        if removed.is_some() {
            self.size.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// Drops what has expired at `now_ms`.
    fn purge(&self, now_ms: u64) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let mut dropped = 0;
            shard.retain(|_, blocks| {
                let before = blocks.len();
                blocks.retain(|block| block.expires_ms > now_ms);
                dropped += before - blocks.len();
                !blocks.is_empty()
            });
            self.size.fetch_sub(dropped, Ordering::Relaxed);
        }
        let expired: Vec<_> = self
            .read_networks()
            .values()
            .flatten()
            .filter(|block| block.expires_ms <= now_ms)
            .cloned()
            .collect();
        for block in expired {
            self.remove(&block.scope, &block.client.0);
        }
    }

    fn replace_allowed(&self, texts: BTreeSet<String>) {
        let mut networks = Networks::default();
        for text in &texts {
            match networks::parse(text) {
                Some(network) => *networks.entry(network) = (),
                None => {
                    tracing::error!(entry = text, "allow entry is neither an address nor a network; ignored");
                }
            }
        }
        self.allowed.store(Arc::new(Allowed { texts, networks }));
    }

    fn holds_key(&self, key: &ClientKey) -> bool {
        match network_of(key) {
            Some(network) => self.read_networks().get(network).is_some(),
            None => self.read(key).contains_key(key),
        }
    }

    fn read_networks(&self) -> RwLockReadGuard<'_, Networks<Vec<Arc<Block>>>> {
        self.networks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_networks(&self) -> RwLockWriteGuard<'_, Networks<Vec<Arc<Block>>>> {
        self.networks.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    fn shard(&self, key: &ClientKey) -> &RwLock<HashMap<ClientKey, Vec<Arc<Block>>>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn read(&self, key: &ClientKey) -> RwLockReadGuard<'_, HashMap<ClientKey, Vec<Arc<Block>>>> {
        self.shard(key).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &ClientKey) -> RwLockWriteGuard<'_, HashMap<ClientKey, Vec<Arc<Block>>>> {
        self.shard(key).write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the gateway, or another writer of the store, did about a client, for the audit log.
pub fn entry(action: &'static str, before: Option<&Block>, after: Option<&Block>) -> audit::Entry {
    let object = before.or(after).map_or_else(String::new, |block| block.client.0.to_string());
    audit::Entry::by_gateway(action, object, noted(before), noted(after))
}

/// What the audit log keeps of a block.
pub fn noted(block: Option<&Block>) -> Value {
    block.map_or(Value::Null, |block| {
        json!({
            "scope": block.scope,
            "reason": block.reason,
            "origin": block.origin,
            "count": block.count,
            "model": block.model,
            "expires": clock::text(block.expires_ms),
            "request_id": block.request_id,
        })
    })
}

/// The network that a key in CIDR form names, if it is wider than one client (an IPv6 /64 is one client).
fn network_of(key: &ClientKey) -> Option<IpNet> {
    let ClientKey::Address(text) = key else { return None };
    match text.parse().ok()? {
        IpNet::V4(network) if network.prefix_len() < 32 => Some(IpNet::V4(network)),
        IpNet::V6(network) if network.prefix_len() < 64 => Some(IpNet::V6(network)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::raw_block::{RawBlock, address_key};

    fn block(client: &str, scope: &str, expires_ms: u64) -> Block {
        RawBlock {
            client: client.to_owned(),
            scope: Some(scope.to_owned()),
            expires_ms: Some(expires_ms),
            ..RawBlock::default()
        }
        .check(0)
        .unwrap()
    }

    fn found(list: &BlockList, address: &str, route: &str, now_ms: u64) -> Option<String> {
        let keys = [ClientKey::Session("s".to_owned()), address_key(address.parse().unwrap())];
        list.find(&keys, route, now_ms).map(|block| block.client.0.to_string())
    }

    #[test]
    fn blocks_hold_for_their_scope_until_they_expire() {
        let list = BlockList::default();
        assert_eq!(found(&list, "1.2.3.4", "api", 0), None);
        list.block(block("ip:1.2.3.4", "api", 100));
        assert_eq!(found(&list, "1.2.3.4", "api", 99).as_deref(), Some("ip:1.2.3.4"));
        assert_eq!(found(&list, "1.2.3.4", "api", 100), None);
        assert_eq!(found(&list, "1.2.3.4", "shop", 99), None);
        assert_eq!(found(&list, "::ffff:1.2.3.4", "api", 99).as_deref(), Some("ip:1.2.3.4"));
        list.block(block("session:s", "all", 100));
        assert_eq!(found(&list, "1.2.3.4", "shop", 99).as_deref(), Some("session:s"));
        list.purge(100);
        assert!(list.is_empty());
    }

    #[test]
    fn networks_block_by_longest_prefix_and_release_one_by_one() {
        let list = BlockList::default();
        list.block(block("ip:10.0.0.0/8", "all", 100));
        list.block(block("ip:10.1.0.0/16", "all", 50));
        list.block(block("ip:2001:db8::/32", "all", 100));
        assert_eq!(list.len(), 3);
        assert_eq!(found(&list, "10.1.2.3", "r", 1).as_deref(), Some("ip:10.1.0.0/16"));
        assert_eq!(found(&list, "10.1.2.3", "r", 60).as_deref(), Some("ip:10.0.0.0/8"));
        assert_eq!(found(&list, "11.1.2.3", "r", 1), None);
        assert_eq!(found(&list, "2001:db8:1:2:3::4", "r", 1).as_deref(), Some("ip:2001:db8::/32"));
        assert!(list.release("all", &ClientKey::Address("10.0.0.0/8".to_owned())).is_some());
        assert!(list.release("all", &ClientKey::Address("10.0.0.0/8".to_owned())).is_none());
        assert_eq!(found(&list, "10.1.2.3", "r", 60), None);
        assert_eq!(list.in_force(1).len(), 2);
        list.purge(50);
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn a_renewed_block_replaces_the_one_before() {
        let list = BlockList::default();
        list.block(block("ip:1.2.3.4", "all", 10));
        list.block(block("ip:1.2.3.4", "all", 20));
        list.block(block("ip:1.2.3.4", "api", 20));
        assert_eq!(list.len(), 2);
        assert_eq!(found(&list, "1.2.3.4", "r", 15).as_deref(), Some("ip:1.2.3.4"));
        // An IPv6 client is its /64, however the block was written.
        list.block(block("ip:2001:db8::1", "all", 20));
        assert!(found(&list, "2001:db8::ffff", "r", 1).is_some());
        assert!(found(&list, "2001:db8:0:1::1", "r", 1).is_none());
    }

    #[test]
    fn allow_entries_cover_addresses_of_their_network() {
        let list = BlockList::default();
        assert!(!list.allows("192.168.1.1".parse().unwrap()));
        list.set_allowed("192.168.1.7/16".parse().unwrap(), Allow::Add);
        assert!(list.allows("192.168.200.1".parse().unwrap()));
        assert!(list.allows("::ffff:192.168.200.1".parse().unwrap()));
        assert!(!list.allows("192.169.1.1".parse().unwrap()));
        assert_eq!(list.allow_entries(), ["192.168.0.0/16"]);
        list.set_allowed("192.168.0.0/16".parse().unwrap(), Allow::Remove);
        assert!(!list.allows("192.168.200.1".parse().unwrap()));
    }
}
