//! API keys: what a consumer sends with each request. Only their hashes are known here.

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use http::request::Parts;
use subtle::ConstantTimeEq;

use super::{
    Outcome, Reason,
    credentials::{self, Found},
    principal::Principal,
};
use crate::config::{Toggle, auth};

/// The API keys of all consumers, found by one method.
#[derive(Debug)]
pub struct ApiKeys {
    settings: auth::ApiKey,
    /// By the first half of the hash. The second is compared in constant time, so that the time a lookup takes tells
    /// nothing from which a hash, let alone a key, could be built.
    callers: HashMap<[u8; 16], ([u8; 16], Arc<Principal>)>,
}

/// SHA-256 of an API key. Keys are long and random, so that nothing slower is needed.
pub fn hash(key: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    hash
}

impl ApiKeys {
    /// Takes over the hash of each key, with whom it belongs to.
    pub fn new(settings: &auth::ApiKey, keys: impl Iterator<Item = ([u8; 32], Arc<Principal>)>) -> Self {
        let callers = keys.map(|(hash, caller)| {
            let (index, rest) = halves(&hash);
            (index, (rest, caller))
        });
        Self { settings: settings.clone(), callers: callers.collect() }
    }

    /// Who sends this key.
    pub fn verify(&self, parts: &Parts) -> Outcome {
        let header = match &self.settings.header {
            Some(name) => credentials::header(&parts.headers, name),
            None => Found::Absent,
        };
        let argument = match &self.settings.query {
            Some(name) => credentials::argument(parts.uri.query(), name),
            None => Found::Absent,
        };
        match (&header, &argument) {
            (Found::Absent, Found::Absent) => Outcome::Absent,
            (Found::One(key), Found::Absent) => self.find(key),
            (Found::Absent, Found::One(key)) => self.find(key),
            _ => Outcome::refused(Reason::Unclear),
        }
    }

    fn find(&self, key: &str) -> Outcome {
        let (index, rest) = halves(&hash(key.as_bytes()));
        match self.callers.get(&index) {
            Some((expected, caller)) if bool::from(expected.ct_eq(&rest)) => {
                Outcome::Verified(Arc::clone(caller))
            }
            _ => Outcome::refused(Reason::WrongKey),
        }
    }

    /// Takes the key out of what goes on.
    pub fn strip(&self, parts: &mut Parts) {
        if self.settings.forward == Toggle::On {
            return;
        }
        if let Some(name) = &self.settings.header {
            parts.headers.remove(name);
        }
        if let Some(name) = &self.settings.query {
            // What is left of a target is a target.
            let _ = credentials::strip_argument(parts, name);
        }
    }
}

fn halves(hash: &[u8; 32]) -> ([u8; 16], [u8; 16]) {
    let (mut index, mut rest) = ([0; 16], [0; 16]);
    let (first, second) = hash.split_at(16);
    index.copy_from_slice(first);
    rest.copy_from_slice(second);
    (index, rest)
}
