//! One entry as a line of the log, and back.
//!
//! A line is a JSON object whose last two members are `prev`, the hash of the entry before, and `hash`, the BLAKE3 hash
//! of everything that stands before it in the line.

use blake3::Hash;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Entry, Head, mask};
use crate::clock;

/// What stands between an entry and its hash.
const MARK: &[u8] = b",\"hash\":\"";

/// What ends a line.
const END: &[u8] = b"\"}";

/// Most bytes that `before` or `after` may take; what is longer is named by size and hash.
const MOST_BYTES: usize = 64 * 1024;

/// An entry as it was written.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawLine {
    /// Its number, from 1.
    pub seq: u64,
    /// When, RFC 3339.
    pub at: String,
    /// Who did it.
    pub actor: String,
    /// The address it was ordered from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What was done.
    pub action: String,
    /// What to.
    pub object: String,
    /// What was so before.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// What is so since.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub after: Value,
    /// Hash of the entry before, in hexadecimal.
    pub prev: String,
    /// Its own hash, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

/// The line of an entry behind `head`, with its line end; and the head after it.
pub fn write(entry: &Entry, head: Head) -> (String, Head) {
    let seq = head.seq.saturating_add(1);
    let line = RawLine {
        seq,
        at: clock::text(entry.at_ms),
        actor: entry.actor.to_string(),
        from: entry.from.clone(),
        action: entry.action.to_owned(),
        object: entry.object.clone(),
        before: bounded(mask::secrets(entry.before.clone())),
        after: bounded(mask::secrets(entry.after.clone())),
        prev: head.hash.to_string(),
        hash: String::new(),
    };
    // Strings, numbers and JSON values: nothing that cannot be written.
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.pop();
    let hash = blake3::hash(text.as_bytes());
    text.push_str(&format!(",\"hash\":\"{hash}\"}}\n"));
    (text, Head { seq, hash })
}

/// Reads a line without its line end; `None` if it is no entry, or not as it was written.
pub fn read(line: &[u8]) -> Option<(RawLine, Head)> {
    let (text, end) = line.split_at_checked(line.len().checked_sub(MARK.len() + 64 + END.len())?)?;
    let said = end.strip_prefix(MARK)?.strip_suffix(END)?;
    let hash = blake3::hash(text);
    if said != hash.to_hex().as_bytes() {
        return None;
    }
    let line: RawLine = serde_json::from_slice(line).ok()?;
    let head = Head { seq: line.seq, hash };
    Some((line, head))
}

impl RawLine {
    /// The hash of the entry before.
    pub fn before_it(&self) -> Option<Hash> {
        Hash::from_hex(&self.prev).ok()
    }
}

fn bounded(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= MOST_BYTES {
        return value;
    }
    json!({ "omitted_bytes": text.len(), "blake3": blake3::hash(text.as_bytes()).to_string() })
}
