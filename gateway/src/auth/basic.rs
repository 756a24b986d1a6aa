//! Name and password by HTTP Basic (RFC 7617): argon2id, with a short memory of what was right.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZero,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordVerifier};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderMap;
use quick_cache::sync::Cache;
use tokio::{sync::Semaphore, time::timeout};
use zeroize::Zeroizing;

use super::{
    Account, Asked, Outcome, Reason,
    brute::Tried,
    credentials::{self, Found},
    principal::Principal,
};
use crate::config::{Toggle, auth};

/// Passwords remembered as right.
const REMEMBERED: usize = 10_000;

/// Longest name and password together, decoded, in bytes.
const LONGEST: usize = 1024;

/// How long a request waits for its turn to have its password computed.
const TURN: Duration = Duration::from_secs(5);

/// Names and passwords of all consumers.
pub struct Basic {
    settings: auth::Basic,
    accounts: HashMap<String, (Arc<str>, Arc<Principal>)>,
    /// What is computed for names that nobody has, so that they take as long.
    decoy: Option<Arc<str>>,
    /// Makes the keys of `right`: passwords themselves are not kept, nor anything that could be tried against.
    secret: [u8; 32],
    right: Cache<[u8; 32], (Instant, Arc<Principal>)>,
    turns: Arc<Semaphore>,
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Basic").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Basic {
    /// Takes over names, hashes in PHC form, and whom they belong to.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(
        settings: &auth::Basic,
        accounts: impl Iterator<Item = (String, String, Arc<Principal>)>,
    ) -> Result<Self, getrandom::Error> {
        let accounts: HashMap<_, _> =
            accounts.map(|(name, hash, caller)| (name, (Arc::from(hash), caller))).collect();
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            settings: settings.clone(),
            decoy: accounts.values().next().map(|(hash, _)| Arc::clone(hash)),
            accounts,
            secret,
            right: Cache::new(REMEMBERED),
            turns: Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, NonZero::get))),
        })
    }

    /// Who has this name and password.
    pub async fn verify(&self, asked: &Asked<'_>) -> Outcome {
        let text = match credentials::authorization(&asked.parts.headers, "Basic") {
            Found::Absent => return Outcome::Absent,
            Found::Unclear => return Outcome::refused(Reason::Unclear),
            Found::One(text) => text,
        };
        let Some((name, password)) = decode(text) else { return Outcome::refused(Reason::Unclear) };
        let key = self.key(asked.identity.address, &name, &password);
        if let Some(caller) = self.remembered(&key) {
            return Outcome::Verified(caller);
        }
        let mut attempt = None;
        if let Some(guard) = asked.guard {
            let tried =
                Tried { account: Some(Account::of(&name)), password: Some(guard.password(&password)) };
            match guard.attempt(asked.identity.address, tried, asked.now_ms) {
                Ok(allowed) => match allowed.wait().await {
                    Ok(allowed) => attempt = Some(allowed),
                    Err(refusal) => return Outcome::Answered(Box::new(refusal)),
                },
                Err(refusal) => return Outcome::Answered(Box::new(refusal)),
            }
        }
        let outcome = self.check(&name, password, key).await;
        match (attempt, &outcome) {
            (Some(attempt), Outcome::Verified(_)) => attempt.succeeded(asked.now_ms),
            (Some(attempt), Outcome::Unavailable) => attempt.undecided(),
            (Some(attempt), _) => attempt.failed(),
            (None, _) => {}
        }
        outcome
    }

    async fn check(&self, name: &str, password: Zeroizing<Vec<u8>>, key: [u8; 32]) -> Outcome {
        // Every check takes a core for milliseconds and megabytes of memory: only so many at once.
        let Ok(Ok(turn)) = timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await else {
            return Outcome::Unavailable;
        };
        if let Some(caller) = self.remembered(&key) {
            return Outcome::Verified(caller);
        }
        let known = self.accounts.get(name);
        let Some(hash) = known.map(|(hash, _)| hash).or(self.decoy.as_ref()).cloned() else {
            return Outcome::refused(Reason::WrongPassword);
        };
        let checked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            matches(&password, &hash)
        });
        match (checked.await, known) {
            (Ok(true), Some((_, caller))) => {
                self.right.insert(key, (Instant::now(), Arc::clone(caller)));
                Outcome::Verified(Arc::clone(caller))
            }
            (Ok(_), _) => Outcome::refused(Reason::WrongPassword),
            (Err(_), _) => Outcome::Unavailable,
        }
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Arc<Principal>> {
        let (since, caller) = self.right.get(key)?;
        (since.elapsed() < self.settings.cache).then_some(caller)
    }

    /// What is remembered is good for one address: elsewhere it would answer whoever guesses, past all limits.
    fn key(&self, address: IpAddr, name: &str, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        match address {
            IpAddr::V4(address) => hasher.update(&address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => hasher.update(&address.octets()),
        };
        // Their lengths part the two.
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(password);
        *hasher.finalize().as_bytes()
    }

    /// Takes name and password out of what goes on.
    pub fn strip(&self, headers: &mut HeaderMap) {
        if self.settings.forward == Toggle::Off {
            credentials::strip_authorization(headers, "Basic");
        }
    }

    /// What asks for a password.
    pub fn challenge(&self) -> String {
        format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.settings.realm)
    }
}

fn decode(text: &str) -> Option<(Zeroizing<String>, Zeroizing<Vec<u8>>)> {
    if text.len() > LONGEST * 2 {
        return None;
    }
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let at = bytes.iter().position(|byte| *byte == b':')?;
    let (name, password) = bytes.split_at_checked(at)?;
    let name = Zeroizing::new(std::str::from_utf8(name).ok()?.to_owned());
    let password = Zeroizing::new(password.get(1..)?.to_vec());
    (bytes.len() <= LONGEST && !password.is_empty()).then_some((name, password))
}

/// Whether this is the password; compares in constant time. The hash says what it costs.
fn matches(password: &[u8], hash: &str) -> bool {
    let Ok(hash) = argon2::PasswordHash::new(hash) else { return false };
    Argon2::default().verify_password(password, &hash).is_ok()
}
