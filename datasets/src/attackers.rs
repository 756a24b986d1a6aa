//! Attackers: personas with one aim each, endless streams like the benign clients'.

use std::{collections::VecDeque, time::Duration};

use base64::Engine as _;
use fastrand::Rng;
use serde_json::json;

use crate::{
    benign::{BenignClient, Kind},
    headers::{self, Headers},
    identity::{self, Identity},
    payload,
    request::{GeneratedRequest, Space, encode, encode_bytes, form},
    shop, text,
};

/// What an attacker is after, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Persona {
    /// Tries SQL and script injection and traversal in every parameter: static rules know it.
    InjectionScanner,
    /// Asks for files and paths that might exist: backups, admin pages, keys.
    PathScanner,
    /// Logs in with stolen names and passwords.
    CredentialStuffing,
    /// Logged in as a user of the app, walks through other people's order numbers.
    IdEnumeration,
    /// Sends values of the wrong type, size and alphabet, which no rule knows.
    ParameterFuzzer,
    /// Template and command injection.
    CommandInjection,
    /// Copies the whole catalog as fast as it can.
    Scraper,
    /// Browses like a person, and hides a probe in one request of six.
    LowAndSlow,
    /// Hides its payload in pages of harmless text, or under base64 and double encoding.
    PaddedInjection,
}

impl Persona {
    /// Every persona.
    pub const ALL: [Self; 9] = [
        Self::InjectionScanner,
        Self::PathScanner,
        Self::CredentialStuffing,
        Self::IdEnumeration,
        Self::ParameterFuzzer,
        Self::CommandInjection,
        Self::Scraper,
        Self::LowAndSlow,
        Self::PaddedInjection,
    ];

    /// The persona's name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::InjectionScanner => "injection scanner",
            Self::PathScanner => "path scanner",
            Self::CredentialStuffing => "credential stuffing",
            Self::IdEnumeration => "id enumeration",
            Self::ParameterFuzzer => "parameter fuzzer",
            Self::CommandInjection => "command injection",
            Self::Scraper => "scraper",
            Self::LowAndSlow => "low and slow",
            Self::PaddedInjection => "padded injection",
        }
    }
}

/// One attacker; iterating yields its requests, without end.
#[derive(Debug, Clone)]
pub struct Attacker {
    persona: Persona,
    rng: Rng,
    identity: Identity,
    steps: u32,
    cover: Option<BenignClient>,
    pending: VecDeque<GeneratedRequest>,
}

