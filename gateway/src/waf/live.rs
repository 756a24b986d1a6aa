//! What the model in force does on this gateway, beside what it promises: for each route its rates and its breaker.
//!
//! Counted after the response has ended, in bounded memory: at most 90 KiB a route. It begins anew with every model,
//! since every model makes a promise of its own.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use serde::Serialize;
use waf_model::{features::FeatureVector, model::Model};

use crate::config::{Mode, Toggle};

pub mod accused;
pub mod breaker;
pub mod client_days;
pub mod drift;
pub mod poisson;
pub mod sliding;

use breaker::{Allowed, Breaker, Opened};
use client_days::ClientDays;
use drift::{Drift, LiveDrift};
use sliding::{Sliding, Span};

/// What one model does here.
#[derive(Debug, Default)]
pub struct Live {
    /// By name: a reload may add routes and change their order.
    routes: ArcSwap<HashMap<String, Arc<RouteLive>>>,
    drift: LiveDrift,
}

#[derive(Debug, Default)]
struct RouteLive {
    inspected: Sliding,
    flagged: Sliding,
    clients: ClientDays,
    breaker: Breaker,
}

/// One request that a model scored, as far as it counts here.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Keyed hash of the client.
    pub client: u64,
    /// Keyed hash of its network.
    pub network: u64,
    /// Path template.
    pub path: &'a str,
    /// Whether the model flags it.
    pub flagged: bool,
    /// Whether nothing but the model speaks against it: neither rules nor base knowledge, and its client has a
    /// clean history. Then a false positive is likely.
    pub disputed: bool,
    /// Whether the evidence against the client reached the threshold of the model's certificate.
    pub blocked: bool,
}

/// Realised rates of one route beside the promised ones.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Realised {
    /// In the last hour.
    pub hour: Rate,
    /// In the last day.
    pub day: Rate,
    /// Client-days since yesterday began.
    pub client_days: Rate,
    /// Clients flagged within a day that nothing but the model speaks against: what the breaker counts.
    pub disputed: u64,
    /// Why the breaker is open, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Opened>,
}

/// How many of how many, beside how many the budget allows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// Requests scored, or client-days.
    pub inspected: u64,
    /// Requests flagged, or clients blocked (or that would be); attacks among them.
    pub flagged: u64,
    /// How many of them could be false positives by the budget.
    pub allowed: f64,
}

impl Rate {
    fn of(inspected: u64, flagged: u64, budget: f64) -> Self {
        Self { inspected, flagged, allowed: budget * inspected as f64 }
    }

    /// Share that was flagged; 0 of none.
    pub fn share(&self) -> f64 {
        self.flagged as f64 / self.inspected.max(1) as f64
    }
}

impl Live {
    /// How far the breaker of a route lets the model go.
    pub fn ceiling(&self, route: &str) -> Mode {
        match self.routes.load().get(route) {
            Some(route) if route.breaker.is_open() => Mode::Detect,
            _ => Mode::Block,
        }
    }

    /// Counts a request that `model` scored on a route; the reason if that opens the route's breaker, as it may if
    /// `breakers` are on.
    pub fn note(
        &self,
        model: &Model,
        route: &str,
        seen: &Seen<'_>,
        breakers: Toggle,
        now_ms: u64,
    ) -> Option<String> {
        let budget = model.group(route).certificate().budget;
        let route = self.route(route);
        route.inspected.add(now_ms);
        route.clients.add(seen.client, seen.blocked, now_ms);
        if !seen.flagged {
            return None;
        }
        route.flagged.add(now_ms);
        if !seen.disputed {
            return None;
        }
        let allowed = |span| match breakers {
            Toggle::On => budget * route.inspected.total(span, now_ms) as f64,
            Toggle::Off => f64::INFINITY,
        };
        let allowed = Allowed { hour: allowed(Span::Hour), day: allowed(Span::Day) };
        route.breaker.note(seen, allowed, now_ms)
    }

    /// Counts what the traffic looks like to `model`; of requests that rules do not mind, as in its baseline.
    pub fn note_vector(&self, model: &Model, vector: &FeatureVector, now_ms: u64) {
        self.drift.add(model.baseline(), vector, now_ms);
    }

    /// How far the traffic has moved from what `model` was calibrated on, if that can be told.
    pub fn drift(&self, model: &Model, now_ms: u64) -> Option<Drift> {
        self.drift.measure(model.baseline(), now_ms)
    }

    /// Realised rates of a route beside what `model` promises.
    pub fn realised(&self, model: &Model, route: &str, now_ms: u64) -> Realised {
        let budget = model.group(route).certificate().budget;
        let route = self.route(route);
        let rate = |span| {
            let (inspected, flagged) =
                (route.inspected.total(span, now_ms), route.flagged.total(span, now_ms));
            Rate::of(inspected, flagged, budget)
        };
        let clients = route.clients.count(now_ms);
        Realised {
            hour: rate(Span::Hour),
            day: rate(Span::Day),
            client_days: Rate::of(clients.clients, clients.blocked, model.client_certificate().budget),
            disputed: route.breaker.count(now_ms).day,
            breaker: route.breaker.opened(),
        }
    }

    /// Closes the breaker of a route; whether it was open.
    pub fn reset(&self, route: &str) -> bool {
        self.routes.load().get(route).is_some_and(|route| route.breaker.reset())
    }

    /// What is counted of a route; begun when it is first asked for.
    fn route(&self, name: &str) -> Arc<RouteLive> {
        if let Some(route) = self.routes.load().get(name) {
            return Arc::clone(route);
        }
        let fresh = Arc::new(RouteLive::default());
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            routes.entry(name.to_owned()).or_insert_with(|| Arc::clone(&fresh));
            routes
        });
        self.routes.load().get(name).map_or(fresh, Arc::clone)
    }
}
