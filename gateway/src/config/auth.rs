//! Identity: consumers, methods of authentication, and what routes demand of who calls them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use argon2::{ARGON2ID_IDENT, Params, PasswordHash};
use http::{HeaderName, Uri};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::{
    Toggle,
    compile::{Compiler, MINUTE, toggle},
    raw::{
        RawConfig,
        auth::{RawApiKey, RawBasic, RawConsumer, RawMethod, RawRequirement},
    },
};
use crate::{
    audit::mask,
    auth::{
        jws::{Algorithm, Key},
        policy::{Hidden, Policy},
    },
};

mod guessing;
mod others;
mod tokens;

pub use guessing::{Guessing, Login};
pub use others::{
    CONTENT_DIGEST, Certificate, Client, Forward, Introspection, Oidc, SIGNATURE, SIGNATURE_INPUT,
    SecretText, Signature,
};
pub use tokens::parse_address;

/// Length of a hash of an API key: SHA-256.
const KEY_HASH: usize = 32;

/// Bounds on what one check of a password may cost: memory in KiB, and passes over it.
const PASSWORD_KIB: std::ops::RangeInclusive<u32> = 4 * 1024..=256 * 1024;
const PASSWORD_PASSES: std::ops::RangeInclusive<u32> = 1..=16;

/// Who may be known, and by what.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// Known callers.
    pub consumers: Vec<Consumer>,
    /// Methods of authentication.
    pub methods: Vec<Method>,
    /// Certificates by which issuers are trusted, beside those of the system.
    pub ca: Vec<CertificateDer<'static>>,
    /// How many logins may fail.
    pub guessing: Guessing,
}

/// A known caller.
#[derive(Debug, Clone)]
pub struct Consumer {
    /// Its name; unique.
    pub name: String,
    /// Groups it belongs to.
    pub groups: Vec<String>,
    /// SHA-256 of its API keys.
    pub api_keys: Vec<[u8; KEY_HASH]>,
    /// Its password's hash: argon2id in PHC form.
    pub password: Option<String>,
    /// Secrets with which it signs, by their names.
    pub signing_keys: Vec<(String, Arc<SecretText>)>,
    /// Names in its certificates, in lower case.
    pub certificates: Vec<String>,
    /// Subjects that stand for it, with the place of the method that tells them.
    pub subjects: Vec<(usize, String)>,
}

/// One method of authentication.
#[derive(Debug, Clone)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// How it works.
    pub kind: Kind,
}

/// How a method of authentication works.
#[derive(Debug, Clone)]
pub enum Kind {
    /// API keys.
    ApiKey(ApiKey),
    /// Name and password.
    Basic(Basic),
    /// JSON Web Tokens.
    Jwt(Box<Jwt>),
    /// Opaque tokens.
    Introspection(Box<Introspection>),
    /// Signed requests.
    Signature(Signature),
    /// Client certificates.
    Certificate(Certificate),
    /// An external service.
    Forward(Box<Forward>),
    /// Login at an OpenID provider.
    Oidc(Box<Oidc>),
}

/// Where API keys are found.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// Header that carries the key.
    pub header: Option<HeaderName>,
    /// Query argument that carries the key.
    pub query: Option<String>,
    /// Whether it goes on to the upstream.
    pub forward: Toggle,
}

/// Name and password by HTTP Basic.
#[derive(Debug, Clone)]
pub struct Basic {
    /// What browsers show.
    pub realm: String,
    /// How long a password that was right is not computed again.
    pub cache: Duration,
    /// Whether the credentials go on to the upstream.
    pub forward: Toggle,
}

/// JSON Web Tokens of one issuer.
#[derive(Debug, Clone)]
pub struct Jwt {
    /// Their `iss`.
    pub issuer: String,
    /// Names of which their `aud` must hold one; empty if that does not matter.
    pub audience: Vec<String>,
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// Keys that are given.
    pub keys: Vec<Key>,
    /// Where further keys come from.
    pub source: Source,
    /// How often they are fetched.
    pub refresh: Duration,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// Most bytes of a token.
    pub most_bytes: usize,
    /// Header that carries the token alone; `Authorization: Bearer` without.
    pub header: Option<HeaderName>,
    /// Claims that name groups and scopes.
    pub names: ClaimNames,
    /// Whether the token goes on to the upstream.
    pub forward: Toggle,
}

