//! Keeps the block list and the store in step, in both directions, whatever becomes of the store.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    audit::{Actor, Audit, Entry},
    block_list::{self, Allow, BlockList, Order, Orders, networks},
    clock,
    config::ConfigSlot,
    store::{BlockChange, BlockStore, StoreError},
    telemetry::store_metrics::StoreMetrics,
    waf::evidence::Clients,
};

/// Pause before the store is asked again after it failed.
const RETRY: Duration = Duration::from_millis(500);

/// What the two directions share.
#[derive(Clone)]
pub struct Sync {
    /// The blocks in force here.
    pub list: Arc<BlockList>,
    /// Where they are shared.
    pub store: Arc<dyn BlockStore>,
    /// Where the evidence against a released client is forgotten.
    pub clients: Arc<Clients>,
    /// How long a released client is not blocked again.
    pub config: Arc<ConfigSlot>,
    /// Where failures are counted.
    pub metrics: Arc<StoreMetrics>,
    /// Where it is noted what others released.
    pub audit: Audit,
}

impl Sync {
    /// Runs until it is dropped.
    pub async fn run(self) {
        tokio::join!(self.push(), self.pull());
    }

    /// Tells the store what was ordered here; what it cannot take now is kept, the latest order for each key.
    async fn push(&self) {
        loop {
            self.list.wake.notified().await;
            loop {
                let orders = self.take();
                if orders.is_empty() {
                    break;
                }
                let Err((left, error)) = self.deliver(orders).await else { continue };
                self.metrics.store_failed("blocks", &error);
                self.take_back(left);
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn take(&self) -> Orders {
        let mut orders = self.list.orders();
        self.list.telling.store(!orders.is_empty(), Ordering::Relaxed);
        std::mem::take(&mut *orders)
    }

    /// Keeps what could not be told, unless something newer was ordered meanwhile.
    fn take_back(&self, left: Orders) {
        let mut orders = self.list.orders();
        for (key, order) in left.blocks {
            orders.blocks.entry(key).or_insert(order);
        }
        for (key, allow) in left.allowed {
            orders.allowed.entry(key).or_insert(allow);
        }
    }

    async fn deliver(&self, mut orders: Orders) -> Result<(), (Orders, StoreError)> {
        let keys: Vec<_> = orders.blocks.keys().cloned().collect();
        for key in keys {
            let Some(order) = orders.blocks.get(&key) else { continue };
            let told = match order {
                Order::Put(block) if block.expires_ms <= clock::now_ms() => Ok(()),
                Order::Put(block) => self.store.put(Arc::clone(block)).await,
                Order::Release => self.store.release(&key.0, &key.1).await.map(drop),
            };
            if let Err(error) = told {
                return Err((orders, error));
            }
            orders.blocks.remove(&key);
        }
        let entries: Vec<_> = orders.allowed.iter().map(|(text, allow)| (text.clone(), *allow)).collect();
        for (text, allow) in entries {
            if let Err(error) = self.store.set_allowed(&text, allow == Allow::Add).await {
                return Err((orders, error));
            }
            orders.allowed.remove(&text);
        }
        Ok(())
    }

    /// Takes over what others changed.
    async fn pull(&self) {
        while let Err(error) = self.take_snapshot().await {
            self.metrics.store_failed("blocks", &error);
            tokio::time::sleep(RETRY).await;
        }
        self.metrics.store_answered();
        loop {
            match self.store.changes().await {
                Ok(changes) => {
                    self.metrics.store_answered();
                    for change in changes {
                        self.apply(change);
                    }
                    if let Err(error) = self.take_allowed().await {
                        self.metrics.store_failed("blocks", &error);
                    }
                }
                Err(error) => {
                    self.metrics.store_failed("blocks", &error);
                    tokio::time::sleep(RETRY).await;
                }
            }
            self.list.purge(clock::now_ms());
            self.metrics.set_blocks(self.list.len(), self.list.take_refused());
        }
    }

    async fn take_snapshot(&self) -> Result<(), StoreError> {
        for block in self.store.snapshot().await? {
            self.apply(BlockChange::Blocked(block));
        }
        self.take_allowed().await
    }

    async fn take_allowed(&self) -> Result<(), StoreError> {
        let mut texts = BTreeSet::new();
        for text in self.store.allowed().await? {
            texts.insert(networks::parse(&text).map_or(text, |network| network.trunc().to_string()));
        }
        for (text, allow) in &self.list.orders().allowed {
            match allow {
                Allow::Add => texts.insert(text.clone()),
                Allow::Remove => texts.remove(text),
            };
        }
        if texts != self.list.allowed.load().texts {
            self.list.replace_allowed(texts);
        }
        Ok(())
    }

    fn apply(&self, change: BlockChange) {
        match change {
            BlockChange::Blocked(block) => {
                let key = (block.scope.clone(), block.client.0.clone());
                if !self.list.orders().blocks.contains_key(&key) {
                    self.list.insert(block);
                }
            }
            BlockChange::Released { scope, client } => {
                // Held before it is let in, so that no request in between can block it again.
                let until =
                    clock::now_ms().saturating_add(clock::millis(self.config.snapshot().waf.release_hold));
                self.clients.release(&client, until);
                self.list.orders().blocks.remove(&(scope.clone(), client.clone()));
                // What was released here is gone already, and noted by whom.
                if let Some(block) = self.list.remove(&scope, &client) {
                    let entry = block_list::entry("block.release", Some(&block), None);
                    self.audit.record(Entry { actor: Actor::Store, ..entry });
                }
                tracing::info!(%scope, %client, "client released");
            }
        }
    }
}
