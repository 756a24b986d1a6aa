//! What is changed on the way, as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::RawToggle;

/// Changes on the way. Inspection sees what was sent; the other side gets that with these changes. In values of headers and
/// arguments stand `{request_id}`, `{consumer}` and `{client_address}` for what they say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTransform {
    /// Of requests, after inspection.
    pub(in crate::config) request: RawRequestChanges,
    /// Of the upstream's responses, after inspection.
    pub(in crate::config) response: RawResponseChanges,
}

/// Changes of requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRequestChanges {
    /// Headers.
    pub(in crate::config) headers: RawHeaderChanges,
    /// Query arguments.
    pub(in crate::config) query: RawQueryChanges,
    /// Fields of JSON bodies, up to limits.inspect: a body beyond that is refused with 413, one that only says that it is
    /// JSON with 400.
    pub(in crate::config) json: RawJsonChanges,
}

/// Changes of responses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawResponseChanges {
    /// Headers.
    pub(in crate::config) headers: RawHeaderChanges,
    /// Fields of JSON bodies, up to limits.response_inspect: a larger one is withheld with 502.
    pub(in crate::config) json: RawJsonChanges,
}

/// Changes of headers, in this order: remove, rename, set, add.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawHeaderChanges {
    /// Headers that are taken off.
    pub(in crate::config) remove: Vec<String>,
    /// Headers that get another name, in place of what had it.
    pub(in crate::config) rename: BTreeMap<String, String>,
    /// Headers that are set, in place of those of the same name.
    pub(in crate::config) set: BTreeMap<String, String>,
    /// Headers that are added beside those of the same name.
    pub(in crate::config) add: BTreeMap<String, String>,
}

/// Changes of query arguments.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawQueryChanges {
    /// Arguments that are taken off.
    pub(in crate::config) remove: Vec<String>,
    /// Arguments that are set, in place of those of the same name.
    pub(in crate::config) set: BTreeMap<String, String>,
}

/// Changes of fields, by JSON pointers such as /order/items/*/price, where `*` stands for every item or member.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawJsonChanges {
    /// Fields that are taken out.
    pub(in crate::config) remove: Vec<String>,
    /// Fields that get another name, in place of what had it: pointer and new name.
    pub(in crate::config) rename: BTreeMap<String, String>,
    /// Fields that are set, and made where they are missing.
    pub(in crate::config) set: BTreeMap<String, RawJson>,
}

/// Any value.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(in crate::config) struct RawJson(pub(in crate::config) Value);

/// What is masked in text and JSON of responses, up to limits.response_inspect.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawMask {
    /// Fields of JSON: by pointer (/customer/iban), or by name (iban) wherever they stand. Text becomes `***`, the rest
    /// null.
    pub(in crate::config) fields: Vec<String>,
    /// Numbers of payment cards, but for the last four digits (default off).
    pub(in crate::config) cards: Option<RawToggle>,
    /// Keys and tokens of known forms: of clouds and code hosts, signed tokens, private keys (default off).
    pub(in crate::config) keys: Option<RawToggle>,
    /// What becomes of a response that cannot be looked through: too large, too slow, coded in an unknown way, or no
    /// JSON though it says so (default withhold).
    pub(in crate::config) beyond: Option<RawBeyond>,
}

/// `withhold`: 502. `pass`: it goes unmasked, and is counted.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawBeyond {
    Withhold,
    Pass,
}
