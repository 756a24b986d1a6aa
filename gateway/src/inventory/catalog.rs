//! All endpoints, by route; bounded, whatever paths are asked for.

use std::collections::BTreeMap;

use http::Method;
use serde::{Deserialize, Serialize};
use waf_model::{
    event::Origin,
    profile::{
        builder::{COLLAPSE, collapsed_paths},
        collapse,
    },
};

use super::{
    Sighting,
    endpoint::{Endpoint, RawEndpoint},
};
use crate::telemetry::access_log::known_method;

/// Most endpoints of one route.
const ROUTE: usize = 1_000;

/// Most endpoints in all.
const ALL: usize = 10_000;

/// Longest path template, in bytes, and most segments of one.
const PATH: (usize, usize) = (512, 16);

/// Version of the stored form.
const VERSION: u32 = 1;

/// After this long an endpoint that one client asked for makes room for others, if there is little.
const STALE_MS: u64 = 60 * 60 * 1000;

/// All endpoints, by route.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Catalog {
    version: u32,
    routes: BTreeMap<String, Listing>,
    #[serde(skip)]
    endpoints: usize,
    #[serde(skip)]
    unlisted: u64,
}

/// The endpoints of one route.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Listing {
    /// Paths below which words are taken as values, ascending.
    collapsed: Vec<String>,
    /// By path template, then by method.
    paths: BTreeMap<String, BTreeMap<&'static str, Endpoint>>,
    #[serde(skip)]
    full: bool,
}

/// Stored form of [`Catalog`].
#[derive(Debug, Deserialize)]
pub struct RawCatalog {
    version: u32,
    routes: BTreeMap<String, RawListing>,
}

#[derive(Debug, Deserialize)]
struct RawListing {
    collapsed: Vec<String>,
    paths: BTreeMap<String, BTreeMap<String, RawEndpoint>>,
}

/// What became of a sighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It counts for an endpoint.
    Listed,
    /// No endpoint is known there, and this request does not show that there is one.
    Unknown,
    /// There is no room for its endpoint.
    Full {
        /// Whether it is the first on its route.
        first: bool,
    },
}

impl Catalog {
    /// Adds one request. An endpoint is listed from the first request that its upstream answered with something else
    /// than 404 or 405, and against which nothing was found.
    pub fn note(&mut self, sighting: &Sighting) -> Noted {
        let template = sighting.path.template();
        let method = known_method(&sighting.method);
        let shows = sighting.origin == Origin::Upstream
            && sighting.clean
            && !matches!(sighting.status, 0 | 404 | 405 | 501);
        let Some(listing) = self.routes.get_mut(&sighting.route) else {
            if !shows {
                return Noted::Unknown;
            }
            self.routes.insert(sighting.route.clone(), Listing::default());
            return self.note(sighting);
        };
        let path = collapse(&listing.collapsed, &template);
        if let Some(endpoint) = listing.paths.get_mut(&path).and_then(|methods| methods.get_mut(method)) {
            endpoint.note(sighting);
            return Noted::Listed;
        }
        if !shows {
            return Noted::Unknown;
        }
        let (bytes, segments) = PATH;
        let sound = path.len() <= bytes && path.split('/').count() <= segments;
        if !sound || listing.len() >= ROUTE || self.endpoints >= ALL {
            self.unlisted += 1;
            return Noted::Full { first: !std::mem::replace(&mut listing.full, true) };
        }
        listing.paths.entry(path).or_default().entry(method).or_default().note(sighting);
        listing.collapse();
        self.endpoints = self.routes.values().map(Listing::len).sum();
        Noted::Listed
    }

    /// Endpoints.
    pub fn len(&self) -> usize {
        self.endpoints
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints == 0
    }

    /// Requests for whose endpoints there was no room, since the last call.
    pub fn take_unlisted(&mut self) -> u64 {
        std::mem::take(&mut self.unlisted)
    }