/// Claims with a meaning.
#[derive(Debug, Clone)]
pub struct ClaimNames {
    /// Names groups.
    pub groups: String,
    /// Of these, the first that is there names scopes.
    pub scopes: Vec<String>,
}

/// Where the keys of an issuer come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// They are given.
    Given,
    /// A JWK set at this address.
    Set(Uri),
    /// The issuer's metadata at this address, which name the set (OpenID Connect Discovery 1.0, section 4).
    Metadata {
        /// Where the metadata are.
        uri: Uri,
        /// What they must say the issuer is.
        issuer: String,
    },
}

/// What a route demands of who calls it.
#[derive(Debug, Clone)]
pub struct Requirement {
    /// Names of methods of which one suffices; empty if none is asked for.
    pub any_of: Vec<String>,
    /// Names of methods that are all needed.
    pub all_of: Vec<String>,
    /// Whether a request without credentials passes.
    pub anonymous: Toggle,
    /// What the caller must be or have.
    pub terms: Terms,
    /// What else is demanded of the request, nobody's in particular too.
    pub policy: Option<Arc<Policy>>,
}

/// What a known caller must be or have; empty lists ask for nothing.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Consumers of which it must be one.
    pub consumers: Vec<String>,
    /// Groups of which it must belong to one.
    pub groups: Vec<String>,
    /// Scopes that it must all have.
    pub scopes: Vec<String>,
    /// Claims by name, with the values of which one is needed.
    pub claims: Vec<(String, Vec<String>)>,
}

impl Auth {
    /// Headers that carry credentials.
    pub fn secret_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.methods.iter().filter_map(|method| match &method.kind {
            Kind::ApiKey(keys) => keys.header.as_ref(),
            Kind::Jwt(jwt) => jwt.header.as_ref(),
            _ => None,
        })
    }
}

impl Compiler {
    /// Consumers and methods.
    pub(super) fn auth(&mut self, raw: &RawConfig) -> Auth {
        let methods: Vec<Method> =
            raw.auth.methods.iter().map(|(name, method)| self.method(name, method)).collect();
        let places = places(raw);
        let mut names = BTreeSet::new();
        let mut keys = BTreeSet::new();
        let mut consumers = Vec::with_capacity(raw.consumers.len());
        for (index, consumer) in raw.consumers.iter().enumerate() {
            let path = format!("consumers[{index}]");
            let consumer = self.consumer(consumer, &path, &places);
            if !names.insert(consumer.name.clone()) {
                let message = format!("{:?} is taken; give each consumer a name", consumer.name);
                self.mistakes.add(&format!("{path}.name"), message);
            }
            if consumer.api_keys.iter().any(|key| !keys.insert(*key)) {
                self.mistakes.add(&format!("{path}.api_keys"), "holds a key that is given twice");
            }
            consumers.push(consumer);
        }
        let ca = raw.auth.ca.as_deref().map_or_else(Vec::new, |file| self.certificates("auth.ca", file));
        let guessing = self.guessing(&raw.auth.guessing);
        Auth { consumers, methods, ca, guessing }
    }

