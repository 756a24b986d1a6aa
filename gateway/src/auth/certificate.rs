//! Client certificates: the TLS handshake has proved that the caller owns one; its names say who that is.

use std::{collections::HashMap, sync::Arc};

use rustls_pki_types::CertificateDer;
use waf_model::observation::ValueKey;

use super::{
    Outcome, Reason,
    principal::{Findings, Principal},
};
use crate::config::auth;

/// Names of certificates that are accepted.
#[derive(Debug)]
pub struct Certificates {
    name: Arc<str>,
    settings: auth::Certificate,
    consumers: HashMap<String, Findings>,
    site_key: ValueKey,
}

/// The names in a certificate, in lower case: DNS names, then URIs (subject alternative names). `None` if it cannot be
/// read. Common names are not among them: they were never checked by who signed it as names of a host are.
pub fn names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let names = certificate.valid_dns_names().chain(certificate.valid_uri_names());
    Some(names.map(str::to_ascii_lowercase).collect())
}

impl Certificates {
    /// Makes the method ready; `consumers` are found by a name of their certificate.
    pub fn new(
        name: &Arc<str>,
        settings: &auth::Certificate,
        consumers: HashMap<String, Findings>,
        site_key: &ValueKey,
    ) -> Self {
        Self { name: Arc::clone(name), settings: settings.clone(), consumers, site_key: *site_key }
    }

    /// Whom the certificate speaks of, of which these are the names.
    pub fn verify(&self, names: Option<&Arc<[String]>>) -> Outcome {
        let Some(names) = names else { return Outcome::Absent };
        let accepted = |name: &&String| {
            let patterns = &self.settings.names;
            patterns.is_empty() || patterns.iter().any(|pattern| fits(pattern, name))
        };
        let known = names.iter().filter(accepted).find(|name| self.consumers.contains_key(*name));
        let Some(name) = known.or_else(|| names.iter().find(accepted)) else {
            return Outcome::refused(Reason::WrongName);
        };
        let mut findings = self.consumers.get(name).cloned().unwrap_or_default();
        findings.subject = Some(name.clone());
        Outcome::Verified(Arc::new(Principal::new(findings, &self.name, &self.site_key)))
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_of_a_certificate_say_who_calls() {
        let mut params = CertificateParams::new(vec!["Api.Partner.Example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://site/backend".try_into().unwrap()));
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names: Arc<[String]> = names(certificate.der()).unwrap().into();
        assert_eq!(*names, ["api.partner.example".to_owned(), "spiffe://site/backend".to_owned()]);
        assert_eq!(super::names(&CertificateDer::from(&b"nonsense"[..])), None);

        let caller = |patterns: &[&str]| {
            let settings =
                auth::Certificate { names: patterns.iter().map(|name| (*name).to_owned()).collect() };
            let known = Findings { consumer: Some("backend".into()), ..Findings::default() };
            let consumers = HashMap::from([("spiffe://site/backend".to_owned(), known)]);
            let method = Certificates::new(&"mtls".into(), &settings, consumers, &ValueKey([1; 16]));
            match method.verify(Some(&names)) {
                Outcome::Verified(caller) => caller.consumer().or(caller.subject()).unwrap().to_owned(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(caller(&[]), "backend");
        assert_eq!(caller(&["*.partner.example"]), "api.partner.example");
        assert!(caller(&["partner.example"]).contains("WrongName"));
        assert!(caller(&["*.api.partner.example"]).contains("WrongName"));
    }
}
