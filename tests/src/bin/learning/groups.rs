//! What a threshold for each group of routes is worth: the promise over replays, and detection, before and after.

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;
use fastrand::Rng;
use trainer::{
    calibrate::{
        certify_clients,
        groups::{self, Scored},
    },
    robust,
    rules::{BUILT_IN_NAME, Rules},
    train::cluster_vectors,
};
use waf_model::{
    client::ClientVector,
    event::Event,
    features::TABLE,
    model::{Model, RawModel, calibration::Certificate, clusters::Clusters, groups::RawGroups},
    observation::Observation,
};

use super::{KEY, SEEDS, ablation, learn_from, say, settings, share, shoppers, spread, summary};

const BUDGET: f64 = 0.01;
const REPLAYS: u64 = 100;

/// Of labelled requests, which are too few for a smaller one.
const LABELLED_BUDGET: f64 = 0.05;

/// Distances on one site, to calibrate on and to judge by.
#[derive(Default)]
struct Replayed {
    budget: f64,
    /// Requests of each client.
    clients: Vec<Vec<Scored>>,
    names: Vec<String>,
    /// Number of the route, and distance.
    attacks: Vec<(u16, f32)>,
}

/// How often the realised rate of false positives exceeds the certified budget, over other splits of clean traffic:
/// a quarter of the clients calibrate, the others come after. With one threshold, and with one for each group.
pub(crate) fn promise(data: Option<&Path>) -> Result<()> {
    let outcome = learn_from(&shoppers(1, 0, 1500), &settings(1, BUDGET, 0.05), None)?;
    let model = outcome.candidate.model;
    // Clients that the model never met.
    let events = shoppers(2, 50_000, 6000);
    generated("the shop, by route", &events, &model, |route, _| route.to_owned()).replay();
    let endpoint = |_: &str, seen: &Observation| endpoint(seen);
    generated("the shop, by endpoint", &events, &model, endpoint).replay();
    let Some(data) = data else { return Ok(()) };
    let rules = Rules::read(&[BUILT_IN_NAME.into()])?.compile(1, (5, 4))?;
    for name in ["csic2010", "ariel_api_ds1"] {
        let site = ablation::labelled(&data.join(format!("{name}.jsonl.gz")), &rules)?;
        labelled(name, &site)?.replay();
    }
    Ok(())
}

fn endpoint(seen: &Observation) -> String {
    format!("{} {}", seen.method, seen.path)
}

