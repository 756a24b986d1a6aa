//! One endpoint: a method and a path template, and what is known of the requests to it.

use std::collections::BTreeMap;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use waf_model::{event::Origin, values::Location};

use super::{Sighting, distinct::Distinct};

/// Most statuses that are told apart.
const STATUSES: usize = 40;

/// Most methods of authentication.
const METHODS: usize = 16;

/// Most consumers that are named; requests of others count together.
const CONSUMERS: usize = 32;

/// Most media types of requests, and of responses.
const TYPES: usize = 8;

/// Most parameters.
const PARAMETERS: usize = 64;

/// What is known of the requests to one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Endpoint {
    /// Milliseconds since 1970 of the first request.
    pub first_ms: u64,
    /// Milliseconds since 1970 of the latest request.
    pub last_ms: u64,
    /// Requests.
    pub requests: u64,
    /// Those answered with 400 to 499.
    pub client_errors: u64,
    /// Those answered with 500 to 599.
    pub server_errors: u64,
    /// Those that the gateway answered itself.
    pub refused: u64,
    /// Requests by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that reached the upstream, by method of authentication; `none` for nobody in particular.
    pub auth: BTreeMap<String, u64>,
    /// Requests by consumer.
    pub consumers: BTreeMap<String, u64>,
    /// Requests of consumers that are not named.
    pub other_consumers: u64,
    /// Different clients, approximately.
    pub clients: Distinct,
    /// Requests by media type of the request.
    pub request_types: BTreeMap<String, u64>,
    /// Requests by media type of the response.
    pub response_types: BTreeMap<String, u64>,
    /// Requests that went well, from which parameters are known.
    pub learned: u64,
    /// In how many of those each parameter was: location, then name.
    pub parameters: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Stored form of [`Endpoint`].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct RawEndpoint {
    first_ms: u64,
    last_ms: u64,
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    refused: u64,
    statuses: BTreeMap<u16, u64>,
    auth: BTreeMap<String, u64>,
    consumers: BTreeMap<String, u64>,
    other_consumers: u64,
    clients: String,
    request_types: BTreeMap<String, u64>,
    response_types: BTreeMap<String, u64>,
    learned: u64,
    parameters: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Endpoint {
    /// Adds one request.
    pub fn note(&mut self, sighting: &Sighting) {
        if self.requests == 0 {
            self.first_ms = sighting.at_ms;
        }
        self.first_ms = self.first_ms.min(sighting.at_ms);
        self.last_ms = self.last_ms.max(sighting.at_ms);
        self.requests += 1;
        self.client_errors += u64::from((400..500).contains(&sighting.status));
        self.server_errors += u64::from(sighting.status >= 500);
        add(&mut self.statuses, sighting.status, 1, STATUSES);
        self.clients.add(sighting.client);
        if let Some(consumer) = &sighting.consumer
            && !add_named(&mut self.consumers, consumer, 1, CONSUMERS)
        {
            self.other_consumers += 1;
        }
        if sighting.origin != Origin::Upstream {
            self.refused += 1;
            return;
        }
        add_named(&mut self.auth, sighting.auth.as_deref().unwrap_or("none"), 1, METHODS);
        if let Some(media) = sighting.response_type.as_ref().and_then(essence) {
            add_named(&mut self.response_types, &media, 1, TYPES);
        }
        if sighting.clean && sighting.status < 400 {
            self.learn(sighting);
        }
    }

    /// What requests bring that go well.
    fn learn(&mut self, sighting: &Sighting) {
        self.learned += 1;
        if let Some(media) = sighting.request_type.as_ref().and_then(essence) {
            add_named(&mut self.request_types, &media, 1, TYPES);
        }
        let mut known: usize = self.parameters.values().map(BTreeMap::len).sum();
        for (at, (location, name)) in sighting.parameters.iter().enumerate() {
            // Once a request, however often it comes.
            let earlier = sighting.parameters.get(..at).unwrap_or_default();
            if earlier.iter().any(|other| other == &(*location, name.clone())) {
                continue;
            }
            let place = place_name(*location);
            match self.parameters.get_mut(place).and_then(|names| names.get_mut(name.as_str())) {
                Some(count) => *count += 1,
                None if known < PARAMETERS => {
                    known += 1;
                    self.parameters.entry(place.to_owned()).or_default().insert(name.to_string(), 1);
                }
                None => {}
            }
        }
    }

    /// Adds the requests that somebody else saw.
    pub fn merge(&mut self, other: &Self) {
        self.first_ms = if self.requests == 0 { other.first_ms } else { self.first_ms.min(other.first_ms) };
        self.last_ms = self.last_ms.max(other.last_ms);
        for (mine, other) in [
            (&mut self.requests, other.requests),
            (&mut self.client_errors, other.client_errors),
            (&mut self.server_errors, other.server_errors),
            (&mut self.refused, other.refused),
            (&mut self.other_consumers, other.other_consumers),
            (&mut self.learned, other.learned),
        ] {
            *mine = mine.saturating_add(other);
        }
        other.statuses.iter().for_each(|(status, count)| add(&mut self.statuses, *status, *count, STATUSES));
        for (mine, other, most) in [
            (&mut self.auth, &other.auth, METHODS),
            (&mut self.request_types, &other.request_types, TYPES),
            (&mut self.response_types, &other.response_types, TYPES),
        ] {
            for (name, count) in other {
                add_named(mine, name, *count, most);
            }
        }
        for (name, count) in &other.consumers {
            if !add_named(&mut self.consumers, name, *count, CONSUMERS) {
                self.other_consumers = self.other_consumers.saturating_add(*count);
            }
        }
        self.clients.merge(&other.clients);
        for (place, names) in &other.parameters {
            for (name, count) in names {
                let known: usize = self.parameters.values().map(BTreeMap::len).sum();
                let room = PARAMETERS.saturating_sub(known);
                let mine = self.parameters.entry(place.clone()).or_default();
                let most = mine.len() + room;
                add_named(mine, name, *count, most);
            }
        }
    }
}

impl TryFrom<RawEndpoint> for Endpoint {
    type Error = String;

    /// Takes as much as an endpoint holds.
    fn try_from(raw: RawEndpoint) -> Result<Self, String> {
        let whole = Self {
            first_ms: raw.first_ms,
            last_ms: raw.last_ms,
            requests: raw.requests,
            client_errors: raw.client_errors,
            server_errors: raw.server_errors,
            refused: raw.refused,
            statuses: raw.statuses,
            auth: raw.auth,
            consumers: raw.consumers,
            other_consumers: raw.other_consumers,
            clients: Distinct::from_hex(&raw.clients).ok_or("the set of clients cannot be read")?,
            request_types: raw.request_types,
            response_types: raw.response_types,
            learned: raw.learned,
            parameters: raw.parameters,
        };
        let mut bounded = Self::default();
        bounded.merge(&whole);
        Ok(bounded)
    }
}

/// The name of a place where parameters are.
fn place_name(location: Location) -> &'static str {
    match location {
        Location::Query => "query",
        Location::Header => "header",
        Location::Form => "form",
        Location::Multipart => "multipart",
        _ => "json",
    }
}

/// The media type of a `Content-Type`, without its parameters; nothing for what is none.
fn essence(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?.split(';').next()?.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'+' | b'.' | b'_');
    (text.len() <= 64 && text.contains('/') && text.bytes().all(plain)).then(|| text.to_ascii_lowercase())
}

fn add<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, count: u64, most: usize) {
    if counts.len() < most || counts.contains_key(&key) {
        let sum = counts.entry(key).or_default();
        *sum = sum.saturating_add(count);
    }
}

/// As [`add`], without a copy of a name that is known; `false` if there is no room.
fn add_named(counts: &mut BTreeMap<String, u64>, name: &str, count: u64, most: usize) -> bool {
    if let Some(sum) = counts.get_mut(name) {
        *sum = sum.saturating_add(count);
        return true;
    }
    let room = counts.len() < most;
    if room {
        counts.insert(name.to_owned(), count);
    }
    room
}
