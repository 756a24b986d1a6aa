//! Limits on how often, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

/// A limit on how often, how much in all, or how many at once; exactly one of `rate`, `quota` and `concurrent`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRateLimit {
    /// Its name in answers, logs and metrics; a different one for each limit.
    pub(in crate::config) name: Option<String>,
    /// What is counted apart: any of address, network, country, asn, consumer, route, header:NAME and
    /// claim:NAME (default `[address]`). With an empty list everything is counted together.
    pub(in crate::config) key: Option<Vec<String>>,
    /// How often: 100/s, 30/m, 1000/h.
    pub(in crate::config) rate: Option<String>,
    /// How many may come at once (default: as many as the rate allows in one second, at least 1).
    pub(in crate::config) burst: Option<u64>,
    /// How many in a calendar day or month (UTC): 10000/day, 200000/month.
    pub(in crate::config) quota: Option<String>,
    /// How many at once, on each gateway.
    pub(in crate::config) concurrent: Option<u64>,
    /// Longest time that a request waits for its turn rather than being refused; with `rate` (default: none).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) delay: Option<String>,
    /// What counts while Redis is away (default local).
    pub(in crate::config) when_away: Option<RawWhenAway>,
}

/// What counts while Redis is away: each gateway's own count, nothing, or every request is refused.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawWhenAway {
    Local,
    Open,
    Closed,
}
