//! Tokens and who issues them: keys, addresses, limits.

use std::{fs, net::IpAddr, time::Duration};

use http::Uri;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{ClaimNames, Jwt, Source};
use crate::{
    auth::jws::{Algorithm, Key, RawJwk},
    config::{
        Toggle,
        compile::{Compiler, KIB, MINUTE, bytes, toggle},
        raw::{
            RawToggle,
            auth::{RawJwt, RawKey},
        },
    },
};

/// Largest difference of clocks that may be allowed.
const MOST_LEEWAY: Duration = Duration::from_secs(300);

/// Longest token that may be read: more than a header can hold.
const MOST_BYTES: u64 = 64 * KIB;

impl Compiler {
    /// The tokens of one issuer.
    pub(super) fn jwt(&mut self, raw: &RawJwt, path: &str) -> Jwt {
        let issuer = raw.issuer.clone().unwrap_or_default();
        if issuer.is_empty() {
            self.mistakes.add(&format!("{path}.issuer"), "missing; write the `iss` of the tokens");
        }
        if raw.audience.is_empty() && raw.any_audience != Some(RawToggle::On) {
            let message = "missing; write the `aud` of tokens that are meant for you (or \"any_audience: on\", which \
                           accepts tokens made for others)";
            self.mistakes.add(&format!("{path}.audience"), message);
        }
        let algorithms = self.algorithms(&format!("{path}.algorithms"), &raw.algorithms);
        let mut keys = Vec::with_capacity(raw.keys.len());
        for (index, key) in raw.keys.iter().enumerate() {
            match read_key(key, &algorithms) {
                Ok(key) => keys.push(key),
                Err(message) => self.mistakes.add(&format!("{path}.keys[{index}]"), message),
            }
        }
        let source = self.source(raw, path, &issuer);
        let all_found = keys.len() == raw.keys.len();
        for algorithm in &algorithms {
            let is_served = keys.iter().any(|key| key.serves(*algorithm));
            if !raw.algorithms.is_empty() && algorithm.is_shared() && !is_served && all_found {
                let message = "holds an algorithm for shared secrets, but keys holds no secret for it";
                self.mistakes.add(&format!("{path}.algorithms"), message);
            }
        }
        if raw.keys.is_empty() && matches!(source, Source::Given) {
            self.mistakes.add(path, "needs keys: give \"jwks\", \"discover: on\" or \"keys\"");
        }
        let leeway = self.duration(&format!("{path}.leeway"), raw.leeway.as_deref(), Duration::from_secs(30));
        if leeway > MOST_LEEWAY {
            self.mistakes.add(&format!("{path}.leeway"), "is more than 5m; set the clocks instead");
        }
        let most_bytes = self.size(&format!("{path}.max_size"), raw.max_size.as_deref(), 8 * KIB);
        if most_bytes > MOST_BYTES {
            self.mistakes.add(&format!("{path}.max_size"), "is more than 64KiB");
        }
        let header = raw.header.as_deref();
        Jwt {
            issuer,
            audience: raw.audience.clone(),
            algorithms,
            keys,
            source,
            refresh: self.duration(&format!("{path}.refresh"), raw.refresh.as_deref(), 10 * MINUTE),
            leeway,
            most_bytes: bytes(most_bytes),
            header: header.and_then(|name| self.header_name(&format!("{path}.header"), name)),
            names: claim_names(raw.groups_claim.as_ref(), raw.scope_claim.as_ref()),
            forward: toggle(raw.forward, Toggle::Off),
        }
    }

    fn algorithms(&mut self, path: &str, names: &[String]) -> Vec<Algorithm> {
        if names.is_empty() {
            return Algorithm::asymmetric();
        }
        self.each(path, names, |name| {
            Algorithm::named(name).ok_or_else(|| {
                let known = Algorithm::names().collect::<Vec<_>>().join(", ");
                format!("{name:?} is not an algorithm that is accepted; there are: {known}")
            })
        })
    }

