//! `make bench-learning DATA=DIR`: what the learning is worth, and what it costs.
//!
//! Every figure is a median over five seeds with a 95 % interval (of the median, by order statistics: the smallest
//! and the largest of five hold it in 94 of 100 cases), or a count over all trials with that of Clopper and Pearson.
//! `ONLY=promise,cost` picks some.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

mod ablation;
mod forest;
mod groups;
mod poison;
mod reviews;
mod sharpening;

use anyhow::{Context as _, Result};
use datasets::{
    benign,
    labelled::LabelledReader,
    mutate::{Language, Mutant},
    request::GeneratedRequest,
    traffic::{Site, with_view},
};
use ed25519_dalek::SigningKey;
use fastrand::Rng;
use trainer::{
    calibrate::Budgets,
    conformal,
    dataset::{Dataset, from_files::FileDataset},
    evaluate::{Part, evaluate},
    lake::Lake,
    pipeline::{Outcome, Place, Settings, learn},
    robust,
};
use waf_model::{
    client::{ClientVector, Evidence, Suspicion},
    event::{Event, Review},
    model::{Model, calibration::Standing},
    observation::{Observation, ValueKey},
    request::RequestView,
    rules::RuleMatches,
    values::{Limits, Values},
};

const KEY: ValueKey = ValueKey([11; 16]);

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

/// Twelve hours from half past midnight.
const SITE: Site = Site { key: KEY, start_ms: 1_785_544_200_000, span_ms: 36_000_000, requests: 20 };

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().map(PathBuf::from);
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|word| word == name);
    if wanted("anomalies") {
        match &data {
            Some(data) => anomalies(&data.join("csic2010.jsonl.gz"))?,
            None => say("csic2010: skipped, name a directory with DATA=DIR"),
        }
    }
    if wanted("promise") {
        groups::promise(data.as_deref())?;
    }
    if wanted("groups") {
        groups::detection()?;
    }
    if wanted("days") {
        client_days()?;
    }
    if wanted("evasion") {
        evasion()?;
    }
    if wanted("poison") {
        poison::poison()?;
    }
    if wanted("ablation") {
        ablation::ablation(data.as_deref())?;
    }
    if wanted("sharpening") {
        sharpening::sharpening(data.as_deref())?;
    }
    if wanted("reviews") {
        reviews::reviews()?;
    }
    if wanted("cost") {
        cost(data.as_deref())?;
    }
    if wanted("bulk") {
        bulk()?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "figures are what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn settings(seed: u64, request: f64, client: f64) -> Settings {
    Settings {
        seed,
        budgets: Budgets { request, client, confidence: 0.95 },
        min_requests: 500,
        may_remove: 0.2,
        approve_drift: false,
    }
}

/// Median and range.
fn summary(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    format!("{:.4} [{:.4}, {:.4}]", at(values.len() / 2), at(0), at(values.len().saturating_sub(1)))
}

/// Median, and what holds 95 of 100 of many trials.
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values.get((values.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    format!("{:.4} [{:.4}, {:.4}]", at(0.5), at(0.025), at(0.975))
}

/// A count among trials as a share, with Clopper and Pearson's interval.
fn share(count: u64, trials: u64) -> String {
    let high = conformal::upper(trials, count, 0.975);
    let low = 1.0 - conformal::upper(trials, trials.saturating_sub(count), 0.975);
    let percent = |share: f64| 100.0 * share;
    format!(
        "{count} of {trials} ({:.3}% [{:.3}, {:.3}])",
        percent(count as f64 / trials.max(1) as f64),
        percent(low),
        percent(high)
    )
}

/// Learns from `events`; the lake lies in a directory of its own.
fn learn_from(events: &[Event], settings: &Settings, in_force: Option<Vec<u8>>) -> Result<Outcome> {
    learn_judged(events, &[], settings, in_force)
}

/// The same, with what people said of some of them.
fn learn_judged(
    events: &[Event],
    reviews: &[Review],
    settings: &Settings,
    in_force: Option<Vec<u8>>,
) -> Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let lake = Lake::new(directory.path().to_owned());
    lake.write_events("a", events)?;
    if !reviews.is_empty() {
        lake.write_reviews("a", reviews)?;
    }
    learn(|| Dataset::of_lake(lake, KEY), settings, Place { seq: 1, now_ms: 1, in_force }, &signer())
}

fn shoppers(seed: u64, first: u32, count: u32) -> Vec<Event> {
    let clients = benign::population(seed, first, count);
    SITE.traffic(clients.into_iter().map(|client| (client.identity().address, client)), seed)
}

