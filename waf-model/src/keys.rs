//! Names of everything kept in Redis, and the text form of a client key.
//!
//! Operators read and write these by hand with `redis-cli`; a change here is a breaking change.

use std::{fmt, hash::Hasher};

use siphasher::sip::SipHasher24;

use crate::observation::ValueKey;

/// The event stream; gateways append, the consumer group [`TRAINER_GROUP`] reads. Fields: `v` = event version,
/// `d` = [`crate::event::Event`] as bytes.
pub const EVENTS: &str = "portcullis:events:0";

/// Stream of sealed [`crate::full_record::FullRecord`]s: field `d`.
pub const FULL_RECORDS: &str = "portcullis:records:0";

/// Consumer group of the trainer on [`EVENTS`], [`REVIEWS`] and [`FULL_RECORDS`].
pub const TRAINER_GROUP: &str = "trainer";

/// Stream of reviews (`request`, `verdict`, `client`, `at`).
pub const REVIEWS: &str = "portcullis:reviews";

/// Stream of changes (`kind` = `block` | `release` | `model`, `key`): gateways tail it.
pub const CHANGES: &str = "portcullis:changes";

/// Sorted set of block keys by expiry (milliseconds since 1970).
pub const BLOCK_INDEX: &str = "portcullis:blocks";

/// Prefix of block hashes.
pub const BLOCK_PREFIX: &str = "portcullis:block:";

/// Prefix of allow-list entries added at run time.
pub const ALLOW_PREFIX: &str = "portcullis:allow:";

/// The site's observation key, 16 bytes, written once (`SET NX`).
pub const SITE_KEY: &str = "portcullis:site-key";

/// Sequence number of the published model.
pub const MODEL_CURRENT: &str = "portcullis:model:current";

/// Sequence number of the model that a gateway put in force last; the published one may still be on trial.
pub const MODEL_IN_FORCE: &str = "portcullis:model:in-force";

/// Hash of inventories of endpoints: a field for each gateway, JSON.
pub const INVENTORY: &str = "portcullis:inventory";

/// Where the artifact with sequence number `seq` is kept.
pub fn model(seq: u64) -> String {
    format!("portcullis:model:{seq}")
}

/// Where the theoretical arrival time of a rate is kept: `portcullis:rate:<limit>:<key>`, a keyed hash.
pub fn rate(limit: &str, key: u64) -> String {
    format!("portcullis:rate:{limit}:{key:016x}")
}

/// Where the count of a quota is kept: `portcullis:quota:<limit>:<end of the period, ms>:<key>`, a keyed hash.
pub fn quota(limit: &str, ends_ms: u64, key: u64) -> String {
    format!("portcullis:quota:{limit}:{ends_ms}:{key:016x}")
}

/// Where the block of `client` is kept: `portcullis:block:<scope>:<kind>:<key>`.
pub fn block(scope: &str, client: &ClientKey) -> String {
    format!("{BLOCK_PREFIX}{scope}:{client}")
}

/// Who is blocked, narrowest first. Its text form is `<kind>:<key>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKey {
    /// A caller that has proved who it is: a consumer's name, or the hexadecimal of the keyed hash of a subject.
    Consumer(String),
    /// An API key, as the hexadecimal of its keyed hash.
    ApiKey(String),
    /// A session cookie, as the hexadecimal of its keyed hash.
    Session(String),
    /// One address (IPv6: its /64) in text form, or a network in CIDR form.
    Address(String),
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consumer(name) => write!(f, "consumer:{name}"),
            Self::ApiKey(key) => write!(f, "key:{key}"),
            Self::Session(key) => write!(f, "session:{key}"),
            Self::Address(address) => write!(f, "ip:{address}"),
        }
    }
}

impl ClientKey {
    /// Reads the text form `<kind>:<key>`; `None` for an unknown kind or an empty key.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, key) = text.split_once(':')?;
        if key.is_empty() {
            return None;
        }
        match kind {
            "consumer" => Some(Self::Consumer(key.to_owned())),
            "key" => Some(Self::ApiKey(key.to_owned())),
            "session" => Some(Self::Session(key.to_owned())),
            "ip" => Some(Self::Address(key.to_owned())),
            _ => None,
        }
    }
}

/// Keyed hash of a client key or network in text form: equal for equal text on one site, and nobody without the
/// key can guess the text. SipHash-2-4.
pub fn keyed_hash(key: &ValueKey, text: &str) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// Names the value key without giving it away: the first 8 bytes of its BLAKE3 hash.
pub fn key_id(key: &ValueKey) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&key.0).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
