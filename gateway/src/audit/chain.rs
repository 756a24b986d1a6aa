//! The proof that a log is whole, or the first place where it is not.
//!
//! What it proves: between its first entry and its last nothing was changed, removed, added or put elsewhere, unless
//! everything behind that place was written anew. Nobody needs a key for that, so whoever may write the files can make
//! a whole new log; and what was cut off at the end leaves no trace. Both show against a head that was noted elsewhere.

use std::{
    fmt, fs,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    str::FromStr,
};

use blake3::{Hash, Hasher};

use super::line::{self, RawLine};

/// The action of the entry that states what stands before it and is no entry.
pub const TORN: &str = "audit.torn";

/// An entry by number and hash; it stands for all that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its number; 0 stands for the beginning.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: Hash::from_bytes([0; 32]) }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no head; write NUMBER:HASH as `gateway audit head` prints it");
        let (seq, hash) = text.trim().split_once(':').ok_or_else(wrong)?;
        let (seq, hash) = (seq.parse().map_err(|_| wrong())?, Hash::from_hex(hash).map_err(|_| wrong())?);
        Ok(Self { seq, hash })
    }
}

/// What is known of a log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Entries.
    pub entries: u64,
    /// The last one.
    pub head: Head,
    /// What a crash left between entries; each is stated by the entry behind it.
    pub torn: Vec<Torn>,
}

/// Bytes that are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// How many.
    pub bytes: u64,
    /// The entry that states them.
    pub stated_by: u64,
}

/// The first place where a log is not whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} ({place}): {what}")]
pub struct Broken {
    /// The first entry that is not as it was written, or is missing.
    pub entry: u64,
    /// File and line.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

/// The files of a log, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jsonl"));
        if name.is_some_and(|name| name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_digit())) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Proves the log in `directory` whole, behind `after` and with `noted` in its place, and hands every entry to `each`.
///
/// # Errors
/// A file cannot be read; or, within, where the log is broken.
pub fn verify(
    directory: &Path,
    after: Head,
    noted: Option<Head>,
    mut each: impl FnMut(&RawLine),
) -> io::Result<Result<Proof, Broken>> {
    let mut walk = Walk { head: after, noted, entries: 0, torn: Vec::new(), remains: None };
    let mut place = format!("{}, empty", directory.display());
    for path in files(directory)? {
        let mut reader = BufReader::new(File::open(&path)?);
        let (mut number, mut text) = (0_u64, Vec::new());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        while reader.read_until(b'\n', &mut text)? > 0 {
            number += 1;
            place = format!("{name}, line {number}");
            match walk.take(&text, &place) {
                Ok(Some(line)) => each(&line),
                Ok(None) => {}
                Err(broken) => return Ok(Err(broken)),
            }
            text.clear();
        }
    }
    Ok(walk.end(&place))
}

struct Walk {
    /// The last entry.
    head: Head,
    /// An entry that must be there.
    noted: Option<Head>,
    entries: u64,
    torn: Vec<Torn>,
    /// What stands behind the last entry and is none.
    remains: Option<Remains>,
}

struct Remains {
    place: String,
    bytes: u64,
    hash: Hasher,
}

impl Walk {
    fn take(&mut self, text: &[u8], place: &str) -> Result<Option<RawLine>, Broken> {
        let Some((line, head)) = line::read(text.strip_suffix(b"\n").unwrap_or(text)) else {
            let fresh = || Remains { place: place.to_owned(), bytes: 0, hash: Hasher::new() };
            let remains = self.remains.get_or_insert_with(fresh);
            remains.bytes += text.len() as u64;
            remains.hash.update(text);
            return Ok(None);
        };
        let expected = self.head.seq.saturating_add(1);
        let broken =
            |entry: u64, place: &str, what: String| Err(Broken { entry, place: place.to_owned(), what });
        if let Some(remains) = self.remains.take() {
            if !states(&line, remains.bytes, &remains.hash.finalize()) {
                let what = "is not as it was written, or no entry at all".to_owned();
                return broken(expected, &remains.place, what);
            }
            self.torn.push(Torn { bytes: remains.bytes, stated_by: line.seq });
        } else if line.action == TORN {
            let what = "states bytes before it that are not there any more".to_owned();
            return broken(line.seq, place, what);
        }
        match line.seq {
            seq if seq > expected => {
                return broken(expected, place, format!("is missing: entry {seq} stands in its place"));
            }
            seq if seq < expected => {
                return broken(
                    expected,
                    place,
                    format!("is missing: entry {seq} comes once more, or too late"),
                );
            }
            _ => {}
        }
        if line.before_it() != Some(self.head.hash) {
            let what = format!("does not follow entry {}: one of the two was replaced", self.head.seq);
            return broken(line.seq, place, what);
        }
        self.check_noted(head, place)?;
        self.head = head;
        self.entries += 1;
        Ok(Some(line))
    }

    fn check_noted(&self, head: Head, place: &str) -> Result<(), Broken> {
        match self.noted {
            Some(noted) if noted.seq == head.seq && noted.hash != head.hash => Err(Broken {
                entry: head.seq,
                place: place.to_owned(),
                what: "is not the one that was noted: the log was written anew".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    fn end(self, place: &str) -> Result<Proof, Broken> {
        let next = self.head.seq.saturating_add(1);
        if let Some(remains) = self.remains {
            return Err(Broken {
                entry: next,
                place: remains.place,
                what: format!(
                    "{} bytes at the end are no entry: the gateway was stopped while it wrote them, or somebody changed \
                     them; the next start will state them",
                    remains.bytes
                ),
            });
        }
        if let Some(noted) = self.noted.filter(|noted| noted.seq > self.head.seq) {
            let what = format!("is missing: the log was cut off, entry {} was noted", noted.seq);
            return Err(Broken { entry: next, place: place.to_owned(), what });
        }
        Ok(Proof { entries: self.entries, head: self.head, torn: self.torn })
    }
}

/// Whether an entry states exactly these bytes.
fn states(line: &RawLine, bytes: u64, hash: &Hash) -> bool {
    let said = |name: &str| line.after.get(name);
    line.action == TORN
        && said("bytes").and_then(serde_json::Value::as_u64) == Some(bytes)
        && said("blake3").and_then(serde_json::Value::as_str) == Some(hash.to_hex().as_str())
}
