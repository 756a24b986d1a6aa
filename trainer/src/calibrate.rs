//! From a candidate to a model that promises something: p-values and thresholds from clean, later traffic.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use waf_model::{
    artifact::RawGolden,
    client::{ClientVector, Evidence, LEAST_THRESHOLD, Suspicion},
    event::ReviewVerdict,
    features::{self, FEATURES, FeatureVector},
    model::{
        Model, RawModel, RawProvenance,
        baseline::Baseline,
        calibration::{Certificate, RawCalibration, Standing},
        groups::{MOST_ROUTES, Members, RawGroups},
    },
    observation::Observation,
    profile::Profiles,
    score::Score,
};

use crate::{
    conformal,
    dataset::{Dataset, Row, Slice},
    drift::Drift,
    lake::day::Day,
    sample::Reservoir,
    train::{Histories, Learned, fold},
};

pub mod groups;

use groups::Scored;

/// Most distances or levels of one kind that are kept. An even sample calibrates as validly as all would.
const SAMPLE: usize = 4_000_000;

/// Lowest distance at which a request is rejected, whatever the budget allows: nearer than one usual deviation of
/// one feature is normal. Raising a threshold never breaks its promise.
const LEAST_DISTANCE: f32 = 1.0;

/// How much farther the threshold may go for what people judged harmless; the gates see to what lies beyond.
const MOST_RAISED: f32 = 1.25;

/// Most feature vectors of the calibration slice that are kept.
const VECTORS: usize = 20_000;

/// Most routes that are reported.
const BUSIEST: usize = 50;

/// Flagged rows that tell how much of it is the same few clients.
const TELLING: usize = 50;

/// Variance of the difference of two rates from samples of one size, in variances of one of them.
const TWO_SAMPLES: f64 = 2.0;

/// Pairs of input and output that travel with the model.
const GOLDEN: usize = 32;

/// The rates of false positives that are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budgets {
    /// Of requests rejected.
    pub request: f64,
    /// Of client-days blocked.
    pub client: f64,
    /// With which the true rates are within the budgets.
    pub confidence: f64,
}

/// A model that may be published once the gates are passed.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The model.
    pub model: Model,
    /// What it computed for some inputs.
    pub golden: Vec<RawGolden>,
    /// The routes of these, in their order.
    pub golden_routes: Vec<String>,
    /// Median distance of the calibration requests.
    pub median: f32,
    /// What its threshold does on each of the busiest routes.
    pub routes: Vec<RouteRate>,
    /// Some feature vectors of the calibration requests.
    pub vectors: Vec<[f32; FEATURES]>,
    /// How far traffic and clusters moved since the model in force, if there is one.
    pub drift: Option<Drift>,
}

/// What its threshold does on one route.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteRate {
    /// The route.
    pub route: String,
    /// Calibration requests of it.
    pub n: u64,
    /// How many of them would be rejected.
    pub flagged: u64,
    /// The rate that this keeps, with the confidence asked for.
    pub certified: f64,
    /// The threshold of its group.
    pub threshold: f32,
    /// Whether it has a certificate of its own.
    pub own: bool,
    /// Whether its group's budget is certified.
    pub standing: Standing,
}

