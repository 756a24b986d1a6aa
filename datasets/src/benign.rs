//! Benign clients: a population of several kinds, each client an endless stream of what it would do next.

mod browser;
mod programs;

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;

use crate::{
    identity::{self, Identity},
    request::GeneratedRequest,
    shop,
};

/// What kind of client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A person with a browser: pages with their assets, searches, cart, login, orders.
    Browser,
    /// The shop's mobile app: JSON only, a token instead of a cookie.
    MobileApp,
    /// A program that asks for the same stock figures again and again.
    Poller,
    /// A partner's batch job: large JSON orders.
    Batch,
    /// A search engine's crawler that obeys `robots.txt`.
    Crawler,
    /// A monitor that asks for `/healthz`.
    HealthCheck,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Browser, Self::MobileApp, Self::Poller, Self::Batch, Self::Crawler, Self::HealthCheck];

    /// The kind's name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Browser => "browser",
            Self::MobileApp => "mobile app",
            Self::Poller => "API poller",
            Self::Batch => "partner batch job",
            Self::Crawler => "search crawler",
            Self::HealthCheck => "health check",
        }
    }
}

/// One benign client; iterating yields its requests, without end.
#[derive(Debug, Clone)]
pub struct BenignClient {
    kind: Kind,
    visit: Visit,
}

/// What the client is in the midst of.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) rng: Rng,
    pub(crate) identity: Identity,
    pub(crate) logged_in: bool,
    pub(crate) steps: u32,
    pending: VecDeque<GeneratedRequest>,
}

/// `count` benign clients with numbers from `first` on: six in ten browsers, two apps, and programs.
pub fn population(seed: u64, first: u32, count: u32) -> Vec<BenignClient> {
    (first..first + count)
        .map(|index| {
            let kind = match index % 20 {
                0..12 => Kind::Browser,
                12..16 => Kind::MobileApp,
                16 => Kind::Poller,
                17 => Kind::Batch,
                18 => Kind::Crawler,
                _ => Kind::HealthCheck,
            };
            BenignClient::new(seed, index, kind)
        })
        .collect()
}

impl BenignClient {
    /// Client number `index`; its address follows from the number alone.
    pub fn new(seed: u64, index: u32, kind: Kind) -> Self {
        let mut rng = Rng::with_seed(seed ^ u64::from(index) << 20);
        let user_agent = match kind {
            Kind::Browser => identity::browser(&mut rng),
            Kind::MobileApp => identity::app(&mut rng),
            Kind::Poller => {
                format!("stock-sync/{}.{} (+https://retail.example/sync)", rng.u8(1..4), rng.u8(..10))
            }
            Kind::Batch => format!("python-requests/2.{}.{}", rng.u8(28..33), rng.u8(..4)),
            Kind::Crawler => {
                "Mozilla/5.0 (compatible; Examplebot/2.1; +https://search.example/bot.html)".to_owned()
            }
            Kind::HealthCheck => "uptime-monitor/3.2".to_owned(),
        };
        let identity = Identity::new(&mut rng, index, user_agent);
        let visit = Visit { rng, identity, logged_in: false, steps: 0, pending: VecDeque::new() };
        Self { kind, visit }
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.visit.identity
    }
}

impl Iterator for BenignClient {
    type Item = GeneratedRequest;

    fn next(&mut self) -> Option<GeneratedRequest> {
        let visit = &mut self.visit;
        while visit.pending.is_empty() {
            match self.kind {
                Kind::Browser => browser::step(visit),
                Kind::MobileApp => programs::app_step(visit),
                Kind::Poller => programs::poll(visit),
                Kind::Batch => programs::batch(visit),
                Kind::Crawler => programs::crawl(visit),
                Kind::HealthCheck => programs::check_health(visit),
            }
            visit.steps += 1;
        }
        visit.pending.pop_front()
    }
}

impl Visit {
    /// Appends a request; `think` is in milliseconds and varied by a third either way.
    pub(crate) fn push(
        &mut self,
        think: u64,
        method: &'static str,
        uri: impl Into<String>,
        headers: Vec<(&'static str, String)>,
        body: impl Into<Vec<u8>>,
    ) {
        let think = Duration::from_millis(think * self.rng.u64(67..133) / 100);
        let client = self.identity.address;
        self.pending.push_back(GeneratedRequest {
            method,
            uri: uri.into(),
            headers,
            body: body.into(),
            client,
            think,
        });
    }

    /// A product, popular ones more often.
    pub(crate) fn product(&mut self) -> u32 {
        let r = self.rng.f64();
        1 + (r * r * f64::from(shop::PRODUCTS - 1)) as u32
    }

    /// One of `from`.
    pub(crate) fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.get(self.rng.usize(..from.len().max(1))).copied().unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_requests() {
        let requests = |seed| -> Vec<GeneratedRequest> {
            population(seed, 0, 40).into_iter().flat_map(|client| client.take(30)).collect()
        };
        assert_eq!(requests(1), requests(1));
        assert_ne!(requests(1), requests(2));
    }

    #[test]
    fn a_population_holds_every_kind_and_calls_many_endpoints() {
        let mut kinds: BTreeMap<Kind, BTreeSet<(&str, String)>> = BTreeMap::new();
        for client in population(3, 0, 200) {
            let kind = client.kind();
            for request in client.take(60) {
                assert!(request.uri.starts_with('/') && request.uri.is_ascii(), "{}", request.uri);
                assert!(!request.uri.contains([' ', '"', '<', '>']), "{}", request.uri);
                let path = request
                    .uri
                    .split('?')
                    .next()
                    .unwrap_or("")
                    .trim_end_matches(|c: char| c.is_ascii_digit());
                kinds.entry(kind).or_default().insert((request.method, path.to_owned()));
            }
        }
        assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), Kind::ALL);
        assert!(kinds[&Kind::Browser].len() >= 15, "{:?}", kinds[&Kind::Browser]);
        assert!(kinds[&Kind::Browser].contains(&("POST", "/login".to_owned())));
        assert!(kinds[&Kind::MobileApp].contains(&("POST", "/api/cart".to_owned())));
    }

    #[test]
    fn bodies_are_what_their_content_type_says() {
        for client in population(4, 0, 60) {
            for request in client.take(60) {
                match request.header("content-type") {
                    Some("application/json") => {
                        serde_json::from_slice::<serde_json::Value>(&request.body).expect("JSON");
                    }
                    Some(kind) if kind.starts_with("multipart/form-data; boundary=") => {
                        let boundary = kind.split_once('=').unwrap().1;
                        assert!(request.body.starts_with(format!("--{boundary}\r\n").as_bytes()));
                    }
                    Some(kind) => assert_eq!(kind, "application/x-www-form-urlencoded"),
                    None => assert!(request.body.is_empty(), "{request:?}"),
                }
            }
        }
    }
}
