//! Certificates by ACME: from whom, for which hosts, and how it is proved that these are ours.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls_pki_types::{CertificateDer, ServerName};

use super::{
    Listener,
    auth::SecretText,
    compile::Compiler,
    raw::{
        RawToggle,
        tls::{RawAcme, RawChallenge, RawEab},
    },
};

/// Most hosts of one certificate: what the known authorities allow.
const HOSTS: usize = 100;

/// How a certificate is fetched.
#[derive(Debug, Clone)]
pub struct AcmeSettings {
    /// Address of the authority's directory.
    pub directory: String,
    /// Host names, in lower case; at least one.
    pub hosts: Vec<String>,
    /// Where the authority may write to.
    pub contact: Vec<String>,
    /// What vouches for the authority's own server, beside what the system trusts.
    pub ca: Vec<CertificateDer<'static>>,
    /// How it is proved that the hosts are ours.
    pub challenge: Challenge,
    /// An account that the authority knows already.
    pub binding: Option<Binding>,
}

/// How it is proved that hosts are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// A file at a plain listener (RFC 8555, 8.3).
    Http01,
    /// A handshake at a TLS listener (RFC 8737).
    TlsAlpn01,
}

/// An account that the authority knows already (RFC 8555, 7.3.4).
#[derive(Debug, Clone)]
pub struct Binding {
    /// Its key identifier.
    pub key_id: String,
    /// Its key, in base64url.
    pub key: SecretText,
}

impl Compiler {
    /// ACME as `path` says; `None` if it cannot be.
    pub(super) fn acme(&mut self, raw: &RawAcme, path: &str) -> Option<AcmeSettings> {
        let at = |key: &str| format!("{path}.{key}");
        let example = "https://acme-v02.api.letsencrypt.org/directory";
        let directory = match &raw.directory {
            Some(text) => self.address(&at("directory"), text).map(|_| text.clone()),
            None => {
                self.mistakes
                    .add(&at("directory"), format!("missing; write the authority's, such as {example}"));
                None
            }
        };
        if raw.agree != Some(RawToggle::On) {
            self.mistakes.add(
                &at("agree"),
                "read the authority's terms of service; \"agree: on\" says that you agree to them",
            );
        }
        if raw.hosts.is_empty() || raw.hosts.len() > HOSTS {
            let message = format!("name 1 to {HOSTS} hosts that the certificate is for");
            self.mistakes.add(&at("hosts"), message);
        }
        let hosts = self.each(&at("hosts"), &raw.hosts, parse_acme_host);
        let contact = self.each(&at("contact"), &raw.contact, |text| match text.strip_prefix("mailto:") {
            Some(address) if address.contains('@') => Ok(text.to_owned()),
            _ => Err(format!("{text:?} is not a contact; write mailto:admin@example.com")),
        });
        let ca = raw.ca.as_ref().map(|file| self.certificates(&at("ca"), file)).unwrap_or_default();
        let binding = raw.eab.as_ref().and_then(|raw| self.binding(raw, &at("eab")));
        let challenge = match raw.challenge {
            Some(RawChallenge::Http01) => Challenge::Http01,
            Some(RawChallenge::TlsAlpn01) | None => Challenge::TlsAlpn01,
        };
        Some(AcmeSettings { directory: directory?, hosts, contact, ca, challenge, binding })
    }

    fn binding(&mut self, raw: &RawEab, path: &str) -> Option<Binding> {
        let (Some(key_id), Some(key)) = (&raw.key_id, &raw.hmac_key) else {
            self.mistakes.add(path, "needs \"key_id\" and \"hmac_key\", as the authority gave them");
            return None;
        };
        // The key itself is not repeated.
        if BASE64_URL_SAFE_NO_PAD.decode(key.0.trim_end_matches('=')).is_err() {
            self.mistakes.add(&format!("{path}.hmac_key"), "is not base64url, as the authority gave it");
        }
        Some(Binding { key_id: key_id.clone(), key: SecretText::new(key.0.trim_end_matches('=')) })
    }

    /// Whether there is somebody to prove what has to be proved.
    pub(super) fn check_challenges(&mut self, listeners: &[Listener]) {
        if listeners.iter().any(|listener| listener.tls.is_none()) {
            return;
        }
        for (index, listener) in listeners.iter().enumerate() {
            let acme = listener.tls.as_ref().and_then(|tls| tls.acme.as_ref());
            if acme.is_some_and(|acme| acme.challenge == Challenge::Http01) {
                self.mistakes.add(
                    &format!("listeners[{index}].tls.acme.challenge"),
                    "http-01 needs a listener without tls, to which port 80 of the hosts leads; add one, or use tls-alpn-01",
                );
            }
        }
    }
}

/// A host that can be proved to be ours by these challenges: neither a wildcard nor an address.
fn parse_acme_host(text: &str) -> Result<String, String> {
    let host = text.to_ascii_lowercase();
    if host.starts_with("*.") {
        return Err(format!("{text:?}: these challenges prove single hosts; name each, without \"*\""));
    }
    match ServerName::try_from(host.as_str()) {
        Ok(ServerName::DnsName(_)) if !host.ends_with('.') => Ok(host),
        _ => Err(format!("{text:?} is not a host name; write shop.example")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn load(listeners: &str) -> Result<Config, String> {
        let routes = "routes: [{upstreams: [{url: \"http://127.0.0.1:1\"}]}]";
        Config::load(&format!("version: 1\nlisteners:\n{listeners}\n{routes}\n"), "p.yaml")
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn what_is_needed_is_asked_for_and_the_key_is_not_repeated() {
        let text = load(
            "  - {address: \"0.0.0.0:1\", tls: {acme: {hosts: [\"*.a.example\", 10.0.0.1, a.example], contact: [me], \
             challenge: http-01, eab: {key_id: a, hmac_key: \"not*base64\"}}}}",
        )
        .unwrap_err();
        for expected in [
            "p.yaml:3: listeners[0].tls.acme.directory: missing",
            "listeners[0].tls.acme.agree: read the authority's terms",
            "listeners[0].tls.acme.hosts[0]: \"*.a.example\": these challenges prove single hosts",
            "listeners[0].tls.acme.hosts[1]: \"10.0.0.1\" is not a host name",
            "listeners[0].tls.acme.contact[0]: \"me\" is not a contact; write mailto:",
            "listeners[0].tls.acme.eab.hmac_key: is not base64url",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains("not*base64"), "{text}");

        let acme = "{directory: \"https://ca.example/dir\", agree: on, hosts: [A.example], challenge: http-01, \
                    eab: {key_id: me, hmac_key: c2VjcmV0}}";
        let alone = format!("  - {{address: \"0.0.0.0:1\", tls: {{acme: {acme}}}}}");
        let text = load(&alone).unwrap_err();
        assert!(
            text.contains("listeners[0].tls.acme.challenge: http-01 needs a listener without tls"),
            "{text}"
        );
        let config = load(&format!("{alone}\n  - {{address: \"0.0.0.0:2\"}}")).unwrap();
        let settings = config.listeners[0].tls.as_ref().unwrap().acme.clone().unwrap();
        assert_eq!((&*settings.hosts[0], settings.challenge), ("a.example", Challenge::Http01));
        assert_eq!(settings.binding.as_ref().unwrap().key.expose(), "c2VjcmV0");
        let shown = format!("{config:?} {}", config.document);
        assert!(!shown.contains("c2VjcmV0") && shown.contains("hmac_key"), "{shown}");
    }
}
