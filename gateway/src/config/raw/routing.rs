//! What a route matches beside prefixes, and what becomes of its requests, before it is checked.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A part of a route's requests, for another upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSplit {
    /// Name of the group of origins, from the top-level `upstreams`.
    pub(in crate::config) upstream: String,
    /// Its share of clients beside that of the others, 0 to 1000 (default 0).
    pub(in crate::config) weight: Option<u64>,
    /// Header fields by which a request goes here whatever the weights; the value `*` stands for any.
    pub(in crate::config) headers: BTreeMap<String, String>,
}

/// A copy of requests for another upstream. Its answers are dropped.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawMirror {
    /// Name of the group of origins, from the top-level `upstreams`.
    pub(in crate::config) upstream: String,
    /// How many requests are copied, in percent (default 100).
    pub(in crate::config) percent: Option<u64>,
}

/// An answer that sends clients elsewhere. What is not named stays as it was asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRedirect {
    /// http or https.
    pub(in crate::config) scheme: Option<String>,
    /// Host name.
    pub(in crate::config) host: Option<String>,
    /// Port; without it none is named, where scheme or host are.
    pub(in crate::config) port: Option<u64>,
    /// Path.
    pub(in crate::config) path: Option<String>,
    /// 301, 302, 303, 307 or 308 (default 302).
    pub(in crate::config) status: Option<u64>,
}