/// Calibrates `learned` on the calibration slice of `dataset`.
///
/// # Errors
/// There is nothing to calibrate on, or the dataset cannot be read.
pub fn calibrate(
    learned: Learned,
    dataset: &Dataset,
    seq: u64,
    provenance: RawProvenance,
    budgets: &Budgets,
    current: Option<&Model>,
) -> Result<Candidate> {
    let mut raw = RawModel {
        seq,
        value_key: dataset.value_key().0,
        profiles: (&learned.profiles).into(),
        requests: learned.requests,
        client_calibration: learned.clients.as_ref().map(|_| uncalibrated()),
        clients: learned.clients,
        request_calibration: uncalibrated(),
        request_certificate: unpromised(budgets.confidence),
        request_groups: RawGroups::default(),
        client_certificate: unpromised(budgets.confidence),
        baseline: Vec::new(),
        provenance,
    };
    let judge = Judge::of(&raw, &learned.without)?;
    let measured = measure(&judge, dataset, raw.provenance.seed, current)?;
    raw.baseline = (&Baseline::of(&measured.vectors)).into();
    let by_client: Vec<(u64, f32)> =
        measured.requests.iter().map(|(client, _, distance)| (*client, *distance)).collect();
    let Some(certificate) = certify_clients(&by_client, budgets.request, budgets.confidence) else {
        bail!(
            "there are no clean, later requests to calibrate on: let more traffic come in, or give more files \
             (of labelled files the harmless, distinct requests are cut in order)"
        )
    };
    drop(by_client);
    let groups = groups::deal(&measured.requests, &measured.routes, budgets.request, budgets.confidence);
    let harmless = harmless(&judge.model, dataset)?;
    raw.request_certificate = raised(certificate, &harmless, |_| true);
    raw.request_groups = raised_groups(groups, &harmless);
    raw.request_calibration =
        RawCalibration::from_distances(measured.requests.iter().map(|(.., distance)| *distance).collect());
    if raw.clients.is_some() {
        if measured.clients.is_empty() {
            // No later client stayed long enough to be judged by: its behavior cannot be either.
            (raw.clients, raw.client_calibration) = (None, None);
        } else {
            raw.client_calibration = Some(RawCalibration::from_distances(measured.clients));
        }
    }
    let judge = Judge::of(&raw, &learned.without)?;
    let levels = replay(&judge, dataset, raw.provenance.seed)?;
    if let Some(mut certificate) = certify(&levels, budgets.client, budgets.confidence) {
        certificate.threshold = certificate.threshold.max(LEAST_THRESHOLD);
        raw.client_certificate = certificate;
    }
    let model = Model::try_from(raw)?;
    let routes = rates(&measured.requests, &measured.routes, &model, budgets.confidence);
    let golden = measured
        .examples
        .into_iter()
        .map(|(observation, client, route)| (RawGolden::record(&model, observation, client), route));
    let (golden, golden_routes) = golden.unzip();
    let drift = current.map(|current| Drift::between(current, &model, &measured.seen));
    let Measured { median, vectors, .. } = measured;
    Ok(Candidate { model, golden, golden_routes, median, routes, vectors, drift })
}

/// Route and distance of every request that a person judged harmless.
fn harmless(model: &Model, dataset: &Dataset) -> Result<Vec<(String, f32)>> {
    let mut harmless = Vec::new();
    dataset.scan_judged(ReviewVerdict::FalsePositive, |_, row| {
        let vector = row.client_vector.unwrap_or(ClientVector::UNKNOWN);
        harmless.push((row.route, model.score(&row.observation, &vector).request_distance));
        Ok(())
    })?;
    Ok(harmless)
}

/// `certificate` with a threshold that lets usual requests pass, and those of its group that people judged harmless if
/// they are near enough. Raising it breaks no promise.
fn raised(
    certificate: Certificate,
    harmless: &[(String, f32)],
    belongs: impl Fn(&str) -> bool,
) -> Certificate {
    let of_group = harmless.iter().filter(|(route, _)| belongs(route));
    let farthest = of_group.map(|(_, distance)| *distance).fold(0.0, f32::max);
    let threshold = certificate.threshold.max(LEAST_DISTANCE);
    let threshold =
        if farthest < threshold * MOST_RAISED { threshold.max(farthest.next_up()) } else { threshold };
    Certificate { threshold, ..certificate }
}

fn raised_groups(groups: RawGroups, harmless: &[(String, f32)]) -> RawGroups {
    let is_own = |route: &str| groups.routes.iter().any(|(name, _)| name == route);
    let others = groups.others.map(|certificate| raised(certificate, harmless, |route| !is_own(route)));
    let raise = |(name, certificate): &(String, Certificate)| {
        (name.clone(), raised(*certificate, harmless, |route| name == route))
    };
    RawGroups { routes: groups.routes.iter().map(raise).collect(), others }
}

/// Scores rows of the calibration slice. Those that a review put among what was learned from are scored as if that
/// review were not there: by profiles without their fold.
struct Judge {
    model: Model,
    without: Vec<Model>,
}

impl Judge {
    fn of(raw: &RawModel, without: &[Profiles]) -> Result<Self> {
        let without = without
            .iter()
            .map(|profiles| Model::try_from(RawModel { profiles: profiles.into(), ..raw.clone() }))
            .collect::<Result<_, _>>()?;
        Ok(Self { model: Model::try_from(raw.clone())?, without })
    }

    fn measure(&self, row: &Row) -> (Score, FeatureVector) {
        let learned = if row.harmless { self.without.get(fold(row.client)) } else { None };
        learned
            .unwrap_or(&self.model)
            .measure(&row.observation, &row.client_vector.unwrap_or(ClientVector::UNKNOWN))
    }
}

