//! Which clients a listener or a route is there for, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

/// Networks whose clients are served. Others are answered with 403.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawNetworks {
    /// Addresses and networks that are served, no others; `file:PATH` reads a file with one a line and comments after
    /// `#`.
    pub(in crate::config) allow: Vec<String>,
    /// Addresses and networks that are not served, also where `allow` names them; `file:PATH` as there.
    pub(in crate::config) deny: Vec<String>,
    /// The same by the number of the autonomous system (needs `geo.asn`).
    pub(in crate::config) asn: RawSystems,
}

/// Autonomous systems whose clients are served.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSystems {
    /// Numbers of those that are served, no others.
    pub(in crate::config) allow: Vec<u64>,
    /// Numbers of those that are not served.
    pub(in crate::config) deny: Vec<u64>,
}

/// Countries whose clients are served (needs `geo.database`). Others are answered with 403.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawCountries {
    /// Codes (ISO 3166-1 alpha-2) of those that are served, no others; `unknown` stands for addresses without country.
    pub(in crate::config) allow: Vec<String>,
    /// Codes of those that are not served.
    pub(in crate::config) deny: Vec<String>,
}

/// Databases in MMDB form that tell where addresses lie. A changed file is read again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawGeo {
    /// File that tells countries (`country.iso_code`).
    pub(in crate::config) database: Option<String>,
    /// File that tells autonomous systems (`autonomous_system_number`).
    pub(in crate::config) asn: Option<String>,
}
