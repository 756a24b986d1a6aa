//! ClientWindow: what one client did lately, in decayed counters; bounded memory. And the evidence against it.

use serde::{Deserialize, Serialize};

use crate::{observation::Observation, score::Score, values::Location};

/// Number of columns of a [`ClientVector`].
pub const CLIENT_FEATURES: usize = 24;

/// What one client did lately, as numbers in the order of [`CLIENT_TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClientVector(pub [f32; CLIENT_FEATURES]);

/// Name, words for an operator, and smallest scale of each column.
pub const CLIENT_TABLE: [(&str, &str, f32); CLIENT_FEATURES] = [
    ("rate_10s", "requests in ten seconds", 0.5),
    ("rate_1m", "requests in a minute", 0.5),
    ("rate_10m", "requests in ten minutes", 0.5),
    ("rate_1h", "requests in an hour", 0.5),
    ("burst", "requests arriving in a burst", 0.5),
    ("not_found_1m", "pages that do not exist, in a minute", 0.5),
    ("not_found_10m", "pages that do not exist, in ten minutes", 0.5),
    ("not_found_share", "share of pages that do not exist", 0.1),
    ("refused_share", "share of requests the upstream refused", 0.1),
    ("failed_share", "share of requests the upstream failed on", 0.1),
    ("auth_failed_1m", "failed logins in a minute", 0.5),
    ("auth_failed_10m", "failed logins in ten minutes", 0.5),
    ("auth_failed_share", "share of failed logins", 0.1),
    ("writes_share", "share of requests that change something", 0.15),
    ("targets_1m", "different objects asked for in a minute", 0.5),
    ("targets_10m", "different objects asked for in ten minutes", 0.5),
    ("targets_share", "share of requests for an object not asked for before", 0.15),
    ("endpoints_10m", "different endpoints in ten minutes", 0.5),
    ("endpoints_share", "share of requests for an endpoint not asked for before", 0.15),
    ("values_share", "share of requests with values not sent before", 0.15),
    ("assets_share", "share of requests for static files", 0.15),
    ("gap_variation", "regularity of the pauses between requests", 0.3),
    ("bytes_10m", "bytes received in ten minutes", 1.0),
    ("agents", "different user agents under one key", 0.5),
];

/// Requests in the last hour below which a client's behavior says nothing yet.
pub const MATURE_REQUESTS: f32 = 8.0;

/// What one client did lately. At most 1 KiB.
#[derive(Debug, Clone)]
pub struct ClientWindow {
    updated_ms: u64,
    previous_request_ms: u64,
    requests_10s: f32,
    requests: Decayed,
    not_found: Decayed,
    refused: Decayed,
    failed: Decayed,
    auth_failed: Decayed,
    writes: Decayed,
    targets: Decayed,
    endpoints: Decayed,
    values: Decayed,
    assets: Decayed,
    bytes: Decayed,
    /// Exponentially weighted mean and mean square of the pause before a request, in seconds.
    gap: (f32, f32),
    seen_targets: Seen<8>,
    seen_endpoints: Seen<4>,
    seen_values: Seen<8>,
    seen_agents: Seen<1>,
    agents: f32,
}

/// What became of a request, as far as it says something about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseSummary {
    /// Status that the upstream sent.
    pub status: u16,
    /// Bytes of the response body.
    pub bytes: u64,
}

/// One counter at 1 min, 10 min and 1 h, each decaying exponentially with that time constant.
#[derive(Debug, Clone, Copy, Default)]
struct Decayed([f32; 3]);

const MINUTE_MS: f32 = 60_000.0;

impl Decayed {
    fn decay(&mut self, factors: [f32; 3]) {
        for (count, factor) in self.0.iter_mut().zip(factors) {
            *count *= factor;
        }
    }

    fn add(&mut self, amount: f32) {
        for count in &mut self.0 {
            *count += amount;
        }
    }
}

/// A small set of hashes: linear counting in `WORDS` words, started over when half full.
#[derive(Debug, Clone)]
struct Seen<const WORDS: usize>([u64; WORDS]);

impl<const WORDS: usize> Seen<WORDS> {
    /// Adds `hash`; 1 if it was not there (or fell on another's bit: rare while half empty).
    fn insert(&mut self, hash: u64) -> f32 {
        let bit = (hash % (64 * WORDS as u64)) as usize;
        if self.0.iter().map(|word| word.count_ones()).sum::<u32>() as usize > 32 * WORDS {
            self.0 = [0; WORDS];
        }
        let Some(word) = self.0.get_mut(bit / 64) else { return 0.0 };
        let new = *word >> (bit % 64) & 1 == 0;
        *word |= 1u64 << (bit % 64);
        f32::from(u8::from(new))
    }
}