/// What the calibration slice looks like to a model that is not calibrated yet.
struct Measured {
    requests: Vec<Scored>,
    /// Names of the routes, by number.
    routes: Vec<String>,
    clients: Vec<f32>,
    median: f32,
    examples: Vec<(Observation, ClientVector, String)>,
    /// Some feature vectors, and the same as the model in force sees them.
    vectors: Vec<[f32; FEATURES]>,
    seen: Vec<[f32; FEATURES]>,
}

fn measure(judge: &Judge, dataset: &Dataset, seed: u64, current: Option<&Model>) -> Result<Measured> {
    let mut requests = Reservoir::new(SAMPLE, seed);
    let mut clients = Reservoir::new(SAMPLE, seed);
    let mut examples = Reservoir::new(GOLDEN, seed);
    let mut histories = Histories::default();
    let mut routes: HashMap<String, u16> = HashMap::new();
    let (mut vectors, mut seen) = (Vec::new(), Vec::new());
    let (mut step, mut number) = (1_u64, 0_u64);
    let judged = |row: Row| (judge.measure(&row), row);
    dataset.scan_with(Slice::Calibrate, judged, |((score, measured), row)| {
        let vector = row.client_vector.unwrap_or(ClientVector::UNKNOWN);
        let next = u16::try_from(routes.len()).unwrap_or(u16::MAX);
        let route = match routes.get(&row.route) {
            Some(route) => *route,
            None if routes.len() >= MOST_ROUTES => u16::MAX,
            None => *routes.entry(row.route.clone()).or_insert(next),
        };
        requests.offer((row.client, route, score.request_distance));
        if vector.is_mature() && histories.telling(row.client) {
            clients.offer(score.client_distance);
        }
        if number.is_multiple_of(step) {
            vectors.push(measured.0);
            if let Some(current) = current {
                seen.push(features::extract(&row.observation, current.profiles()).vector.0);
            }
            if vectors.len() >= VECTORS {
                // Too many: every second one stays, and only every second is taken from here on.
                let mut keep = 0_usize;
                let mut halve = |vectors: &mut Vec<[f32; FEATURES]>| {
                    keep = 0;
                    vectors.retain(|_| {
                        keep += 1;
                        keep % 2 == 1
                    });
                };
                halve(&mut vectors);
                halve(&mut seen);
                step *= 2;
            }
        }
        number += 1;
        examples.offer((row.observation, vector, row.route));
        Ok(())
    })?;
    let requests = requests.into_kept();
    let mut distances: Vec<f32> = requests.iter().map(|(.., distance)| *distance).collect();
    distances.sort_by(f32::total_cmp);
    let median = distances.get(distances.len() / 2).copied().unwrap_or(0.0);
    let mut names = vec![String::new(); routes.len()];
    for (name, number) in routes {
        names.get_mut(usize::from(number)).into_iter().for_each(|cell| cell.clone_from(&name));
    }
    let (clients, examples) = (clients.into_kept(), examples.into_kept());
    Ok(Measured { requests, routes: names, clients, median, examples, vectors, seen })
}

/// What `model` does on each of the busiest routes, by the threshold of each.
fn rates(requests: &[Scored], names: &[String], model: &Model, confidence: f64) -> Vec<RouteRate> {
    let rate = |name: &String| {
        let group = model.group(name);
        let Certificate { threshold, standing, .. } = *group.certificate();
        let own = matches!(group.members(), Members::Route(_));
        RouteRate { route: name.clone(), n: 0, flagged: 0, certified: 1.0, threshold, own, standing }
    };
    let mut rates: Vec<RouteRate> = names.iter().map(rate).collect();
    for (_, route, distance) in requests {
        if let Some(rate) = rates.get_mut(usize::from(*route)) {
            rate.n += 1;
            rate.flagged += u64::from(*distance >= rate.threshold);
        }
    }
    rates.sort_by(|a, b| b.n.cmp(&a.n).then_with(|| a.route.cmp(&b.route)));
    rates.truncate(BUSIEST);
    rates.iter_mut().for_each(|rate| rate.certified = conformal::upper(rate.n, rate.flagged, confidence));
    rates
}