/// A site, and its name.
struct Named(&'static str, Replayed);

fn generated(
    what: &'static str,
    events: &[Event],
    model: &Model,
    name: impl Fn(&str, &Observation) -> String,
) -> Named {
    let mut site = Replayed { budget: BUDGET, ..Replayed::default() };
    let mut numbers = BTreeMap::new();
    let mut clients: BTreeMap<u64, Vec<Scored>> = BTreeMap::new();
    let distance = |seen: &Observation, client| model.score(seen, client).request_distance;
    for event in events {
        let number = number(&mut site.names, &mut numbers, name(&event.route, &event.observation));
        let distance = distance(&event.observation, &event.client_vector);
        clients.entry(event.client).or_default().push((event.client, number, distance));
    }
    site.clients = clients.into_values().collect();
    // A request and what attackers would put in place of its values go the same way.
    for event in events.iter().step_by(events.len() / 400) {
        let number = number(&mut site.names, &mut numbers, name(&event.route, &event.observation));
        let host = [(String::new(), event.observation.clone())];
        let attacks = robust::placed(&host, &KEY);
        site.attacks
            .extend(attacks.iter().map(|(_, attack)| (number, distance(attack, &ClientVector::UNKNOWN))));
    }
    Named(what, site)
}

/// Labelled requests have neither clients nor routes: each is one client's, and its endpoint stands for the route.
fn labelled(what: &'static str, site: &ablation::Site) -> Result<Named> {
    let vectors = ablation::vectors(site)?;
    let clusters = Clusters::new(cluster_vectors(&vectors.learned, 1)?, &TABLE.map(|feature| feature.side))?;
    let mut found = Replayed { budget: LABELLED_BUDGET, ..Replayed::default() };
    let mut numbers = BTreeMap::new();
    for ((client, seen), vector) in (0_u64..).zip(&site.harmless).zip(&vectors.harmless) {
        let number = number(&mut found.names, &mut numbers, endpoint(seen));
        found.clients.push(vec![(client, number, clusters.nearest(vector).distance)]);
    }
    for (seen, vector) in site.attacks.iter().zip(&vectors.attacks) {
        let number = numbers.get(&endpoint(seen)).copied().unwrap_or(u16::MAX);
        found.attacks.push((number, clusters.nearest(vector).distance));
    }
    Ok(Named(what, found))
}

/// The number of a name; a new one where there are few enough.
fn number(names: &mut Vec<String>, numbers: &mut BTreeMap<String, u16>, name: String) -> u16 {
    if let Some(number) = numbers.get(&name) {
        return *number;
    }
    match u16::try_from(names.len()) {
        Ok(number) if number < 1000 => {
            names.push(name.clone());
            numbers.insert(name, number);
            number
        }
        _ => u16::MAX,
    }
}

/// What 100 replays found with one kind of thresholds.
#[derive(Default)]
struct Kept {
    rates: Vec<f64>,
    /// Replays whose rate over all traffic exceeds the budget, and in which a certified route's own rate does.
    exceeded: [u64; 2],
    /// Routes with a certificate of their own, over all replays, and those whose own rate exceeds.
    routes: [u64; 2],
    /// The largest rate of such a route.
    worst: Vec<f64>,
    detected: Vec<f64>,
}

impl Named {
    fn replay(self) {
        let Self(what, site) = self;
        let (mut one, mut each, mut covered) = (Kept::default(), Kept::default(), Vec::new());
        for replay in 0..REPLAYS {
            let mut order: Vec<&Vec<Scored>> = site.clients.iter().collect();
            Rng::with_seed(replay).shuffle(&mut order);
            let (calibrate, later) = order.split_at(order.len() / 4);
            let calibrate: Vec<Scored> = calibrate.iter().copied().flatten().copied().collect();
            let later: Vec<Scored> = later.iter().copied().flatten().copied().collect();
            let all: Vec<(u64, f32)> =
                calibrate.iter().map(|(client, _, distance)| (*client, *distance)).collect();
            let Some(all) = certify_clients(&all, site.budget, 0.95) else { continue };
            let groups = groups::deal(&calibrate, &site.names, site.budget, 0.95);
            let own: u64 = groups.routes.iter().map(|(_, certificate)| certificate.n).sum();
            covered.push(own as f64 / calibrate.len() as f64);
            one.judge(&site, &later, &groups, |_| &all);
            each.judge(&site, &later, &groups, |name| certificate(&groups, name).unwrap_or(&all));
        }
        let groups = one.routes[0] as f64 / REPLAYS as f64;
        say(&format!(
            "promise on {what}: budget {} with 95% confidence; {} requests, {groups:.1} of {} routes have their own \
             certificate, with a share of the traffic of {}",
            site.budget,
            site.clients.iter().map(Vec::len).sum::<usize>(),
            site.names.len(),
            spread(covered)
        ));
        one.say("one threshold");
        each.say("one of each group");
    }
}

fn certificate<'a>(groups: &'a RawGroups, name: &str) -> Option<&'a Certificate> {
    let own = groups.routes.iter().find(|(own, _)| own == name).map(|(_, certificate)| certificate);
    own.or(groups.others.as_ref())
}

