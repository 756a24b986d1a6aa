//! `upstreams`, before it is checked.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RawToggle;

/// Origins that serve the same thing, and how they are reached.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawUpstreamGroup {
    /// The origins.
    pub(in crate::config) origins: Vec<RawOrigin>,
    /// Whose turn it is (default round_robin).
    pub(in crate::config) balance: Option<RawBalance>,
    /// Most requests at once to one origin; what no origin has room for is answered with 503 (default: no limit).
    pub(in crate::config) max_requests: Option<u64>,
    /// Most requests sent again, in percent of all; 0 for none (default 20). Only those without a body and with a
    /// method that may be repeated are, where the origin gave no answer.
    pub(in crate::config) retry_budget: Option<u64>,
    /// Asks each origin again and again whether it is well; without it, nobody asks.
    pub(in crate::config) health: Option<RawHealth>,
    /// Leaves an origin out for a while if requests to it keep failing.
    pub(in crate::config) ejection: RawEjection,
    /// HTTP version spoken to them (default auto: what TLS agrees on, HTTP/1.1 without TLS). With h2 and http://,
    /// HTTP/2 is spoken without asking.
    pub(in crate::config) protocol: Option<RawProtocol>,
    /// Time to open a connection, TLS included (default 5s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) connect_timeout: Option<String>,
    /// How long a connection is kept without a request (default 50s); less than the origin keeps it.
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) idle: Option<String>,
    /// Most connections kept without a request, for each origin (default 256).
    pub(in crate::config) idle_connections: Option<u64>,
    /// How https:// origins are verified, and what is shown to them.
    pub(in crate::config) tls: RawUpstreamTls,
}

/// One origin.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawOrigin {
    /// Scheme, host and port: http://10.0.0.5:3000.
    pub(in crate::config) url: Option<String>,
    /// Its share of requests beside that of the others, 0 to 100 (default 1); 0 takes it out.
    pub(in crate::config) weight: Option<u64>,
}

/// Whose turn it is: in turn; the less busy one of two taken at random; or always the same for the same key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawBalance {
    RoundRobin,
    LeastRequests,
    /// The key: address, header:NAME or cookie:NAME; without that field it is the client's address.
    Hash(String),
}

/// How an origin is asked whether it is well.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawHealth {
    /// Path that a GET is sent to; a status from 200 to 399 is a good answer (default /).
    pub(in crate::config) path: Option<String>,
    /// Time from one question to the next (default 5s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) interval: Option<String>,
    /// Time for the answer (default 2s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) timeout: Option<String>,
    /// Good answers in a row that make an origin well again (default 2).
    pub(in crate::config) healthy: Option<u64>,
    /// Bad ones in a row that take it out (default 3).
    pub(in crate::config) unhealthy: Option<u64>,
}

/// When an origin is left out for what requests to it did.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawEjection {
    /// Failures in a row that leave it out; 0 turns this off (default 5).
    pub(in crate::config) failures: Option<u64>,
    /// Whether answers of 500 and above, and none in time, are failures too, not only connections that cannot be had
    /// (default off: a client that finds out how to cause them could take origins out).
    pub(in crate::config) server_errors: Option<RawToggle>,
    /// How long; twice as long each time that it happens again, at most 5m (default 30s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) time: Option<String>,
    /// Most origins of the group that are left out or down when one more is, in percent (default 50).
    pub(in crate::config) most: Option<u64>,
}

/// HTTP version spoken to origins.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawProtocol {
    Auto,
    H1,
    H2,
}

/// How https:// origins are verified, and what is shown to them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawUpstreamTls {
    /// PEM file with the authorities that are trusted instead of the system's.
    pub(in crate::config) ca: Option<String>,
    /// PEM file with the certificate chain shown to the origins, leaf first.
    pub(in crate::config) certificate: Option<String>,
    /// PEM file with its private key.
    pub(in crate::config) key: Option<String>,
    /// Name that their certificates must hold (default: the host of the url).
    pub(in crate::config) server_name: Option<String>,
    /// Whether their certificates are verified (default on).
    pub(in crate::config) verify: Option<RawToggle>,
}
