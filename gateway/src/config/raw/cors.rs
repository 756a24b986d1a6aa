//! Which pages of other sites may call a route from a browser, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RawToggle;

/// Which pages of other sites may call from a browser (CORS). The gateway answers for the upstream, whose own headers
/// about this are replaced.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawCors {
    /// Origins of these pages: `https://app.example`, `https://*.example.com` for all names below, or `*` for all pages
    /// there are.
    pub(in crate::config) origins: Vec<String>,
    /// Methods that they may use (default: those that the route matches, or GET, HEAD and POST).
    pub(in crate::config) methods: Option<Vec<String>>,
    /// Request headers that they may set; `*` for any but Authorization.
    pub(in crate::config) headers: Vec<String>,
    /// Response headers that they may read, beside those that everybody may; `*` for any.
    pub(in crate::config) expose: Vec<String>,
    /// Whether browsers send cookies and certificates along (default off). Then nothing may be `*`.
    pub(in crate::config) credentials: Option<RawToggle>,
    /// How long browsers need not ask again (default 10m).
    #[schemars(extend("format" = "duration"))]
    pub(in crate::config) max_age: Option<String>,
}