impl Kept {
    /// Judges later traffic by the threshold that `certificate` names for each route. The routes of `groups` are
    /// those whose own rate is looked at, whatever the thresholds are.
    fn judge<'a>(
        &mut self,
        site: &Replayed,
        later: &[Scored],
        groups: &RawGroups,
        certificate: impl Fn(&str) -> &'a Certificate,
    ) {
        let thresholds: Vec<f32> = site.names.iter().map(|name| certificate(name).threshold).collect();
        let others = certificate("").threshold;
        let threshold = |route: u16| thresholds.get(usize::from(route)).copied().unwrap_or(others);
        let mut counts = vec![[0_u64; 2]; site.names.len()];
        let mut flagged = 0;
        for (_, route, distance) in later {
            let is_flagged = *distance >= threshold(*route);
            flagged += u64::from(is_flagged);
            if let Some([n, flagged]) = counts.get_mut(usize::from(*route)) {
                *n += 1;
                *flagged += u64::from(is_flagged);
            }
        }
        let rate = flagged as f64 / later.len() as f64;
        self.rates.push(rate);
        self.exceeded[0] += u64::from(rate > site.budget);
        let is_own = |name: &String| groups.routes.iter().any(|(own, _)| own == name);
        let own = site.names.iter().zip(&counts).filter(|(name, _)| is_own(name));
        let rates: Vec<f64> = own.map(|(_, [n, flagged])| *flagged as f64 / (*n).max(1) as f64).collect();
        let over = rates.iter().filter(|rate| **rate > site.budget).count() as u64;
        self.exceeded[1] += u64::from(over > 0);
        self.routes[0] += rates.len() as u64;
        self.routes[1] += over;
        self.worst.extend(rates.into_iter().reduce(f64::max));
        let found = site.attacks.iter().filter(|(route, distance)| *distance >= threshold(*route)).count();
        self.detected.push(found as f64 / site.attacks.len().max(1) as f64);
    }

    fn say(self, what: &str) {
        say(&format!(
            "  {what:<18} exceeded in {} replays; realised {}",
            share(self.exceeded[0], REPLAYS),
            spread(self.rates)
        ));
        if self.routes[0] > 0 {
            say(&format!(
                "  {:<18} some certified route's own rate exceeds in {} replays; of all routes and replays {}; the largest {}",
                "",
                share(self.exceeded[1], REPLAYS),
                share(self.routes[1], self.routes[0]),
                spread(self.worst)
            ));
        }
        say(&format!("  {:<18} detected {}", "", spread(self.detected)));
    }
}

/// What groups change in the models that are learned from the shop: detection of attacks in place of the site's own
/// values, and false positives on new clients, by route.
pub(crate) fn detection() -> Result<()> {
    for budget in [0.01, 0.002] {
        let mut found: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for seed in SEEDS {
            let with =
                learn_from(&shoppers(seed, 0, 4000), &settings(seed, budget, 0.05), None)?.candidate.model;
            let mut raw = RawModel::from(&with);
            raw.request_groups = RawGroups::default();
            let without = Model::try_from(raw)?;
            let fresh = shoppers(100 + seed, 60_000, 2000);
            let hosts: Vec<(String, Observation)> = fresh
                .iter()
                .step_by(fresh.len() / 400)
                .map(|event| (event.route.clone(), event.observation.clone()))
                .collect();
            let attacks = robust::placed(&hosts, &KEY);
            for (kind, model) in [("one threshold", &without), ("one of each group", &with)] {
                let mut add = |what, value| found.entry((what, kind)).or_default().push(value);
                add("detected, all", 100.0 * robust::rejected(model, &attacks));
                for (route, detected, wrong) in [
                    ("api", "detected, api", "false positives, api"),
                    ("shop", "detected, shop", "false positives, shop"),
                ] {
                    let own: Vec<_> = attacks.iter().filter(|(name, _)| name == route).cloned().collect();
                    add(detected, 100.0 * robust::rejected(model, &own));
                    add(
                        wrong,
                        100.0 * false_positives(model, fresh.iter().filter(|event| event.route == route)),
                    );
                }
                add("false positives, all", 100.0 * false_positives(model, fresh.iter()));
                add("groups", model.groups().count() as f64);
            }
        }
        say(&format!("groups: budget {budget}, percent (median of {} seeds):", SEEDS.len()));
        for ((what, kind), values) in found {
            say(&format!("  {what:<24} {kind:<18} {}", summary(values)));
        }
    }
    Ok(())
}

fn false_positives<'a>(model: &Model, events: impl Iterator<Item = &'a Event>) -> f64 {
    let (mut n, mut flagged) = (0_u64, 0_u64);
    for event in events {
        let score = model.score(&event.observation, &event.client_vector);
        n += 1;
        flagged += u64::from(model.flags_request(&score, &event.route));
    }
    flagged as f64 / n.max(1) as f64
}
