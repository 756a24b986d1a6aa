//! Which events may be learned from: an attacker's must not be, and nobody may be most of the traffic.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use waf_model::event::{Origin, Review, ReviewVerdict, Verdict};

use crate::lake::{columns::Head, day::Day};

/// Most rows of one client on one route on one day that are trained on.
pub const CLIENT_CAP: u32 = 200;

/// Largest share of the rows that one network (an IPv4 /24, an IPv6 /48) gives. Where there are few networks a
/// fair share is larger than this: then twice a fair share.
pub const NETWORK_SHARE: f64 = 0.02;

/// A client with so many requests that rules matched, or the model and the base rejected, is a scanner.
const SCANNER_HITS: u32 = 3;

/// A client with so many requests for what is not there, and more than half of all its requests, is a scanner.
const SCANNER_MISSES: u32 = 20;

/// See [`is_suspect`].
const SUSPECT_FLAGS: u32 = 3;

/// Why an event is not learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Ingested twice.
    Repeat,
    /// Observed under another value key: its hashes do not compare.
    OtherKey,
    /// A person confirmed the request or the client as an attack.
    Confirmed,
    /// Rules, the model or the block list were against it, or it was never inspected.
    Verdict,
    /// A rule matched.
    RuleHit,
    /// Its client was blocked.
    BlockedClient,
    /// Its client looks for weak spots.
    Scanner,
    /// Its client gave [`CLIENT_CAP`] rows already.
    ClientCap,
    /// Its network gave enough rows already.
    NetworkCap,
    /// Most other times of the window find it odd: see [`crate::micro`].
    OddInTime,
}

/// Decides event by event; knows every client from a first pass over all events.
#[derive(Debug)]
pub struct Sanitizer {
    key_id: u64,
    harmless: HashSet<[u8; 16]>,
    confirmed: HashSet<[u8; 16]>,
    confirmed_clients: HashSet<u64>,
    clients: HashMap<u64, Conduct>,
    seen: Seen,
}

/// What one client did, over all events.
#[derive(Debug, Clone, Copy, Default)]
struct Conduct {
    requests: u32,
    rule_hits: u32,
    misses: u32,
    flags: u32,
    blocked: bool,
}

/// Event ids of the day at hand. An event's day is its own, so repeats fall on the same day.
#[derive(Debug, Default)]
struct Seen {
    day: Option<Day>,
    /// Halves of the ids: two of ten million fall together once in a million trainings.
    ids: HashSet<u64>,
}

impl Removal {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::OtherKey => "other_key",
            Self::Confirmed => "confirmed",
            Self::Verdict => "verdict",
            Self::RuleHit => "rule_hit",
            Self::BlockedClient => "blocked_client",
            Self::Scanner => "scanner",
            Self::ClientCap => "client_cap",
            Self::NetworkCap => "network_cap",
            Self::OddInTime => "odd_in_time",
        }
    }
}

impl Sanitizer {
    /// A sanitizer for events under the value key `key_id`, with what people judged.
    pub fn new(key_id: u64, reviews: &[Review]) -> Self {
        // A later review of the same request overrules an earlier one.
        let mut judged: HashMap<[u8; 16], (u64, ReviewVerdict)> = HashMap::new();
        let mut clients: HashMap<u64, (u64, ReviewVerdict)> = HashMap::new();
        for review in reviews {
            let latest = (review.at_ms, review.verdict);
            match review.request {
                Some(request) => keep_later(judged.entry(request).or_insert(latest), latest),
                None => keep_later(clients.entry(review.client).or_insert(latest), latest),
            }
        }
        let of = |wanted: ReviewVerdict| {
            judged.iter().filter(move |(_, (_, verdict))| *verdict == wanted).map(|(id, _)| *id).collect()
        };
        let confirmed_clients = clients
            .iter()
            .filter(|(_, (_, verdict))| *verdict == ReviewVerdict::Confirmed)
            .map(|(client, _)| *client)
            .collect();
        Self {
            key_id,
            harmless: of(ReviewVerdict::FalsePositive),
            confirmed: of(ReviewVerdict::Confirmed),
            confirmed_clients,
            clients: HashMap::new(),
            seen: Seen::default(),
        }
    }

