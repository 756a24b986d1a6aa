//! A group of origins: whose turn it is, and who is left out.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{HeaderMap, header};

use super::{
    budget::RetryBudget,
    health::State,
    origin::{InFlight, Origin},
};
use crate::{
    config::{Balance, HashKey, UpstreamGroup},
    error::Fault,
};

/// The origins of a group, and what is remembered beside each.
#[derive(Debug)]
pub struct Group {
    settings: Arc<UpstreamGroup>,
    origins: Vec<Arc<Origin>>,
    /// Places of origins in the order in which their weights give them turns.
    turns: Vec<usize>,
    turn: AtomicU64,
    pub(super) budget: RetryBudget,
}

/// The origin that a request goes to.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    pub(super) place: usize,
    pub(super) origin: &'a Arc<Origin>,
    pub(super) in_flight: InFlight,
}

impl Group {
    pub(super) fn new(settings: &Arc<UpstreamGroup>, origins: Vec<Arc<Origin>>) -> Self {
        let weights: Vec<u32> = settings.origins.iter().map(|member| member.weight).collect();
        Self {
            settings: Arc::clone(settings),
            origins,
            turns: turns(&weights),
            turn: AtomicU64::new(0),
            budget: RetryBudget::new(settings.retry_share),
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &UpstreamGroup {
        &self.settings
    }

    /// Its origins, in the order of the settings.
    pub fn origins(&self) -> &[Arc<Origin>] {
        &self.origins
    }

    /// What decides about the origin where the same client, or session, always goes to the same one.
    pub(super) fn key(&self, address: IpAddr, headers: &HeaderMap) -> u64 {
        let Balance::Hash(key) = &self.settings.balance else { return 0 };
        let mut hasher = DefaultHasher::new();
        let value = match key {
            HashKey::Address => None,
            HashKey::Header(name) => headers.get(name).map(http::HeaderValue::as_bytes),
            HashKey::Cookie(name) => cookie(headers, name),
        };
        // Without a value there is the address still.
        match value {
            Some(value) => value.hash(&mut hasher),
            None => address.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Chooses an origin; not the one at `failed` if there is another.
    ///
    /// # Errors
    /// All of them have as many requests as they may have.
    pub(super) fn choose(&self, key: u64, failed: Option<usize>) -> Result<Chosen<'_>, Fault> {
        let is_up = |place: usize| {
            self.origins.get(place).is_some_and(|origin| origin.health.state() == State::Up)
        };
        let has_room = |place: usize| self.origins.get(place).is_some_and(|origin| origin.has_room());
        let is_other = |place: usize| failed != Some(place);
        // Where none is fit all count as fit: what speaks against every one of them may itself be wrong.
        let place = self
            .pick(key, |place| is_other(place) && is_up(place) && has_room(place))
            .or_else(|| self.pick(key, |place| is_up(place) && has_room(place)))
            .or_else(|| {
                let none_up = !(0..self.origins.len()).any(is_up);
                let fit = |place| is_other(place) && has_room(place);
                if none_up { self.pick(key, fit).or_else(|| self.pick(key, has_room)) } else { None }
            });
        let place = place.ok_or(Fault::UpstreamBusy)?;
        let origin = self.origins.get(place).ok_or(Fault::Internal("no_upstream"))?;
        Ok(Chosen { place, origin, in_flight: origin.begin() })
    }

    /// The origin whose turn it is among those that are `fit`.
    fn pick(&self, key: u64, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match &self.settings.balance {
            Balance::RoundRobin => self.from(turn, fit),
            Balance::LeastRequests => {
                let first = self.from(scramble(turn), &fit)?;
                let second = self.from(scramble(!turn), |place| place != first && fit(place));
                let load = |place: usize| {
                    let weight = self.settings.origins.get(place).map_or(1, |member| member.weight.max(1));
                    let busy = self.origins.get(place).map_or(0, |origin| origin.in_flight());
                    (busy as f64 + 1.0) / f64::from(weight)
                };
                Some(second.filter(|second| load(*second) < load(first)).unwrap_or(first))
            }
            Balance::Hash(_) => (0..self.origins.len())
                .filter(|place| fit(*place))
                .map(|place| (self.affinity(key, place), place))
                .filter(|(affinity, _)| *affinity > 0.0)
                .max_by(|(a, _), (b, _)| a.total_cmp(b))
                .map(|(_, place)| place),
        }
    }

    /// The first fit origin from `turn` on.
    fn from(&self, turn: u64, fit: impl Fn(usize) -> bool) -> Option<usize> {
        let start = usize::try_from(turn % self.turns.len().max(1) as u64).unwrap_or(0);
        let (before, after) = self.turns.split_at_checked(start)?;
        after.iter().chain(before).copied().find(|place| fit(*place))
    }

    /// How much `key` belongs to an origin: weighted rendezvous hashing. When an origin goes, only its own keys move.
    fn affinity(&self, key: u64, place: usize) -> f64 {
        let Some(member) = self.settings.origins.get(place) else { return 0.0 };
        let mut hasher = DefaultHasher::new();
        (key, member.reach.url.authority().map(http::uri::Authority::as_str)).hash(&mut hasher);
        // 53 bits are what a float holds; never 0, whose logarithm is none.
        let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        f64::from(member.weight) / -uniform.ln()
    }

    /// Notes that the origin at `place` answered.
    pub(super) fn succeeded(&self, place: usize) {
        if let Some(origin) = self.origins.get(place) {
            origin.health.succeeded();
        }
    }

    /// Notes that the origin at `place` failed, and leaves it out for a while if it does so all the time.
    pub(super) fn failed(&self, place: usize) {
        let (Some(origin), Some(ejection)) = (self.origins.get(place), &self.settings.ejection) else { return };
        if origin.health.failed() < ejection.failures {
            return;
        }
        let out = self.origins.iter().filter(|origin| origin.health.state() != State::Up).count();
        // Whatever is wrong, the rest must not go under with the load of those left out.
        if (out + 1) * 100 > self.origins.len() * ejection.most as usize {
            return;
        }
        let time = origin.health.eject(ejection.time);
        origin.ejections.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            upstream = self.settings.name,
            origin = %origin.reach().url,
            "left out for {time:?}: {} requests in a row failed",
            ejection.failures
        );
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).find_map(
        |pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="),
    )
}

/// The order of turns by weight, spread evenly: each step the one that is furthest behind its share.
fn turns(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().copied().filter(|weight| *weight > 0).reduce(gcd).unwrap_or(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut behind = vec![0; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        behind.iter_mut().zip(&weights).for_each(|(behind, weight)| *behind += weight);
        let furthest = behind.iter().enumerate().max_by_key(|(place, behind)| (**behind, usize::MAX - place));
        let Some((place, _)) = furthest else { break };
        if let Some(behind) = behind.get_mut(place) {
            *behind -= total;
        }
        turns.push(place);
    }
    turns
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Numbers that look random, from a counter (the finalizer of SplitMix64).
fn scramble(turn: u64) -> u64 {
    let mut x = turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