/// csic2010: learned from distinct benign requests, judged on those held out and on every distinct attack.
fn anomalies(file: &Path) -> Result<()> {
    let (mut auc, mut wide, mut narrow) = (Vec::new(), Vec::new(), Vec::new());
    for seed in SEEDS {
        let open = || Dataset::of_files(vec![file.to_owned()], KEY);
        let outcome =
            learn(open, &settings(seed, 0.002, 0.01), Place { seq: 1, ..Place::default() }, &signer())?;
        let files = FileDataset::plan(vec![file.to_owned()], KEY)?;
        let found = evaluate(&outcome.candidate.model, &files, Part::Holdout)?;
        auc.push(found.roc_auc);
        let at =
            |rate: f64| found.curve.iter().rev().find(|(fpr, _)| *fpr <= rate).map_or(0.0, |(_, tpr)| *tpr);
        wide.push(at(0.002));
        narrow.push(at(0.001));
    }
    say(&format!(
        "csic2010, learned from benign requests only, rules off (median of {} seeds):",
        SEEDS.len()
    ));
    say(&format!("  ROC-AUC          {}", summary(auc)));
    say(&format!("  TPR at FPR 0.2%  {}", summary(wide)));
    say(&format!("  TPR at FPR 0.1%  {}", summary(narrow)));
    Ok(())
}

