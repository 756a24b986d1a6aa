//! How the certificates of the listeners stand, for the status and for Prometheus.

use serde::Serialize;

use crate::{
    clock, pipeline::Gateway, telemetry::tls_metrics::CertificateLabels, tls::certificate::Certificate,
};

/// One certificate of one listener.
#[derive(Debug, Serialize)]
pub struct CertificateStatus {
    /// The listener's name.
    pub listener: String,
    /// The host names in it, or those that it shall have.
    pub hosts: Vec<String>,
    /// `file` or `acme`.
    pub source: &'static str,
    /// When it ends; null while there is none.
    pub expires: Option<String>,
    /// Why the last attempt to fetch another one failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it is fetched again, of those by ACME.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<String>,
    #[serde(skip)]
    until_ms: Option<u64>,
}

/// Every certificate of the configuration in force.
pub fn certificates(gateway: &Gateway) -> Vec<CertificateStatus> {
    let config = gateway.config.snapshot();
    let mut found = Vec::new();
    for listener in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        found.extend(tls.certificates.iter().map(|certificate| CertificateStatus {
            listener: listener.name.clone(),
            hosts: certificate.names().to_vec(),
            source: "file",
            expires: Some(clock::text(certificate.not_after_ms())),
            error: None,
            next_attempt: None,
            until_ms: Some(certificate.not_after_ms()),
        }));
        let Some(acme) = &tls.acme else { continue };
        let standing = gateway.acme.standing(acme);
        let until_ms = standing.certificate.as_deref().map(Certificate::not_after_ms);
        found.push(CertificateStatus {
            listener: listener.name.clone(),
            hosts: acme.hosts.clone(),
            source: "acme",
            expires: until_ms.map(clock::text),
            error: standing.last_error,
            next_attempt: Some(clock::text(standing.next_ms)),
            until_ms,
        });
    }
    found
}

/// The same for Prometheus: labels, and when it ends.
pub fn shown(gateway: &Gateway) -> impl Iterator<Item = (CertificateLabels, Option<u64>)> {
    certificates(gateway).into_iter().map(|status| {
        let host = status.hosts.into_iter().next().unwrap_or_default();
        (CertificateLabels { listener: status.listener, host, source: status.source }, status.until_ms)
    })
}
