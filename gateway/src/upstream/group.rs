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
    refused: AtomicU64,
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
            refused: AtomicU64::new(0),
            budget: RetryBudget::new(settings.retry_share),
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Arc<UpstreamGroup> {
        &self.settings
    }

    /// Its origins, in the order of the settings.
    pub fn origins(&self) -> &[Arc<Origin>] {
        &self.origins
    }

    /// Requests that no origin had room for.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
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
        let is_up =
            |place: usize| self.origins.get(place).is_some_and(|origin| origin.health.state() == State::Up);
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
        let Some(place) = place else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Fault::UpstreamBusy);
        };
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
        let (Some(origin), Some(ejection)) = (self.origins.get(place), &self.settings.ejection) else {
            return;
        };
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
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
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
pub(super) fn scramble(turn: u64) -> u64 {
    let mut x = turn.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    /// A group with these lines of configuration, over origins of these weights.
    fn group(weights: &[u32], lines: &str) -> Group {
        let origins: Vec<String> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| format!("{{url: 'http://10.0.0.{index}', weight: {weight}}}"))
            .collect();
        let text = format!(
            "version: 1\nupstreams:\n  g:\n    origins: [{}]\n{lines}\nroutes: [{{upstream: g}}]\n",
            origins.join(", ")
        );
        let config = Config::load(&text, "test").unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let settings = &config.routes[0].upstream;
        let origins =
            settings.origins.iter().map(|member| Arc::new(Origin::new(member.reach.clone()))).collect();
        Group::new(settings, origins)
    }

    fn chosen(group: &Group, key: u64) -> Option<usize> {
        group.choose(key, None).ok().map(|chosen| chosen.place)
    }

    /// How often each origin is chosen for these keys.
    fn counts(group: &Group, keys: std::ops::Range<u64>) -> Vec<usize> {
        let mut counts = vec![0; group.origins.len()];
        keys.for_each(|key| counts[chosen(group, key).unwrap()] += 1);
        counts
    }

    #[test]
    fn turns_follow_weights_and_are_spread() {
        assert_eq!(turns(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(turns(&[10, 5, 5]), [0, 1, 2, 0]);
        assert_eq!(turns(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&[0, 3]), [1]);
        assert_eq!(counts(&group(&[3, 0, 1], ""), 0..400), [300, 0, 100]);
    }

    #[test]
    fn a_key_stays_with_its_origin_and_moves_only_when_that_goes() {
        let group = group(&[1, 1, 2], "    balance: {hash: address}");
        let before: Vec<_> = (0..4000).map(|key| chosen(&group, key).unwrap()).collect();
        let counts: Vec<_> =
            (0..3).map(|place| before.iter().filter(|found| **found == place).count()).collect();
        assert!((800..1200).contains(&counts[0]) && (1800..2200).contains(&counts[2]), "{counts:?}");
        group.origins[1].health.checked(false, 1);
        for (key, before) in before.into_iter().enumerate() {
            let now = chosen(&group, key as u64).unwrap();
            assert!(now != 1 && (before == 1 || now == before), "{key}: {before} -> {now}");
        }
        let headers = |cookie: &'static str| {
            HeaderMap::from_iter([(header::COOKIE, http::HeaderValue::from_static(cookie))])
        };
        let by_cookie = self::group(&[1, 1], "    balance: {hash: cookie:sid}");
        let key = |cookie, address: &str| by_cookie.key(address.parse().unwrap(), &headers(cookie));
        assert_eq!(key("a=b; sid=1", "10.0.0.1"), key("sid=1", "10.0.0.2"));
        assert_ne!(key("sid=1", "10.0.0.1"), key("sid=2", "10.0.0.1"));
        assert_ne!(key("xsid=1", "10.0.0.1"), key("xsid=1", "10.0.0.2"), "the address decides without one");
    }

    #[test]
    fn the_less_busy_origin_gets_more() {
        let group = group(&[1, 1, 1], "    balance: least_requests");
        let _busy: Vec<_> = (0..50).map(|_| group.origins[0].begin()).collect();
        let counts = counts(&group, 0..300);
        assert_eq!(counts[0], 0, "{counts:?}");
        assert!(counts[1] > 100 && counts[2] > 100, "{counts:?}");
    }

    #[test]
    fn an_origin_has_no_more_requests_than_it_may_have() {
        let group = group(&[1, 1], "    max_requests: 2");
        let held: Vec<_> = (0..4).map(|_| group.choose(0, None).unwrap()).collect();
        let by_place = held.iter().fold(BTreeMap::new(), |mut map, chosen| {
            *map.entry(chosen.place).or_insert(0) += 1;
            map
        });
        assert_eq!(by_place, BTreeMap::from([(0, 2), (1, 2)]));
        assert!(matches!(group.choose(0, None), Err(Fault::UpstreamBusy)));
        drop(held);
        assert!(group.choose(0, None).is_ok());
    }

    #[test]
    fn who_keeps_failing_is_left_out_but_never_most_of_the_group() {
        let group = group(&[1, 1, 1, 1], "    ejection: {failures: 2, most: 50}");
        for place in 0..4 {
            group.failed(place);
            assert_eq!(group.origins[place].state(), State::Up);
            group.failed(place);
        }
        let states: Vec<_> = group.origins.iter().map(|origin| origin.state()).collect();
        assert_eq!(states, [State::Ejected, State::Ejected, State::Up, State::Up]);
        assert_eq!(counts(&group, 0..10)[..2], [0, 0]);
        assert_eq!(group.choose(0, Some(2)).unwrap().place, 3, "another one after a failure");
        let alone = self::group(&[1], "");
        (0..9).for_each(|_| alone.failed(0));
        assert_eq!(alone.origins[0].state(), State::Up);
        // Where checks take out all of them, all get requests.
        group.origins.iter().for_each(|origin| _ = origin.health.checked(false, 1));
        assert!(counts(&group, 0..40).iter().all(|count| *count == 10));
    }
}