impl ClientWindow {
    /// A client first seen at `now_ms` (milliseconds since 1970).
    pub fn new(now_ms: u64) -> Self {
        Self {
            updated_ms: now_ms,
            previous_request_ms: 0,
            requests_10s: 0.0,
            requests: Decayed::default(),
            not_found: Decayed::default(),
            refused: Decayed::default(),
            failed: Decayed::default(),
            auth_failed: Decayed::default(),
            writes: Decayed::default(),
            targets: Decayed::default(),
            endpoints: Decayed::default(),
            values: Decayed::default(),
            assets: Decayed::default(),
            bytes: Decayed::default(),
            gap: (0.0, 0.0),
            seen_targets: Seen([0; 8]),
            seen_endpoints: Seen([0; 4]),
            seen_values: Seen([0; 8]),
            seen_agents: Seen([0; 1]),
            agents: 0.0,
        }
    }

    /// Counts a request. Call before [`Self::vector`].
    pub fn record_request(&mut self, now_ms: u64, observation: &Observation) {
        self.decay_to(now_ms);
        self.requests_10s += 1.0;
        self.requests.add(1.0);
        if !matches!(observation.method.as_str(), "GET" | "HEAD" | "OPTIONS") {
            self.writes.add(1.0);
        }
        if is_asset(&observation.path) {
            self.assets.add(1.0);
        }
        let endpoint = hash(&[&observation.method, &observation.path]);
        self.targets.add(self.seen_targets.insert(endpoint ^ observation.path_summary.hash));
        self.endpoints.add(self.seen_endpoints.insert(endpoint));
        let values =
            observation.params.iter().fold(endpoint, |all, param| all.rotate_left(5) ^ param.summary.hash);
        self.values.add(self.seen_values.insert(values));
        if let Some(agent) =
            observation.params.iter().find(|p| p.location == Location::Header && p.name == "user-agent")
        {
            // Header values have no hash; their structure tells user agents apart well enough.
            self.agents += self.seen_agents.insert(agent.summary.form ^ u64::from(agent.summary.bytes));
        }
        if self.previous_request_ms > 0 {
            let gap = now_ms.saturating_sub(self.previous_request_ms) as f32 / 1000.0;
            let gap = gap.min(600.0);
            self.gap = (0.8 * self.gap.0 + 0.2 * gap, 0.8 * self.gap.1 + 0.2 * gap * gap);
        }
        self.previous_request_ms = now_ms;
    }

    /// Counts an upstream's response. Responses that the gateway itself made must not be recorded.
    pub fn record_response(&mut self, now_ms: u64, response: ResponseSummary) {
        self.decay_to(now_ms);
        match response.status {
            401 | 403 => self.auth_failed.add(1.0),
            404 | 410 => self.not_found.add(1.0),
            400..=499 => self.refused.add(1.0),
            500..=599 => self.failed.add(1.0),
            _ => {}
        }
        self.bytes.add(response.bytes as f32);
    }

    /// The window as numbers, at the time of the last record.
    pub fn vector(&self) -> ClientVector {
        let log = |count: f32| (count + 1.0).ln();
        let [requests_1m, requests_10m, requests_1h] = self.requests.0;
        // Shares over ten minutes, pulled towards 0 while there are few requests.
        let share = |counter: &Decayed| counter.0[1] / (requests_10m + 4.0);
        let deviation = (self.gap.1 - self.gap.0 * self.gap.0).max(0.0).sqrt();
        ClientVector([
            log(self.requests_10s),
            log(requests_1m),
            log(requests_10m),
            log(requests_1h),
            log(6.0 * self.requests_10s) - log(requests_1m),
            log(self.not_found.0[0]),
            log(self.not_found.0[1]),
            share(&self.not_found),
            share(&self.refused),
            share(&self.failed),
            log(self.auth_failed.0[0]),
            log(self.auth_failed.0[1]),
            share(&self.auth_failed),
            share(&self.writes),
            log(self.targets.0[0]),
            log(self.targets.0[1]),
            share(&self.targets),
            log(self.endpoints.0[1]),
            share(&self.endpoints),
            share(&self.values),
            share(&self.assets),
            (deviation / (self.gap.0 + 0.01)).min(4.0),
            log(self.bytes.0[1]),
            log((self.agents - 1.0).max(0.0)),
        ])
    }

    fn decay_to(&mut self, now_ms: u64) {
        let elapsed = now_ms.saturating_sub(self.updated_ms) as f32;
        if elapsed == 0.0 {
            return;
        }
        self.updated_ms = now_ms;
        self.requests_10s *= (-elapsed / (MINUTE_MS / 6.0)).exp();
        let factors = [1.0, 10.0, 60.0].map(|minutes: f32| (-elapsed / (minutes * MINUTE_MS)).exp());
        for counter in [
            &mut self.requests,
            &mut self.not_found,
            &mut self.refused,
            &mut self.failed,
            &mut self.auth_failed,
            &mut self.writes,
            &mut self.targets,
            &mut self.endpoints,
            &mut self.values,
            &mut self.assets,
            &mut self.bytes,
        ] {
            counter.decay(factors);
        }
    }
}