    fn method(&mut self, name: &str, raw: &RawMethod) -> Method {
        let path = format!("auth.methods.{name}");
        self.name(&path, name);
        let RawMethod { api_key, basic, jwt, introspection, signature, certificate, forward, oidc } = raw;
        let mut kinds = Vec::new();
        kinds.extend(api_key.as_ref().map(|raw| Kind::ApiKey(self.api_key(raw, &path))));
        kinds.extend(basic.as_ref().map(|raw| Kind::Basic(self.basic(raw, &path, name))));
        kinds.extend(jwt.as_ref().map(|raw| Kind::Jwt(Box::new(self.jwt(raw, &format!("{path}.jwt"))))));
        kinds.extend(introspection.as_ref().map(|raw| {
            Kind::Introspection(Box::new(self.introspection(raw, &format!("{path}.introspection"))))
        }));
        kinds.extend(
            signature.as_ref().map(|raw| Kind::Signature(self.signature(raw, &format!("{path}.signature")))),
        );
        kinds.extend(
            certificate
                .as_ref()
                .map(|raw| Kind::Certificate(self.certificate(raw, &format!("{path}.certificate")))),
        );
        kinds.extend(
            forward
                .as_ref()
                .map(|raw| Kind::Forward(Box::new(self.forward_auth(raw, &format!("{path}.forward"))))),
        );
        kinds.extend(
            oidc.as_ref().map(|raw| Kind::Oidc(Box::new(self.oidc(raw, &format!("{path}.oidc"), name)))),
        );
        if kinds.len() != 1 {
            let message = "needs exactly one kind, such as \"api_key: {}\" or \"basic: {}\"";
            self.mistakes.add(&path, message);
        }
        // What stands in for a mistake is never used: there is no configuration then.
        let kind = kinds.pop().unwrap_or_else(|| Kind::ApiKey(self.api_key(&RawApiKey::default(), &path)));
        Method { name: name.to_owned(), kind }
    }

    fn api_key(&mut self, raw: &RawApiKey, path: &str) -> ApiKey {
        let default = if raw.query.is_none() { Some("X-Api-Key") } else { None };
        let header = raw.header.as_deref().or(default);
        let query = raw.query.clone();
        if query.as_deref() == Some("") {
            self.mistakes.add(&format!("{path}.api_key.query"), "is empty; name the query argument");
        }
        ApiKey {
            header: header.and_then(|name| self.header_name(&format!("{path}.api_key.header"), name)),
            query,
            forward: toggle(raw.forward, Toggle::Off),
        }
    }

