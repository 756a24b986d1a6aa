//! TLS of a listener, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::RawToggle;

/// Certificates, and what is asked of clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTls {
    /// File with the certificate chain (PEM), leaf first; where there is one for all names.
    pub(in crate::config) certificate: Option<String>,
    /// File with its private key (PEM).
    pub(in crate::config) key: Option<String>,
    /// File with the OCSP response (DER) that is stapled to it.
    pub(in crate::config) ocsp: Option<String>,
    /// Several certificates: clients see the one for the name that they ask for, or else the first.
    pub(in crate::config) certificates: Vec<RawCertificateFiles>,
    /// Oldest version of TLS that is spoken (default 1.2).
    pub(in crate::config) min_version: Option<RawTlsVersion>,
    /// Asks clients for certificates.
    pub(in crate::config) clients: Option<RawTlsClients>,
}

/// A certificate for the names that stand in it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawCertificateFiles {
    /// File with the chain (PEM), leaf first.
    pub(in crate::config) certificate: Option<String>,
    /// File with its private key (PEM).
    pub(in crate::config) key: Option<String>,
    /// File with the OCSP response (DER) that is stapled to it.
    pub(in crate::config) ocsp: Option<String>,
}

/// A version of TLS; none before these is ever spoken.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(in crate::config) enum RawTlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

/// Certificates of clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTlsClients {
    /// File with the certificates (PEM) that sign those of clients.
    pub(in crate::config) ca: Option<String>,
    /// Whether a client without one gets no connection (default off: routes decide).
    pub(in crate::config) required: Option<RawToggle>,
}
