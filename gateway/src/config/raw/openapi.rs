//! `openapi` of a route, before it is checked.

use schemars::JsonSchema;
use serde::Deserialize;

/// What requests have to keep to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawOpenApi {
    /// File with an OpenAPI 3 document, YAML or JSON.
    pub(in crate::config) file: Option<String>,
    /// What becomes of requests that break it (default detect).
    pub(in crate::config) mode: Option<RawOpenApiMode>,
    /// The path below which the document's paths are, as clients see them (default: that of its first server).
    pub(in crate::config) base: Option<String>,
}

/// What becomes of requests that break the document: they are counted and logged, or also answered with 400.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawOpenApiMode {
    Detect,
    Block,
}
