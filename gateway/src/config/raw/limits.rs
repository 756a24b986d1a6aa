//! Sizes, times and numbers that hold for every request, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

/// Sizes and times that hold for every request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawLimits {
    /// Most bytes of request headers (default 16KiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) headers: Option<String>,
    /// Most header fields (default 100).
    pub(in crate::config) header_count: Option<u64>,
    /// Most bytes of path and query (default 8KiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) uri: Option<String>,
    /// Most bytes of a request body (default 10MiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) body: Option<String>,
    /// Bytes of a body that are inspected (default 1MiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) inspect: Option<String>,
    /// Time until the request headers are complete (default 10s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) header_timeout: Option<String>,
    /// Longest silence within a request body (default 10s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) body_idle_timeout: Option<String>,
    /// Longest time a connection may wait for its next request (default 60s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) keep_alive: Option<String>,
    /// Slowest body that is waited for, in bytes a second on average (default 1KiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) body_rate: Option<String>,
    /// Most connections at once (default 10000).
    pub(in crate::config) connections: Option<u64>,
    /// Most connections at once of one client address, trusted proxies apart (default 1000).
    pub(in crate::config) connections_per_address: Option<u64>,
    /// Most requests on one connection before it is closed (default 1000).
    pub(in crate::config) requests_per_connection: Option<u64>,
    /// Most requests in progress at once; more are answered with 503 at once (default 10000).
    pub(in crate::config) requests_in_flight: Option<u64>,
    /// Largest response body (default: any). One that says that it is larger is answered with 502, one that becomes larger
    /// is broken off.
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) response: Option<String>,
    /// Most bytes of a response body that are held for inspection, where rules look at bodies (default 512KiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) response_inspect: Option<String>,
    /// Longest time that a response body is held for inspection (default 1s).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) response_hold: Option<String>,
}
