//! Inventories of all gateways in one Redis hash: a field each.

use redis::cmd;
use waf_model::keys;

use crate::store::{InventoryStore, StoreError, StoreFuture, redis::link::Link};

/// Most gateways whose inventories are read, and most bytes of one: Redis is shared, and could hold anything.
const GATEWAYS: usize = 256;
const BYTES: usize = 64 << 20;

/// The hash [`keys::INVENTORY`].
#[derive(Debug)]
pub struct RedisInventory {
    link: Link,
    /// The field of this gateway.
    gateway: String,
}

impl RedisInventory {
    pub(super) fn new(link: Link, gateway: String) -> Self {
        Self { link, gateway }
    }
}

impl InventoryStore for RedisInventory {
    fn publish<'a>(&'a self, inventory: &'a [u8]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut command = cmd("HSET");
            self.link.ask(command.arg(keys::INVENTORY).arg(&self.gateway).arg(inventory)).await
        })
    }

    fn others(&self) -> StoreFuture<'_, Vec<Vec<u8>>> {
        Box::pin(async move {
            let gateways: Vec<String> = self.link.ask(cmd("HKEYS").arg(keys::INVENTORY)).await?;
            let mut inventories = Vec::new();
            for gateway in gateways.iter().filter(|name| **name != self.gateway).take(GATEWAYS) {
                let mut command = cmd("HGET");
                let found: Option<Vec<u8>> = self.link.ask(command.arg(keys::INVENTORY).arg(gateway)).await?;
                match found {
                    Some(bytes) if bytes.len() > BYTES => {
                        return Err(StoreError::Unexpected {
                            at: format!("{} {gateway}", keys::INVENTORY),
                            what: format!("{} bytes; remove the field with HDEL", bytes.len()),
                        });
                    }
                    found => inventories.extend(found),
                }
            }
            Ok(inventories)
        })
    }
}
