//! What is known of each client: its window and the evidence against it, in bounded memory.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use waf_model::{
    client::{ClientVector, ClientWindow, Evidence, ResponseSummary, Suspicion},
    keys::ClientKey,
    observation::Observation,
};

/// Suspicions that are remembered for each client.
pub const TIMELINE: usize = 8;

/// Evidence below which a client's history is clean: less than one match of a critical rule a quarter of an hour ago.
const CLEAN: f32 = 1.0;

/// Clients tracked when nothing else is said.
const DEFAULT_CAPACITY: usize = 100_000;

const SHARDS: usize = 64;

/// Windows and evidence of the clients seen lately; at most the configured number, least recently seen dropped.
///
/// A client takes at most 2 KiB: its window (1 KiB), its key and eight remembered suspicions.
#[derive(Debug)]
pub struct Clients {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    /// Most clients in one generation of one shard.
    generation: usize,
}

/// Two generations: a client that is seen moves to the young one; when that is full it becomes the old one, and
/// what was still in the old one has not been seen for at least a generation's worth of other clients.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<ClientKey, Client>,
    old: HashMap<ClientKey, Client>,
    holds: HashMap<ClientKey, u64>,
}

#[derive(Debug)]
struct Client {
    first_seen_ms: u64,
    window: ClientWindow,
    evidence: Evidence,
    timeline: VecDeque<(u64, String, f32)>,
    offences: u32,
}

/// What a new block says about its client.
#[derive(Debug, Clone, PartialEq)]
pub struct Offence {
    /// How often the client has been blocked with this one, from 1.
    pub count: u32,
    /// Milliseconds since 1970 when the client was first seen.
    pub first_seen_ms: u64,
    /// Requests that added evidence, newest last.
    pub timeline: Vec<(u64, String, f32)>,
}

impl Default for Clients {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

impl Clients {
    /// Tracks at most `capacity` clients (at least two for each of the 64 shards).
    pub fn new(capacity: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generation: (capacity / SHARDS / 2).max(1),
        }
    }

    /// Counts a request and returns the client's window as numbers.
    pub fn observe(&self, client: &ClientKey, now_ms: u64, observation: &Observation) -> ClientVector {
        let mut shard = self.shard(client);
        let known = shard.touch(client, now_ms, self.generation);
        known.window.record_request(now_ms, observation);
        known.window.vector()
    }

    /// Adds what the request says; returns the evidence level after it. A client that was released lately stays
    /// at zero.
    pub fn suspect(&self, client: &ClientKey, now_ms: u64, request_id: &str, suspicion: &Suspicion) -> f32 {
        let mut shard = self.shard(client);
        if shard.holds.get(client).is_some_and(|until_ms| *until_ms > now_ms) {
            return 0.0;
        }
        let known = shard.touch(client, now_ms, self.generation);
        let before = known.evidence.level(now_ms);
        let after = known.evidence.add(now_ms, suspicion);
        if after > before {
            if known.timeline.len() >= TIMELINE {
                known.timeline.pop_front();
            }
            known.timeline.push_back((now_ms, request_id.to_owned(), after));
        }
        after
    }

    /// Whether the client is known, was never blocked, and has next to no evidence against it.
    pub fn has_clean_history(&self, client: &ClientKey, now_ms: u64) -> bool {
        let mut shard = self.shard(client);
        let known = shard.find(client);
        known.is_some_and(|known| known.offences == 0 && known.evidence.level(now_ms) < CLEAN)
    }

    /// Counts an upstream's response.
    pub fn respond(&self, client: &ClientKey, now_ms: u64, response: ResponseSummary) {
        let mut shard = self.shard(client);
        if let Some(known) = shard.find(client) {
            known.window.record_response(now_ms, response);
        }
    }

    /// Counts a block of this client, the `earlier` ones that other gateways know of included, and starts its
    /// evidence anew, so that the next block needs new evidence.
    pub fn offend(&self, client: &ClientKey, now_ms: u64, earlier: u32) -> Offence {
        let mut shard = self.shard(client);
        let known = shard.touch(client, now_ms, self.generation);
        known.offences = known.offences.max(earlier).saturating_add(1);
        known.evidence = Evidence::default();
        Offence {
            count: known.offences,
            first_seen_ms: known.first_seen_ms,
            timeline: mem::take(&mut known.timeline).into(),
        }
    }

    /// Forgets the evidence and holds it at zero until `until_ms`.
    pub fn release(&self, client: &ClientKey, until_ms: u64) {
        let mut shard = self.shard(client);
        if let Some(known) = shard.find(client) {
            known.evidence = Evidence::default();
            known.timeline.clear();
            known.offences = 0;
        }
        shard.holds.insert(client.clone(), until_ms);
    }

