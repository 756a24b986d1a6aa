//! What learning a site adds to the base knowledge: false positives of both at equal detection.

use std::path::Path;

use anyhow::{Context as _, Result};
use datasets::{
    payload,
    request::{Space, encode},
    snippet,
};
use fastrand::Rng;
use trainer::{
    robust,
    rules::{BUILT_IN_NAME, Rules},
    train::cluster_vectors,
};
use waf_model::{base, features, features::TABLE, model::clusters::Clusters, observation::Observation};

use super::{
    KEY, SEEDS,
    ablation::{self, Site, Vector},
    say, summary,
};

/// Most requests of the site that are learned from.
const LEARNED: usize = 20_000;

/// The rate of false positives at which detection after learning is stated.
const RATE: f64 = 0.002;

/// Figures of one site, a list over seeds each.
#[derive(Default)]
struct Figures {
    /// Rates of the base by itself, at its own threshold: false positives and detection.
    base: [Vec<f64>; 2],
    /// False positives after learning where it finds no less than that.
    learned: Vec<f64>,
    /// Detection after learning at [`RATE`].
    detection: Vec<f64>,
    /// Detection of the base where three times as many false positives are allowed.
    base_allowed: Vec<f64>,
    /// False positives of the base where it finds as much as the site's model.
    base_as_good: Vec<f64>,
}

/// A line or two for each site.
pub(super) fn sharpening(data: Option<&Path>) -> Result<()> {
    let rules = Rules::read(&[BUILT_IN_NAME.into()])?.compile(1, (5, 4))?;
    let (mut shop, mut forum) = (Figures::default(), Figures::default());
    for seed in SEEDS {
        let mut site = ablation::generated(seed, &rules);
        shop.measure(&site, seed)?;
        post_snippets(&mut site, seed);
        forum.measure(&site, seed)?;
    }
    shop.say("the generator's shop");
    forum.say("the same where every fourth request brings code, markup or queries");
    let Some(data) = data else { return Ok(()) };
    for name in ["csic2010", "ariel_api_ds1"] {
        let site = ablation::labelled(&data.join(format!("{name}.jsonl.gz")), &rules)?;
        let mut figures = Figures::default();
        for seed in SEEDS {
            figures.measure(&site, seed)?;
        }
        figures.say(name);
    }
    Ok(())
}

/// Every fourth harmless request brings a text that looks technical, and every fourth attack stands in its place.
fn post_snippets(site: &mut Site, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let post = |seen: &mut Observation, text: String| {
        *seen = robust::within(seen, &format!("text={}", encode(&text, Space::Percent)), &KEY);
    };
    let hosts = site.harmless.clone();
    let learned = site.learned.iter_mut().map(|(_, seen)| seen);
    for seen in learned.chain(&mut site.harmless).step_by(4) {
        if let Some((_, make)) = rng.choice(snippet::SNIPPETS) {
            post(seen, make(&mut rng));
        }
    }
    for (attack, host) in site.attacks.iter_mut().step_by(4).zip(hosts) {
        if let Some((_, make)) = rng.choice(payload::GRAMMARS) {
            *attack = host;
            post(attack, make(&mut rng));
        }
    }
}

impl Figures {
    fn measure(&mut self, site: &Site, seed: u64) -> Result<()> {
        let mut learned = site.learned.clone();
        Rng::with_seed(seed).shuffle(&mut learned);
        learned.truncate(LEARNED);
        let site = Site { learned, harmless: site.harmless.clone(), attacks: site.attacks.clone() };
        let vectors = ablation::vectors(&site)?;
        let clusters =
            Clusters::new(cluster_vectors(&vectors.learned, seed)?, &TABLE.map(|feature| feature.side))?;
        let by_base = |seen: &[Observation]| {
            descending(seen.iter().map(|seen| features::attack(seen, None).log_odds).collect())
        };
        let by_site =
            |rows: &[Vector]| descending(rows.iter().map(|row| clusters.nearest(row).distance).collect());
        let base = Scores { harmless: by_base(&site.harmless), attacks: by_base(&site.attacks) };
        let after = Scores { harmless: by_site(&vectors.harmless), attacks: by_site(&vectors.attacks) };
        let [false_positives, detection] = base.rates(base::shipped().promise().threshold);
        self.base[0].push(false_positives);
        self.base[1].push(detection);
        self.learned.push(after.false_positives(detection)?);
        let detection = after.detection(RATE)?;
        self.detection.push(detection);
        self.base_allowed.push(base.detection(3.0 * RATE)?);
        self.base_as_good.push(base.false_positives(detection)?);
        Ok(())
    }

    fn say(self, site: &str) {
        let percent = |rates: Vec<f64>| summary(rates.into_iter().map(|rate| 100.0 * rate).collect());
        let [false_positives, detection] = self.base.map(percent);
        say(&format!("sharpening on {site}, percent (median of {} seeds):", SEEDS.len()));
        say(&format!("  base alone, at its threshold    FPR {false_positives}   TPR {detection}"));
        say(&format!("  learned, finding no less        FPR {}", percent(self.learned)));
        say(&format!("  learned, at FPR {:.1}             TPR {}", 100.0 * RATE, percent(self.detection)));
        say(&format!("  base alone, at FPR {:.1}          TPR {}", 300.0 * RATE, percent(self.base_allowed)));
        say(&format!("  base alone, finding as much     FPR {}", percent(self.base_as_good)));
    }
}

/// Scores, largest first.
struct Scores {
    harmless: Vec<f32>,
    attacks: Vec<f32>,
}

impl Scores {
    /// False positives and detection at `threshold`.
    fn rates(&self, threshold: f32) -> [f64; 2] {
        [&self.harmless, &self.attacks].map(|scores| {
            scores.partition_point(|score| *score >= threshold) as f64 / scores.len().max(1) as f64
        })
    }

    /// Detection at the lowest threshold with at most `rate` false positives.
    fn detection(&self, rate: f64) -> Result<f64> {
        let allowed = (rate * self.harmless.len() as f64) as usize;
        let [_, detection] = self.rates(self.harmless.get(allowed).context("nothing to judge")?.next_up());
        Ok(detection)
    }

    /// False positives at the highest threshold that finds `detection` of the attacks.
    fn false_positives(&self, detection: f64) -> Result<f64> {
        let found = (detection * self.attacks.len() as f64).round() as usize;
        let weakest = self.attacks.get(found.saturating_sub(1)).context("no attacks to find")?;
        let [rate, _] = self.rates(*weakest);
        Ok(rate)
    }
}

fn descending(mut scores: Vec<f32>) -> Vec<f32> {
    scores.sort_by(|a, b| b.total_cmp(a));
    scores
}
