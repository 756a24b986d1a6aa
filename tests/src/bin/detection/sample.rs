//! Which requests of a file are looked at.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Result;
use datasets::labelled::{Label, LabelledReader, LabelledRequest};

/// Most requests of one file and label, unless all are asked for.
const MOST: usize = 20_000;
/// What the choice of a sample depends on, besides the requests.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which requests of a file are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampling {
    /// Only one half of the file.
    pub(crate) half: Option<Half>,
    /// No limit.
    pub(crate) all: bool,
}

/// The half of a file that rules may be written for, and the one that says how good they are. The split goes by
/// what a request says with its numbers made equal, so that near copies share a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// May be looked at.
    Develop,
    /// Is only counted.
    HeldOut,
}

impl Sampling {
    /// The chosen requests in file order.
    pub(crate) fn read(&self, file: &Path) -> Result<Vec<LabelledRequest>> {
        let mut kept = Vec::new();
        for request in LabelledReader::open(file)? {
            let request = request?;
            let half = if gist(&request) & 1 == 0 { Half::Develop } else { Half::HeldOut };
            if self.half.is_none_or(|wanted| wanted == half) {
                kept.push(request);
            }
        }
        if !self.all {
            thin_out(&mut kept);
        }
        Ok(kept)
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let half = match self.half {
            None => "whole files",
            Some(Half::Develop) => "the half for development",
            Some(Half::HeldOut) => "the held-out half",
        };
        if self.all {
            return write!(f, "Every request of {half}.");
        }
        write!(
            f,
            "At most {MOST} requests of a file and label, chosen by a seeded hash of their ids, of {half}."
        )
    }
}

/// The file's name without its endings.
pub(crate) fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.trim_end_matches(".gz").trim_end_matches(".jsonl").to_owned()
}

/// The start of a body, on one line.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(2000).collect();
    text.escape_debug().to_string()
}

fn thin_out(requests: &mut Vec<LabelledRequest>) {
    let mut keys: BTreeMap<Label, Vec<u64>> = BTreeMap::new();
    for request in requests.iter() {
        keys.entry(request.label).or_default().push(key(request));
    }
    let limits: BTreeMap<Label, u64> = keys
        .into_iter()
        .filter_map(|(label, mut keys)| {
            keys.sort_unstable();
            keys.get(MOST).map(|limit| (label, *limit))
        })
        .collect();
    requests.retain(|request| limits.get(&request.label).is_none_or(|limit| key(request) < *limit));
}

fn key(request: &LabelledRequest) -> u64 {
    hash(request.id.bytes())
}

fn gist(request: &LabelledRequest) -> u64 {
    let bytes = request.target.bytes().chain(request.body.iter().copied());
    let mut digits = false;
    let same = bytes.filter(|byte| {
        let again = digits && byte.is_ascii_digit();
        digits = byte.is_ascii_digit();
        !again
    });
    hash(same.map(|byte| if byte.is_ascii_digit() { b'0' } else { byte.to_ascii_lowercase() })) >> 32
}

/// FNV-1a with a final mix: the same on every machine and every release.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mixed = bytes.fold(0xcbf2_9ce4_8422_2325 ^ SEED, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}