    /// Forgets holds that have ended; call now and then.
    pub fn purge(&self, now_ms: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.holds.retain(|_, until_ms| *until_ms > now_ms);
        }
    }

    /// How many clients are tracked.
    pub fn len(&self) -> usize {
        let count = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.young.len() + shard.old.len()
        };
        self.shards.iter().map(count).sum()
    }

    /// Whether none is tracked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[expect(clippy::indexing_slicing, reason = "the remainder is below the number of shards")]
    fn shard(&self, client: &ClientKey) -> MutexGuard<'_, Shard> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn touch(&mut self, key: &ClientKey, now_ms: u64, generation: usize) -> &mut Client {
        if !self.young.contains_key(key) {
            let client = self.old.remove(key).unwrap_or_else(|| Client {
                first_seen_ms: now_ms,
                window: ClientWindow::new(now_ms),
                evidence: Evidence::default(),
                timeline: VecDeque::new(),
                offences: 0,
            });
            if self.young.len() >= generation {
                self.age(now_ms, generation);
            }
            self.young.insert(key.clone(), client);
        }
        self.young.entry(key.clone()).or_insert_with(|| Client {
            first_seen_ms: now_ms,
            window: ClientWindow::new(now_ms),
            evidence: Evidence::default(),
            timeline: VecDeque::new(),
            offences: 0,
        })
    }

    fn find(&mut self, key: &ClientKey) -> Option<&mut Client> {
        match self.young.get_mut(key) {
            Some(client) => Some(client),
            None => self.old.get_mut(key),
        }
    }

    /// The young become the old. Of those that would be dropped, the ones with the strongest evidence stay, so
    /// that a flood of fresh addresses does not wash an attacker's record away.
    fn age(&mut self, now_ms: u64, generation: usize) {
        let dropped = mem::replace(&mut self.old, mem::take(&mut self.young));
        let mut suspects: Vec<_> =
            dropped.into_iter().filter(|(_, client)| client.evidence.level(now_ms) > 0.0).collect();
        suspects.sort_by(|(_, a), (_, b)| b.evidence.level(now_ms).total_cmp(&a.evidence.level(now_ms)));
        self.young.extend(suspects.into_iter().take(generation / 4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> ClientKey {
        ClientKey::Address(format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255))
    }

    #[test]
    fn no_more_clients_than_configured_are_kept_and_the_latest_are() {
        let clients = Clients::new(1_280);
        let observation = Observation::default();
        for number in 0..20_000 {
            clients.observe(&address(number), number as u64, &observation);
            assert!(clients.len() <= 1_280);
        }
        assert!(clients.len() >= 640, "{}", clients.len());
        let latest = address(19_999);
        assert!(clients.shard(&latest).find(&latest).is_some());
        let first = address(0);
        assert!(clients.shard(&first).find(&first).is_none());
    }

    #[test]
    fn a_released_client_stays_at_zero_until_the_hold_ends() {
        let clients = Clients::default();
        let suspicion = Suspicion { rule_points: 50, score: None };
        let client = address(1);
        clients.suspect(&client, 1_000, "a", &suspicion);
        clients.release(&client, 5_000);
        assert_eq!(clients.suspect(&client, 4_999, "b", &suspicion).to_bits(), 0);
        assert!(clients.shard(&client).find(&client).unwrap().timeline.is_empty());
        clients.purge(4_999);
        assert_eq!(clients.shard(&client).holds.len(), 1);
        clients.purge(5_000);
        assert_eq!(clients.shard(&client).holds.len(), 0);
    }

    #[test]
    fn a_history_is_clean_again_when_the_evidence_has_decayed() {
        let clients = Clients::default();
        let client = address(1);
        assert!(!clients.has_clean_history(&client, 0), "nothing is known of it");
        clients.observe(&client, 0, &Observation::default());
        assert!(clients.has_clean_history(&client, 0));
        clients.suspect(&client, 0, "a", &Suspicion { rule_points: 5, score: None });
        assert!(!clients.has_clean_history(&client, 600_000));
        assert!(clients.has_clean_history(&client, 1_200_000));
    }

    #[test]
    fn offences_count_up_and_take_over_what_others_know() {
        let clients = Clients::default();
        let client = address(1);
        assert_eq!(clients.offend(&client, 7, 0).count, 1);
        let again = clients.offend(&client, 9, 0);
        assert_eq!((again.count, again.first_seen_ms), (2, 7));
        assert_eq!(clients.offend(&client, 9, 5).count, 6);
        assert!(!clients.has_clean_history(&client, u64::MAX));
        clients.release(&client, 100);
        assert_eq!(clients.offend(&client, 9, 0).count, 1);
    }
}
