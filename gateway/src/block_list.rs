//! The blocks and run-time allow entries in force, in memory; kept in step with the store by a task.

use std::{net::IpAddr, sync::Arc};

use waf_model::keys::ClientKey;

use crate::store::Block;

/// Blocks in force and networks allowed at run time.
#[derive(Debug, Default)]
pub struct BlockList {}

impl BlockList {
    /// The block on any of `keys` (narrowest first) for `route`, if one is in force at `now_ms`. Never waits.
    pub fn find(&self, keys: &[ClientKey], route: &str, now_ms: u64) -> Option<Arc<Block>> {
        let _ = (keys, route, now_ms);
        None
    }

    /// Whether `address` was allowed at run time.
    pub fn allows(&self, address: IpAddr) -> bool {
        let _ = address;
        false
    }

    /// Puts a block in force here at once, and hands it to the store in the background.
    pub fn block(&self, block: Block) {
        let _ = block;
    }
}
