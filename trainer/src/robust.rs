//! Robustness: how many attacks are told from clean requests, plain ones and those that an attacker rewrote.

use datasets::{
    mutate::{Language, Mutant},
    payload,
    request::{Space, encode_bytes},
};
use fastrand::Rng;
use waf_model::{
    client::ClientVector,
    model::Model,
    observation::{Observation, ParamObservation, ValueKey},
    request::{BodyExtent, BodyView, RequestView},
    rules::RuleMatches,
    values::{Limits, Location, Values},
};

/// Attacks in each language.
const ATTACKS: u64 = 20;

/// Steps of mutation after which each attack is tried.
const STEPS: [usize; 4] = [1, 5, 20, 100];

/// Queries of mutated attacks; the same for every model.
pub fn mutants() -> Vec<String> {
    let mut queries = Vec::new();
    for language in Language::ALL {
        for seed in 0..ATTACKS {
            let mut rng = Rng::with_seed(seed);
            let attack = language.attack(&mut rng);
            let mut mutant = Mutant::new(language, "q", &attack);
            for step in 1..=100 {
                mutant.step(&mut rng);
                if STEPS.contains(&step) {
                    queries.push(mutant.query());
                }
            }
        }
    }
    queries
}

/// Values of the wrong type, size and alphabet for each attack of every other kind.
const ODD: usize = 3;

/// Attacks of every kind that there is a grammar for, and values of the wrong type, size and alphabet, each in place of
/// a value, or of the last path segment, of one of `hosts`, which are clean requests with their routes; the same for
/// every model.
pub fn placed(hosts: &[(String, Observation)], key: &ValueKey) -> Vec<(String, Observation)> {
    let mut placed = Vec::new();
    for (number, (route, host)) in (0..).zip(hosts) {
        let mut rng = Rng::with_seed(number);
        let attacks = payload::GRAMMARS.iter().map(|(_, attack)| attack(&mut rng).into_bytes());
        let mut attacks: Vec<Vec<u8>> = attacks.collect();
        attacks.extend((0..ODD).map(|_| payload::odd(&mut rng)));
        let attacks = attacks.iter().map(|attack| instead(host, attack, rng.usize(..), key));
        placed.extend(attacks.map(|attack| (route.clone(), attack)));
    }
    placed
}

/// `host` with `value` in place of one of its values or of the last path segment.
fn instead(host: &Observation, value: &[u8], choice: usize, key: &ValueKey) -> Observation {
    let is_value = |param: &ParamObservation| !matches!(param.location, Location::Header | Location::Cookie);
    let values = host.params.iter().filter(|param| is_value(param)).count();
    let encoded = encode_bytes(value, Space::Percent);
    let place = choice % (values + 1);
    if place == values {
        let directory = host.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let seen = observe(&format!("{directory}/{encoded}"), "", key);
        let Observation { path, path_summary, path_depth, .. } = seen;
        return Observation { path, path_summary, path_depth, ..host.clone() };
    }
    let mut observation = within(host, &format!("q={encoded}"), key);
    if let Some(attack) = observation.params.pop()
        && let Some(param) = observation.params.iter_mut().filter(|param| is_value(param)).nth(place)
    {
        param.summary = attack.summary;
    }
    observation
}

/// Share of `attacks`, each with its route, that `model` would reject.
pub fn rejected(model: &Model, attacks: &[(String, Observation)]) -> f64 {
    let flags = |(route, attack): &&(String, Observation)| {
        model.flags_request(&model.score(attack, &ClientVector::UNKNOWN), route)
    };
    attacks.iter().filter(flags).count() as f64 / attacks.len().max(1) as f64
}

/// The observation of `host`, an otherwise clean request, with the parameters of `query` besides.
pub fn within(host: &Observation, query: &str, key: &ValueKey) -> Observation {
    let attack = observe("/", query, key);
    let mut observation = host.clone();
    observation.query_bytes += attack.query_bytes;
    observation.params.extend(attack.params.into_iter().filter(|p| p.location == Location::Query));
    observation
}

fn observe(path: &str, query: &str, key: &ValueKey) -> Observation {
    let view = RequestView {
        method: "GET",
        path: path.as_bytes(),
        query: Some(query.as_bytes()),
        protocol: "HTTP/1.1",
        headers: &[],
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "",
    };
    Observation::of(&view, &Values::extract(&view, &Limits::default()), &RuleMatches::default(), key)
}

/// Share of the mutated attacks, each within `host`, whose surprise is at least `least`.
pub fn detected(model: &Model, host: &Observation, mutants: &[String], least: f32) -> f64 {
    let told = |query: &&String| {
        let observation = within(host, query, model.value_key());
        model.score(&observation, &ClientVector::UNKNOWN).request.surprise() >= least
    };
    mutants.iter().filter(told).count() as f64 / mutants.len().max(1) as f64
}