/// Replays the evidence against every client of the calibration slice; the highest level of each client-day.
fn replay(judge: &Judge, dataset: &Dataset, seed: u64) -> Result<Vec<f32>> {
    struct Today {
        day: Day,
        evidence: Evidence,
        highest: f32,
    }
    let mut levels = Reservoir::new(SAMPLE, seed);
    let mut clients: HashMap<u64, Today> = HashMap::new();
    let mut order = Vec::new();
    let judged = |row: Row| {
        let score = row.client_vector.map(|_| judge.measure(&row).0);
        let suspicion = Suspicion { rule_points: row.observation.rule_points, score };
        (row.client, row.at_ms, suspicion)
    };
    dataset.scan_with(Slice::Calibrate, judged, |(number, at_ms, suspicion)| {
        if suspicion.score.is_none() {
            return Ok(());
        }
        let day = Day::of(at_ms);
        let client = clients.entry(number).or_insert_with(|| {
            order.push(number);
            Today { day, evidence: Evidence::default(), highest: 0.0 }
        });
        if client.day != day {
            levels.offer(client.highest);
            (client.day, client.highest) = (day, 0.0);
        }
        client.highest = client.highest.max(client.evidence.add(at_ms, &suspicion));
        Ok(())
    })?;
    for client in &order {
        levels.offer(clients.get(client).context("a client was forgotten")?.highest);
    }
    Ok(levels.into_kept())
}

/// The lowest threshold among `scores` that keeps `budget`; `None` without scores.
pub fn certify(scores: &[f32], budget: f64, confidence: f64) -> Option<Certificate> {
    let rank = conformal::rank(scores.len() as u64, budget, confidence)?;
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let at = usize::try_from(rank.k).ok()?.checked_sub(1)?;
    Some(Certificate {
        budget: rank.budget,
        confidence,
        n: scores.len() as u64,
        // The rank promises for what exceeds its score; a threshold is met by what reaches it.
        threshold: sorted.get(at)?.max(0.0).next_up(),
        standing: if rank.reached { Standing::Certified } else { Standing::Provisional },
    })
}

/// As [`certify`], for scores of which several come from one client: an odd client is odd every time, so its
/// requests say less than as many requests of different clients. The rank is lowered until the interval holds with
/// the numbers divided by the design effect (Kish 1965): how much larger the variance of the rate is between clients
/// than between independent requests.
///
/// An operator sees no true rate, but that of the traffic to come, which scatters as the calibration does: the rank
/// leaves room for both, for as much traffic as was calibrated on. Whether the budget can be certified at all is a
/// question of the true rate alone.
pub fn certify_clients(scores: &[(u64, f32)], budget: f64, confidence: f64) -> Option<Certificate> {
    let values: Vec<f32> = scores.iter().map(|(_, score)| *score).collect();
    let naive = certify(&values, budget, confidence)?;
    let n = scores.len() as f64;
    let mut rows: HashMap<u64, f64> = HashMap::new();
    scores.iter().for_each(|(client, _)| *rows.entry(*client).or_default() += 1.0);
    let squares: f64 = rows.values().map(|rows| rows * rows).sum();
    let mut sorted = scores.to_vec();
    sorted.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    // How much larger the variance is when the `flagged` largest are flagged.
    let effect = |flagged: usize| {
        let rate = flagged as f64 / n;
        let mut of: HashMap<u64, f64> = HashMap::new();
        sorted.iter().take(flagged).for_each(|(client, _)| *of.entry(*client).or_default() += 1.0);
        let cross: f64 =
            of.iter().map(|(client, count)| count * rows.get(client).copied().unwrap_or(0.0)).sum();
        let own = of.values().map(|count| count * count).sum::<f64>();
        let between = own - 2.0 * rate * cross + rate * rate * squares;
        (between / (n * rate * (1.0 - rate))).max(1.0)
    };
    let mut k = sorted.iter().take_while(|(_, score)| *score >= naive.threshold).count() + 1;
    // A few flagged rows say nothing of how they cluster; those right below them do.
    let nearby = if sorted.len() > TELLING { effect(TELLING) } else { 1.0 };
    loop {
        // Flagged are the first k - 1; the k-th is the largest score that is not.
        let flagged = (k - 1) as f64;
        let effect = if k > TELLING { effect(k - 1) } else { nearby };
        // At the farthest score there is nothing left to trade.
        let effect = if k > 1 { TWO_SAMPLES * effect } else { effect };
        let (m, j) = (n / effect, flagged / effect);
        let keeps = conformal::incomplete_beta(j + 1.0, (m - j).max(1e-9), budget) >= confidence;
        if keeps || k == 1 {
            let standing = if keeps { naive.standing } else { Standing::Provisional };
            let budget =
                if keeps { naive.budget } else { conformal::tightest((m as u64).max(1), confidence) };
            let threshold = sorted.get(k - 1)?.1.max(0.0).next_up();
            return Some(Certificate { threshold, standing, budget: budget.max(naive.budget), ..naive });
        }
        k = (k * 19 / 20).max(1);
    }
}

