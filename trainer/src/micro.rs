//! Time-slice micro-models: rows that most other times of the window find odd are left out of training.
//!
//! After Cretu et al. 2008, "Casting out Demons: Sanitizing Training Data for Anomaly Sensors": an attack fills
//! some hours of the window, normal traffic fills them all. A small model of each slice of the time votes on the
//! rows of every other slice. What is odd to most is left out, unless so many clients of so many networks share
//! the oddity that it must be something new of the site: a deployment is not an attack.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use anyhow::Result;
use waf_model::{
    event::ReviewVerdict,
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

/// Rows of one slice, about, that its model learns from.
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
    /// Odd rows, and the clients of which too many rows are odd; and what the model in force rejected and nothing
    /// speaks for.
    pub odd: LeftOut,
    /// Odd rows that stay because many clients share the oddity, or a person judged it harmless.
    pub shared: u64,
}

/// One slice's model.
struct Micro {
    profiles: Profiles,
    clusters: Clusters,
    /// Distance that 95 of 100 of its own rows keep.
    usual: f32,
}

/// What is odd about some rows, and who backs it.
#[derive(Default)]
struct Oddities {
    /// Number, client and oddity of the rows, and whether only the model in force is against them.
    rows: Vec<(u64, u64, u64, bool)>,
    /// Clients and networks that share an oddity.
    backing: BTreeMap<u64, (BTreeSet<u64>, BTreeSet<u64>)>,
    /// Oddities that a person judged harmless: one word stands for a quorum.
    harmless: HashSet<u64>,
    /// Hashes of the endpoints concerned.
    endpoints: HashSet<u64>,
}

/// Lets the slices of the training time vote. The same data and seed give the same vote.
///
/// Who shares an oddity is counted over calibration, too: what is left out of training, but not of calibration, raises
/// the threshold and costs detection. So what a quorum of clean clients does must be learned, be it odd or rejected by
/// the model in force: else each model would find stranger still what the one before did.
///
/// # Errors
/// The dataset cannot be read.
pub fn vote(dataset: &Dataset, seed: u64) -> Result<Vote> {
    let cuts = dataset.times(SLICES);
    let models = if cuts.len() + 1 == SLICES { learn(dataset, &cuts, seed)? } else { Vec::new() };
    let mut usual: Vec<f32> = models.iter().flatten().map(|model| model.usual).collect();
    let slices = usual.len();
    if slices < SLICES / 2 {
        return Ok(Vote { odd: rejected(dataset)?, ..Vote::default() });
    }
    usual.sort_by(f32::total_cmp);
    let limit = ODD * usual.get(slices / 2).copied().unwrap_or(0.0).max(1.0);
    let jury = Jury { models, limit };
    let mut odd = Oddities::default();
    let mut rows_of: HashMap<u64, u32> = HashMap::new();
    let judged = |row: Row| (Finding::of(&row), jury.judge(Some(slice_of(&cuts, row.at_ms)), &row));
    dataset.scan_with(Slice::Train, judged, |(row, found)| {
        if odd.rows.len() < MOST
            && let Some((oddity, voted)) = found
        {
            odd.rows.push((row.number, row.client, oddity, !voted));
            odd.endpoints.insert(row.endpoint);
            odd.back(oddity, &row);
        }
        let rows = rows_of.entry(row.client).or_default();
        *rows = rows.saturating_add(1);
        Ok(())
    })?;
    dataset.scan_judged(ReviewVerdict::FalsePositive, |_, row| {
        odd.harmless.extend(jury.judge(None, &Row { rejected: true, ..row }).map(|(oddity, _)| oddity));
        Ok(())
    })?;
    if odd.rows.iter().any(|(_, _, oddity, _)| !odd.is_shared(*oddity)) {
        let endpoints = std::mem::take(&mut odd.endpoints);
        let judged = |row: Row| {
            let found = Finding::of(&row);
            let oddity = if endpoints.contains(&found.endpoint) { jury.judge(None, &row) } else { None };
            (found, oddity)
        };
        dataset.scan_with(Slice::Calibrate, judged, |(row, found)| {
            if let Some((oddity, _)) = found {
                odd.back(oddity, &row);
            }
            Ok(())
        })?;
    }
    let found = odd.rows.len() as u64;
    let odd: Vec<_> = odd.rows.iter().filter(|(_, _, oddity, _)| !odd.is_shared(*oddity)).collect();
    let shared = found - odd.len() as u64;
    let mut odd_of: HashMap<u64, u32> = HashMap::new();
    odd.iter().for_each(|(_, client, ..)| *odd_of.entry(*client).or_default() += 1);
    let rows = |client: &u64| rows_of.get(client).copied().unwrap_or(0);
    let clients: BTreeSet<u64> = odd_of
        .into_iter()
        .filter(|(client, odd)| is_suspect(*odd, rows(client)))
        .map(|(client, _)| client)
        .collect();
    let single = || odd.iter().filter(|(_, client, ..)| !clients.contains(client));
    let rejected = single().filter(|(.., rejected)| *rejected).count() as u64;
    let numbers: BTreeSet<u64> = single().map(|(number, ..)| *number).collect();
    let rows =
        numbers.len() as u64 - rejected + clients.iter().map(|client| u64::from(rows(client))).sum::<u64>();
    Ok(Vote { slices, odd: LeftOut { numbers, clients, rows, rejected }, shared })
}