    /// Every endpoint: route, method, path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'static str, &str, &Endpoint)> {
        self.routes.iter().flat_map(|(route, listing)| {
            listing.paths.iter().flat_map(move |(path, methods)| {
                methods
                    .iter()
                    .map(move |(method, endpoint)| (route.as_str(), *method, path.as_str(), endpoint))
            })
        })
    }

    /// Adds what another gateway saw.
    pub fn merge(&mut self, other: &Self) {
        for (route, listing) in &other.routes {
            let mine = self.routes.entry(route.clone()).or_default();
            mine.collapsed.extend(listing.collapsed.iter().cloned());
            mine.collapsed.sort_unstable();
            mine.collapsed.dedup();
            for (path, methods) in &listing.paths {
                for (method, endpoint) in methods {
                    let known = mine.paths.get(path).is_some_and(|methods| methods.contains_key(method));
                    if known || mine.len() < ROUTE {
                        mine.paths
                            .entry(path.clone())
                            .or_default()
                            .entry(method)
                            .or_default()
                            .merge(endpoint);
                    }
                }
            }
            mine.rename();
            mine.collapse();
        }
        self.endpoints = self.routes.values().map(Listing::len).sum();
    }

    /// Where room gets scarce, forgets endpoints that one client asked for, some time ago.
    pub fn make_room(&mut self, now_ms: u64) {
        let crowded = self.endpoints >= ALL / 10 * 9;
        for listing in self.routes.values_mut() {
            if !crowded && listing.len() < ROUTE / 10 * 9 {
                continue;
            }
            for methods in listing.paths.values_mut() {
                methods.retain(|_, endpoint| {
                    endpoint.clients.count() > 1 || endpoint.last_ms.saturating_add(STALE_MS) > now_ms
                });
            }
            listing.paths.retain(|_, methods| !methods.is_empty());
            listing.full = false;
        }
        self.endpoints = self.routes.values().map(Listing::len).sum();
    }

    /// The stored form.
    pub fn to_json(&self) -> Vec<u8> {
        let mut whole = serde_json::to_value(self).unwrap_or_default();
        if let Some(version) = whole.get_mut("version") {
            *version = VERSION.into();
        }
        whole.to_string().into_bytes()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// It is damaged, or of another version.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawCatalog = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if raw.version != VERSION {
            return Err(format!("version {}; this gateway reads {VERSION}", raw.version));
        }
        let mut catalog = Self::default();
        for (route, raw) in raw.routes {
            let mut listing = Listing { collapsed: raw.collapsed, ..Listing::default() };
            listing.collapsed.sort_unstable();
            for (path, methods) in raw.paths {
                for (method, endpoint) in methods {
                    let method = Method::from_bytes(method.as_bytes()).map_err(|error| error.to_string())?;
                    let endpoint = Endpoint::try_from(endpoint)?;
                    listing.paths.entry(path.clone()).or_default().insert(known_method(&method), endpoint);
                }
            }
            catalog.merge(&Self { routes: [(route, listing)].into(), ..Self::default() });
        }
        Ok(catalog)
    }
}

impl Listing {
    fn len(&self) -> usize {
        self.paths.values().map(BTreeMap::len).sum()
    }

    /// Takes words for values where there are too many of them, as the learning does.
    fn collapse(&mut self) {
        if self.paths.len() < COLLAPSE {
            return;
        }
        let found = collapsed_paths(self.paths.keys().map(String::as_str));
        if !found.is_empty() {
            self.collapsed.extend(found);
            self.collapsed.sort_unstable();
            self.collapsed.dedup();
            self.rename();
        }
    }