    /// First pass: takes note of what the event says about its client, and says whether it is no repeat, which counts
    /// for nothing.
    pub fn note(&mut self, event: &Head) -> bool {
        if !self.seen.first_time(event) {
            return false;
        }
        if self.harmless.contains(&event.id) {
            return true;
        }
        let client = self.clients.entry(event.client).or_default();
        client.requests = client.requests.saturating_add(1);
        client.rule_hits = client.rule_hits.saturating_add(u32::from(event.ruled));
        let missed = event.origin == Origin::Upstream && event.status == 404;
        client.misses = client.misses.saturating_add(u32::from(missed));
        client.flags = client.flags.saturating_add(u32::from(event.verdict == Verdict::Model));
        client.blocked |= event.verdict == Verdict::Blocked;
        true
    }

    /// Counts a request of `client` that is an attack beyond doubt as a rule that matched.
    pub fn note_attack(&mut self, client: u64) {
        let client = self.clients.entry(client).or_default();
        client.rule_hits = client.rule_hits.saturating_add(1);
    }

    /// Ends the first pass.
    pub fn all_noted(&mut self) {
        self.seen = Seen::default();
    }

    /// Afterwards: why the event, which is no repeat, must not be learned from, if it must not.
    ///
    /// What the last model rejected of a client that is otherwise clean may be: without it each model would be
    /// calibrated on what the one before let pass, and the true rate of false positives would grow from model to
    /// model. Whether it is trained on as well is for [`crate::micro`] to say.
    pub fn judge(&self, event: &Head) -> Option<Removal> {
        if event.key_id != self.key_id {
            return Some(Removal::OtherKey);
        }
        if self.harmless.contains(&event.id) {
            return None;
        }
        if self.confirmed.contains(&event.id) || self.confirmed_clients.contains(&event.client) {
            return Some(Removal::Confirmed);
        }
        let passes = match event.verdict {
            // What the base finds strange may be usual here, and is learned by quorum like everything else.
            Verdict::Pass | Verdict::Base | Verdict::Model => true,
            _ => false,
        };
        if !passes {
            return Some(Removal::Verdict);
        }
        if event.ruled {
            return Some(Removal::RuleHit);
        }
        let client = self.clients.get(&event.client).copied().unwrap_or_default();
        if client.blocked {
            return Some(Removal::BlockedClient);
        }
        let mostly_misses = client.misses >= SCANNER_MISSES && client.misses > client.requests / 2;
        let suspect = is_suspect(client.flags, client.requests);
        (client.rule_hits >= SCANNER_HITS || mostly_misses || suspect).then_some(Removal::Scanner)
    }

    /// Whether the event is no repeat, in this pass.
    pub fn is_new(&mut self, event: &Head) -> bool {
        self.seen.first_time(event)
    }

    /// Whether a person gave this request the verdict, and its hashes compare.
    pub fn is_judged(&self, event: &Head, verdict: ReviewVerdict) -> bool {
        event.key_id == self.key_id && self.ids(verdict).contains(&event.id)
    }

    fn ids(&self, verdict: ReviewVerdict) -> &HashSet<[u8; 16]> {
        match verdict {
            ReviewVerdict::FalsePositive => &self.harmless,
            ReviewVerdict::Confirmed => &self.confirmed,
        }
    }
}

/// Counts rows of each client on each route on the day at hand.
#[derive(Debug, Default)]
pub struct ClientCap {
    day: Option<Day>,
    rows: HashMap<(u64, u64), u32>,
}

/// Knows how many rows each network has, and lets through an even sample of those that have too many.
#[derive(Debug, Clone, Default)]
pub struct NetworkCap {
    rows: HashMap<u64, u64>,
    total: u64,
}

