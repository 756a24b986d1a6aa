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
