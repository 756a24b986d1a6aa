//! The checked configuration: what the rest of the gateway may rely on. `RawConfig` is what YAML holds.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{geo::Geo, rules::Rules, transform::Transform};

mod access;
mod acme;
pub mod admin;
pub mod auth;
mod compile;
mod cors;
pub mod diff;
pub(crate) mod document;
mod limits;
mod mistakes;
pub mod openapi;
mod parse;
pub mod rate;
mod raw;
mod records;
mod request_shape;
pub mod responses;
mod routing;
mod rule_plan;
mod shape;
mod slot;
mod tls;
mod transform;
mod upstreams;

pub use access::Access;
pub use acme::{AcmeSettings, Binding, Challenge};
pub use cors::Cors;
pub use mistakes::{Mistake, Mistakes};
pub use request_shape::{JsonShape, RequestShape};
pub use routing::{HeaderMatch, Mirror, Redirect, Rewrite, Routing, Split, Template};
pub use slot::ConfigSlot;
pub use tls::{ListenerTls, TlsClients, TlsVersion};
pub use upstreams::{Balance, Check, Ejection, HashKey, Member, Protocol, Reach, UpstreamGroup, UpstreamTls};

/// A checked configuration; immutable, shared by snapshot.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Routes in order; the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
    /// Who may be known, and by what.
    pub auth: auth::Auth,
    /// What may leave where no route is found.
    pub responses: responses::Responses,
    /// Where addresses lie.
    pub geo: Arc<Geo>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Sizes and times that hold for every request.
    pub limits: Limits,
    /// Detection and client blocking.
    pub waf: Waf,
    /// Where blocks, events and models are kept.
    pub store: StoreConfig,
    /// How whole requests are recorded.
    pub records: Records,
    /// Who may administer, and where.
    pub admin: admin::Admin,
    /// Size at which the audit log begins its next file, in bytes.
    pub audit_rotate: u64,
    /// Directory for state: keys, embedded store, spool, admin socket (`admin.sock`).
    pub state: PathBuf,
    /// Most events a second before benign ones are sampled.
    pub events_per_second: u32,
    /// How long a drain may take after SIGTERM.
    pub drain: Duration,
    /// What was written, before `${NAME}` was replaced; null for the quick form.
    pub document: serde_json::Value,
    /// Files that were read beside the configuration file itself: certificates, keys, rules.
    pub files: Vec<PathBuf>,
    /// What is not wrong but surely not meant, such as an exclusion that matches nothing: one line each.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads `portcullis.yaml`; `file_name` is used in messages only.
    ///
    /// # Errors
    /// Every mistake at once, each with its line and what to do.
    pub fn load(text: &str, file_name: &str) -> Result<Self, Mistakes> {
        compile::load(text, file_name, &|name| std::env::var(name).ok())
    }

    /// The configuration of `gateway run --upstream URL`: one route for everything, one listener (by default on
    /// 0.0.0.0:8080), defaults for the rest.
    ///
    /// # Errors
    /// Mistakes in the arguments.
    pub fn quick(
        upstream: &str,
        listen: Option<&str>,
        mode: Option<&str>,
        state: Option<&str>,
    ) -> Result<Self, Mistakes> {
        compile::quick(upstream, listen, mode, state)
    }
}

/// The JSON Schema of `portcullis.yaml`.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(raw::RawConfig).to_value()
}

/// One traffic listener.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name in logs and metrics.
    pub name: String,
    /// Address and port; port 0 picks a free one (logged at start).
    pub address: SocketAddr,
    /// Certificates; plain HTTP without.
    pub tls: Option<ListenerTls>,
    /// Of a plain listener: the port to which clients are sent for HTTPS, if they are.
    pub https_port: Option<u16>,
    /// Networks of proxies whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
    /// Whether requests over TLS may be for another host than the connection was opened for.
    pub sni: Sni,
    /// Whether another process may take connections at the same address.
    pub reuse_port: Toggle,
    /// Which clients it is there for.
    pub access: Access,
}

/// What a request over TLS for another host than the connection was opened for gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sni {
    /// 421.
    Strict,
    /// The same answer as any other.
    Any,
}

/// One route: what it matches, where it goes, how it is inspected.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name in logs, metrics and events.
    pub name: String,
    /// Listener names it serves; empty means all.
    pub listeners: Vec<String>,
    /// Host names, lower case; `*.` matches one or more labels; empty means all.
    pub hosts: Vec<String>,
    /// Path prefixes, matched at segment bounds; empty means all.
    pub paths: Vec<String>,
    /// Methods; empty means all.
    pub methods: Vec<http::Method>,
    /// Where it goes.
    pub upstream: Arc<UpstreamGroup>,
    /// What it matches beside that, and what becomes of its requests.
    pub routing: Routing,
    /// Removes the matched prefix before forwarding.
    pub strip_prefix: bool,
    /// Sends the client's `Host` upstream.
    pub preserve_host: bool,
    /// Which clients it is there for.
    pub access: Access,
    /// What it demands of who calls it; nothing without.
    pub auth: Option<Arc<auth::Requirement>>,
    /// How people log in at its upstream, if they do.
    pub login: Option<Arc<auth::Login>>,
    /// Ceiling on what inspection may do.
    pub mode: Mode,
    /// What happens when inspection itself fails.
    pub on_error: OnError,
    /// What happens when a body goes on beyond the inspection window.
    pub oversize: Oversize,
    /// How large and how nested the parts of its requests may be.
    pub shape: RequestShape,
    /// What is changed on the way, if anything is.
    pub transform: Option<Box<Transform>>,
    /// Which pages of other sites may call it; its upstream decides without.
    pub cors: Option<Box<Cors>>,
    /// What may leave.
    pub responses: responses::Responses,
    /// How often clients may come: what the top level limits, then what the route limits.
    pub rate_limits: Vec<Arc<rate::RateLimit>>,
    /// Time until the upstream's response headers.
    pub upstream_timeout: Duration,
    /// The rules in force; shared by routes that have the same.
    pub rules: Arc<Rules>,
    /// Points at which rules reject a request.
    pub inbound_threshold: u32,
    /// Points at which rules withhold a response.
    pub outbound_threshold: u32,
    /// The OpenAPI document that its requests have to keep to, if there is one.
    pub openapi: Option<Arc<openapi::OpenApi>>,
    /// What is recorded of its requests.
    pub record: Recording,
}

