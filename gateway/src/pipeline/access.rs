//! Whom a listener and a route are there for: who comes from elsewhere is told nothing.

use http::StatusCode;

use super::Gateway;
use crate::{
    config::{Access, Config, Route},
    error::{Fault, Refusal},
    identity::{Identity, Peer},
    telemetry::metrics::AccessLabels,
};

/// Refuses who may not use the listener.
///
/// # Errors
/// [`Fault::Refused`] with 403.
pub(super) fn of_listener(
    gateway: &Gateway,
    config: &Config,
    peer: &Peer,
    identity: &Identity,
) -> Result<(), Fault> {
    match config.listeners.iter().find(|listener| listener.name == *peer.listener) {
        Some(listener) => check(gateway, &listener.access, "", peer, identity),
        // A reload has taken the listener away, and with it what said who may use it.
        None => Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, "listener_closed").into()),
    }
}

/// Refuses who may not use the route.
///
/// # Errors
/// [`Fault::Refused`] with 403.
pub(super) fn of_route(
    gateway: &Gateway,
    route: &Route,
    peer: &Peer,
    identity: &Identity,
) -> Result<(), Fault> {
    check(gateway, &route.access, &route.name, peer, identity)
}

fn check(
    gateway: &Gateway,
    access: &Access,
    route: &str,
    peer: &Peer,
    identity: &Identity,
) -> Result<(), Fault> {
    let Some(reason) = access.refusal(identity.address, identity.place) else { return Ok(()) };
    let labels = AccessLabels { listener: peer.listener.to_string(), route: route.to_owned(), reason };
    gateway.metrics.access_refused.get_or_create(&labels).inc();
    Err(Refusal::new(StatusCode::FORBIDDEN, reason).into())
}
