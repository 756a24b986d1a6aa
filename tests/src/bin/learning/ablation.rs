//! What each part contributes: detection at one rate of false positives with every part, and with each left out.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use datasets::{
    attackers::{Attacker, Persona},
    benign,
    labelled::{Label, LabelledReader, LabelledRequest},
    request::GeneratedRequest,
    traffic::with_view,
};
use trainer::{
    rules::{BUILT_IN_NAME, Rules},
    train::{cluster_vectors, fold, one_cluster},
};
use waf_model::{
    features::{self, FEATURES, TABLE},
    model::clusters::Clusters,
    observation::Observation,
    profile::builder::ProfileBuilder,
    request::RequestView,
    rules::{Collections, Connection, Context, RuleSet},
    values::{Limits, Values},
};

use super::{KEY, SEEDS, forest::Forest, say, summary};

/// The rate of false positives.
const RATE: f64 = 0.002;

/// Parts that clients are dealt into: a row is judged by profiles that did not learn it.
const FOLDS: usize = 4;

/// Requests of one site: to learn from, harmless ones to judge, attacks to find.
pub(super) struct Site {
    pub(super) learned: Vec<(u64, Observation)>,
    pub(super) harmless: Vec<Observation>,
    pub(super) attacks: Vec<Observation>,
}

pub(super) type Vector = [f32; FEATURES];

/// The same as numbers.
pub(super) struct Vectors {
    pub(super) learned: Vec<Vector>,
    pub(super) harmless: Vec<Vector>,
    pub(super) attacks: Vec<Vector>,
}

/// A table for each site.
pub(crate) fn ablation(data: Option<&Path>) -> Result<()> {
    let rules = Rules::read(&[BUILT_IN_NAME.into()])?.compile(1, (5, 4))?;
    let mut shop = BTreeMap::new();
    for seed in SEEDS {
        measure(&generated(seed, &rules), seed, &mut shop)?;
    }
    tell("the generator's shop", shop);
    let Some(data) = data else { return Ok(()) };
    let csic = labelled(&data.join("csic2010.jsonl.gz"), &rules)?;
    let mut found = BTreeMap::new();
    for seed in SEEDS {
        measure(&csic, seed, &mut found)?;
    }
    tell("csic2010", found);
    Ok(())
}

