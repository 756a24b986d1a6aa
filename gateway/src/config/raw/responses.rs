//! `responses`, before it is checked.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{RawToggle, transform::RawMask};

/// What may leave. What a route says counts there; what it leaves out, the top level says.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawResponses {
    /// Headers taken off every response beside those that are always (what the upstream runs, its version, its debug
    /// output); `x-internal-*` is every name that begins so.
    pub(in crate::config) strip: Option<Vec<String>>,
    /// The only headers that leave, beside those without which HTTP does not work.
    pub(in crate::config) only: Option<Vec<String>>,
    /// Headers set on every response.
    pub(in crate::config) set: Option<BTreeMap<String, String>>,
    /// Bodies of an upstream's own errors, 500 and above: replaced by a problem document with the request id, or left
    /// (default hide). An upstream's problem documents are left.
    pub(in crate::config) errors: Option<RawErrors>,
    /// Headers that make browsers careful (default basic).
    pub(in crate::config) security_headers: Option<RawSecurityHeaders>,
    /// How long browsers use nothing but HTTPS here, on TLS listeners; `off` for not at all (default 365d).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) hsts: Option<String>,
    /// Whether text is compressed (gzip, br, zstd) for clients that accept it (default off, because the size of what
    /// holds a secret beside what an attacker chose tells the secret).
    pub(in crate::config) compression: Option<RawToggle>,
    /// Size from which on that is done (default 1KiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) compression_min: Option<String>,
    /// What is masked in bodies.
    pub(in crate::config) mask: Option<RawMask>,
    /// Attributes added to cookies that upstreams set.
    pub(in crate::config) cookies: Option<RawCookies>,
}

/// What becomes of the bodies of an upstream's errors.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawErrors {
    Hide,
    Pass,
}

/// Headers that make browsers careful. `basic`: no guessing of types, no paths in referrers. `api`: also no framing and
/// no content from anywhere, for what is no page. What an upstream sets itself is left.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawSecurityHeaders {
    Off,
    Basic,
    Api,
}

/// Attributes added to cookies that lack them.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawCookies {
    /// `Secure`, on TLS listeners (default off).
    pub(in crate::config) secure: Option<RawToggle>,
    /// `HttpOnly` (default off).
    pub(in crate::config) http_only: Option<RawToggle>,
    /// `SameSite` (default: not added).
    pub(in crate::config) same_site: Option<RawSameSite>,
}

/// `SameSite`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawSameSite {
    Lax,
    Strict,
}

/// That a route is on its way out, or gone.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawLifecycle {
    /// Since when it should not be used, as 2026-01-31: `Deprecation` in every response.
    pub(in crate::config) deprecated: Option<String>,
    /// When it will be gone: `Sunset` in every response.
    pub(in crate::config) sunset: Option<String>,
    /// Where that is explained: `Link` in every response.
    pub(in crate::config) link: Option<String>,
    /// It is gone: every request is answered with 410 (default off).
    pub(in crate::config) retired: Option<RawToggle>,
}
