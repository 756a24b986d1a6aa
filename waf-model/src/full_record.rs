//! FullRecord: one request itself, kept where a route asks for it (`record: full`), so that rules can be tried on it.
//! Its secrets are taken out first, and what is left leaves the gateway sealed only.
//!
//! The sealed form is `version: u16 LE | keep until: u64 LE | key id: u64 LE | nonce: 24 bytes | XChaCha20-Poly1305 of
//! the postcard form`; all before the nonce is authenticated. When a record is to be removed can be read without the
//! key.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};

use crate::{
    body,
    event::{RuleHit, Verdict},
    request::{BodyExtent, BodyView, Header, RequestView},
    secrets::{self, Text},
};

/// Version of the sealed form.
pub const SEALED_VERSION: u16 = 1;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// Bytes of a nonce. Random ones do not repeat: there are 192 bits.
pub const NONCE_BYTES: usize = 24;

/// Bytes before the nonce.
const HEAD: usize = 2 + 8 + 8;

/// One request as rules see it, without its secrets, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullRecord {
    /// Request id, as in its event.
    pub id: [u8; 16],
    /// Milliseconds since 1970 at arrival.
    pub at_ms: u64,
    /// Keyed hash of the client key, as in its event.
    pub client: u64,
    /// Name of the route.
    pub route: String,
    /// Paranoia level of the route's rules.
    pub paranoia: u8,
    /// Points at which the route's rules reject a request, and at which they withhold a response.
    pub thresholds: (u32, u32),
    /// What was decided.
    pub verdict: Verdict,
    /// Whether a route in mode `block` acts on it: model and base knowledge may be held to only report.
    pub acts: bool,
    /// What rules matched in the request, masked.
    pub hits: Vec<RuleHit>,
    /// Method and path template, as in its event: what people are shown.
    pub what: String,
    /// The client's network (IPv4 /24, IPv6 /48), which stands in for its address.
    pub network: String,
    /// The method.
    pub method: String,
    /// The path as on the wire.
    pub path: Vec<u8>,
    /// The query as on the wire.
    pub query: Option<Vec<u8>>,
    /// Protocol version as rules name it.
    pub protocol: String,
    /// Every header field; names are lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The first part of the body.
    pub body: Vec<u8>,
    /// Whether that is all of it.
    pub complete: bool,
}

impl FullRecord {
    /// Takes the secrets out, in place. `more` names headers (lower case) that hold one on this site. A body in which
    /// they cannot be found, compressed for one, goes as a whole.
    pub fn conceal(&mut self, more: &[&str]) {
        let fields = self.fields();
        if body::is_opaque(&self.view(&fields)) {
            self.complete &= self.body.is_empty();
            self.body.clear();
        }
        self.path = secrets::conceal(&self.path, Text::Free);
        self.query = self.query.take().map(|query| secrets::conceal(&query, Text::Pairs));
        let form = self.headers.iter().any(|(name, value)| {
            let value = value.trim_ascii_start().to_ascii_lowercase();
            name == "content-type" && value.starts_with(b"application/x-www-form-urlencoded")
        });
        for (name, value) in &mut self.headers {
            *value = match more.contains(&name.as_str()) {
                true => secrets::conceal_all(value),
                false => secrets::conceal_header(name, value),
            };
        }
        self.body = secrets::conceal(&self.body, if form { Text::Pairs } else { Text::Free });
    }

    /// The request, with `headers` as [`Self::fields`] gives them.
    pub fn view<'a>(&'a self, headers: &'a [Header<'a>]) -> RequestView<'a> {
        RequestView {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            protocol: &self.protocol,
            headers,
            body: BodyView {
                bytes: &self.body,
                extent: if self.complete { BodyExtent::Complete } else { BodyExtent::Truncated },
            },
            client_address: self.network.split('/').next().unwrap_or_default(),
        }
    }

    /// Its header fields.
    pub fn fields(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(name, value)| Header { name, value }).collect()
    }

    /// The sealed form, to be removed at `until_ms` (milliseconds since 1970). A nonce is used once. Empty if the
    /// record cannot be encoded.
    pub fn seal(&self, key: &RecordKey, nonce: [u8; NONCE_BYTES], until_ms: u64) -> Vec<u8> {
        let plain = postcard::to_stdvec(self).unwrap_or_default();
        let mut sealed = Vec::with_capacity(HEAD + NONCE_BYTES + plain.len() + 16);
        sealed.extend_from_slice(&SEALED_VERSION.to_le_bytes());
        sealed.extend_from_slice(&until_ms.to_le_bytes());
        sealed.extend_from_slice(&key.id().to_le_bytes());
        let payload = Payload { msg: &plain, aad: &sealed };
        let Ok(hidden) = key.cipher().encrypt(&XNonce::from(nonce), payload) else { return Vec::new() };
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&hidden);
        sealed
    }

    /// Opens the sealed form.
    ///
    /// # Errors
    /// An unknown version, another key, or bytes that were changed.
    pub fn open(sealed: &[u8], key: &RecordKey) -> Result<Self, SealError> {
        let (_, key_id) = head(sealed)?;
        if key_id != key.id() {
            return Err(SealError::OtherKey);
        }
        let (aad, rest) = sealed.split_at_checked(HEAD).ok_or(SealError::Damaged)?;
        let (nonce, hidden) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Damaged)?;
        let payload = Payload { msg: hidden, aad };
        let plain = key.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Damaged)?;
        postcard::from_bytes(&plain).map_err(|_| SealError::Damaged)
    }
}