impl ClientCap {
    /// Whether this row is within [`CLIENT_CAP`].
    pub fn admit(&mut self, event: &Head) -> bool {
        let day = Some(Day::of(event.at_ms));
        if self.day != day {
            self.day = day;
            self.rows.clear();
        }
        let rows = self.rows.entry((event.client, event.route)).or_default();
        *rows = rows.saturating_add(1);
        *rows <= CLIENT_CAP
    }
}

impl NetworkCap {
    /// Counts a row.
    pub fn note(&mut self, event: &Head) {
        *self.rows.entry(event.network).or_default() += 1;
        self.total += 1;
    }

    /// Most rows of one network.
    pub fn limit(&self) -> u64 {
        let networks = self.rows.len().max(1) as f64;
        (self.total as f64 * NETWORK_SHARE.max(2.0 / networks)).ceil() as u64
    }

    /// Whether every network is within it.
    pub fn is_kept(&self) -> bool {
        self.rows.values().max().is_none_or(|most| *most <= self.limit())
    }

    /// Whether this row, which was noted, is in the sample. The ids decide, so every pass decides alike.
    pub fn admit(&self, event: &Head) -> bool {
        let rows = self.rows.get(&event.network).copied().unwrap_or(0);
        let limit = self.limit();
        rows <= limit || hash((event.id, "network")) % rows < limit
    }
}

/// Whether a client with so many odd requests is no example of a clean one: three of them, and more than a tenth of
/// all its requests.
pub fn is_suspect(odd: u32, requests: u32) -> bool {
    odd >= SUSPECT_FLAGS && odd > requests / 10
}

/// The same in every run.
fn hash(item: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    hasher.finish()
}

impl Seen {
    fn first_time(&mut self, event: &Head) -> bool {
        let day = Some(Day::of(event.at_ms));
        if self.day != day {
            self.day = day;
            self.ids.clear();
        }
        let id = u128::from_be_bytes(event.id);
        self.ids.insert((id >> 64) as u64 ^ id as u64)
    }
}

fn keep_later(kept: &mut (u64, ReviewVerdict), other: (u64, ReviewVerdict)) {
    if other.0 >= kept.0 {
        *kept = other;
    }
}

#[cfg(test)]
mod tests {
    use waf_model::event::Event;

    use super::*;
    use crate::lake::samples;

    fn clean(id: u128, client: u64) -> Event {
        let mut event = samples::event(id);
        event.observation.rules.clear();
        event.client = client;
        event
    }

    fn judge(events: &[Event], reviews: &[Review]) -> Vec<Option<Removal>> {
        let mut sanitizer = Sanitizer::new(9, reviews);
        let new: Vec<bool> = events.iter().map(|event| sanitizer.note(&Head::of(event))).collect();
        sanitizer.all_noted();
        let judge = |(event, new): (&Event, bool)| match new {
            true => sanitizer.judge(&Head::of(event)),
            false => Some(Removal::Repeat),
        };
        events.iter().zip(new).map(judge).collect()
    }

    #[test]
    fn clean_events_stay_and_each_fault_removes_its_own() {
        let mut verdict = clean(2, 2);
        verdict.verdict = Verdict::Rules;
        let mut hit = clean(3, 3);
        hit.observation.rules.push(1);
        let mut other = clean(4, 4);
        other.key_id = 1;
        let mut blocked = clean(6, 5);
        blocked.verdict = Verdict::Blocked;
        let events = [clean(1, 1), clean(1, 1), verdict, hit, other, clean(5, 5), blocked];
        assert_eq!(
            judge(&events, &[]),
            [
                None,
                Some(Removal::Repeat),
                Some(Removal::Verdict),
                Some(Removal::RuleHit),
                Some(Removal::OtherKey),
                Some(Removal::BlockedClient),
                Some(Removal::Verdict)
            ]
        );
    }

