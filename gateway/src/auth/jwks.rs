//! The keys of who issues tokens: given, or fetched in the background and kept when they cannot be fetched again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::Uri;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    fetch::{FetchError, Fetcher},
    jws::{Algorithm, Key, RawJwk, Signed},
};
use crate::config::auth::{Source, parse_address};

/// Shortest time between two fetches: tokens with invented key names must not make the gateway flood the issuer.
const COOLDOWN: Duration = Duration::from_secs(10);

/// Longest time that a request waits for a key it does not find.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most keys of one issuer.
const MOST_KEYS: usize = 64;

/// Most keys that are tried on one token.
const MOST_TRIED: usize = 8;

/// The keys in force.
#[derive(Debug)]
struct Snapshot {
    keys: Vec<Key>,
    /// Grows with each change.
    generation: u64,
    /// Whether this is all there is: a set that was never fetched is not.
    is_complete: bool,
    raw: Vec<u8>,
}

/// What a search for a key found.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// The signature is good, by a key of this generation.
    Good(u64),
    /// It is not.
    Bad,
    /// There are no keys yet to tell.
    NoKeys,
}

/// The keys of one issuer.
#[derive(Debug)]
pub struct KeySet {
    source: Source,
    given: Vec<Key>,
    allowed: Vec<Algorithm>,
    refresh: Duration,
    current: ArcSwap<Snapshot>,
    metadata: ArcSwapOption<Metadata>,
    wanted: Notify,
    /// Counts fetches, successful or not.
    fetched: watch::Sender<u64>,
    started: Instant,
    /// Milliseconds from `started` to the latest fetch and one; 0 for none.
    latest_ms: AtomicU64,
}

impl KeySet {
    /// Keys that are given, and a source of further ones.
    pub fn new(given: Vec<Key>, source: Source, allowed: Vec<Algorithm>, refresh: Duration) -> Self {
        let is_complete = matches!(source, Source::Given);
        let snapshot = Snapshot { keys: given.clone(), generation: 0, is_complete, raw: Vec::new() };
        Self {
            source,
            given,
            allowed,
            refresh,
            current: ArcSwap::from_pointee(snapshot),
            metadata: ArcSwapOption::empty(),
            wanted: Notify::new(),
            fetched: watch::Sender::new(0),
            started: Instant::now(),
            latest_ms: AtomicU64::new(0),
        }
    }

    /// Takes over what was fetched from the same place.
    pub fn inherit(&mut self, old: &Self) {
        let raw = old.current.load().raw.clone();
        if self.source == old.source && !raw.is_empty() {
            self.take("", raw);
            self.metadata.store(old.metadata.load_full());
        }
    }