    fn source(&mut self, raw: &RawJwt, path: &str, issuer: &str) -> Source {
        match (&raw.jwks, raw.discover == Some(RawToggle::On)) {
            (None, false) => Source::Given,
            (Some(address), false) => {
                self.address(&format!("{path}.jwks"), address).map_or(Source::Given, Source::Set)
            }
            (None, true) => {
                let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
                let uri = self.address(&format!("{path}.issuer"), &address);
                uri.map_or(Source::Given, |uri| Source::Metadata { uri, issuer: issuer.to_owned() })
            }
            (Some(_), true) => {
                self.mistakes.add(&format!("{path}.discover"), "goes without \"jwks\": the metadata name it");
                Source::Given
            }
        }
    }

    /// An address at which the gateway itself asks somebody.
    pub(in crate::config) fn address(&mut self, path: &str, text: &str) -> Option<Uri> {
        match parse_address(text) {
            Ok(uri) => Some(uri),
            Err(message) => {
                self.mistakes.add(path, message);
                None
            }
        }
    }

    /// The certificates in a PEM file.
    pub(in crate::config) fn certificates(&mut self, path: &str, file: &str) -> Vec<CertificateDer<'static>> {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(certificates) if !certificates.is_empty() => return certificates,
            Ok(_) => self.mistakes.add(path, format!("{file:?} holds no certificate; PEM is needed")),
            Err(error) => self.mistakes.add(path, format!("{file:?}: {error}")),
        }
        Vec::new()
    }
}

/// Claims with a meaning, or those that usually have it.
pub(super) fn claim_names(groups: Option<&String>, scope: Option<&String>) -> ClaimNames {
    ClaimNames {
        groups: groups.cloned().unwrap_or_else(|| "groups".to_owned()),
        scopes: match scope {
            Some(name) => vec![name.clone()],
            None => vec!["scope".to_owned(), "scp".to_owned()],
        },
    }
}

/// An address by https, or by http on this machine: whoever is between could hand out keys of his own.
///
/// # Errors
/// It is no such address; the text says what is needed.
pub fn parse_address(text: &str) -> Result<Uri, String> {
    let example = "write it as https://id.example.com/path";
    let uri: Uri = text.parse().map_err(|_| format!("{text:?} is not a URL; {example}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("{text:?} has no scheme or host; {example}"));
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        _ if authority.as_str().contains('@') => Err(format!("credentials in a URL are not sent; {example}")),
        "https" => Ok(uri),
        "http" if is_here => Ok(uri),
        "http" => Err(format!("{text:?} is not secured; use https (http only on this machine)")),
        _ => Err(format!("{text:?} is not https; {example}")),
    }
}

fn read_key(raw: &RawKey, allowed: &[Algorithm]) -> Result<Key, String> {
    let read = |file: &str| fs::read(file).map(Zeroizing::new).map_err(|error| format!("{file:?}: {error}"));
    let kid = raw.kid.clone();
    match (&raw.pem, &raw.jwk, &raw.secret, &raw.secret_file) {
        (Some(file), None, None, None) => {
            Key::pem(&read(file)?, kid, allowed).map_err(|message| format!("{file:?} {message}"))
        }
        (None, Some(file), None, None) => {
            let jwk: RawJwk = serde_json::from_slice(&read(file)?)
                .map_err(|_| format!("{file:?} holds no key in JSON (RFC 7517)"))?;
            Key::jwk(&jwk, allowed).ok_or_else(|| format!("{file:?} fits none of the algorithms"))
        }
        (None, None, Some(secret), None) => {
            Key::secret(secret.0.as_bytes(), kid, allowed).map_err(|message| format!("secret {message}"))
        }
        (None, None, None, Some(file)) => {
            let secret = read(file)?;
            Key::secret(secret.trim_ascii_end(), kid, allowed)
                .map_err(|message| format!("{file:?} {message}"))
        }
        _ => Err("needs exactly one of \"pem\", \"jwk\", \"secret\", \"secret_file\"".to_owned()),
    }
}