/// All that the model in force rejected: where nobody can vote, nothing speaks for it.
fn rejected(dataset: &Dataset) -> Result<LeftOut> {
    let mut numbers = BTreeSet::new();
    dataset.scan_with(
        Slice::Train,
        |row| (row.number, row.rejected),
        |(number, rejected)| {
            numbers.extend(Some(number).filter(|_| rejected));
            Ok(())
        },
    )?;
    Ok(LeftOut { rejected: numbers.len() as u64, numbers, ..LeftOut::default() })
}

/// What is kept of a row that was judged.
struct Finding {
    number: u64,
    client: u64,
    network: u64,
    endpoint: u64,
}

impl Finding {
    fn of(row: &Row) -> Self {
        let mut hasher = DefaultHasher::new();
        (&row.observation.method, &row.observation.path).hash(&mut hasher);
        Self { number: row.number, client: row.client, network: row.network, endpoint: hasher.finish() }
    }
}

impl Oddities {
    fn back(&mut self, oddity: u64, row: &Finding) {
        let (clients, networks) = self.backing.entry(oddity).or_default();
        if clients.len() < QUORUM.0 || networks.len() < QUORUM.1 {
            clients.insert(row.client);
            networks.insert(row.network);
        }
    }

    fn is_shared(&self, oddity: u64) -> bool {
        let is_quorum = |(clients, networks): &(BTreeSet<u64>, BTreeSet<u64>)| {
            clients.len() >= QUORUM.0 && networks.len() >= QUORUM.1
        };
        self.harmless.contains(&oddity) || self.backing.get(&oddity).is_some_and(is_quorum)
    }
}

/// Models of the slices: profiles from half of the clients, clusters and the usual distance from the others.
fn learn(dataset: &Dataset, cuts: &[u64], seed: u64) -> Result<Vec<Option<Micro>>> {
    let step = (dataset.count(Slice::Train) / SLICES as u64).div_ceil(ROWS).max(1);
    let mut builders = vec![ProfileBuilder::default(); SLICES];
    let mut others = vec![Vec::new(); SLICES];
    dataset.scan_with(
        Slice::Train,
        |row| Some(row).filter(|row| row.number.is_multiple_of(step)),
        |row| {
            let Some(row) = row else { return Ok(()) };
            let slice = slice_of(cuts, row.at_ms);
            if let (Some(builder), Some(others)) = (builders.get_mut(slice), others.get_mut(slice)) {
                if teaches_profiles(&row) {
                    builder.learn(&row.observation, row.client);
                } else {
                    others.push(row.observation);
                }
            }
            Ok(())
        },
    )?;
    let models = builders.iter().zip(others).map(|(builder, others)| {
        let profiles = builder.finish()?;
        let vectors: Vec<_> = others.iter().map(|seen| features::extract(seen, &profiles).vector.0).collect();
        micro(profiles, &vectors, seed)
    });
    models.collect()
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

/// The models of the slices, and how far is odd.
struct Jury {
    models: Vec<Option<Micro>>,
    limit: f32,
}

impl Jury {
    /// What is odd about `row` of the slice `own`, and whether most other slices find it odd; if not, only the model in
    /// force does.
    fn judge(&self, own: Option<usize>, row: &Row) -> Option<(u64, bool)> {
        let numbered = self.models.iter().enumerate().filter(|(slice, _)| Some(*slice) != own);
        let others: Vec<&Micro> = numbered.filter_map(|(_, model)| model.as_ref()).collect();
        if let Some(oddity) = self.oddity(&others, row) {
            return Some((oddity, true));
        }
        let other = others.first().filter(|_| row.rejected)?;
        let extraction = features::extract(&row.observation, &other.profiles);
        let cluster = other.clusters.nearest(&extraction.vector.0).cluster;
        Some((signature(other, cluster, &extraction, &row.observation), false))
    }

    fn oddity(&self, others: &[&Micro], row: &Row) -> Option<u64> {
        let needed = (SHARE * others.len() as f64).ceil() as usize;
        let (mut votes, mut against) = (0, 0);
        let mut oddity = None;
        for model in others {
            let extraction = features::extract(&row.observation, &model.profiles);
            let nearest = model.clusters.nearest(&extraction.vector.0);
            if nearest.distance > self.limit {
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
}

/// Equal for rows of one endpoint that are odd by about as much in the same parameter, or in the same feature of the
/// whole: searches a little longer than usual do not speak for one that is as long as a book.
fn signature(model: &Micro, cluster: u16, extraction: &Extraction, observation: &Observation) -> u64 {
    let shares = model.clusters.shares(usize::from(cluster), &extraction.vector.0);
    let strongest =
        shares.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(column, _)| column);
    let mut hasher = DefaultHasher::new();
    (&observation.method, &observation.path).hash(&mut hasher);
    let value = extraction.vector.0.get(strongest).copied().unwrap_or(0.0);
    let magnitude = (value.max(0.0) + 1.0).log2() as u32;
    magnitude.hash(&mut hasher);
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
