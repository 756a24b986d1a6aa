//! How many requests of one key may be under way at once, on this gateway.

use std::sync::Arc;

use dashmap::DashMap;

use super::Standing;

/// Requests under way, by key.
#[derive(Debug)]
pub(super) struct Concurrent {
    most: u32,
    taken: DashMap<u64, u32>,
}

/// One request under way; gives its place back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Concurrent>,
    key: u64,
}

impl Concurrent {
    /// At most so many for each key.
    pub(super) fn new(most: u32) -> Self {
        Self { most, taken: DashMap::new() }
    }

    /// A place, and how many are left.
    ///
    /// # Errors
    /// None is free.
    pub(super) fn take(self: &Arc<Self>, key: u64) -> Result<(Place, u32), ()> {
        let mut taken = self.taken.entry(key).or_insert(0);
        if *taken >= self.most {
            return Err(());
        }
        *taken += 1;
        Ok((Place { of: Arc::clone(self), key }, self.most - *taken))
    }

    /// How it stands.
    pub(super) fn standing(&self, name: &Arc<str>, remaining: u32) -> Standing {
        Standing {
            name: Arc::clone(name),
            quota: u64::from(self.most),
            window: 1,
            remaining: u64::from(remaining),
            reset: 1,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.taken.remove_if_mut(&self.key, |_, taken| {
            *taken = taken.saturating_sub(1);
            *taken == 0
        });
    }
}
