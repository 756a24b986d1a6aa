//! Access to administration and the audit log, before it is checked.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{auth::RawSecret, tls::RawTlsClients};

/// An address alone, or everything about access to administration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum RawAdmin {
    /// Address of the admin listener.
    Address(String),
    /// Listeners, and who may do what there.
    Access(Box<RawAdminAccess>),
}

/// Who may administer, where, and how far.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAdminAccess {
    /// Where the admin API is served beside the socket in the state directory (default: 127.0.0.1:9180).
    pub(in crate::config) listeners: Vec<RawAdminListener>,
    /// Who may ask for more than health and metrics there.
    pub(in crate::config) tokens: Vec<RawAdminToken>,
    /// Roles of names in client certificates, on listeners whose `tls` asks for these.
    pub(in crate::config) certificates: BTreeMap<String, RawRole>,
    /// Roles of groups of consumers, on routes that say `admin: on`.
    pub(in crate::config) groups: BTreeMap<String, RawRole>,
    /// Wrong tokens that one address may show in a minute before it has to wait (default 10).
    pub(in crate::config) failures: Option<u64>,
}

/// One admin listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAdminListener {
    /// Address and port. Beyond loopback it needs `tls`, and tokens or certificates of clients.
    pub(in crate::config) address: Option<String>,
    /// Certificate; plain HTTP without, on loopback alone.
    pub(in crate::config) tls: Option<RawAdminTls>,
    /// Networks or addresses that may connect; all without.
    pub(in crate::config) networks: Vec<String>,
}

/// Certificate of an admin listener, in PEM.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAdminTls {
    /// File with the certificate chain, leaf first.
    pub(in crate::config) certificate: Option<String>,
    /// File with the private key.
    pub(in crate::config) key: Option<String>,
    /// Asks clients for certificates.
    pub(in crate::config) clients: Option<RawTlsClients>,
}

/// One token.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAdminToken {
    /// Whose it is; so the audit log names who used it.
    pub(in crate::config) name: Option<String>,
    /// Its hash, as `gateway hash key` prints it.
    pub(in crate::config) hash: RawSecret,
    /// What it allows (default viewer).
    pub(in crate::config) role: Option<RawRole>,
}

/// What somebody may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum RawRole {
    /// Look.
    Viewer,
    /// Judge blocks: release and confirm.
    Reviewer,
    /// Block, allow, choose models, reload the configuration.
    Operator,
    /// Read the audit log.
    Admin,
}

/// The audit log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAudit {
    /// Size at which the next file is begun (default 64MiB).
    #[schemars(extend("format" = "size"))]
    pub(in crate::config) rotate: Option<String>,
}