    /// The generation of the keys in force.
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// What the issuer says about itself, once it was asked.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.load_full()
    }

    /// Whether the token was signed with one of the keys. Where its key is unknown, fresh keys are waited for, for a
    /// moment, unless they were fetched just now.
    pub async fn check(&self, token: &Signed<'_>) -> Checked {
        let snapshot = self.current.load_full();
        if let Some(checked) = snapshot.check(token) {
            return checked;
        }
        if matches!(self.source, Source::Given) || !self.may_fetch() {
            return snapshot.unknown();
        }
        let mut fetched = self.fetched.subscribe();
        self.wanted.notify_one();
        // Whether something came in time or not: what is there now decides.
        let _ = timeout(PATIENCE, fetched.changed()).await;
        let snapshot = self.current.load_full();
        snapshot.check(token).unwrap_or_else(|| snapshot.unknown())
    }

    fn may_fetch(&self) -> bool {
        let latest = self.latest_ms.load(Ordering::Relaxed);
        latest == 0 || u128::from(self.elapsed_ms().saturating_sub(latest)) >= self.cooldown().as_millis()
    }

    fn cooldown(&self) -> Duration {
        COOLDOWN.min(self.refresh)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Keeps the keys fresh, without end. Ends at once where there is nothing to fetch.
    pub async fn run(&self, name: &str, fetcher: &Fetcher) {
        if matches!(self.source, Source::Given) {
            return;
        }
        let mut failures: u32 = 0;
        loop {
            let due = match self.fetch(fetcher).await {
                Ok(raw) => {
                    failures = 0;
                    self.take(name, raw);
                    self.refresh
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // While it lasts, ever more rarely.
                    if failures.is_power_of_two() {
                        let kept = self.current.load().keys.len();
                        tracing::warn!(method = name, %error, failures, kept, "cannot fetch keys; those known stay in force");
                    }
                    self.refresh.min(COOLDOWN.saturating_mul(failures))
                }
            };
            self.latest_ms.store(self.elapsed_ms().saturating_add(1), Ordering::Relaxed);
            self.fetched.send_modify(|count| *count += 1);
            let now = Instant::now();
            // Nobody who asks is heard before the cooldown ends.
            sleep(self.cooldown()).await;
            let _ = timeout_at(now + due, self.wanted.notified()).await;
        }
    }

    async fn fetch(&self, fetcher: &Fetcher) -> Result<Vec<u8>, FetchError> {
        let uri = match &self.source {
            Source::Set(uri) => uri.clone(),
            Source::Metadata { uri, issuer } => {
                let found = metadata(fetcher, uri, issuer).await?;
                let address = found.address("jwks_uri")?;
                self.metadata.store(Some(Arc::new(found)));
                address
            }
            Source::Given => return Ok(Vec::new()),
        };
        Ok(fetcher.document(&uri).await?.to_vec())
    }

    /// Puts a fetched set in force, if it holds a key that can be used. What is not understood is left out.
    fn take(&self, name: &str, raw: Vec<u8>) {
        let before = self.current.load();
        if before.raw == raw {
            return;
        }
        let keys = read_set(&raw, &self.allowed);
        if keys.is_empty() {
            tracing::warn!(method = name, "the fetched set holds no usable key; those known stay in force");
            return;
        }
        if !name.is_empty() {
            tracing::info!(method = name, keys = keys.len(), "keys fetched");
        }
        let keys = self.given.iter().cloned().chain(keys).collect();
        let generation = before.generation + 1;
        self.current.store(Arc::new(Snapshot { keys, generation, is_complete: true, raw }));
    }
}

impl Snapshot {
    /// `None` if no key can be meant.
    fn check(&self, token: &Signed<'_>) -> Option<Checked> {
        let kid = token.kid.as_deref();
        let meant = self.keys.iter().filter(|key| key.may_be(kid) && key.serves(token.algorithm));
        let mut meant = meant.take(MOST_TRIED).peekable();
        meant.peek()?;
        let good = meant.any(|key| key.verifies(token));
        // Of several keys without names, or a new one under the old name, the right one may be still to come.
        Some(if good { Checked::Good(self.generation) } else { Checked::Bad })
    }

    fn unknown(&self) -> Checked {
        if self.is_complete { Checked::Bad } else { Checked::NoKeys }
    }
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

/// The keys of a JWK set that can be used for signatures by which only the issuer can sign.
fn read_set(raw: &[u8], allowed: &[Algorithm]) -> Vec<Key> {
    let Ok(set) = serde_json::from_slice::<RawSet>(raw) else { return Vec::new() };
    let own: Vec<Algorithm> = allowed.iter().copied().filter(|algorithm| !algorithm.is_shared()).collect();
    let keys = set.keys.into_iter().take(MOST_KEYS);
    keys.filter_map(|key| Key::jwk(&serde_json::from_value::<RawJwk>(key).ok()?, &own)).collect()
}

/// What an issuer says about itself.
#[derive(Debug)]
pub struct Metadata(serde_json::Map<String, Value>);

/// Fetches what an issuer says about itself, and that it is the one.
///
/// # Errors
/// It cannot be fetched, or is another's.
pub async fn metadata(fetcher: &Fetcher, uri: &Uri, issuer: &str) -> Result<Metadata, FetchError> {
    let raw = fetcher.document(uri).await?;
    let wrong = |what: &str| FetchError::Useless(what.to_owned());
    let document: serde_json::Map<String, Value> =
        serde_json::from_slice(&raw).map_err(|_| wrong("metadata that are no JSON"))?;
    if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(wrong("the metadata of another issuer"));
    }
    Ok(Metadata(document))
}

impl Metadata {
    /// An address under which the issuer can be asked.
    ///
    /// # Errors
    /// There is none, or it is neither https nor on this machine.
    pub fn address(&self, name: &str) -> Result<Uri, FetchError> {
        let text = self.0.get(name).and_then(Value::as_str).unwrap_or_default();
        let uri = parse_address(text);
        uri.map_err(|_| FetchError::Useless(format!("metadata whose {name} cannot be used")))
    }
}

#[cfg(test)]
mod tests;