/// What is recorded of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recording {
    /// What was observed.
    Observation,
    /// Also the request itself.
    Full,
}

/// How whole requests are recorded, on routes that ask for it.
#[derive(Debug, Clone)]
pub struct Records {
    /// File with the key; by default `<state>/keys/record.key`, made at first use.
    pub key: Option<PathBuf>,
    /// How long they are kept.
    pub keep: Duration,
    /// Most bytes of a body that are recorded.
    pub body_bytes: usize,
    /// Most requests recorded a second, and as many flagged ones beside them.
    pub per_second: u32,
}

/// What inspection may do on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Nothing is inspected.
    Off,
    /// Everything is inspected and recorded; no response changes.
    Detect,
    /// What is found is rejected.
    Block,
}

/// What happens when inspection itself fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The request is rejected with 503 and counted.
    Block,
    /// The request is forwarded and counted.
    Pass,
}

/// What happens when a body goes on beyond the inspection window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversize {
    /// The first part is inspected, all of it is forwarded.
    InspectPrefix,
    /// 413.
    Reject,
    /// Forwarded without inspecting the body.
    Pass,
}

/// Sizes and times that hold for every request.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most bytes of request headers.
    pub header_bytes: usize,
    /// Most header fields.
    pub header_count: usize,
    /// Most bytes of path and query.
    pub uri_bytes: usize,
    /// Most bytes of a request body.
    pub body_bytes: u64,
    /// Bytes of a body that are inspected.
    pub inspect_bytes: usize,
    /// Time until the request headers are complete.
    pub header_timeout: Duration,
    /// Longest silence within a request body.
    pub body_idle_timeout: Duration,
    /// Longest time a connection may wait for its next request.
    pub keep_alive: Duration,
    /// Slowest body that is waited for, in bytes a second on average.
    pub body_rate: u64,
    /// Most connections at once.
    pub connections: usize,
    /// Most connections at once of one client address, trusted proxies apart.
    pub connections_per_address: u32,
    /// Most requests on one connection.
    pub requests_per_connection: u32,
    /// Most requests in progress at once.
    pub requests_in_flight: usize,
    /// Largest response body, in bytes.
    pub response_bytes: u64,
    /// Most bytes of a response body that are held for inspection.
    pub response_inspect_bytes: usize,
    /// Longest time that a response body is held for inspection.
    pub response_hold: Duration,
}

/// Detection and client blocking.
#[derive(Debug, Clone)]
pub struct Waf {
    /// A fixed artifact; without it the store's published model is watched.
    pub model: Option<PathBuf>,
    /// Public keys (64 hexadecimal digits) whose models are loaded, beside `<state>/keys/trainer.pub`.
    pub model_keys: Vec<[u8; 32]>,
    /// What a model without a certificate may do.
    pub provisional: Mode,
    /// Whether clients are blocked on accumulated evidence.
    pub block_clients: Toggle,
    /// What the base knowledge may do about a request, as far as its certificate reaches.
    pub base: Mode,
    /// Whether a route's model only reports once it flags more than it promised.
    pub breaker: Toggle,
    /// How a newly published model is tried beside the one in force.
    pub challenger: Challenger,
    /// First block; each repetition lasts four times as long, at most 24 hours.
    pub block_ttl: Duration,
    /// How long a released client is not blocked again.
    pub release_hold: Duration,
    /// Networks and addresses that are never inspected nor blocked.
    pub allow: Vec<IpNet>,
    /// Header that carries an API key, for blocking by key.
    pub api_key_header: Option<http::HeaderName>,
    /// Cookie that carries a session, for blocking by session.
    pub session_cookie: Option<String>,
    /// Most clients tracked at once.
    pub clients: usize,
}

/// How a newly published model is tried beside the one in force before it takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenger {
    /// After how many requests it is judged; with 0 it takes over at once.
    pub requests: u64,
    /// When it is judged at the latest, on what it has seen.
    pub within: Duration,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toggle {
    /// On.
    On,
    /// Off.
    Off,
}

/// Where blocks, events and models are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// Files below `state`.
    Embedded,
    /// A Redis server: `redis://` or `rediss://`.
    Redis(String),
}