impl Attacker {
    /// Attacker number `index`; numbers are shared with [`crate::benign::population`], so that no attacker has a
    /// benign client's address.
    pub fn new(seed: u64, index: u32, persona: Persona) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0xa77a_c4e5 ^ u64::from(index) << 20);
        let user_agent = match persona {
            Persona::IdEnumeration => identity::app(&mut rng),
            _ => identity::browser(&mut rng),
        };
        let identity = Identity::new(&mut rng, index, user_agent);
        let cover = (persona == Persona::LowAndSlow).then(|| BenignClient::new(seed, index, Kind::Browser));
        Self { persona, rng, identity, steps: 0, cover, pending: VecDeque::new() }
    }

    /// What it is after.
    pub fn persona(&self) -> Persona {
        self.persona
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn step(&mut self) {
        match self.persona {
            Persona::InjectionScanner => {
                let payload = match self.rng.u8(..4) {
                    0 | 1 => payload::sql(&mut self.rng),
                    2 => payload::script(&mut self.rng),
                    _ => payload::traversal(&mut self.rng),
                };
                self.place(400, payload.as_bytes());
            }
            Persona::PathScanner => self.scan_path(),
            Persona::CredentialStuffing => self.stuff(),
            Persona::IdEnumeration => self.enumerate(),
            Persona::ParameterFuzzer => {
                let value = payload::odd(&mut self.rng);
                self.place(400, &value);
            }
            Persona::CommandInjection => {
                let payload = if self.rng.bool() {
                    payload::template(&mut self.rng)
                } else {
                    payload::command(&mut self.rng)
                };
                self.place(600, payload.as_bytes());
            }
            Persona::Scraper => {
                let id = 1 + self.steps % shop::PRODUCTS;
                self.get(20, format!("/api/products/{id}"));
                self.get(20, format!("/api/products/{id}/reviews?page={}", 1 + self.steps / shop::PRODUCTS));
            }
            Persona::LowAndSlow => self.browse_and_probe(),
            Persona::PaddedInjection => self.padded(),
        }
    }

    /// Puts a value where the shop takes one.
    fn place(&mut self, think: u64, value: &[u8]) {
        let encoded = encode_bytes(value, Space::Percent);
        match self.rng.u8(..8) {
            0 => self.get(think, format!("/api/search?q={encoded}&page=1")),
            1 => self.get(think, format!("/api/products?category={encoded}&page=1")),
            2 => self.get(think, format!("/api/products?category=books&page={encoded}")),
            3 => self.get(think, format!("/api/products?category=shoes&page=1&sort={encoded}")),
            4 => self.get(think, format!("/api/products/{encoded}")),
            5 => self.get(think, format!("/api/stock?sku={encoded}")),
            6 => {
                let body = form(
                    &[("username", &String::from_utf8_lossy(value)), ("password", "x"), ("remember", "on")],
                    Space::Plus,
                );
                self.post(think, "/login", "application/x-www-form-urlencoded", body);
            }
            _ => {
                let value = String::from_utf8_lossy(value);
                let body = json!({"items": [{"sku": value, "quantity": 1}], "gift": false});
                self.post(think, "/api/cart", "application/json", body.to_string());
            }
        }
    }

    fn scan_path(&mut self) {
        const STEMS: [&str; 16] = [
            "admin",
            "backup",
            "config",
            "db",
            "test",
            "old",
            "api",
            "console",
            "manager",
            "wp-login",
            "phpmyadmin",
            "server-status",
            "actuator",
            "debug",
            "private",
            "dump",
        ];
        const ENDS: [&str; 12] =
            ["", "/", ".php", ".bak", ".zip", ".sql", ".old", ".env", "~", ".tar.gz", ".json", "/login"];
        let (stem, end) = (self.choose(&STEMS), self.choose(&ENDS));
        let number = if self.rng.bool() { self.rng.u32(..100).to_string() } else { String::new() };
        let uri = match self.rng.u8(..4) {
            0 => format!("/.{stem}{end}"),
            1 => format!("/api/{stem}{number}{end}"),
            _ => format!("/{stem}{number}{end}"),
        };
        self.get(80, uri);
    }

    fn stuff(&mut self) {
        let account = self.rng.u32(..shop::ACCOUNTS);
        let password = if self.rng.u8(..40) == 0 {
            shop::password(account)
        } else {
            format!(
                "{}{}",
                self.choose(&["Summer", "Password", "Dragon", "Qwerty", "Football"]),
                self.rng.u32(1..2_030)
            )
        };
        let user = shop::user_name(account);
        let body = form(&[("username", &user), ("password", &password), ("remember", "on")], Space::Plus);
        self.post(150, "/login", "application/x-www-form-urlencoded", body);
    }

    fn enumerate(&mut self) {
        let order = shop::FIRST_ORDER + self.identity.account % 100 * shop::ORDERS_EACH + self.steps;
        let headers = headers::app(&self.identity, true);
        self.push(120, "GET", format!("/api/orders/{order}"), headers, Vec::new());
    }

    fn browse_and_probe(&mut self) {
        if self.steps % 6 != 5 {
            self.pending.extend(self.cover.as_mut().and_then(Iterator::next));
            return;
        }
        if self.rng.bool() {
            let value = payload::odd(&mut self.rng);
            self.place(3_000, &value);
        } else {
            let payload = payload::sql(&mut self.rng);
            self.place(3_000, payload.as_bytes());
        }
    }

    fn padded(&mut self) {
        let payload =
            if self.rng.bool() { payload::sql(&mut self.rng) } else { payload::command(&mut self.rng) };
        let form = self.rng.u8(..4);
        // A target is padded less than a body: no server takes more than 8 KiB of it, and encoding makes it longer.
        let most = if form == 0 { 2_400 } else { 4_000 };
        let (before, after) = (self.rng.usize(800..most), self.rng.usize(800..most));
        let padded = format!(
            "{}. {payload} {}",
            text::running(&mut self.rng, before),
            text::running(&mut self.rng, after)
        );
        match form {
            0 => self.get(800, format!("/api/search?q={}&page=1", encode(&padded, Space::Plus))),
            1 => {
                let body = json!({"rating": 4, "title": text::search(&mut self.rng), "text": padded});
                self.post(800, "/api/products/17/reviews", "application/json", body.to_string());
            }
            2 => {
                let twice = encode(&encode(&payload, Space::Percent), Space::Percent);
                self.get(800, format!("/api/search?q={twice}&page=1"));
            }
            _ => {
                let hidden = base64::engine::general_purpose::STANDARD.encode(&payload);
                self.get(800, format!("/api/search?q={}&page=1", encode(&hidden, Space::Percent)));
            }
        }
    }

    /// As the page's script or, outside of the API, as a page load: attackers copy what a browser sends.
    fn get(&mut self, think: u64, uri: String) {
        let headers = if uri.starts_with("/api/") {
            headers::script(&self.identity, "/", false)
        } else {
            headers::navigation(&self.identity, Some("/"), false)
        };
        self.push(think, "GET", uri, headers, Vec::new());
    }

    fn post(&mut self, think: u64, uri: &str, kind: &str, body: String) {
        let headers = if uri.starts_with("/api/") {
            headers::script(&self.identity, "/cart", false)
        } else {
            headers::navigation(&self.identity, Some("/login"), false)
        };
        self.push(think, "POST", uri.to_owned(), headers::posting(headers, kind), body.into_bytes());
    }

    fn push(&mut self, think: u64, method: &'static str, uri: String, headers: Headers, body: Vec<u8>) {
        let think = Duration::from_millis(think * self.rng.u64(67..133) / 100);
        let client = self.identity.address;
        self.pending.push_back(GeneratedRequest { method, uri, headers, body, client, think });
    }

    fn choose(&mut self, from: &[&'static str]) -> &'static str {
        from.get(self.rng.usize(..from.len().max(1))).copied().unwrap_or("")
    }
}

impl Iterator for Attacker {
    type Item = GeneratedRequest;

    fn next(&mut self) -> Option<GeneratedRequest> {
        while self.pending.is_empty() {
            self.step();
            self.steps += 1;
        }
        self.pending.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_persona_is_seeded_endless_and_varied() {
        for persona in Persona::ALL {
            let requests = |seed| Attacker::new(seed, 9_000, persona).take(200).collect::<Vec<_>>();
            assert_eq!(requests(1), requests(1), "{persona:?}");
            let different: BTreeSet<(String, Vec<u8>)> =
                requests(2).into_iter().map(|r| (r.uri, r.body)).collect();
            assert!(different.len() > 50, "{persona:?}: {}", different.len());
            assert!(
                requests(3)
                    .iter()
                    .all(|r| r.uri.starts_with('/') && r.uri.bytes().all(|b| b.is_ascii_graphic())),
                "{persona:?}"
            );
        }
    }

    #[test]
    fn no_target_is_longer_than_servers_take() {
        for persona in Persona::ALL {
            let longest = Attacker::new(4, 9_000, persona).take(2_000).map(|r| r.uri.len()).max().unwrap();
            assert!(longest <= 8 << 10, "{persona:?}: {longest}");
        }
    }

    #[test]
    fn low_and_slow_is_mostly_what_a_browser_sends() {
        let requests: Vec<_> = Attacker::new(1, 9_001, Persona::LowAndSlow).take(120).collect();
        let browsing: Vec<_> = BenignClient::new(1, 9_001, Kind::Browser).take(100).collect();
        assert_eq!(requests.iter().filter(|request| browsing.contains(request)).count(), 100);
    }

    #[test]
    fn an_enumerator_asks_for_orders_that_are_not_its_own() {
        let attacker = Attacker::new(1, 9_002, Persona::IdEnumeration);
        let own = attacker.identity().account;
        let foreign = attacker
            .take(50)
            .filter(|r| shop::order_owner(r.uri.rsplit('/').next().unwrap().parse().unwrap()) != Some(own))
            .count();
        assert!(foreign >= 45, "{foreign}");
    }
}