/// Benign client-days against the evidence that blocks, with the budget that `trainer` has by default. A budget that
/// could not be certified blocks nobody; how many clients reach its threshold all the same is said besides.
fn client_days() -> Result<()> {
    const DAYS: u32 = 30_000;
    let learned_from: u32 =
        std::env::var("CLIENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(16_000);
    let outcome = learn_from(&shoppers(1, 0, learned_from), &settings(1, 1e-4, 1e-4), None)?;
    let model = outcome.candidate.model;
    let certificate = model.client_certificate();
    let mut reached = 0;
    for part in 0..DAYS / 1000 {
        let mut clients: BTreeMap<u64, (Evidence, bool)> = BTreeMap::new();
        for event in shoppers(100 + u64::from(part), 1_000_000 + part * 1000, 1000) {
            let score = Some(model.score(&event.observation, &event.client_vector));
            let (evidence, over) = clients.entry(event.client).or_default();
            let level = evidence.add(event.at_ms, &Suspicion { rule_points: 0, score });
            *over |= level >= certificate.threshold;
        }
        reached += clients.values().filter(|(_, over)| *over).count() as u64;
    }
    let blocked = if certificate.standing == Standing::Certified { reached } else { 0 };
    say(&format!(
        "client-days: blocked {} benign ones; {:?}, {:.1e} from {} client-days",
        share(blocked, u64::from(DAYS)),
        certificate.standing,
        certificate.budget,
        certificate.n
    ));
    say(&format!(
        "client-days: reached the threshold of {:.2}: {}",
        certificate.threshold,
        share(reached, u64::from(DAYS))
    ));
    Ok(())
}

/// Share of the detected attacks that stay detected after a hundred steps of mutation.
fn evasion() -> Result<()> {
    const ATTACKS: u64 = 60;
    let mut shares: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let (mut found, mut thresholds) = (Vec::new(), Vec::new());
    for seed in SEEDS {
        let events = shoppers(seed, 0, 4000);
        let outcome = learn_from(&events, &settings(seed, 0.002, 0.05), None)?;
        let model = outcome.candidate.model;
        let host = events
            .iter()
            .find(|event| event.observation.path == "/search")
            .or_else(|| events.first())
            .context("no traffic")?;
        let flags = |query: &str| {
            let observation = robust::within(&host.observation, query, &KEY);
            model.flags_request(&model.score(&observation, &ClientVector::UNKNOWN), &host.route)
        };
        let (mut all_kept, mut all_detected) = (0, 0);
        for language in Language::ALL {
            let (mut detected, mut kept) = (0, 0);
            for attack in 0..ATTACKS {
                let mut rng = Rng::with_seed(seed << 32 | attack);
                let payload = language.attack(&mut rng);
                let mut mutant = Mutant::new(language, "q", &payload);
                if !flags(&mutant.query()) {
                    continue;
                }
                detected += 1;
                (0..100).for_each(|_| mutant.step(&mut rng));
                kept += u32::from(flags(&mutant.query()));
            }
            if detected > 0 {
                shares.entry(language.name()).or_default().push(f64::from(kept) / f64::from(detected));
            }
            all_kept += kept;
            all_detected += detected;
        }
        if all_detected > 0 {
            shares.entry("all").or_default().push(f64::from(all_kept) / f64::from(all_detected));
        }
        thresholds.push(f64::from(model.request_certificate().threshold));
        found.push(f64::from(all_detected) / (ATTACKS * Language::ALL.len() as u64) as f64);
    }
    say(&format!("evasion: threshold {}", summary(thresholds)));
    say(&format!("evasion: detected before any mutation, by the model alone: {}", summary(found)));
    say("evasion: share of detected attacks still detected after 100 steps of mutation:");
    for (name, shares) in shares {
        say(&format!("  {name:<20} {}", summary(shares)));
    }
    Ok(())
}

/// Time of observing and of scoring one request.
fn cost(data: Option<&Path>) -> Result<()> {
    let events = shoppers(1, 0, 1500);
    let model = learn_from(&events, &settings(1, 0.01, 0.05), None)?.candidate.model;
    let mut shop = Times::default();
    for seed in SEEDS {
        let clients = benign::population(seed, 60_000, 500);
        let requests: Vec<GeneratedRequest> =
            clients.into_iter().flat_map(|client| client.take(20)).collect();
        requests.iter().for_each(|request| with_view(request, |view| shop.take(view, &model)));
        shop.next_seed();
    }
    shop.say("the shop");
    let Some(data) = data else { return Ok(()) };
    let mut csic = Times::default();
    let mut requests = LabelledReader::open(&data.join("csic2010.jsonl.gz"))?;
    for _ in SEEDS {
        for request in requests.by_ref().take(10_000) {
            request?.with_view(|view| csic.take(view, &model));
        }
        csic.next_seed();
    }
    csic.say("csic2010");
    Ok(())
}

/// Microseconds, by seed: of observing, of scoring, and of both together.
#[derive(Default)]
struct Times {
    now: [Vec<f64>; 3],
    /// Median and 99th percentile of each.
    found: [[Vec<f64>; 2]; 3],
}

impl Times {
    /// One request up to 2 KiB; its values are extracted before, for rules and observation alike.
    fn take(&mut self, view: &RequestView<'_>, model: &Model) {
        if view.body.bytes.len() + view.path.len() + view.query.map_or(0, <[u8]>::len) > 2048 {
            return;
        }
        let values = Values::extract(view, &Limits::default());
        let started = Instant::now();
        let observation = std::hint::black_box(Observation::of(view, &values, &RuleMatches::default(), &KEY));
        let seen = started.elapsed();
        std::hint::black_box(model.score(&observation, &ClientVector::UNKNOWN));
        let both = started.elapsed();
        for (times, time) in self.now.iter_mut().zip([seen, both.saturating_sub(seen), both]) {
            times.push(time.as_secs_f64() * 1e6);
        }
    }

    fn next_seed(&mut self) {
        for (times, found) in self.now.iter_mut().zip(&mut self.found) {
            times.sort_by(f64::total_cmp);
            for (share, found) in [0.5, 0.99].into_iter().zip(found) {
                found.extend(times.get((times.len() as f64 * share) as usize));
            }
            times.clear();
        }
    }

    fn say(self, name: &str) {
        say(&format!("cost on {name}, requests up to 2 KiB, microseconds:"));
        for (what, [median, most]) in ["observation", "score", "together"].into_iter().zip(self.found) {
            say(&format!("  {what:<12} p50 {}   p99 {}", summary(median), summary(most)));
        }
    }
}

/// Training from many rows: time, and the most memory that was in use.
fn bulk() -> Result<()> {
    let rows: usize = std::env::var("ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000);
    let directory = match std::env::var_os("BULK_DIR") {
        Some(path) => PathBuf::from(path),
        None => tempfile::tempdir()?.keep(),
    };
    let lake = Lake::new(directory.clone());
    let made = Instant::now();
    let have = usize::try_from(lake.count_events()?)?;
    let (mut written, mut part) = (have, (have / 50_000) as u64);
    while written < rows {
        let site =
            Site { start_ms: SITE.start_ms + part * 14 * 86_400_000 / (rows as u64 / 50_000).max(1), ..SITE };
        let first = u32::try_from(part * 2500 % 3_000_000)?;
        let clients = benign::population(part, first, 2500);
        let events =
            site.traffic(clients.into_iter().map(|client| (client.identity().address, client)), part);
        lake.write_events(&format!("{part:06}"), &events)?;
        written += events.len();
        part += 1;
    }
    say(&format!(
        "bulk: {written} rows in {} ({:.0} s to make)",
        directory.display(),
        made.elapsed().as_secs_f64()
    ));
    let started = Instant::now();
    reset_peak();
    let outcome = learn(
        || Dataset::of_lake(lake, KEY),
        &settings(1, 1e-4, 1e-3),
        Place { seq: 1, now_ms: 1, in_force: None },
        &signer(),
    )?;
    say(&format!(
        "bulk: trained in {:.0} s, peak memory {} MiB, {}",
        started.elapsed().as_secs_f64(),
        peak_mib(),
        match &outcome.verdict {
            Ok(approved) => format!("artifact {} bytes", approved.bytes().len()),
            Err(refusals) => format!("refused: {refusals:?}"),
        }
    ));
    say(&outcome.report.to_string());
    Ok(())
}

/// Lets the kernel count the peak anew; where it does not, the peak is that of the whole run.
fn reset_peak() {
    // A kernel without it gives a higher figure, never a lower one.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}
