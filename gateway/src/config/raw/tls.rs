//! TLS of a listener, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{RawToggle, auth::RawSecret};

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
    /// Fetches a certificate from an authority that speaks ACME, and renews it.
    pub(in crate::config) acme: Option<RawAcme>,
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

/// A certificate by ACME (RFC 8555), kept below `state` and renewed when two thirds of its life are over.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawAcme {
    /// Address of the authority's directory, such as `https://acme-v02.api.letsencrypt.org/directory`.
    pub(in crate::config) directory: Option<String>,
    /// That the authority's terms of service are agreed to: `on`.
    pub(in crate::config) agree: Option<RawToggle>,
    /// Host names of the certificate.
    pub(in crate::config) hosts: Vec<String>,
    /// Where the authority may write to: `mailto:` addresses.
    pub(in crate::config) contact: Vec<String>,
    /// How it is proved that the hosts are ours (default tls-alpn-01).
    pub(in crate::config) challenge: Option<RawChallenge>,
    /// File with certificates (PEM) that vouch for the authority's own server, beside those of the system.
    pub(in crate::config) ca: Option<String>,
    /// The account with the authority that this one belongs to, where it asks for one (external account binding).
    pub(in crate::config) eab: Option<RawEab>,
}

/// How it is proved that hosts are ours. `http-01`: by a plain listener, to which port 80 of the hosts leads.
/// `tls-alpn-01`: by this listener, to which port 443 of the hosts leads.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(in crate::config) enum RawChallenge {
    #[serde(rename = "http-01")]
    Http01,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// An account that the authority knows already.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawEab {
    /// Its key identifier.
    pub(in crate::config) key_id: Option<String>,
    /// Its key, in base64url.
    pub(in crate::config) hmac_key: Option<RawSecret>,
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
