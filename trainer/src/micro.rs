//! Time-slice micro-models: rows that most other times of the window find odd are left out of training.
//!
//! After Cretu et al. 2008, "Casting out Demons: Sanitizing Training Data for Anomaly Sensors": an attack fills
//! some hours of the window, normal traffic fills them all. A small model of each slice of the time votes on the
//! rows of every other slice. What is odd to most is left out, unless so many clients of so many networks share
//! the oddity that it must be something new of the site: a deployment is not an attack.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use anyhow::Result;
use waf_model::{
    features::{self, Extraction, FEATURES, TABLE},
    model::clusters::Clusters,
    observation::Observation,
    profile::{Profiles, builder::ProfileBuilder},
};

use crate::{
    dataset::{Dataset, LeftOut, Row, Slice, spread},
    sanitize::is_suspect,
    train::cluster_vectors,
};

/// Slices into which the time is cut.
const SLICES: usize = 8;

/// Rows of one slice that its model learns from.
const ROWS: u64 = 4000;

/// Rows of half of the clients below which a slice has no model.
const LEAST: usize = 100;

/// A row is odd to a slice beyond this many times the distance that 95 of 100 rows of a slice keep, in the middle
/// one of the slices: a slice that is full of an attack must not set its own measure.
const ODD: f32 = 1.5;

/// Share of the other slices that must find a row odd.
const SHARE: f64 = 0.6;

/// Clients that make an oddity normal, and networks that they must come from.
const QUORUM: (usize, usize) = (10, 5);

/// Most odd rows that are told apart; more of them refuse the model anyway.
const MOST: usize = 1_000_000;

/// What the vote said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vote {
    /// Slices that voted; 0 if there is too little to learn from.
    pub slices: usize,
    /// Odd rows, and the clients of which too many rows are odd.
    pub odd: LeftOut,
    /// Odd rows that stay because many clients share the oddity.
    pub shared: u64,
}

/// One slice's model.
struct Micro {
    profiles: Profiles,
    clusters: Clusters,
    /// Distance that 95 of 100 of its own rows keep.
    usual: f32,
}

/// Lets the slices of the training time vote. The same data and seed give the same vote.
///
/// # Errors
/// The dataset cannot be read.
pub fn vote(dataset: &Dataset, seed: u64) -> Result<Vote> {
    let cuts = dataset.times(SLICES);
    let models = if cuts.len() + 1 == SLICES { learn(dataset, &cuts, seed)? } else { Vec::new() };
    let mut usual: Vec<f32> = models.iter().flatten().map(|model| model.usual).collect();
    let slices = usual.len();
    if slices < SLICES / 2 {
        return Ok(Vote::default());
    }
    usual.sort_by(f32::total_cmp);
    let limit = ODD * usual.get(slices / 2).copied().unwrap_or(0.0).max(1.0);
    let mut number = 0;
    let mut odd: Vec<(u64, u64, u64)> = Vec::new();
    let mut rows_of: HashMap<u64, u32> = HashMap::new();
    let mut backing: BTreeMap<u64, (BTreeSet<u64>, BTreeSet<u64>)> = BTreeMap::new();
    dataset.scan(Slice::Train, |row| {
        if odd.len() < MOST
            && let Some(oddity) = oddity(&models, limit, slice_of(&cuts, row.at_ms), &row)
        {
            odd.push((number, row.client, oddity));
            let (clients, networks) = backing.entry(oddity).or_default();
            if clients.len() < QUORUM.0 || networks.len() < QUORUM.1 {
                clients.insert(row.client);
                networks.insert(row.network);
            }
        }
        number += 1;
        let rows = rows_of.entry(row.client).or_default();
        *rows = rows.saturating_add(1);
        Ok(())
    })?;
    let is_shared = |oddity: &u64| {
        backing
            .get(oddity)
            .is_some_and(|(clients, networks)| clients.len() >= QUORUM.0 && networks.len() >= QUORUM.1)
    };
    let found = odd.len() as u64;
    odd.retain(|(_, _, oddity)| !is_shared(oddity));
    let shared = found - odd.len() as u64;
    let mut odd_of: HashMap<u64, u32> = HashMap::new();
    odd.iter().for_each(|(_, client, _)| *odd_of.entry(*client).or_default() += 1);
    let rows = |client: &u64| rows_of.get(client).copied().unwrap_or(0);
    let clients: BTreeSet<u64> = odd_of
        .into_iter()
        .filter(|(client, odd)| is_suspect(*odd, rows(client)))
        .map(|(client, _)| client)
        .collect();
    let numbers: BTreeSet<u64> = odd
        .into_iter()
        .filter(|(_, client, _)| !clients.contains(client))
        .map(|(number, ..)| number)
        .collect();
    let rows = numbers.len() as u64 + clients.iter().map(|client| u64::from(rows(client))).sum::<u64>();
    Ok(Vote { slices, odd: LeftOut { numbers, clients, rows }, shared })
}

