//! What `portcullis.yaml` holds, before it is checked. The JSON Schema that `gateway schema` prints comes from here,
//! descriptions included.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) mod admin;
pub(super) mod auth;
pub(super) mod cors;
pub(super) mod exposure;
pub(super) mod limits;
pub(super) mod openapi;
pub(super) mod rate;
pub(super) mod responses;
pub(super) mod routing;
pub(super) mod shape;
pub(super) mod tls;
pub(super) mod transform;
pub(super) mod upstreams;

use admin::{RawAdmin, RawAudit};
use auth::{RawAuth, RawConsumer, RawLogin, RawRequirement};
use cors::RawCors;
use exposure::{RawCountries, RawGeo, RawNetworks};
use limits::RawLimits;
use openapi::RawOpenApi;
use rate::RawRateLimit;
use responses::{RawLifecycle, RawResponses};
use routing::{RawMirror, RawRedirect, RawSplit};
use shape::RawShape;
use tls::RawTls;
use transform::RawTransform;
use upstreams::{RawOrigin, RawUpstreamGroup};

/// Configuration of the Portcullis gateway (`portcullis.yaml`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    /// Version of this format: 1.
    pub(super) version: Option<u64>,
    /// Where clients connect. Without any: plain HTTP on 0.0.0.0:8080.
    pub(super) listeners: Vec<RawListener>,
    /// Routes in order; the first that matches is taken.
    pub(super) routes: Vec<RawRoute>,
    /// Known callers: persons, partners, programs.
    pub(super) consumers: Vec<RawConsumer>,
    /// How callers show who they are.
    pub(super) auth: RawAuth,
    /// Groups of origins by name, for routes that say `upstream: NAME`.
    pub(super) upstreams: BTreeMap<String, RawUpstreamGroup>,
    /// Networks or addresses of proxies whose X-Forwarded-For is believed.
    pub(super) trusted_proxies: Vec<String>,
    /// Sizes and times that hold for every request.
    pub(super) limits: RawLimits,
    /// Databases that tell countries and autonomous systems of addresses.
    pub(super) geo: RawGeo,
    /// How large and how nested the parts of requests may be.
    pub(super) shape: RawShape,
    /// What may leave: headers, errors, cookies.
    pub(super) responses: RawResponses,
    /// How often clients may come, on every route; each route may add limits of its own.
    pub(super) rate_limits: Vec<RawRateLimit>,
    /// Detection and client blocking.
    pub(super) waf: RawWaf,
    /// Where blocks, events and models are kept.
    pub(super) store: RawStore,
    /// How whole requests are recorded, on routes that ask for it.
    pub(super) records: RawRecords,
    /// Who may administer, and where: an address (default 127.0.0.1:9180), or listeners, tokens and roles.
    pub(super) admin: Option<RawAdmin>,
    /// The log of everything that changed the gateway's state.
    pub(super) audit: RawAudit,
    /// Directory for state: keys, embedded store, spool, admin socket (default ./portcullis-state).
    pub(super) state: Option<String>,
    /// Most events a second before benign ones are sampled (default 2000).
    pub(super) events_per_second: Option<u64>,
    /// How long a drain may take after SIGTERM (default 30s).
    #[schemars(extend("format" = "duration"))]
    pub(super) drain: Option<String>,
}

/// One traffic listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawListener {
    /// Its name in logs and metrics (default: `http` or `https`).
    pub(super) name: Option<String>,
    /// Address and port, such as 0.0.0.0:8443.
    pub(super) address: Option<String>,
    /// Certificates; plain HTTP without.
    pub(super) tls: Option<RawTls>,
    /// Whether clients of this plain listener are sent to HTTPS with 308 (default on, where another listener has TLS).
    pub(super) redirect_to_https: Option<RawToggle>,
    /// The port to which they are sent (default: that of the first TLS listener).
    pub(super) https_port: Option<u64>,
    /// Networks or addresses of proxies whose connections begin with a PROXY protocol header, version 1 or 2. Others
    /// are served without.
    pub(super) proxy_protocol: Vec<String>,
    /// Whether requests over TLS may be for another host than the connection was opened for (default strict).
    pub(super) sni: Option<RawSni>,
    /// Whether a second gateway may take connections at the same address, so that one can hand over to the next (default
    /// off; `SO_REUSEPORT`).
    pub(super) reuse_port: Option<RawToggle>,
    /// Networks whose clients it serves (default: all).
    pub(super) networks: RawNetworks,
    /// Countries whose clients it serves (default: all).
    pub(super) countries: RawCountries,
}

