//! Inventory: which endpoints there are, and who calls them how, as found in what passes.
//!
//! The record of each request leaves a [`Sighting`] in a bounded queue; [`keeper`] adds it up off the request path, and
//! keeps the sum in the state directory.

pub mod catalog;
pub mod distinct;
pub mod endpoint;
pub mod keeper;
pub mod listed;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderValue, Method, uri::PathAndQuery};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use smol_str::SmolStr;
use tokio::sync::mpsc;
use waf_model::{event::Origin, observation::Observation, shape, values::Location};

use catalog::{Catalog, Noted};

use crate::store::InventoryStore;

/// Sightings that may wait for the keeper.
const QUEUE: usize = 8_192;

/// What one request says about its endpoint.
#[derive(Debug)]
pub struct Sighting {
    /// Milliseconds since 1970 at arrival.
    pub at_ms: u64,
    /// Name of the route.
    pub route: String,
    /// Method.
    pub method: Method,
    /// Where it went.
    pub path: SeenPath,
    /// Keyed hash of the client.
    pub client: u64,
    /// The consumer that called, if one is known.
    pub consumer: Option<String>,
    /// The method of authentication by which the caller proved who it is, if it did.
    pub auth: Option<String>,
    /// Status sent.
    pub status: u16,
    /// Who made the response.
    pub origin: Origin,
    /// Whether nothing was found against it.
    pub clean: bool,
    /// `Content-Type` of the request.
    pub request_type: Option<HeaderValue>,
    /// `Content-Type` of the response.
    pub response_type: Option<HeaderValue>,
    /// Names of its parameters, by [`parameters`].
    pub parameters: Vec<(Location, SmolStr)>,
}

/// Where a request went.
#[derive(Debug)]
pub enum SeenPath {
    /// By the template of its observation.
    Template(String),
    /// As it came, where nothing was observed. Kept no longer than until its template is made.
    Raw(PathAndQuery),
}

impl SeenPath {
    fn template(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Template(template) => template.into(),
            Self::Raw(target) => shape::raw_path(target.path().as_bytes()).into(),
        }
    }
}

/// Names of parameters that belong to an endpoint: query and body, and header fields that are not those of any request.
pub fn parameters(observation: &Observation) -> Vec<(Location, SmolStr)> {
    let of_endpoint = |location: Location, name: &str| match location {
        Location::Query | Location::Form | Location::Json | Location::Multipart => !name.is_empty(),
        Location::Header => {
            name.starts_with("x-") && !name.starts_with("x-forwarded-") && name != "x-request-id"
        }
        _ => false,
    };
    let params = observation.params.iter().filter(|param| of_endpoint(param.location, &param.name));
    params.map(|param| (param.location, param.name.clone())).collect()
}

/// Takes sightings from the request path, never waits, and holds what was added up so far.
#[derive(Debug)]
pub struct Inventory {
    queue: mpsc::Sender<Sighting>,
    catalog: Mutex<Catalog>,
    /// Where gateways see each other's.
    shared: Option<Arc<dyn InventoryStore>>,
    endpoints: Gauge,
    lost: Counter,
    unlisted: Counter,
}

impl Default for Inventory {
    /// An inventory that nobody keeps.
    fn default() -> Self {
        Self::new(Catalog::default(), None).0
    }
}

impl Inventory {
    /// Goes on from `catalog`; the other end is for [`keeper::Keeper`].
    pub fn new(
        catalog: Catalog,
        shared: Option<Arc<dyn InventoryStore>>,
    ) -> (Self, mpsc::Receiver<Sighting>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let endpoints = Gauge::default();
        endpoints.set(gauge(catalog.len()));
        let inventory = Self {
            queue,
            catalog: Mutex::new(catalog),
            shared,
            endpoints,
            lost: Counter::default(),
            unlisted: Counter::default(),
        };
        (inventory, receiver)
    }

    /// Registers its metrics; names get the registry's prefix `portcullis`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("inventory_endpoints", "Endpoints in the inventory", self.endpoints.clone());
        registry.register(
            "inventory_lost",
            "Requests that the inventory does not count because its queue was full",
            self.lost.clone(),
        );
        registry.register(
            "inventory_unlisted",
            "Requests to endpoints for which the inventory has no room",
            self.unlisted.clone(),
        );
    }

    /// Queues a sighting.
    pub fn note(&self, sighting: Sighting) {
        if self.queue.try_send(sighting).is_err() {
            self.lost.inc();
        }
    }

    /// What was added up so far.
    fn catalog(&self) -> Catalog {
        self.lock().clone()
    }

    /// Adds sightings up.
    fn learn(&self, sightings: impl Iterator<Item = Sighting>) {
        let mut catalog = self.lock();
        for sighting in sightings {
            match catalog.note(&sighting) {
                Noted::Full { first: true } => tracing::warn!(
                    route = sighting.route,
                    "the inventory of this route is full; further endpoints are counted and not listed"
                ),
                Noted::Listed | Noted::Unknown | Noted::Full { first: false } => {}
            }
            self.unlisted.inc_by(catalog.take_unlisted());
        }
        self.endpoints.set(gauge(catalog.len()));
    }

    fn lock(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
