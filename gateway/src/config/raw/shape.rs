//! How large and how nested the parts of a request may be, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

/// How large and how nested the parts of a request may be. Nothing is limited that is not named; what a route names goes
/// before what the top level does. A request beyond is refused before it reaches an upstream.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawShape {
    /// Most query arguments; more are answered with 414.
    pub(in crate::config) query_arguments: Option<u64>,
    /// Most header fields; more are answered with 431.
    pub(in crate::config) header_count: Option<u64>,
    /// Most bytes of header fields; more are answered with 431.
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) headers: Option<String>,
    /// Most parts of a multipart body; more are answered with 413.
    pub(in crate::config) multipart_parts: Option<u64>,
    /// Of JSON bodies. With one of these a JSON body beyond limits.inspect is answered with 413.
    pub(in crate::config) json: RawJsonShape,
}

/// How large and how nested JSON bodies may be; 413 beyond, 400 for too deep.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawJsonShape {
    /// Deepest nesting of objects and arrays.
    pub(in crate::config) depth: Option<u64>,
    /// Most keys in all.
    pub(in crate::config) keys: Option<u64>,
    /// Longest text, keys too, as it is written.
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) string: Option<String>,
    /// Most items of one array.
    pub(in crate::config) array: Option<u64>,
}