/// `strict`: another host is answered with 421. `any`: it is served; for proxies in front that connect by one name for
/// all hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawSni {
    Strict,
    Any,
}

/// One route: what it matches, where it goes, how it is inspected.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRoute {
    /// Its name in logs, metrics and events.
    pub(super) name: Option<String>,
    /// What it matches; everything without.
    #[serde(rename = "match")]
    pub(super) matches: RawMatch,
    /// Name of the group of origins it goes to, from the top-level `upstreams`.
    pub(super) upstream: Option<String>,
    /// Origins, taken in turn; instead of `upstream`, where nothing is to be said about how they are reached.
    pub(super) upstreams: Vec<RawOrigin>,
    /// Parts of its requests for several upstreams, by weight or header; instead of `upstream`.
    pub(super) split: Vec<RawSplit>,
    /// Copies its requests to another upstream.
    pub(super) mirror: Option<RawMirror>,
    /// Sends clients elsewhere, instead of an upstream.
    pub(super) redirect: Option<RawRedirect>,
    /// Publishes the admin API here, instead of an upstream; needs `auth` (default off).
    pub(super) admin: Option<RawToggle>,
    /// Path that goes upstream: in place of the matched prefix; or, with match.templates, with their variables.
    pub(super) rewrite: Option<String>,
    /// Protocols that clients may switch to, such as websocket. What is sent after that is not inspected.
    pub(super) upgrades: Vec<String>,
    /// Whether the bodies of gRPC requests (application/grpc) stream, uninspected and of any length (default off: they
    /// are read as far as they are inspected first, which suits calls with one request message).
    pub(super) grpc: Option<RawToggle>,
    /// Removes the matched path prefix before forwarding (default off).
    pub(super) strip_prefix: Option<RawToggle>,
    /// Sends the client's Host upstream (default off: the upstream's own name).
    pub(super) preserve_host: Option<RawToggle>,
    /// Time until the upstream's response headers (default 60s).
    #[schemars(extend("format" = "duration"))]
    pub(super) timeout: Option<String>,
    /// Networks whose clients it serves (default: all).
    pub(super) networks: RawNetworks,
    /// Countries whose clients it serves (default: all).
    pub(super) countries: RawCountries,
    /// What it demands of who calls it (default: what the top-level `auth.require` says).
    pub(super) auth: Option<RawRequirement>,
    /// People log in here: failures are counted and guessing is stopped.
    pub(super) login: Option<RawLogin>,
    /// How large and how nested the parts of its requests may be, where that differs from the top-level `shape`.
    pub(super) shape: RawShape,
    /// What is changed on the way to its upstream and back.
    pub(super) transform: Option<RawTransform>,
    /// Which pages of other sites may call it from a browser (default: its upstream decides).
    pub(super) cors: Option<RawCors>,
    /// What may leave, where that differs from the top-level `responses`.
    pub(super) responses: RawResponses,
    /// That it is on its way out, or gone.
    pub(super) lifecycle: RawLifecycle,
    /// How often clients may come, beside what the top level limits.
    pub(super) rate_limits: Vec<RawRateLimit>,
    /// The OpenAPI document that its requests have to keep to.
    pub(super) openapi: Option<RawOpenApi>,
    /// What is recorded of its requests (default observation).
    pub(super) record: Option<RawRecording>,
    /// How it is inspected, where that differs from the top-level `waf`.
    pub(super) waf: RawRouteWaf,
}

