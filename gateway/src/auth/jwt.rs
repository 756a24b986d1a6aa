//! JSON Web Tokens (RFC 7519) as bearers of identity: signature first, then issuer, audience and time.

use std::{collections::HashMap, sync::Arc};

use http::HeaderMap;
use quick_cache::{Weighter, sync::Cache};
use serde_json::Value;
use waf_model::observation::ValueKey;

use super::{
    Outcome, Reason,
    claims::{self, Claims},
    credentials::{self, Found},
    fetch::Fetcher,
    jwks::{Checked, KeySet, Metadata},
    jws::Signed,
    principal::{Findings, Principal},
};
use crate::{
    clock,
    config::{Toggle, auth},
};

/// Bytes of tokens that are remembered as good.
const REMEMBERED: u64 = 8 * 1024 * 1024;

/// Tokens of this size are expected when room for the memory is made.
const USUAL: u64 = 1024;

/// Tokens of one issuer.
pub struct Jwt {
    name: Arc<str>,
    settings: auth::Jwt,
    keys: KeySet,
    /// Consumers by the subject that stands for them.
    consumers: HashMap<String, Findings>,
    site_key: ValueKey,
    secret: [u8; 32],
    good: Cache<[u8; 32], Good, ByLength>,
}

/// A token that was good.
#[derive(Debug, Clone)]
struct Good {
    caller: Arc<Principal>,
    bytes: usize,
    /// When it starts and ends to hold, in seconds since 1970.
    from: f64,
    until: f64,
    /// By which keys it was found good.
    generation: u64,
}

#[derive(Debug, Clone)]
struct ByLength;

impl Weighter<[u8; 32], Good> for ByLength {
    fn weight(&self, _: &[u8; 32], good: &Good) -> u64 {
        good.bytes.max(1) as u64
    }
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("name", &self.name).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Makes the method ready; `consumers` are found by the subject of a token.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(
        name: &Arc<str>,
        settings: &auth::Jwt,
        consumers: HashMap<String, Findings>,
        site_key: &ValueKey,
    ) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let auth::Jwt { keys, source, algorithms, refresh, .. } = settings;
        Ok(Self {
            name: Arc::clone(name),
            keys: KeySet::new(keys.clone(), source.clone(), algorithms.clone(), *refresh),
            settings: settings.clone(),
            consumers,
            site_key: *site_key,
            secret,
            good: Cache::with_weighter((REMEMBERED / USUAL) as usize, REMEMBERED, ByLength),
        })
    }

    /// Goes on with the keys that `old` has fetched from the same place.
    pub fn inherit(&mut self, old: &Self) {
        self.keys.inherit(&old.keys);
    }

    /// Keeps the keys fresh, without end.
    pub async fn run(&self, fetcher: &Fetcher) {
        self.keys.run(&self.name, fetcher).await;
    }

    /// Whom the bearer token speaks of.
    pub async fn verify(&self, headers: &HeaderMap) -> Outcome {
        let found = match &self.settings.header {
            Some(name) => credentials::header(headers, name),
            None => credentials::authorization(headers, "Bearer"),
        };
        match found {
            Found::Absent => Outcome::Absent,
            Found::Unclear => Outcome::refused(Reason::Unclear),
            Found::One(token) => self.read(token, clock::now_ms() as f64 / 1000.0).await,
        }
    }

    /// Whom this token speaks of at `now`, in seconds since 1970.
    pub async fn read(&self, token: &str, now: f64) -> Outcome {
        if token.len() > self.settings.most_bytes {
            return Outcome::refused(Reason::TokenTooLarge);
        }
        let key = *blake3::keyed_hash(&self.secret, token.as_bytes()).as_bytes();
        if let Some(good) = self.good.get(&key)
            && good.generation == self.keys.generation()
        {
            return match claims::hold(good.from, good.until, now) {
                Ok(()) => Outcome::Verified(good.caller),
                Err(reason) => Outcome::refused(reason),
            };
        }
        match self.claims(token, now).await {
            Ok(CheckedToken { claims, holds: (from, until), generation }) => {
                let findings = claims::findings(claims, &self.settings.names, &self.consumers);
                let caller = Arc::new(Principal::new(findings, &self.name, &self.site_key));
                let good = Good { caller: Arc::clone(&caller), bytes: token.len(), from, until, generation };
                self.good.insert(key, good);
                Outcome::Verified(caller)
            }
            Err(refused) => refused.into_outcome(),
        }
    }

    /// What a token says at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// It is no good, or there are no keys yet.
    pub async fn claims(&self, token: &str, now: f64) -> Result<CheckedToken, Refused> {
        let signed = Signed::parse(token).ok_or(Reason::NoToken)?;
        if !self.settings.algorithms.contains(&signed.algorithm) {
            return Err(Reason::WrongAlgorithm.into());
        }
        let generation = match self.keys.check(&signed).await {
            Checked::Good(generation) => generation,
            Checked::Bad => return Err(Reason::WrongSignature.into()),
            Checked::NoKeys => return Err(Refused::NoKeys),
        };
        let payload = signed.payload().ok_or(Reason::NoToken)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| Reason::NoToken)?;
        if claims.get("iss").and_then(Value::as_str) != Some(self.settings.issuer.as_str()) {
            return Err(Reason::WrongIssuer.into());
        }
        if !self.settings.audience.is_empty() && !claims::is_for(&claims, &self.settings.audience) {
            return Err(Reason::WrongAudience.into());
        }
        let leeway = self.settings.leeway.as_secs_f64();
        let from = claims::from(&claims)? - leeway;
        let until = claims::seconds(&claims, "exp")?.ok_or(Reason::TokenExpired)? + leeway;
        claims::hold(from, until, now)?;
        Ok(CheckedToken { claims, holds: (from, until), generation })
    }

    /// What the issuer says about itself, once it was asked.
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.keys.metadata()
    }

    /// Takes the token out of what goes on.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if self.settings.forward == Toggle::On {
            return;
        }
        match &self.settings.header {
            Some(name) => {
                headers.remove(name);
            }
            None => credentials::strip_authorization(headers, "Bearer"),
        }
    }

    /// What asks for a token; says so if there was one that is no good (RFC 6750, 3).
    pub fn challenge(&self, presented: bool) -> String {
        bearer_challenge(&self.name, presented)
    }
}

/// What asks for a token of the method `name`.
pub fn bearer_challenge(name: &str, presented: bool) -> String {
    let error = if presented { ", error=\"invalid_token\"" } else { "" };
    format!("Bearer realm=\"{name}\"{error}")
}

/// A token that was found good.
#[derive(Debug)]
pub struct CheckedToken {
    /// What it says.
    pub claims: Claims,
    /// From when and until when it holds, in seconds since 1970.
    pub holds: (f64, f64),
    generation: u64,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is no good.
    Because(Reason),
    /// There are no keys to tell.
    NoKeys,
}

impl Refused {
    /// What the method makes of it.
    pub fn into_outcome(self) -> Outcome {
        match self {
            Self::Because(reason) => Outcome::refused(reason),
            Self::NoKeys => Outcome::Unavailable,
        }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Because(reason)
    }
}

#[cfg(test)]
mod tests;