/// Turns every distance into p = 1, until the distances are known.
fn uncalibrated() -> RawCalibration {
    RawCalibration { n: 0, steps: Vec::new(), tail_scale: 1.0 }
}

/// What can be promised without any data: nothing.
fn unpromised(confidence: f64) -> Certificate {
    Certificate { budget: 1.0, confidence, n: 0, threshold: LEAST_THRESHOLD, standing: Standing::Provisional }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_keeps_its_budget_on_the_scores_it_came_from_with_ties_or_without() {
        let distinct: Vec<f32> = (0..10_000).map(|i| (i * 7919 % 10_000) as f32).collect();
        let tied: Vec<f32> = distinct.iter().map(|x| (x / 100.0).floor()).collect();
        for scores in [distinct, tied] {
            let certificate = certify(&scores, 0.01, 0.95).unwrap();
            assert_eq!((certificate.standing, certificate.n), (Standing::Certified, 10_000));
            let flagged = scores.iter().filter(|score| **score >= certificate.threshold).count();
            assert!(flagged <= 83, "{flagged} of 10000 flagged");
        }
    }

    #[test]
    fn many_requests_of_one_odd_client_count_as_one_oddity() {
        // 2000 clients of 20 requests; one in a hundred is odd in all it does.
        let scores: Vec<(u64, f32)> = (0..40_000_u64)
            .map(|at| {
                (
                    at / 20,
                    if at / 20 % 100 == 7 {
                        10.0 + (at % 7) as f32
                    } else {
                        (at * 7919 % 1000) as f32 / 1000.0
                    },
                )
            })
            .collect();
        let values: Vec<f32> = scores.iter().map(|(_, score)| *score).collect();
        let naive = certify(&values, 0.012, 0.95).unwrap();
        let honest = certify_clients(&scores, 0.012, 0.95).unwrap();
        assert!(honest.threshold > naive.threshold, "{honest:?} {naive:?}");
        let independent: Vec<(u64, f32)> =
            values.iter().enumerate().map(|(at, score)| (at as u64, *score)).collect();
        // Without clusters only the traffic to come takes something off the rank: less than one more deviation, which
        // is one group of the forty equal scores there are of each value.
        let alone = certify_clients(&independent, 0.012, 0.95).unwrap();
        let beyond = |threshold: f32| values.iter().filter(|value| **value >= threshold).count() as f64;
        let (alone, naive) = (beyond(alone.threshold), beyond(naive.threshold));
        assert!(alone < naive && naive - alone <= 40.0, "{alone} of {naive}");
    }

    #[test]
    fn what_was_judged_harmless_raises_the_threshold_of_its_own_group_alone() {
        let certificate = Certificate {
            budget: 0.01,
            confidence: 0.95,
            n: 400,
            threshold: 4.0,
            standing: Standing::Certified,
        };
        let routes = ["a", "b"].map(|name| (name.to_owned(), certificate)).to_vec();
        let groups = RawGroups { routes, others: Some(certificate) };
        let judged =
            [("a", 4.5), ("a", 0.5), ("c", 9.0)].map(|(route, distance)| (route.to_owned(), distance));
        let raised = raised_groups(groups.clone(), &judged);
        let [a, b] = [0, 1].map(|at| raised.routes[at].1.threshold);
        assert_eq!((a, b), (4.5_f32.next_up(), 4.0));
        assert_eq!(raised.others, groups.others, "too far to be let pass by a threshold");
        let near = [("c".to_owned(), 4.9)];
        assert_eq!(raised_groups(groups.clone(), &near).others.unwrap().threshold, 4.9_f32.next_up());
        assert_eq!(raised_groups(groups.clone(), &near).routes, groups.routes);
    }

    #[test]
    fn too_few_scores_are_provisional_with_what_they_carry() {
        let certificate = certify(&[1.0, 3.0, 2.0], 1e-4, 0.95).unwrap();
        assert_eq!(certificate.standing, Standing::Provisional);
        assert!(certificate.threshold > 3.0 && certificate.budget > 0.6, "{certificate:?}");
        assert!(certify(&[], 0.5, 0.95).is_none());
    }
}