/// What is recorded of requests: what was observed; or also the requests themselves, without secrets and encrypted, so
/// that rules can be tried on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawRecording {
    Observation,
    Full,
}

/// How whole requests are recorded, on routes that say `record: full`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRecords {
    /// File with the key that encrypts them, 64 hexadecimal digits (default: keys/record.key in the state directory,
    /// made at first use). Gateways with one Redis share one key.
    pub(super) key: Option<String>,
    /// How long they are kept, in whole days (default 7d).
    #[schemars(extend("format" = "duration"))]
    pub(super) keep: Option<String>,
    /// Most bytes of a body that are recorded (default 16KiB).
    #[schemars(extend("format" = "size"))]
    pub(super) body: Option<String>,
    /// Most requests recorded a second; of those that something was found against, as many again (default 50).
    pub(super) per_second: Option<u64>,
}

/// What a route matches. Empty lists match everything.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawMatch {
    /// Listener names.
    pub(super) listeners: Vec<String>,
    /// Host names; `*.example.com` matches every name below example.com.
    pub(super) hosts: Vec<String>,
    /// Path prefixes, matched at segment bounds: /api matches /api and /api/x, not /apis.
    pub(super) paths: Vec<String>,
    /// Whole paths.
    pub(super) exact: Vec<String>,
    /// Paths with variable segments: /users/{id}. A path that one of paths, exact or templates names matches.
    pub(super) templates: Vec<String>,
    /// Methods.
    pub(super) methods: Vec<String>,
    /// Header fields by name, with their value or `*` for any; a request has all of them.
    pub(super) headers: BTreeMap<String, String>,
}

/// How a route is inspected.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRouteWaf {
    /// Ceiling on what inspection may do.
    pub(super) mode: Option<RawMode>,
    /// What happens when inspection itself fails.
    pub(super) on_error: Option<RawOnError>,
    /// What happens when a body goes on beyond the inspection window.
    pub(super) oversize: Option<RawOversize>,
    /// Names of the rule sets in force: `builtin`, and those that the top-level `waf.rule_sets` names.
    pub(super) rules: Option<Vec<String>>,
    /// Paranoia level given to the rules, 1 to 4: higher ones find more, and more that is harmless.
    pub(super) paranoia: Option<u64>,
    /// Points at which rules reject a request.
    pub(super) inbound_threshold: Option<u64>,
    /// Points at which rules withhold a response.
    pub(super) outbound_threshold: Option<u64>,
    /// What rules do not look at here, beside what the top-level `waf` excludes.
    pub(super) exclude: Vec<RawExclusion>,
}

/// Rules that are not in force, or do not look at one parameter. Names them by `rules` or by `tag`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawExclusion {
    /// Ids: 942100, 942100-942199, or a list of such.
    pub(super) rules: Option<RawIds>,
    /// A tag, whole, such as attack-sqli.
    pub(super) tag: Option<String>,
    /// The variable that they do not look at, such as ARGS:comment; without it they are not in force at all.
    pub(super) parameter: Option<String>,
}

/// One id or range, or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawIds {
    /// An id.
    Id(u64),
    /// An id, a range, or several separated by commas.
    Text(String),
    /// Several.
    List(Vec<RawId>),
}

/// One id or range.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawId {
    /// An id.
    Id(u64),
    /// An id or a range.
    Text(String),
}

