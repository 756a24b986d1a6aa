//! Signed requests: HTTP Message Signatures (RFC 9421) with HMAC-SHA-256, bound to a moment and good once.
//!
//! Taken is a part of the standard that leaves nothing open: one signature, over components without parameters, which
//! has to cover the method, the host, the whole target, and the body by `Content-Digest` (RFC 9530).

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{
    digest::{SHA256, SHA512, digest},
    hmac,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, header, request::Parts};
use subtle::ConstantTimeEq;

use super::{
    Outcome, Reason,
    credentials::{self, Found},
    principal::Principal,
};
use crate::config::{Toggle, auth};

/// Signatures remembered at most: beyond it none is taken, because a replay could not be told.
const REMEMBERED: usize = 500_000;

/// Most components that a signature covers.
const MOST_COMPONENTS: usize = 32;

/// How far in the future a signature may be made, in seconds: clocks differ.
const FUTURE: u64 = 30;

/// Secrets of consumers, by the names of their keys.
pub struct Signatures {
    settings: auth::Signature,
    keys: HashMap<String, (hmac::Key, Arc<Principal>)>,
    seen: Arc<Mutex<Seen>>,
}

impl std::fmt::Debug for Signatures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signatures").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Signatures of this window and the one before: what is older is refused for its age.
#[derive(Debug, Default)]
struct Seen {
    window: u64,
    now: HashSet<[u8; 32]>,
    before: HashSet<[u8; 32]>,
}

/// What a signature covers and says about itself.
#[derive(Debug, PartialEq, Eq)]
struct Input<'a> {
    components: Vec<&'a str>,
    /// Everything after the label, as it was written: it is signed, too.
    written: &'a str,
    created: u64,
    expires: Option<u64>,
    keyid: &'a str,
}

/// A request and how it came.
#[derive(Clone, Copy)]
struct Message<'a> {
    parts: &'a Parts,
    secured: bool,
}

impl Signatures {
    /// Takes over names of keys, secrets, and whom they belong to.
    pub fn new<'a>(
        settings: &auth::Signature,
        keys: impl Iterator<Item = (String, &'a [u8], Arc<Principal>)>,
    ) -> Self {
        let keys = keys.map(|(id, secret, caller)| (id, (hmac::Key::new(hmac::HMAC_SHA256, secret), caller)));
        Self { settings: settings.clone(), keys: keys.collect(), seen: Arc::default() }
    }

    /// Goes on with what was seen.
    pub fn inherit(&mut self, old: &Self) {
        self.seen = Arc::clone(&old.seen);
    }

    /// Who signed this, at `now` in seconds since 1970. That the body is the one that was signed is checked when it is
    /// read: [`body_matches`].
    pub fn verify(&self, parts: &Parts, secured: bool, now: u64) -> Outcome {
        let headers = &parts.headers;
        let input = credentials::header(headers, &auth::SIGNATURE_INPUT);
        let given = credentials::header(headers, &auth::SIGNATURE);
        let (input, given) = match (input, given) {
            (Found::Absent, Found::Absent) => return Outcome::Absent,
            (Found::One(input), Found::One(given)) => (input, given),
            _ => return Outcome::refused(Reason::Unclear),
        };
        match self.check(&Message { parts, secured }, input, given, now) {
            Ok(Some(caller)) => Outcome::Verified(caller),
            Ok(None) => Outcome::Unavailable,
            Err(reason) => Outcome::refused(reason),
        }
    }

    fn check(
        &self,
        message: &Message<'_>,
        input: &str,
        given: &str,
        now: u64,
    ) -> Result<Option<Arc<Principal>>, Reason> {
        let (label, written) = input.split_once('=').ok_or(Reason::Unclear)?;
        let signed = Input::parse(written).ok_or(Reason::Unclear)?;
        let signature = bytes_of(given, label).ok_or(Reason::Unclear)?;
        if !covers_enough(&signed.components, message.parts) {
            return Err(Reason::NotCovered);
        }
        let (key, caller) = self.keys.get(signed.keyid).ok_or(Reason::WrongSignature)?;
        let base = base(&signed, message).ok_or(Reason::NotCovered)?;
        hmac::verify(key, base.as_bytes(), &signature).map_err(|_| Reason::WrongSignature)?;
        let window = self.settings.window.as_secs().max(1);
        if signed.created > now + FUTURE {
            return Err(Reason::TokenTooEarly);
        }
        if signed.created + window <= now || signed.expires.is_some_and(|at| at <= now) {
            return Err(Reason::TokenExpired);
        }
        match self.remember(&signature, now, window + FUTURE) {
            Some(true) => Ok(Some(Arc::clone(caller))),
            Some(false) => Err(Reason::Replayed),
            None => Ok(None),
        }
    }

    /// Whether this is the first time; `None` if that cannot be told any more.
    fn remember(&self, signature: &[u8], now: u64, window: u64) -> Option<bool> {
        let mut mark = [0; 32];
        mark.copy_from_slice(signature.get(..32)?);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let current = now / window;
        if seen.window != current {
            let old = mem::take(&mut seen.now);
            seen.before = if seen.window + 1 == current { old } else { HashSet::new() };
            seen.window = current;
        }
        if seen.before.contains(&mark) || seen.now.contains(&mark) {
            return Some(false);
        }
        if seen.now.len() >= REMEMBERED {
            return None;
        }
        seen.now.insert(mark);
        Some(true)
    }

