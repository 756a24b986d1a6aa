//! How the origins fare, for the status and for Prometheus.

use serde::Serialize;

use crate::{
    telemetry::upstream_metrics::Shown,
    upstream::{State, Upstream},
};

/// One origin of one group.
#[derive(Debug, Serialize)]
pub struct OriginStatus {
    /// The group's name.
    pub upstream: String,
    /// The origin's URL.
    pub origin: String,
    /// `up`, `down` (its checks fail) or `ejected` (requests to it failed).
    pub state: &'static str,
    /// Requests in progress.
    pub active: usize,
    /// Connections that wait for one.
    pub idle: usize,
    /// How often it was left out for what requests did.
    pub ejections: u64,
}

/// Every origin of the configuration in force.
pub fn origins(upstream: &Upstream) -> Vec<OriginStatus> {
    let mut found: Vec<OriginStatus> = Vec::new();
    for group in upstream.groups().iter() {
        let name = &group.settings().name;
        // Groups of older configurations come last.
        if found.iter().any(|other| other.upstream == *name) {
            continue;
        }
        found.extend(group.origins().iter().map(|origin| OriginStatus {
            upstream: name.clone(),
            origin: origin.reach().url.to_string().trim_end_matches('/').to_owned(),
            state: origin.state().name(),
            active: origin.in_flight(),
            idle: origin.idle(),
            ejections: origin.ejections(),
        }));
    }
    found
}

/// The same for Prometheus.
pub fn shown(upstream: &Upstream) -> Vec<Shown> {
    let shown = |origin: OriginStatus| Shown {
        is_up: origin.state == State::Up.name(),
        upstream: origin.upstream,
        origin: origin.origin,
        active: origin.active,
        idle: origin.idle,
        ejections: origin.ejections,
    };
    origins(upstream).into_iter().map(shown).collect()
}

/// How many requests each group refused because no origin had room.
pub fn refused(upstream: &Upstream) -> Vec<(String, u64)> {
    upstream.groups().iter().map(|group| (group.settings().name.clone(), group.refused())).collect()
}