/// Detection and client blocking.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawWaf {
    /// Mode of routes that name none (default block).
    pub(super) mode: Option<RawMode>,
    /// What happens when inspection itself fails (default block).
    pub(super) on_error: Option<RawOnError>,
    /// What happens when a body goes on beyond the inspection window (default inspect_prefix).
    pub(super) oversize: Option<RawOversize>,
    /// Points at which rules reject a request (default 5).
    pub(super) inbound_threshold: Option<u64>,
    /// Points at which rules withhold a response (default 4).
    pub(super) outbound_threshold: Option<u64>,
    /// Paranoia level given to the rules, 1 to 4 (default 1): higher ones find more, and more that is harmless.
    pub(super) paranoia: Option<u64>,
    /// Rule sets by name: SecLang files in order, `*` and `?` stand for any characters of a file name.
    pub(super) rule_sets: BTreeMap<String, Vec<String>>,
    /// Rule sets in force on routes that name none (default `[builtin]`).
    pub(super) rules: RawRules,
    /// What rules do not look at on any route.
    pub(super) exclude: Vec<RawExclusion>,
    /// File with a fixed model; without it the store's published model is watched.
    pub(super) model: Option<String>,
    /// Public keys (64 hexadecimal digits) whose models are loaded, beside that of the trainer next door.
    pub(super) model_keys: Vec<String>,
    /// What a model without a certificate may do (default detect).
    pub(super) provisional: Option<RawProvisional>,
    /// Whether clients are blocked on accumulated evidence (default on).
    pub(super) block_clients: Option<RawToggle>,
    /// What the base knowledge may do about a request by itself: what attacks look like on any site (default detect).
    pub(super) base: Option<RawMode>,
    /// Whether the model only reports on a route where it flags more than it promised, until a person or a new model
    /// resets that (default on).
    pub(super) breaker: Option<RawToggle>,
    /// How a newly published model is tried beside the one in force before it takes over.
    pub(super) challenger: RawChallenger,
    /// Duration of the first block; each repetition lasts four times as long, at most 24 hours (default 10m).
    #[schemars(extend("format" = "duration"))]
    pub(super) block_ttl: Option<String>,
    /// How long a released client is not blocked again (default 24h).
    #[schemars(extend("format" = "duration"))]
    pub(super) release_hold: Option<String>,
    /// Networks and addresses that are never inspected nor blocked.
    pub(super) allow: Vec<String>,
    /// Header that carries an API key, for blocking by key.
    pub(super) api_key_header: Option<String>,
    /// Cookie that carries a session, for blocking by session.
    pub(super) session_cookie: Option<String>,
    /// Most clients tracked at once (default 100000).
    pub(super) clients: Option<u64>,
}

/// A trial of a newly published model: it scores, and acts on nothing.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawChallenger {
    /// After how many requests it is judged (default 2000); with 0 it takes over at once.
    pub(super) requests: Option<u64>,
    /// When it is judged at the latest, on what it has seen (default 24h).
    #[schemars(extend("format" = "duration"))]
    pub(super) within: Option<String>,
}

/// Names of rule sets; or the built-in set and files beside it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawRules {
    /// Names of rule sets, in order.
    Names(Vec<String>),
    /// The built-in set and files.
    Parts(RawRuleParts),
}

impl Default for RawRules {
    fn default() -> Self {
        Self::Parts(RawRuleParts::default())
    }
}

/// The built-in set and files beside it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRuleParts {
    /// Whether the built-in rule set is loaded (default on).
    pub(super) builtin: Option<RawToggle>,
    /// SecLang files beside it.
    pub(super) files: Vec<String>,
}

/// Ceiling on what inspection may do: nothing, record, or reject.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawMode {
    Off,
    Detect,
    Block,
}

/// What a model without a certificate may do.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawProvisional {
    Detect,
    Block,
}

/// What happens when inspection itself fails: 503, or forward and count.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawOnError {
    Block,
    Pass,
}

/// What happens to a body beyond the inspection window: its first part is inspected, 413, or no inspection of it.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOversize {
    InspectPrefix,
    Reject,
    Pass,
}

/// On or off; true and false mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(extend("enum" = ["on", "off", true, false]))]
pub(super) enum RawToggle {
    On,
    Off,
}

/// `embedded`, or `redis: URL`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawStore {
    /// Files below `state`.
    #[default]
    Embedded,
    /// A Redis server: redis://host:6379 or rediss://host:6379.
    Redis(String),
}
