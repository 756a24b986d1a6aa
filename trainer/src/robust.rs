//! Robustness: how many attacks are still told from clean requests after an attacker rewrote them.

use datasets::mutate::{Language, Mutant};
use fastrand::Rng;
use waf_model::{
    client::ClientVector,
    model::Model,
    observation::{Observation, ValueKey},
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

/// The observation of `host`, an otherwise clean request, with the parameters of `query` besides.
pub fn within(host: &Observation, query: &str, key: &ValueKey) -> Observation {
    let view = RequestView {
        method: "GET",
        path: b"/",
        query: Some(query.as_bytes()),
        protocol: "HTTP/1.1",
        headers: &[],
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "",
    };
    let attack =
        Observation::of(&view, &Values::extract(&view, &Limits::default()), &RuleMatches::default(), key);
    let mut observation = host.clone();
    observation.query_bytes += attack.query_bytes;
    observation.params.extend(attack.params.into_iter().filter(|p| p.location == Location::Query));
    observation
}

/// Share of the mutated attacks, each within `host`, whose surprise is at least `least`.
pub fn detected(model: &Model, host: &Observation, mutants: &[String], least: f32) -> f64 {
    let told = |query: &&String| {
        let observation = within(host, query, model.value_key());
        model.score(&observation, &ClientVector::UNKNOWN).request.surprise() >= least
    };
    mutants.iter().filter(told).count() as f64 / mutants.len().max(1) as f64
}
