//! The shared store: blocks, changes, events and models in one Redis, readable and writable with `redis-cli`.

pub mod blocks;
pub mod events;
pub mod inventory;
pub mod limits;
pub mod link;
pub mod models;

use std::sync::Arc;

use crate::store::{
    StoreError,
    redis::{
        blocks::RedisBlocks, events::RedisEvents, inventory::RedisInventory, limits::RedisLimits, link::Link,
        models::RedisModels,
    },
};

/// The stores behind one Redis; each has connections of its own, so that none waits for another.
#[derive(Debug)]
pub struct RedisStore {
    /// Blocks and run-time allow entries.
    pub blocks: Arc<RedisBlocks>,
    /// Events and reviews.
    pub events: Arc<RedisEvents>,
    /// Models and the site key.
    pub models: Arc<RedisModels>,
    /// Rates and quotas.
    pub limits: Arc<RedisLimits>,
    /// Inventories of endpoints.
    pub inventory: Arc<RedisInventory>,
}

impl RedisStore {
    /// Prepares the connections to `url` (`redis://` or `rediss://`); connects when first used. `site_key` becomes the
    /// shared one if there is none yet; `gateway` tells this gateway from the others.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn new(url: &str, site_key: [u8; 16], gateway: String) -> Result<Self, StoreError> {
        Ok(Self {
            blocks: Arc::new(RedisBlocks::new(Link::new(url)?, Link::new(url)?)),
            events: Arc::new(RedisEvents::new(Link::new(url)?)),
            models: Arc::new(RedisModels::new(Link::new(url)?, site_key)),
            limits: Arc::new(RedisLimits::new(Link::new(url)?)),
            inventory: Arc::new(RedisInventory::new(Link::new(url)?, gateway)),
        })
    }
}
