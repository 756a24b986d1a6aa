//! What is learned from: the lake or labelled files, cut into train, calibrate and holdout.
//!
//! A dataset is scanned, never held: memory does not grow with it. Of the lake, training sees the earlier half
//! of the time and half of the clients; calibration and holdout see other clients, later. So a model is judged
//! as it will be used: on clients it has never met, after the time it learned from. Labelled files have neither
//! clients nor time; there the order of the distinct harmless requests decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Result;
use serde::Serialize;
use waf_model::{
    client::ClientVector,
    event::ReviewVerdict,
    observation::{Observation, ValueKey},
};

pub mod from_files;
pub mod from_lake;

use from_files::FileDataset;
use from_lake::LakeDataset;

use crate::lake::Lake;

/// One request to learn from.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number among all rows of the dataset.
    pub number: u64,
    /// Milliseconds since 1970; for labelled requests, the position.
    pub at_ms: u64,
    /// Who sent it.
    pub client: u64,
    /// From which network.
    pub network: u64,
    /// Name of the route; empty where there are none.
    pub route: String,
    /// Whether a person judged it harmless.
    pub harmless: bool,
    /// Whether the model in force rejected it, and no person said that it was harmless.
    pub rejected: bool,
    /// What was observed.
    pub observation: Observation,
    /// What the client did until then; `None` where there are no clients.
    pub client_vector: Option<ClientVector>,
}

/// A part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slice {
    /// Learned from.
    Train,
    /// The threshold is taken from it.
    Calibrate,
    /// Kept aside, to see what the threshold is worth.
    Holdout,
}

/// Events of a lake, or labelled requests, that may be learned from.
#[derive(Debug)]
pub enum Dataset {
    /// From a lake.
    Lake(Box<LakeDataset>),
    /// From labelled files.
    Files(FileDataset),
}

/// Rows that are left out of the training slice although they are clean by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Their numbers.
    pub numbers: BTreeSet<u64>,
    /// Clients all of whose rows are left out, besides.
    pub clients: BTreeSet<u64>,
    /// How many rows that is together, without those of `rejected`.
    pub rows: u64,
    /// How many rows the model in force rejected and nothing speaks for.
    pub rejected: u64,
}

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Extent {
    /// Requests read, with those not learned from.
    pub read: u64,
    /// Requests that may be learned from.
    pub rows: u64,
    /// Clients among them.
    pub clients: u64,
    /// Milliseconds since 1970 of the first and the last; zero without time.
    pub window_ms: (u64, u64),
    /// Requests that are not clean, or not usable, by reason.
    pub removed: BTreeMap<String, u64>,
    /// Clean requests of the training slice that are left out of it all the same, by reason.
    pub left_out: BTreeMap<String, u64>,
}

impl Extent {
    /// Share of the requests that were removed because they are not clean. Repeats, requests under another key,
    /// and labelled attacks say nothing about the traffic; what caps leave out is clean.
    pub fn removed_share(&self) -> f64 {
        let count = |names: &[&str]| names.iter().filter_map(|name| self.removed.get(*name)).sum::<u64>();
        let usable = self.read.saturating_sub(count(&["repeat", "other_key", "attack"]));
        let dirty = usable.saturating_sub(self.rows) + self.left_out.get("odd_in_time").copied().unwrap_or(0);
        dirty as f64 / usable.max(1) as f64
    }
}

impl Dataset {
    /// The events of `lake` that may be learned from, observed under `key`.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub fn of_lake(lake: Lake, key: ValueKey) -> Result<Self> {
        Ok(Self::Lake(Box::new(LakeDataset::plan(lake, key)?)))
    }

    /// The harmless requests of labelled files, observed under `key`.
    ///
    /// # Errors
    /// A file cannot be read; the message says where.
    pub fn of_files(files: Vec<PathBuf>, key: ValueKey) -> Result<Self> {
        Ok(Self::Files(FileDataset::plan(files, key)?))
    }

    /// Gives every row of `slice` to `take`; every scan gives the same rows in the same order.
    ///
    /// # Errors
    /// Reading fails, or `take` does.
    pub fn scan(&self, slice: Slice, take: impl FnMut(Row) -> Result<()>) -> Result<()> {
        self.scan_with(slice, |row| row, take)
    }

    /// As [`Self::scan`], but `work` is done on several threads, in no order; `take` gets what it made of the rows in
    /// their order.
    ///
    /// # Errors
    /// Reading fails, or `take` does.
    pub fn scan_with<T: Send>(
        &self,
        slice: Slice,
        work: impl Fn(Row) -> T + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Lake(lake) => lake.scan(slice, work, take),
            Self::Files(files) => files.scan(slice, &mut |row| take(work(row))),
        }
    }

    /// Gives every request that a person gave `verdict` to `take`, with its id.
    ///
    /// # Errors
    /// Reading fails, or `take` does.
    pub fn scan_judged(
        &self,
        verdict: ReviewVerdict,
        mut take: impl FnMut([u8; 16], Row) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Lake(lake) => lake.scan_judged(verdict, &mut take),
            Self::Files(_) => Ok(()),
        }
    }

    /// How many requests a person gave `verdict`.
    pub fn judged(&self, verdict: ReviewVerdict) -> usize {
        match self {
            Self::Lake(lake) => lake.judged(verdict),
            Self::Files(_) => 0,
        }
    }

    /// Moments that cut the training slice into `parts` of about equal size; none where there is no time.
    pub fn times(&self, parts: usize) -> Vec<u64> {
        match self {
            Self::Lake(lake) => lake.times(parts),
            Self::Files(_) => Vec::new(),
        }
    }

    /// How many rows `slice` has, before [`Self::leave_out`]; 0 for labelled files.
    pub fn count(&self, slice: Slice) -> u64 {
        match self {
            Self::Lake(lake) => lake.count(slice),
            Self::Files(_) => 0,
        }
    }

    /// From now on leaves these out of the training slice.
    pub fn leave_out(&mut self, left_out: LeftOut) {
        if let Self::Lake(lake) = self {
            lake.leave_out(left_out);
        }
    }

    /// The key under which values were hashed.
    pub fn value_key(&self) -> ValueKey {
        match self {
            Self::Lake(lake) => lake.value_key(),
            Self::Files(files) => files.value_key(),
        }
    }

    /// How much there is.
    pub fn extent(&self) -> &Extent {
        match self {
            Self::Lake(lake) => lake.extent(),
            Self::Files(files) => files.extent(),
        }
    }
}

/// A number that spreads `client` evenly, and otherwise than any other use of the same client does.
pub fn spread(client: u64, purpose: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(purpose.as_bytes());
    hasher.update(&client.to_le_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