    fn basic(&mut self, raw: &RawBasic, path: &str, name: &str) -> Basic {
        let path = format!("{path}.basic");
        let realm = raw.realm.clone().unwrap_or_else(|| name.to_owned());
        if !realm.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\') {
            let message = "may hold printable ASCII without quotation marks and backslashes only";
            self.mistakes.add(&format!("{path}.realm"), message);
        }
        Basic {
            realm,
            cache: self.duration(&format!("{path}.cache"), raw.cache.as_deref(), 5 * MINUTE),
            forward: toggle(raw.forward, Toggle::Off),
        }
    }

    /// A header's name.
    pub(super) fn header_name(&mut self, path: &str, name: &str) -> Option<HeaderName> {
        let parsed = HeaderName::from_str(name).ok();
        if parsed.is_none() {
            self.mistakes.add(path, format!("{name:?} is not a header name"));
        }
        parsed
    }

    fn consumer(&mut self, raw: &RawConsumer, path: &str, places: &BTreeMap<&str, usize>) -> Consumer {
        let name = raw.name.clone().unwrap_or_default();
        self.name(&format!("{path}.name"), &name);
        for (index, group) in raw.groups.iter().enumerate() {
            self.name(&format!("{path}.groups[{index}]"), group);
        }
        let mut api_keys = Vec::with_capacity(raw.api_keys.len());
        for (index, key) in raw.api_keys.iter().enumerate() {
            match parse_key_hash(&key.0) {
                Some(hash) => api_keys.push(hash),
                // What stands there may be the key itself and is not repeated.
                None => self.mistakes.add(
                    &format!("{path}.api_keys[{index}]"),
                    "is not the hash of a key; write \"sha256:\" and 64 hexadecimal digits, as `gateway hash key` \
                     prints them",
                ),
            }
        }
        let password = raw.password.as_ref().map(|password| password.0.clone());
        if let Some(Err(message)) = password.as_deref().map(check_password_hash) {
            self.mistakes.add(&format!("{path}.password"), message);
        }
        let signing_keys = self.signing_keys(&format!("{path}.signing_keys"), &raw.signing_keys);
        let certificates = raw.certificates.iter().map(|name| name.to_ascii_lowercase()).collect();
        let mut subjects = Vec::new();
        for (method, names) in &raw.subjects {
            match places.get(method.as_str()) {
                Some(place) => subjects.extend(names.iter().map(|name| (*place, name.clone()))),
                None => self.mistakes.add(&format!("{path}.subjects.{method}"), no_method(method, places)),
            }
        }
        let groups = raw.groups.clone();
        Consumer { name, groups, api_keys, password, signing_keys, certificates, subjects }
    }

    /// What the route at `path` demands: its own requirement, or that of all.
    pub(super) fn requirement(
        &mut self,
        own: Option<&RawRequirement>,
        path: &str,
        raw: &RawConfig,
    ) -> Option<Arc<Requirement>> {
        let (raw_requirement, path) = match (own, &raw.auth.require) {
            (Some(own), _) => (own, format!("{path}.auth")),
            (None, Some(common)) => (common, "auth.require".to_owned()),
            (None, None) => return None,
        };
        let places = places(raw);
        if places.is_empty() {
            self.mistakes.add(&path, "needs a method of authentication; name one in auth.methods");
        }
        let any_of = self.methods(&format!("{path}.any_of"), &raw_requirement.any_of, &places);
        let all_of = self.methods(&format!("{path}.all_of"), &raw_requirement.all_of, &places);
        let any_of = if any_of.is_empty() && all_of.is_empty() {
            raw.auth.methods.keys().cloned().collect()
        } else {
            any_of
        };
        let known: BTreeSet<&str> =
            raw.consumers.iter().filter_map(|consumer| consumer.name.as_deref()).collect();
        for (index, name) in raw_requirement.consumers.iter().enumerate() {
            if !known.contains(name.as_str()) {
                let message = format!("there is no consumer {name:?}");
                self.mistakes.add(&format!("{path}.consumers[{index}]"), message);
            }
        }
        let claims = raw_requirement.claims.iter();
        let terms = Terms {
            consumers: raw_requirement.consumers.clone(),
            groups: raw_requirement.groups.clone(),
            scopes: raw_requirement.scopes.clone(),
            claims: claims.map(|(name, values)| (name.clone(), values.clone())).collect(),
        };
        let policy = raw_requirement.policy.as_deref().and_then(|text| {
            let compiled = Policy::compile(text, hidden(raw)).map(Arc::new);
            compiled.map_err(|message| self.mistakes.add(&format!("{path}.policy"), message)).ok()
        });
        Some(Arc::new(Requirement {
            policy,
            any_of,
            all_of,
            anonymous: toggle(raw_requirement.anonymous, Toggle::Off),
            terms,
        }))
    }

    fn methods(&mut self, path: &str, names: &[String], places: &BTreeMap<&str, usize>) -> Vec<String> {
        let mut found = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            match places.get(name.as_str()) {
                Some(_) => found.push(name.clone()),
                None => self.mistakes.add(&format!("{path}[{index}]"), no_method(name, places)),
            }
        }
        found
    }
}

/// Takes secrets out of what was written, which the admin API shows and `gateway diff` compares: a few digits of a hash
/// tell one from another. What names a variable of the environment is none.
pub(super) fn hide_secrets(written: &mut Value) {
    for (section, keys) in [
        ("consumers", &["api_keys", "password", "secret"][..]),
        ("auth", &["client_secret", "secret"]),
        ("admin", &["hash"]),
        ("listeners", &["hmac_key"]),
    ] {
        if let Some(section) = written.get_mut(section) {
            hide(section, keys, false);
        }
    }
    // What a route adds to requests is often what the upstream knows the gateway by.
    for route in written.get_mut("routes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(request) = route.pointer_mut("/transform/request") {
            hide(request, &["set", "add"], false);
        }
    }
    hide_logins(written);
}

/// Takes user and password out of addresses.
fn hide_logins(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(hide_logins),
        Value::Array(items) => items.iter_mut().for_each(hide_logins),
        Value::String(text) => *text = mask::without_login(text),
        _ => {}
    }
}