    /// Puts every endpoint where it is looked for.
    fn rename(&mut self) {
        if self.collapsed.is_empty() {
            return;
        }
        for (path, methods) in std::mem::take(&mut self.paths) {
            let place = self.paths.entry(collapse(&self.collapsed, &path)).or_default();
            for (method, endpoint) in methods {
                place.entry(method).or_default().merge(&endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::SeenPath;

    fn sighting(path: &str, status: u16, client: u64) -> Sighting {
        Sighting {
            at_ms: 1_000 + client,
            route: "shop".to_owned(),
            method: Method::GET,
            path: SeenPath::Raw(path.parse().unwrap()),
            client: client.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            consumer: Some(format!("c{}", client % 100)),
            auth: Some("keys".to_owned()),
            status,
            origin: Origin::Upstream,
            clean: true,
            request_type: None,
            response_type: Some(http::HeaderValue::from_static("Application/JSON; charset=utf-8")),
            parameters: vec![(waf_model::values::Location::Query, "page".into())],
        }
    }

    fn only(catalog: &Catalog) -> (&str, &Endpoint) {
        let mut all = catalog.iter();
        let (_, _, path, endpoint) = all.next().unwrap();
        assert!(all.next().is_none(), "{catalog:?}");
        (path, endpoint)
    }

    #[test]
    fn an_endpoint_is_what_an_upstream_answers_for() {
        let mut catalog = Catalog::default();
        for (status, origin, clean) in [
            (404, Origin::Upstream, true),
            (405, Origin::Upstream, true),
            (200, Origin::Gateway, true),
            (200, Origin::Upstream, false),
        ] {
            let seen = Sighting { origin, clean, ..sighting("/orders/1", status, 1) };
            assert_eq!(catalog.note(&seen), Noted::Unknown);
        }
        assert!(catalog.is_empty());
        assert_eq!(catalog.note(&sighting("/orders/1?page=2", 200, 1)), Noted::Listed);
        assert_eq!(catalog.note(&sighting("/%6frders/2", 404, 2)), Noted::Listed);
        let refused = Sighting { origin: Origin::Gateway, ..sighting("/orders/3", 429, 2) };
        assert_eq!(catalog.note(&refused), Noted::Listed);
        let (path, endpoint) = only(&catalog);
        assert_eq!(path, "/orders/{int}");
        assert_eq!((endpoint.requests, endpoint.client_errors, endpoint.refused), (3, 2, 1));
        assert_eq!((endpoint.first_ms, endpoint.last_ms), (1_001, 1_002));
        assert_eq!(endpoint.clients.count(), 2);
        assert_eq!(endpoint.auth["keys"], 2);
        assert_eq!(endpoint.response_types["application/json"], 2);
        assert_eq!((endpoint.learned, endpoint.parameters["query"]["page"]), (1, 1));
    }

    #[test]
    fn floods_of_paths_stay_bounded_and_are_counted() {
        let mut catalog = Catalog::default();
        // Words that the learning would take for values become one endpoint.
        let word =
            |at: usize| ["b", "d", "f", "g"][at % 4].to_owned() + ["a", "e", "i", "o", "u"][at / 4 % 5];
        for at in 0..400 {
            catalog.note(&sighting(&format!("/users/{}{}", word(at), word(at / 20)), 200, at as u64));
        }
        let (path, endpoint) = only(&catalog);
        assert_eq!((path, endpoint.requests), ("/users/{any}", 400));
        assert!(endpoint.consumers.len() <= 32 && endpoint.other_consumers > 0);
        let mut full = 0;
        for at in 0..3_000 {
            // Below every word a few, so that nothing collapses.
            let (a, b, c) = (word(at), word(at / 20), word(at / 400));
            full += usize::from(matches!(
                catalog.note(&sighting(&format!("/x/{a}/{b}/{c}/y"), 200, 7)),
                Noted::Full { .. }
            ));
        }
        assert!(catalog.len() <= ROUTE, "{}", catalog.len());
        assert!(full > 0 && catalog.take_unlisted() == full as u64);
        let deep = "/a".repeat(40);
        assert!(matches!(catalog.note(&sighting(&deep, 200, 7)), Noted::Full { first: false }));
        // What one client asked for makes room; what many ask for stays.
        catalog.make_room(STALE_MS * 2);
        assert_eq!(only(&catalog).0, "/users/{any}");
    }

    #[test]
    fn the_stored_form_reads_back_and_gateways_add_up() {
        let mut catalog = Catalog::default();
        for at in 0..60 {
            catalog.note(&sighting(&format!("/orders/{at}?page=1"), if at % 3 == 0 { 500 } else { 200 }, at));
        }
        let read = Catalog::from_json(&catalog.to_json()).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), catalog.iter().collect::<Vec<_>>());
        let mut both = read.clone();
        both.merge(&catalog);
        let (_, endpoint) = only(&both);
        assert_eq!((endpoint.requests, endpoint.server_errors), (120, 40));
        assert_eq!(endpoint.clients.count(), only(&catalog).1.clients.count());
        assert!(Catalog::from_json(b"{\"version\": 2, \"routes\": {}}").is_err());
        assert!(Catalog::from_json(b"{").is_err());
    }
}