    /// Takes the signature out of what goes on.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if self.settings.forward == Toggle::Off {
            headers.remove(&auth::SIGNATURE_INPUT);
            headers.remove(&auth::SIGNATURE);
        }
    }
}

/// Whether this is the body that `Content-Digest` speaks of; true where it speaks of none.
pub fn body_matches(headers: &HeaderMap, body: &[u8]) -> bool {
    let Found::One(text) = credentials::header(headers, &auth::CONTENT_DIGEST) else {
        return body.is_empty();
    };
    let mut known = 0;
    for (name, algorithm) in [("sha-256", &SHA256), ("sha-512", &SHA512)] {
        let Some(expected) = bytes_of(text, name) else { continue };
        known += 1;
        if !bool::from(digest(algorithm, body).as_ref().ct_eq(&expected)) {
            return false;
        }
    }
    known > 0
}

/// Method, host and the whole target; the body where there may be one.
fn covers_enough(components: &[&str], parts: &Parts) -> bool {
    let covers = |name: &str| components.contains(&name);
    let target = covers("@target-uri") || covers("@request-target") || (covers("@path") && covers("@query"));
    let host = covers("@authority") || covers("@target-uri");
    // Without a digest the body has to be empty, which is checked when it is read.
    let has_body = parts.headers.contains_key(&auth::CONTENT_DIGEST)
        || parts.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    covers("@method") && target && host && (covers("content-digest") || !has_body)
}

/// What is signed (RFC 9421, 2.5); `None` if a component is not there.
fn base(signed: &Input<'_>, message: &Message<'_>) -> Option<String> {
    let mut base = String::new();
    for name in &signed.components {
        let value = component(name, message)?;
        base.push_str(&format!("\"{name}\": {value}\n"));
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(signed.written);
    Some(base)
}

fn component(name: &str, message: &Message<'_>) -> Option<String> {
    let Message { parts, secured } = *message;
    let uri = &parts.uri;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = || {
        let host = match uri.authority() {
            Some(authority) => authority.as_str(),
            None => parts.headers.get(header::HOST)?.to_str().ok()?,
        };
        Some(host.to_ascii_lowercase())
    };
    match name {
        "@method" => Some(parts.method.to_string()),
        "@authority" => authority(),
        "@path" => Some(uri.path().to_owned()),
        "@query" => Some(format!("?{}", uri.query().unwrap_or_default())),
        "@request-target" => Some(target.to_owned()),
        "@target-uri" => {
            let scheme = if secured { "https" } else { "http" };
            Some(format!("{scheme}://{}{target}", authority()?))
        }
        _ if name.starts_with('@') => None,
        _ => {
            let values = parts.headers.get_all(name).iter().map(|value| value.to_str().ok().map(str::trim));
            let values: Vec<&str> = values.collect::<Option<_>>()?;
            (!values.is_empty()).then(|| values.join(", "))
        }
    }
}

impl<'a> Input<'a> {
    /// `("@method" "@path");created=1;keyid="k"`: components without parameters, each once.
    fn parse(written: &'a str) -> Option<Self> {
        let (list, parameters) = written.strip_prefix('(')?.split_once(')')?;
        let mut components = Vec::new();
        for item in list.split_ascii_whitespace() {
            let name = item.strip_prefix('"')?.strip_suffix('"')?;
            let is_plain = name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@'));
            if name.is_empty() || !is_plain || components.contains(&name) {
                return None;
            }
            components.push(name);
        }
        if components.len() > MOST_COMPONENTS {
            return None;
        }
        let mut input = Self { components, written, created: 0, expires: None, keyid: "" };
        let mut rest = parameters;
        let mut seen = HashSet::new();
        while let Some(parameter) = rest.strip_prefix(';') {
            let (name, value) = parameter.split_once('=')?;
            if !seen.insert(name) {
                return None;
            }
            let (value, after) = match value.strip_prefix('"') {
                Some(text) => text.split_once('"')?,
                None => value.split_at(value.find(';').unwrap_or(value.len())),
            };
            if value.contains('\\') {
                return None;
            }
            match name {
                "created" => input.created = value.parse().ok()?,
                "expires" => input.expires = Some(value.parse().ok()?),
                "keyid" => input.keyid = value,
                "alg" if value == "hmac-sha256" => {}
                // Makes two signatures of the same request within one second differ.
                "nonce" | "tag" => {}
                _ => return None,
            }
            rest = after;
        }
        (rest.is_empty() && input.created > 0 && !input.keyid.is_empty()).then_some(input)
    }
}

/// The bytes of the member `label` of a dictionary whose members are all bytes: `label=:BASE64:`.
fn bytes_of(text: &str, label: &str) -> Option<Vec<u8>> {
    let mut found = None;
    for member in text.split(',') {
        let (name, value) = member.trim().split_once('=')?;
        let encoded = value.strip_prefix(':')?.strip_suffix(':')?;
        if name == label && found.replace(STANDARD.decode(encoded).ok()?).is_some() {
            return None;
        }
    }
    found
}

#[cfg(test)]
mod tests;
