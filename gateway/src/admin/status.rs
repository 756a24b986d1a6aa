//! What is in force: effective modes of rules and model for each route, model, store.

use serde::Serialize;
use waf_model::base;

use crate::{
    admin::{
        Admin,
        certificates::{self, CertificateStatus},
        upstreams::{self, OriginStatus},
    },
    audit, clock,
    config::{Config, Mode, StoreConfig, Toggle, Waf},
    waf::{
        self,
        challenger::Trial,
        live::{Realised, drift::Drift},
        model_slot::InForce,
        promise,
    },
};

/// The state of one gateway.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Version of this gateway.
    pub version: &'static str,
    /// Effective modes by route.
    pub routes: Vec<RouteStatus>,
    /// How the origins fare.
    pub upstreams: Vec<OriginStatus>,
    /// How the certificates of the listeners stand.
    pub certificates: Vec<CertificateStatus>,
    /// Sequence number of the model in force, or `none`.
    pub model: ModelStatus,
    /// How the trial of a challenger stands, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenger: Option<Trial>,
    /// The store.
    pub store: StoreStatus,
    /// Blocks in force.
    pub blocks: usize,
    /// Clients tracked.
    pub clients: usize,
    /// The audit log.
    pub audit: audit::Standing,
}

/// Effective modes of one route.
#[derive(Debug, Serialize)]
pub struct RouteStatus {
    /// Its name.
    pub route: String,
    /// What rules do.
    pub rules: &'static str,
    /// What the model does about a request.
    pub model: &'static str,
    /// What accumulated evidence does about a client.
    pub clients: &'static str,
    /// The promise behind rejecting a request here, and whose it is, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promise: Option<String>,
    /// What the model in force did here, beside what it promises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realised: Option<Realised>,
}

/// The model in force.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum ModelStatus {
    /// `none`.
    None(&'static str),
    /// One is in force.
    InForce {
        /// Its sequence number.
        seq: u64,
        /// The promise behind rejecting a request, over all routes, in words.
        requests: String,
        /// The promise behind blocking a client, in words.
        clients: String,
        /// How far traffic has moved since it was calibrated; null until enough was seen.
        drift: Option<Drift>,
    },
}

/// How the store fares.
#[derive(Debug, Serialize)]
pub struct StoreStatus {
    /// `embedded` or `redis`.
    pub kind: &'static str,
    /// Parts that do not answer now: `blocks`, `events`, `models`.
    pub failing: Vec<&'static str>,
    /// Seconds since the blocks were last read; null if they never were.
    pub snapshot_age_seconds: Option<f64>,
    /// Events that wait in the local spool.
    pub spooled: i64,
}

/// The state of one gateway now.
pub fn status(admin: &Admin) -> Status {
    let gateway = &admin.gateway;
    let in_force = gateway.model.snapshot();
    let metrics = &admin.store_metrics;
    Status {
        version: env!("CARGO_PKG_VERSION"),
        routes: routes(&gateway.config.snapshot(), in_force.as_deref()),
        upstreams: upstreams::origins(&gateway.upstream),
        certificates: certificates::certificates(gateway),
        model: match &in_force {
            None => ModelStatus::None("none"),
            Some(in_force) => ModelStatus::InForce {
                seq: in_force.model.seq(),
                requests: promise::in_words(in_force.model.request_certificate(), "request"),
                clients: promise::in_words(in_force.model.client_certificate(), "client-day"),
                drift: in_force.live.drift(&in_force.model, clock::now_ms()),
            },
        },
        challenger: gateway.model.challenger().map(|challenger| challenger.trial(clock::now_ms())),
        store: StoreStatus {
            kind: match gateway.config.snapshot().store {
                StoreConfig::Embedded => "embedded",
                StoreConfig::Redis(_) => "redis",
            },
            failing: metrics.failing_parts(),
            snapshot_age_seconds: metrics.snapshot_age_ms().map(|age| age as f64 / 1000.0),
            spooled: metrics.events_spooled.get(),
        },
        blocks: gateway.blocks.in_force(clock::now_ms()).len(),
        clients: gateway.clients.len(),
        audit: gateway.audit.standing(),
    }
}

/// Effective modes of every route with this model in force.
pub fn routes(config: &Config, in_force: Option<&InForce>) -> Vec<RouteStatus> {
    let now_ms = clock::now_ms();
    config
        .routes
        .iter()
        .map(|route| {
            let reach = in_force.map(|in_force| {
                let certified =
                    waf::model_reach(&config.waf, in_force.model.group(&route.name).certificate());
                certified.min(in_force.live.ceiling(&route.name)).min(route.mode)
            });
            RouteStatus {
                route: route.name.clone(),
                rules: mode_name(route.mode),
                model: reach.map_or("none", mode_name),
                // Without a certified model evidence comes from rules alone, so the route's mode is what counts.
                clients: match config.waf.block_clients {
                    Toggle::Off => "off",
                    Toggle::On => mode_name(route.mode),
                },
                promise: in_force.map(|in_force| promise::of_group(&in_force.model.group(&route.name))),
                realised: in_force
                    .map(|in_force| in_force.live.realised(&in_force.model, &route.name, now_ms)),
            }
        })
        .collect()
}

/// What stands in for a model until the trainer publishes one, and beside it then.
pub fn base_in_words(waf: &Waf) -> String {
    let base = base::shipped();
    let promise = base.promise();
    let until = "a model of this site comes when the trainer publishes one";
    match waf::base_reach(waf) {
        Mode::Off => format!("none: rules protect; {until}"),
        mode => format!(
            "base ({}): {} signs of attacks, at most {:.2e} false positives per request at {:.0} % confidence, from \
             {} of them; {until}",
            mode_name(mode),
            base.len(),
            promise.budget,
            promise.confidence * 100.0,
            promise.n
        ),
    }
}

/// The name of a mode.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Off => "off",
        Mode::Detect => "detect",
        Mode::Block => "block",
    }
}