fn tell(site: &str, found: BTreeMap<(usize, &'static str), Vec<f64>>) {
    say(&format!("ablation on {site}: TPR at FPR {}% (median of {} seeds):", 100.0 * RATE, SEEDS.len()));
    for ((_, name), rates) in found {
        say(&format!("  {name:<44} {}", summary(rates)));
    }
}

/// The parts, and the columns of the feature table that are theirs.
fn is_part(part: &str, feature: &str) -> bool {
    match part {
        "rules" => feature == "rule_points",
        "tokenizers" => ["sqli", "xss"].contains(&feature),
        "base" => feature == "attack",
        "profiles" => feature.ends_with("_surprise") || feature == "repeats",
        // What a request looks like by itself.
        _ => ["rules", "tokenizers", "base", "profiles"].iter().all(|part| !is_part(part, feature)),
    }
}

fn measure(site: &Site, seed: u64, found: &mut BTreeMap<(usize, &'static str), Vec<f64>>) -> Result<()> {
    let all = vectors(site)?;
    let mut add = |at: usize, name: &'static str, rate: f64| found.entry((at, name)).or_default().push(rate);
    let without = |parts: &[&str]| {
        let out = TABLE.map(|feature| parts.iter().any(|part| is_part(part, feature.name)));
        let rest = |rows: &[Vector]| {
            let keep = |row: &Vector| {
                let mut row = *row;
                row.iter_mut().zip(out).filter(|(_, out)| *out).for_each(|(x, _)| *x = 0.0);
                row
            };
            rows.iter().map(keep).collect::<Vec<_>>()
        };
        Vectors { learned: rest(&all.learned), harmless: rest(&all.harmless), attacks: rest(&all.attacks) }
    };
    add(0, "everything", clustered(&all, seed, false)?);
    add(1, "without rules", clustered(&without(&["rules"]), seed, false)?);
    add(2, "without rules and tokenizers", clustered(&without(&["rules", "tokenizers"]), seed, false)?);
    add(3, "without base", clustered(&without(&["base"]), seed, false)?);
    add(4, "without profiles", clustered(&without(&["profiles"]), seed, false)?);
    add(5, "without the request by itself", clustered(&without(&["shape"]), seed, false)?);
    add(6, "without clusters (one for all)", clustered(&all, seed, true)?);
    let [forest, farthest, both] = second_view(&all, seed)?;
    add(10, "isolation forest instead of clusters", forest);
    add(11, "clusters or isolation forest, the larger", farthest);
    add(12, "clusters and isolation forest, the sum", both);
    let known = ["rules", "tokenizers", "base"];
    add(7, "without rules, tokenizers and base", clustered(&without(&known), seed, false)?);
    for (at, name, column) in
        [(8, "rules alone (their points)", "rule_points"), (9, "base alone (its log-odds)", "attack")]
    {
        let column = TABLE.iter().position(|feature| feature.name == column).context("no such feature")?;
        let of =
            |rows: &[Vector]| rows.iter().filter_map(|row| row.get(column).copied()).collect::<Vec<f32>>();
        add(at, name, detected(of(&all.harmless), &of(&all.attacks)));
    }
    Ok(())
}

/// Profiles from what is learned, and everything in their context.
pub(super) fn vectors(site: &Site) -> Result<Vectors> {
    let mut folds = vec![ProfileBuilder::default(); FOLDS];
    for (client, seen) in &site.learned {
        folds.get_mut(fold(*client)).context("a fold is missing")?.learn(seen, *client);
    }
    let merged = |left_out: Option<usize>| {
        let mut builder = ProfileBuilder::default();
        folds
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != left_out)
            .for_each(|(_, fold)| builder.merge(fold));
        builder.finish()
    };
    let everything = merged(None)?;
    let others = (0..FOLDS).map(|left_out| merged(Some(left_out))).collect::<Result<Vec<_>, _>>()?;
    let learned = site
        .learned
        .iter()
        .filter_map(|(client, seen)| Some(features::extract(seen, others.get(fold(*client))?).vector.0));
    let judged = |seen: &[Observation]| {
        seen.iter().map(|seen| features::extract(seen, &everything).vector.0).collect()
    };
    Ok(Vectors {
        learned: learned.collect(),
        harmless: judged(&site.harmless),
        attacks: judged(&site.attacks),
    })
}

/// Detection by the distance from the nearest cluster, or from a single one.
fn clustered(vectors: &Vectors, seed: u64, single: bool) -> Result<f64> {
    let raw = if single { one_cluster(&vectors.learned)? } else { cluster_vectors(&vectors.learned, seed)? };
    let clusters = Clusters::new(raw, &TABLE.map(|feature| feature.side))?;
    let distances =
        |rows: &[Vector]| rows.iter().map(|row| clusters.nearest(row).distance).collect::<Vec<f32>>();
    Ok(detected(distances(&vectors.harmless), &distances(&vectors.attacks)))
}

/// Detection by an isolation forest alone, and together with the clusters: by the larger and by the sum of both, each
/// in units of what all but [`RATE`] of the learned rows stay below.
fn second_view(vectors: &Vectors, seed: u64) -> Result<[f64; 3]> {
    let clusters =
        Clusters::new(cluster_vectors(&vectors.learned, seed)?, &TABLE.map(|feature| feature.side))?;
    let forest = Forest::grow(&vectors.learned, seed);
    let views = |row: &Vector| (clusters.nearest(row).distance, forest.score(row));
    let usual = |of: fn(&(f32, f32)) -> f32| {
        let mut scores: Vec<f32> = vectors.learned.iter().map(|row| of(&views(row))).collect();
        scores.sort_by(f32::total_cmp);
        scores.get(((1.0 - RATE) * scores.len() as f64) as usize).copied().unwrap_or(1.0)
    };
    let units = (usual(|views| views.0), usual(|views| views.1));
    let by = |combined: fn(f32, f32) -> f32| {
        let scores = |rows: &[Vector]| {
            let score = |row| {
                let (distance, isolation) = views(row);
                combined(distance / units.0, isolation / units.1)
            };
            rows.iter().map(score).collect::<Vec<f32>>()
        };
        detected(scores(&vectors.harmless), &scores(&vectors.attacks))
    };
    Ok([by(|_, isolation| isolation), by(f32::max), by(|distance, isolation| distance + isolation)])
}

/// Share of the attacks that score higher than all but [`RATE`] of what is harmless.
fn detected(mut harmless: Vec<f32>, attacks: &[f32]) -> f64 {
    harmless.sort_by(f32::total_cmp);
    let allowed = (RATE * harmless.len() as f64) as usize;
    let threshold = harmless.iter().rev().nth(allowed).copied().unwrap_or(f32::INFINITY);
    attacks.iter().filter(|score| **score > threshold).count() as f64 / attacks.len().max(1) as f64
}

/// Shoppers to learn from, others to judge, and attackers of every persona whose single requests are attacks.
pub(super) fn generated(seed: u64, rules: &RuleSet) -> Site {
    const PERSONAS: [Persona; 5] = [
        Persona::InjectionScanner,
        Persona::CommandInjection,
        Persona::ParameterFuzzer,
        Persona::PaddedInjection,
        Persona::PathScanner,
    ];
    let seen = |request: &GeneratedRequest| with_view(request, |view| observe(view, rules));
    let shoppers = |seed, first, count| {
        let clients = (u64::from(first)..).zip(benign::population(seed, first, count));
        clients.flat_map(|(number, client)| client.take(20).map(move |request| (number, request)))
    };
    let attackers = (900_000..).zip(PERSONAS.into_iter().cycle()).take(25);
    let attacks = attackers.flat_map(|(number, persona)| Attacker::new(seed, number, persona).take(40));
    Site {
        learned: shoppers(seed, 0_u32, 1000).map(|(client, request)| (client, seen(&request))).collect(),
        harmless: shoppers(100 + seed, 50_000, 1000).map(|(_, request)| seen(&request)).collect(),
        attacks: attacks.map(|request| seen(&request)).collect(),
    }
}

/// Half of the distinct harmless requests to learn from, the other half to judge, and every distinct attack.
pub(super) fn labelled(file: &Path, rules: &RuleSet) -> Result<Site> {
    let mut distinct = std::collections::HashSet::new();
    let (mut harmless, mut attacks) = (Vec::new(), Vec::new());
    for request in LabelledReader::open(file)? {
        let request: LabelledRequest = request?;
        let body = request.body.clone();
        if distinct.insert((
            request.label == Label::Attack,
            request.method.clone(),
            request.target.clone(),
            body,
        )) {
            let seen = request.with_view(|view| observe(view, rules));
            if request.label == Label::Attack { &mut attacks } else { &mut harmless }.push(seen);
        }
    }
    let judged = harmless.split_off(harmless.len() / 2);
    // Each request counts as one of another client.
    let learned = (0_u64..).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).zip(harmless).collect();
    Ok(Site { learned, harmless: judged, attacks })
}

fn observe(view: &RequestView<'_>, rules: &RuleSet) -> Observation {
    let values = Values::extract(view, &Limits::default());
    let collections = Collections::default();
    let connection = Connection::default();
    let context = Context { now_ms: 0, request_id: "", collections: &collections, connection };
    Observation::of(view, &values, &rules.evaluate(&context, view, &values).matches, &KEY)
}
