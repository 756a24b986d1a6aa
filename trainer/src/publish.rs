//! Where models are published: a directory, or Redis. Gateways see a model only when all of it is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use redis::{Connection, cmd};
use waf_model::keys;

use crate::{durable, gate::Approved, ingest::redis::connect};

/// Published models that are kept.
const KEEP: usize = 5;

/// Where models are published.
#[derive(Debug, Clone)]
pub enum Shelf {
    /// `<seq>.model` and `current` in a directory.
    Directory(PathBuf),
    /// Redis, by its address.
    Redis(String),
}

impl Shelf {
    /// The highest sequence number that was published; 0 for none.
    ///
    /// # Errors
    /// The directory cannot be read, or Redis is away.
    pub fn last(&self) -> Result<u64> {
        match self {
            Self::Directory(path) => {
                let current = fs::read_to_string(path.join("current")).unwrap_or_default();
                let listed = list_directory(path)?.last().copied().unwrap_or(0);
                Ok(listed.max(current.trim().parse().unwrap_or(0)))
            }
            Self::Redis(url) => {
                let mut connection = connect(url)?;
                let current: Option<u64> = cmd("GET").arg(keys::MODEL_CURRENT).query(&mut connection)?;
                let listed = list_redis(&mut connection)?.last().copied().unwrap_or(0);
                Ok(listed.max(current.unwrap_or(0)))
            }
        }
    }

    /// The artifact in force, if there is one: the one that a gateway put in force last, or before any did the one
    /// that was published last. A published one may be on trial still, or have been refused.
    ///
    /// # Errors
    /// The directory cannot be read, or Redis is away.
    pub fn current(&self) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Directory(path) => {
                let named = ["in-force", "current"].into_iter().filter_map(|name| number(path, name));
                Ok(named.filter_map(|seq| fs::read(path.join(format!("{seq}.model"))).ok()).next())
            }
            Self::Redis(url) => {
                let mut connection = connect(url)?;
                for name in [keys::MODEL_IN_FORCE, keys::MODEL_CURRENT] {
                    let seq: Option<u64> = cmd("GET").arg(name).query(&mut connection)?;
                    let Some(seq) = seq else { continue };
                    let bytes: Option<Vec<u8>> = cmd("GET").arg(keys::model(seq)).query(&mut connection)?;
                    if bytes.is_some() {
                        return Ok(bytes);
                    }
                }
                Ok(None)
            }
        }
    }

    /// Publishes `approved` and drops all but the newest models and the one in force.
    ///
    /// # Errors
    /// A model with this or a higher number is published already, or the store fails: then the old one stays.
    pub fn publish(&self, approved: &Approved) -> Result<()> {
        let (seq, last) = (approved.seq(), self.last()?);
        if seq <= last {
            bail!("model {last} is published already and this one is number {seq}; train again");
        }
        match self {
            Self::Directory(path) => publish_directory(path, seq, approved.bytes()),
            Self::Redis(url) => publish_redis(&mut connect(url)?, seq, approved.bytes())
                .with_context(|| format!("cannot publish to Redis at {url}")),
        }
    }

    /// Where it is, for messages.
    pub fn name(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Redis(url) => url.clone(),
        }
    }
}

fn publish_directory(path: &Path, seq: u64, bytes: &[u8]) -> Result<()> {
    let file = path.join(format!("{seq}.model"));
    durable::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let current = path.join("current");
    durable::write(&current, format!("{seq}\n").as_bytes())
        .with_context(|| format!("cannot write {}", current.display()))?;
    let in_force = number(path, "in-force");
    for old in list_directory(path)?.iter().rev().skip(KEEP).filter(|seq| Some(**seq) != in_force) {
        let file = path.join(format!("{old}.model"));
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

fn publish_redis(connection: &mut Connection, seq: u64, bytes: &[u8]) -> Result<()> {
    cmd("SET").arg(keys::model(seq)).arg(bytes).exec(connection)?;
    cmd("SET").arg(keys::MODEL_CURRENT).arg(seq).exec(connection)?;
    cmd("XADD").arg(keys::CHANGES).arg("*").arg(&["kind", "model"]).arg("key").arg(seq).exec(connection)?;
    let in_force: Option<u64> = cmd("GET").arg(keys::MODEL_IN_FORCE).query(connection)?;
    for old in list_redis(connection)?.iter().rev().skip(KEEP).filter(|seq| Some(**seq) != in_force) {
        cmd("DEL").arg(keys::model(*old)).exec(connection)?;
    }
    Ok(())
}

/// The sequence number in a file of the directory, if there is one.
fn number(path: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(path.join(name)).ok()?.trim().parse().ok()
}

fn list_directory(path: &Path) -> Result<Vec<u64>> {
    let failed = || format!("cannot list {}", path.display());
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(failed),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.with_context(failed)?.file_name();
        found.extend(name.to_string_lossy().strip_suffix(".model").and_then(|stem| stem.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn list_redis(connection: &mut Connection) -> Result<Vec<u64>> {
    let prefix = keys::model(0);
    let prefix = prefix.trim_end_matches('0');
    let mut found = Vec::new();
    let mut cursor = 0_u64;
    loop {
        let (next, names): (u64, Vec<String>) = cmd("SCAN")
            .arg(cursor)
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(1000)
            .query(connection)?;
        found.extend(names.iter().filter_map(|name| name.strip_prefix(prefix)?.parse::<u64>().ok()));
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