impl ClientVector {
    /// A client of which nothing is known.
    pub const UNKNOWN: Self = Self([0.0; CLIENT_FEATURES]);

    /// Whether there is enough behavior to judge.
    pub fn is_mature(&self) -> bool {
        let [_, _, _, rate_1h, ..] = self.0;
        rate_1h >= (MATURE_REQUESTS + 1.0).ln()
    }
}

fn is_asset(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| {
        matches!(
            extension,
            "css"
                | "js"
                | "png"
                | "jpg"
                | "jpeg"
                | "gif"
                | "svg"
                | "ico"
                | "woff"
                | "woff2"
                | "webp"
                | "map"
                | "ttf"
        )
    })
}

fn hash(parts: &[&str]) -> u64 {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new();
    for part in parts {
        hasher.write(part.as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// Evidence against one client: accumulates with every suspicious request, and halves every ten minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    level: f32,
    updated_ms: u64,
}

/// What one request says against its client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspicion {
    /// Points of the rules that matched.
    pub rule_points: u32,
    /// The model's score, if there is a model.
    pub score: Option<Score>,
}

/// Evidence level at which a client is blocked while only rules count.
pub const RULES_EVIDENCE: f32 = 10.0;

/// Milliseconds in which evidence halves.
pub const EVIDENCE_HALF_LIFE_MS: f32 = 600_000.0;

/// Surprise below which a request says nothing against its client: one clean request in a hundred is there.
pub const SURPRISE_OFFSET: f32 = 2.0;

/// Most evidence that one request can add; a threshold of [`LEAST_THRESHOLD`] thus takes several requests.
pub const EVIDENCE_A_REQUEST: f32 = 2.5;

/// Lowest level at which a client is blocked, whatever the calibration says: no client is blocked for fewer than
/// four requests.
pub const LEAST_THRESHOLD: f32 = 8.0;

impl Suspicion {
    /// Evidence that the request adds: half of the rules' points plus the surprises beyond the offset.
    pub fn evidence(&self) -> f32 {
        let model = self.score.map_or(0.0, |score| {
            (score.request.surprise() - SURPRISE_OFFSET).max(0.0)
                + (score.client.surprise() - SURPRISE_OFFSET).max(0.0)
        });
        (self.rule_points as f32 * 0.5 + model).min(EVIDENCE_A_REQUEST)
    }
}

impl Evidence {
    /// Adds what one request says; returns the level after it.
    pub fn add(&mut self, now_ms: u64, suspicion: &Suspicion) -> f32 {
        self.level = self.level(now_ms) + suspicion.evidence();
        self.updated_ms = now_ms;
        self.level
    }

    /// The level at `now_ms`.
    pub fn level(&self, now_ms: u64) -> f32 {
        let elapsed = now_ms.saturating_sub(self.updated_ms) as f32;
        self.level * (-elapsed / EVIDENCE_HALF_LIFE_MS).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::PValue;

    #[test]
    fn evidence_accumulates_over_requests_and_decays_with_time() {
        let suspicion = Suspicion { rule_points: 5, score: None };
        let mut evidence = Evidence::default();
        let mut requests = 0;
        while evidence.add(1_000, &suspicion) < LEAST_THRESHOLD {
            requests += 1;
        }
        assert_eq!(requests, 3, "the fourth request tips it");
        let level = evidence.level(1_000);
        assert!((evidence.level(601_000) - level / 2.0).abs() < 1e-3);
    }

    #[test]
    fn a_normal_request_adds_nothing() {
        let score = Score {
            request_distance: 1.0,
            request: PValue::new(0.02),
            cluster: 0,
            client_distance: 1.0,
            client: PValue::ONE,
        };
        assert_eq!(Suspicion { rule_points: 0, score: Some(score) }.evidence(), 0.0);
    }

    #[test]
    fn a_window_counts_and_forgets() {
        let mut window = ClientWindow::new(0);
        let observation =
            Observation { method: "GET".into(), path: "/a".to_owned(), ..Observation::default() };
        for second in 0..20 {
            window.record_request(second * 1000, &observation);
            window.record_response(second * 1000, ResponseSummary { status: 404, bytes: 10 });
        }
        let busy = window.vector();
        assert!(busy.is_mature() && busy.0[7] > 0.5, "{busy:?}");
        window.record_request(7_200_000, &observation);
        let later = window.vector();
        assert!(!later.is_mature() && later.0[7] < 0.05, "{later:?}");
        assert!(std::mem::size_of::<ClientWindow>() + std::mem::size_of::<Evidence>() <= 1024);
    }
}