/// Models of the slices: profiles from half of the clients, clusters and the usual distance from the others.
fn learn(dataset: &Dataset, cuts: &[u64], seed: u64) -> Result<Vec<Option<Micro>>> {
    let mut seen = [0_u64; SLICES];
    dataset.scan(Slice::Train, |row| {
        seen.get_mut(slice_of(cuts, row.at_ms)).into_iter().for_each(|seen| *seen += 1);
        Ok(())
    })?;
    let steps = seen.map(|rows| rows.div_ceil(ROWS).max(1));
    let sampled = |take: &mut dyn FnMut(usize, Row)| {
        let mut seen = [0_u64; SLICES];
        dataset.scan(Slice::Train, |row| {
            let slice = slice_of(cuts, row.at_ms);
            if let (Some(seen), Some(step)) = (seen.get_mut(slice), steps.get(slice)) {
                *seen += 1;
                if seen.is_multiple_of(*step) {
                    take(slice, row);
                }
            }
            Ok(())
        })
    };
    let mut builders = vec![ProfileBuilder::default(); SLICES];
    sampled(&mut |slice, row| {
        if let Some(builder) = builders.get_mut(slice).filter(|_| teaches_profiles(&row)) {
            builder.learn(&row.observation, row.client);
        }
    })?;
    let profiles = builders.iter().map(ProfileBuilder::finish).collect::<Result<Vec<_>, _>>()?;
    drop(builders);
    let mut vectors = vec![Vec::new(); SLICES];
    sampled(&mut |slice, row| {
        if let (Some(vectors), Some(profiles)) = (vectors.get_mut(slice), profiles.get(slice))
            && !teaches_profiles(&row)
        {
            vectors.push(features::extract(&row.observation, profiles).vector.0);
        }
    })?;
    profiles.into_iter().zip(vectors).map(|(profiles, vectors)| micro(profiles, &vectors, seed)).collect()
}

fn micro(profiles: Profiles, vectors: &[[f32; FEATURES]], seed: u64) -> Result<Option<Micro>> {
    if vectors.len() < LEAST {
        return Ok(None);
    }
    let clusters = Clusters::new(cluster_vectors(vectors, seed)?, &TABLE.map(|feature| feature.side))?;
    let mut distances: Vec<f32> = vectors.iter().map(|vector| clusters.nearest(vector).distance).collect();
    distances.sort_by(f32::total_cmp);
    let usual = distances.get(distances.len() * 95 / 100).copied().unwrap_or(0.0);
    Ok(Some(Micro { profiles, clusters, usual }))
}

/// What is odd about `row` if most slices other than its own find it odd.
fn oddity(models: &[Option<Micro>], limit: f32, own: usize, row: &Row) -> Option<u64> {
    let others: Vec<&Micro> = models
        .iter()
        .enumerate()
        .filter(|(slice, _)| *slice != own)
        .filter_map(|(_, m)| m.as_ref())
        .collect();
    let needed = (SHARE * others.len() as f64).ceil() as usize;
    let (mut votes, mut against) = (0, 0);
    let mut oddity = None;
    for model in &others {
        let extraction = features::extract(&row.observation, &model.profiles);
        let nearest = model.clusters.nearest(&extraction.vector.0);
        if nearest.distance > limit {
            votes += 1;
            oddity =
                oddity.or_else(|| Some(signature(model, nearest.cluster, &extraction, &row.observation)));
        } else {
            against += 1;
        }
        if against > others.len() - needed {
            return None;
        }
    }
    oddity.filter(|_| votes >= needed)
}

/// Equal for rows of one endpoint that are odd in the same parameter, or in the same feature of the whole.
fn signature(model: &Micro, cluster: u16, extraction: &Extraction, observation: &Observation) -> u64 {
    let shares = model.clusters.shares(usize::from(cluster), &extraction.vector.0);
    let strongest =
        shares.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(column, _)| column);
    let mut hasher = DefaultHasher::new();
    (&observation.method, &observation.path).hash(&mut hasher);
    match features::culprit(extraction, strongest, observation) {
        Some(param) => (param.location, &param.name).hash(&mut hasher),
        None => strongest.hash(&mut hasher),
    }
    hasher.finish()
}

fn teaches_profiles(row: &Row) -> bool {
    spread(row.client, "micro").is_multiple_of(2)
}

fn slice_of(cuts: &[u64], at_ms: u64) -> usize {
    cuts.partition_point(|cut| *cut <= at_ms)
}
