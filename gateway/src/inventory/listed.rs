//! The inventory as the management API shows it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Inventory, catalog::Catalog, endpoint::Endpoint};
use crate::clock;

/// One endpoint.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Route name.
    pub route: String,
    /// Method; `_OTHER` for those that are not common.
    pub method: &'static str,
    /// Path template.
    pub path: String,
    /// When it was asked for first, RFC 3339.
    pub first_seen: String,
    /// When it was asked for last, RFC 3339.
    pub last_seen: String,
    /// Requests.
    pub requests: u64,
    /// Those answered with 400 to 499.
    pub client_errors: u64,
    /// Those answered with 500 to 599.
    pub server_errors: u64,
    /// Those that the gateway answered itself.
    pub refused: u64,
    /// Different clients, approximately.
    pub clients: u64,
    /// Requests by consumer.
    pub consumers: BTreeMap<String, u64>,
    /// Requests of consumers beyond those.
    pub other_consumers: u64,
    /// Requests that reached the upstream, by method of authentication; `none` for nobody in particular.
    pub auth: BTreeMap<String, u64>,
    /// Requests by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that went well, by media type.
    pub request_types: BTreeMap<String, u64>,
    /// Requests by media type of the response.
    pub response_types: BTreeMap<String, u64>,
    /// Requests that went well, from which parameters are known.
    pub learned: u64,
    /// In how many of those each parameter was: place (`query`, `header`, `form`, `multipart`, `json`), then name.
    pub parameters: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Listed {
    fn of(route: &str, method: &'static str, path: &str, endpoint: &Endpoint) -> Self {
        Self {
            route: route.to_owned(),
            method,
            path: path.to_owned(),
            first_seen: clock::text(endpoint.first_ms),
            last_seen: clock::text(endpoint.last_ms),
            requests: endpoint.requests,
            client_errors: endpoint.client_errors,
            server_errors: endpoint.server_errors,
            refused: endpoint.refused,
            clients: endpoint.clients.count(),
            consumers: endpoint.consumers.clone(),
            other_consumers: endpoint.other_consumers,
            auth: endpoint.auth.clone(),
            statuses: endpoint.statuses.clone(),
            request_types: endpoint.request_types.clone(),
            response_types: endpoint.response_types.clone(),
            learned: endpoint.learned,
            parameters: endpoint.parameters.clone(),
        }
    }
}

impl Inventory {
    /// Every endpoint that this gateway saw, and others as far as they have published it; of one route if that is named.
    pub async fn list(&self, route: Option<&str>) -> Vec<Listed> {
        let mut catalog = self.catalog();
        if let Some(shared) = &self.shared {
            match shared.others().await {
                Ok(others) => others.iter().for_each(|bytes| add(&mut catalog, bytes)),
                Err(error) => tracing::warn!(%error, "the inventory shows this gateway alone"),
            }
        }
        let wanted = catalog.iter().filter(|(name, ..)| route.is_none_or(|route| route == *name));
        wanted.map(|(route, method, path, endpoint)| Listed::of(route, method, path, endpoint)).collect()
    }
}

fn add(catalog: &mut Catalog, bytes: &[u8]) {
    match Catalog::from_json(bytes) {
        Ok(other) => catalog.merge(&other),
        Err(error) => tracing::warn!(error, "another gateway's inventory cannot be read"),
    }
}
