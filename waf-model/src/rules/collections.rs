//! What rules remember across requests: `IP`, `GLOBAL` and the other collections of `initcol`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::variable::Store;

/// Most variables of one record; more are not kept.
const MOST_VARIABLES: usize = 64;
/// Longest key, name and value, in bytes; more is cut off.
const LONGEST: usize = 256;
/// Records of [`Collections::default`].
const CAPACITY: usize = 10_000;

/// A bounded store in memory, shared by all requests. When it is full, the record that was not touched for the
/// longest time makes room.
#[derive(Debug)]
pub struct Collections {
    capacity: usize,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    by_key: HashMap<Key, Record>,
    /// When each record was touched, by a count of all touches.
    by_age: BTreeMap<u64, Key>,
    touches: u64,
}

type Key = (Store, Vec<u8>);

#[derive(Debug, Default)]
struct Record {
    /// Its place in `by_age`.
    age: u64,
    expires_ms: u64,
    /// Value, and when it ends.
    values: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
}

impl Default for Collections {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl Collections {
    /// A store of at most `capacity` records.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, records: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and values of a record that have not ended at `now_ms`.
    pub(super) fn read(&self, store: Store, key: &[u8], now_ms: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let records = self.lock();
        let Some(record) = records.by_key.get(&(store, cut(key))) else { return Vec::new() };
        if record.expires_ms <= now_ms {
            return Vec::new();
        }
        let alive = record.values.iter().filter(|(_, (_, ends_ms))| *ends_ms > now_ms);
        alive.map(|(name, (value, _))| (name.clone(), value.clone())).collect()
    }

    /// Replaces one value by what `change` makes of it; the record lives for `timeout_ms` from now on.
    pub(super) fn change(
        &self,
        (store, key, name): (Store, &[u8], &[u8]),
        now_ms: u64,
        timeout_ms: u64,
        change: impl FnOnce(Option<&[u8]>) -> Option<Vec<u8>>,
    ) {
        let mut records = self.lock();
        let Some(record) = records.touch((store, cut(key)), now_ms, self.capacity) else { return };
        record.expires_ms = now_ms.saturating_add(timeout_ms);
        record.values.retain(|_, (_, ends_ms)| *ends_ms > now_ms);
        let name = cut(&name.to_ascii_lowercase());
        let old = record.values.get(&name);
        let ends_ms = old.map_or(u64::MAX, |(_, ends_ms)| *ends_ms);
        match change(old.map(|(value, _)| value.as_slice())) {
            Some(value) if old.is_some() || record.values.len() < MOST_VARIABLES => {
                record.values.insert(name, (cut(&value), ends_ms));
            }
            Some(_) => {}
            None => {
                record.values.remove(&name);
            }
        }
    }

    /// One value ends at `ends_ms`.
    pub(super) fn expire(&self, (store, key, name): (Store, &[u8], &[u8]), ends_ms: u64) {
        if let Some(record) = self.lock().by_key.get_mut(&(store, cut(key)))
            && let Some((_, end)) = record.values.get_mut(&cut(&name.to_ascii_lowercase()))
        {
            *end = ends_ms;
        }
    }
}

impl Records {
    /// The record of `key`, made if it is not there or has ended.
    fn touch(&mut self, key: Key, now_ms: u64, capacity: usize) -> Option<&mut Record> {
        self.touches += 1;
        let touches = self.touches;
        match self.by_key.get_mut(&key) {
            Some(record) => {
                self.by_age.remove(&record.age);
                if record.expires_ms <= now_ms {
                    record.values.clear();
                }
            }
            None => {
                while self.by_key.len() >= capacity {
                    let (_, oldest) = self.by_age.pop_first()?;
                    self.by_key.remove(&oldest);
                }
            }
        }
        self.by_age.insert(touches, key.clone());
        let record = self.by_key.entry(key).or_default();
        record.age = touches;
        Some(record)
    }
}

fn cut(text: &[u8]) -> Vec<u8> {
    text.get(..LONGEST).unwrap_or(text).to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn add(store: &Collections, key: &[u8], now_ms: u64) -> Vec<u8> {
        let mut after = Vec::new();
        store.change((Store::Ip, key, b"N"), now_ms, 1000, |old| {
            after = old.unwrap_or_default().to_vec();
            after.push(b'x');
            Some(after.clone())
        });
        after
    }

    #[test]
    fn values_and_records_end() {
        let store = Collections::new(2);
        assert_eq!(add(&store, b"a", 0), b"x");
        assert_eq!(add(&store, b"a", 10), b"xx");
        assert_eq!(store.read(Store::Ip, b"a", 20), [(b"n".to_vec(), b"xx".to_vec())]);
        assert!(store.read(Store::Session, b"a", 20).is_empty());
        store.expire((Store::Ip, b"a", b"n"), 30);
        assert!(store.read(Store::Ip, b"a", 30).is_empty());
        assert_eq!(add(&store, b"a", 40), b"x");
        assert!(store.read(Store::Ip, b"a", 1040).is_empty());
    }

    #[test]
    fn the_store_is_bounded() {
        let store = Collections::new(2);
        for key in [b"a", b"b", b"a", b"c"] {
            add(&store, key, 0);
        }
        let left = [b"a", b"b", b"c"].map(|key| store.read(Store::Ip, key, 1).len());
        assert_eq!(left, [1, 0, 1]);
        for number in 0..1000 {
            let name = number.to_string();
            store.change((Store::Ip, b"a", name.as_bytes()), 0, 1000, |_| Some(vec![b'v'; 1000]));
        }
        let record = store.read(Store::Ip, b"a", 1);
        assert_eq!((record.len(), record.first().unwrap().1.len()), (MOST_VARIABLES, LONGEST));
    }
}