fn hide(value: &mut Value, keys: &[&str], is_secret: bool) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                hide(value, keys, is_secret || keys.contains(&key.as_str()));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, keys, is_secret)),
        Value::String(text) if is_secret && !is_variable(text) => {
            let [a, b, c, ..] = *blake3::hash(text.as_bytes()).as_bytes();
            *text = format!("[secret {a:02x}{b:02x}{c:02x}]");
        }
        _ => {}
    }
}

/// `${NAME}` and nothing beside it.
fn is_variable(text: &str) -> bool {
    text.starts_with("${") && text.find('}') == Some(text.len() - 1)
}

/// Files that the methods are made of: a change of one makes them anew.
pub(super) fn files_of_auth(raw: &RawConfig) -> Vec<PathBuf> {
    let methods = raw.auth.methods.values();
    let keys = methods.clone().filter_map(|method| method.jwt.as_ref()).flat_map(|jwt| &jwt.keys);
    let keys = keys.flat_map(|key| [&key.pem, &key.jwk, &key.secret_file]);
    let sessions = methods.filter_map(|method| method.oidc.as_ref()).map(|oidc| &oidc.key);
    let clients = raw.listeners.iter().filter_map(|listener| listener.tls.as_ref()?.clients.as_ref());
    let authorities = clients.map(|clients| &clients.ca).chain([&raw.auth.ca]);
    keys.chain(sessions).chain(authorities).flatten().map(PathBuf::from).collect()
}

/// What carries credentials of some method.
fn hidden(raw: &RawConfig) -> Hidden {
    let keys = raw.auth.methods.values().filter_map(|method| method.api_key.as_ref());
    let tokens = raw.auth.methods.values().filter_map(|method| method.jwt.as_ref());
    let named = keys.clone().filter_map(|key| key.header.as_ref());
    let named = named.chain(tokens.filter_map(|token| token.header.as_ref()));
    Hidden {
        headers: named.chain(&raw.waf.api_key_header).filter_map(|name| name.parse().ok()).collect(),
        arguments: keys.filter_map(|key| key.query.clone()).collect(),
    }
}

/// The place of each method in [`Auth::methods`].
fn places(raw: &RawConfig) -> BTreeMap<&str, usize> {
    raw.auth.methods.keys().enumerate().map(|(place, name)| (name.as_str(), place)).collect()
}

fn no_method(name: &str, places: &BTreeMap<&str, usize>) -> String {
    let known = places.keys().copied().collect::<Vec<_>>().join(", ");
    format!("there is no method {name:?} in auth.methods; there are: {known}")
}

/// `sha256:` and 64 hexadecimal digits.
pub(super) fn parse_key_hash(text: &str) -> Option<[u8; KEY_HASH]> {
    let digits = text.strip_prefix("sha256:")?.as_bytes();
    if digits.len() != 2 * KEY_HASH {
        return None;
    }
    let mut hash = [0; KEY_HASH];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| pair.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(hash)
}

/// An argon2id hash whose check costs neither next to nothing nor a fortune.
fn check_password_hash(text: &str) -> Result<(), String> {
    let wrong = "is not the hash of a password; `gateway hash password` prints one";
    let hash = PasswordHash::new(text).map_err(|_| wrong.to_owned())?;
    let params = Params::try_from(&hash).map_err(|_| wrong.to_owned())?;
    if hash.algorithm != ARGON2ID_IDENT || hash.hash.is_none() {
        return Err(wrong.to_owned());
    }
    if !PASSWORD_KIB.contains(&params.m_cost()) || !PASSWORD_PASSES.contains(&params.t_cost()) {
        return Err(format!(
            "costs {} KiB and {} passes to check; between {} and {} KiB and at most {} passes are accepted",
            params.m_cost(),
            params.t_cost(),
            PASSWORD_KIB.start(),
            PASSWORD_KIB.end(),
            PASSWORD_PASSES.end(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