/// When a sealed record is to be removed, in milliseconds since 1970. Nothing vouches for it before it is opened.
///
/// # Errors
/// An unknown version, or no sealed record.
pub fn keep_until(sealed: &[u8]) -> Result<u64, SealError> {
    Ok(head(sealed)?.0)
}

fn head(sealed: &[u8]) -> Result<(u64, u64), SealError> {
    let (version, rest) = sealed.split_first_chunk::<2>().ok_or(SealError::Damaged)?;
    let version = u16::from_le_bytes(*version);
    if version != SEALED_VERSION {
        return Err(SealError::Version(version));
    }
    let (until_ms, rest) = rest.split_first_chunk::<8>().ok_or(SealError::Damaged)?;
    let key_id = rest.first_chunk::<8>().ok_or(SealError::Damaged)?;
    Ok((u64::from_le_bytes(*until_ms), u64::from_le_bytes(*key_id)))
}

/// Seals and opens records.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordKey([u8; KEY_BYTES]);

impl RecordKey {
    /// A key of these bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// Names the key without giving it away: the first 8 bytes of its BLAKE3 hash in a context of its own.
    pub fn id(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = blake3::derive_key("portcullis 2026 record key id", &self.0);
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordKey({:016x})", self.id())
    }
}

/// Why a sealed record cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Written by a version that is not known here.
    #[error("version {0}; this one reads full records of version {SEALED_VERSION}")]
    Version(u16),
    /// Sealed with another key.
    #[error("sealed with another key; name the key file of the gateway that recorded it")]
    OtherKey,
    /// Not a sealed record, or changed.
    #[error("damaged full record")]
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> FullRecord {
        FullRecord {
            id: [7; 16],
            at_ms: 1,
            client: 2,
            route: "shop".to_owned(),
            paranoia: 1,
            thresholds: (5, 4),
            verdict: Verdict::Pass,
            acts: true,
            hits: Vec::new(),
            what: "POST /login".to_owned(),
            network: "192.0.2.0/24".to_owned(),
            method: "POST".to_owned(),
            path: b"/login".to_vec(),
            query: Some(b"token=hunter2&q=1' or 1=1".to_vec()),
            protocol: "HTTP/1.1".to_owned(),
            headers: vec![
                ("content-type".to_owned(), b"application/x-www-form-urlencoded".to_vec()),
                ("cookie".to_owned(), b"sid=hunter2".to_vec()),
                ("x-site".to_owned(), b"hunter2".to_vec()),
            ],
            body: b"user=jane&password=hunter2&q=\"a b\"".to_vec(),
            complete: true,
        }
    }

    #[test]
    fn secrets_are_out_and_the_request_is_there() {
        let mut record = record();
        record.conceal(&["x-site"]);
        let fields = record.fields();
        let view = record.view(&fields);
        assert_eq!(view.query, Some(&b"token=x&q=1' or 1=1"[..]));
        assert_eq!(view.body.bytes, b"user=jane&password=x&q=\"a b\"");
        assert_eq!((view.header("x-site"), view.header("cookie")), (Some(&b"x"[..]), Some(&b"sid=x"[..])));
        assert_eq!(view.client_address, "192.0.2.0");
        assert!(!String::from_utf8_lossy(&postcard::to_stdvec(&record).unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_body_that_cannot_be_read_goes_as_a_whole() {
        for (name, value) in [
            ("content-encoding", "gzip"),
            ("content-type", "application/zip"),
            ("content-type", "application/json; charset=utf-16"),
        ] {
            let mut record = record();
            record.headers = vec![(name.to_owned(), value.as_bytes().to_vec())];
            record.conceal(&[]);
            assert_eq!((record.body.len(), record.complete), (0, false), "{name}: {value}");
        }
    }

    #[test]
    fn a_sealed_record_opens_with_its_key_alone_and_only_unchanged() {
        let (key, other) = (RecordKey::new([1; 32]), RecordKey::new([2; 32]));
        let sealed = record().seal(&key, [9; NONCE_BYTES], 77);
        assert!(!sealed.windows(7).any(|part| part == b"hunter2" || part == b"/login\0"));
        assert_eq!(keep_until(&sealed), Ok(77));
        assert_eq!(FullRecord::open(&sealed, &key), Ok(record()));
        assert_eq!(FullRecord::open(&sealed, &other), Err(SealError::OtherKey));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(FullRecord::open(&changed, &key).is_err(), "changed at {at}");
            assert!(FullRecord::open(&sealed[..at], &key).is_err(), "cut at {at}");
        }
        assert!(!format!("{key:?}").contains("1, 1"));
    }
}