    #[test]
    fn what_the_last_model_rejected_stays_unless_its_client_is_suspect() {
        let flagged = |id, client| {
            let mut event = clean(id, client);
            event.verdict = Verdict::Model;
            event
        };
        let mut events = vec![flagged(0, 1), clean(1, 1)];
        events.extend((2..5).map(|id| flagged(id, 2)));
        let suspect = [Some(Removal::Scanner); 3];
        assert_eq!(judge(&events, &[]), [&[None, None], &suspect[..]].concat());
    }

    #[test]
    fn reviews_overrule_and_the_latest_counts() {
        let mut flagged = clean(1, 1);
        flagged.verdict = Verdict::Rules;
        flagged.observation.rules.push(1);
        let review = |verdict, at_ms, request: Option<u128>| Review {
            request: request.map(u128::to_be_bytes),
            client: 2,
            verdict,
            at_ms,
        };
        let events = [flagged, clean(2, 2), clean(3, 3)];
        let reviews = [
            review(ReviewVerdict::FalsePositive, 5, Some(1)),
            review(ReviewVerdict::Confirmed, 4, Some(1)),
            review(ReviewVerdict::Confirmed, 1, None),
            review(ReviewVerdict::Confirmed, 1, Some(3)),
        ];
        assert_eq!(judge(&events, &reviews), [None, Some(Removal::Confirmed), Some(Removal::Confirmed)]);
    }

    #[test]
    fn scanners_teach_nothing_not_even_by_their_clean_requests() {
        let mut events: Vec<_> = (0..3).map(|id| clean(id, 1)).collect();
        events.iter_mut().for_each(|event| event.observation.rules.push(1));
        events.push(clean(3, 1));
        let misses = (4..44).map(|id| {
            let mut event = clean(id, 2);
            event.status = if id < 25 { 404 } else { 200 };
            event
        });
        events.extend(misses);
        let judged = judge(&events, &[]);
        assert_eq!(judged[3], Some(Removal::Scanner));
        assert_eq!(judged[43], Some(Removal::Scanner));
        events.push(clean(44, 2));
        events.push(clean(45, 2));
        let judged = judge(&events, &[]);
        assert_eq!(judged[45], None, "21 misses of 42 requests are not more than half");
    }

    #[test]
    fn one_client_gives_at_most_its_cap_a_day_and_route() {
        let mut cap = ClientCap::default();
        let mut event = clean(1, 1);
        assert_eq!((0..300).filter(|_| cap.admit(&Head::of(&event))).count(), 200);
        event.route = "other".to_owned();
        assert!(cap.admit(&Head::of(&event)));
        event.route = "shop".to_owned();
        event.at_ms += 86_400_000;
        assert!(cap.admit(&Head::of(&event)));
    }

    #[test]
    fn no_network_is_more_than_its_share_of_the_rows() {
        let events: Vec<_> = (0..10_000)
            .map(|id| {
                let mut event = clean(id, id as u64 % 50);
                event.network = if id % 3 == 0 { 7 } else { 1000 + id as u64 % 200 };
                event
            })
            .collect();
        let mut cap = NetworkCap::default();
        events.iter().for_each(|event| cap.note(&Head::of(event)));
        let admitted = |network| {
            events.iter().filter(|e| (e.network == 7) == network && cap.admit(&Head::of(e))).count()
        };
        assert_eq!(cap.limit(), 200);
        assert!((150..250).contains(&admitted(true)), "{}", admitted(true));
        assert_eq!(admitted(false), 6666, "the others stay whole");
    }

    #[test]
    fn where_there_are_few_networks_each_may_give_twice_a_fair_share() {
        let mut cap = NetworkCap::default();
        for id in 0..1000 {
            let mut event = clean(id, 1);
            event.network = u64::from(id % 10 < 9);
            cap.note(&Head::of(&event));
        }
        assert_eq!(cap.limit(), 1000, "two networks: nothing to cap by");
    }
}
