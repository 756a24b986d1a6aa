//! What stands between a candidate and the gateways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use datasets::{
    attackers::{Attacker, Persona},
    benign::population,
    traffic::Site,
};
use ed25519_dalek::SigningKey;
use trainer::{
    calibrate::Budgets,
    dataset::Dataset,
    gate::Refusal,
    lake::Lake,
    pipeline::{Outcome, Place, Settings, learn},
};
use waf_model::{event::Event, observation::ValueKey};

const KEY: ValueKey = ValueKey([7; 16]);

const SITE: Site = Site { key: KEY, start_ms: 1_785_544_200_000, span_ms: 36_000_000, requests: 20 };

fn shoppers(seed: u64, first: u32, count: u32) -> Vec<Event> {
    SITE.traffic(population(seed, first, count).into_iter().map(|c| (c.identity().address, c)), seed)
}

fn learn_from(events: &[Event], in_force: Option<Vec<u8>>, approve_drift: bool, seed: u64) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let lake = Lake::new(directory.path().to_owned());
    lake.write_events("a", events).unwrap();
    let settings = Settings {
        seed,
        budgets: Budgets { request: 0.01, client: 0.08, confidence: 0.9 },
        min_requests: 500,
        may_remove: 0.2,
        approve_drift,
    };
    let place = Place { seq: 2, now_ms: 1, in_force };
    learn(|| Dataset::of_lake(lake, KEY), &settings, place, &SigningKey::from_bytes(&[3; 32])).unwrap()
}

#[test]
fn another_day_of_the_same_traffic_passes_every_gate() {
    let first = learn_from(&shoppers(1, 0, 900), None, false, 5);
    let first = first.verdict.unwrap().bytes().to_vec();
    for seed in [2, 3] {
        let next = learn_from(&shoppers(seed, 10_000, 900), Some(first.clone()), false, seed);
        let drift = next.candidate.drift.as_ref().unwrap();
        assert!(next.verdict.is_ok(), "{:?} {:?} {:?}", next.verdict, drift.movement(), &drift.psi[..4]);
    }
}

#[test]
fn a_site_that_changed_needs_a_word_of_approval() {
    let first = learn_from(&shoppers(1, 0, 900), None, false, 5).verdict.unwrap().bytes().to_vec();
    let mut changed = shoppers(2, 10_000, 900);
    // A new front end: longer paths, more parameters, other headers.
    for event in &mut changed {
        event.observation.path_summary.bytes = event.observation.path_summary.bytes * 4 + 40;
        event.observation.path_depth += 3;
        event.observation.query_bytes += 300;
        let extra = event.observation.params.clone();
        event.observation.params.extend(extra);
    }
    let refusals = learn_from(&changed, Some(first.clone()), false, 5).verdict.unwrap_err();
    let drift = refusals.iter().find(|refusal| matches!(refusal, Refusal::Drift { .. }));
    assert!(drift.unwrap().to_string().contains("--approve-drift"), "{refusals:?}");
    let approved = learn_from(&changed, Some(first), true, 5);
    assert!(
        approved.verdict.as_ref().map_or_else(
            |refusals| !refusals
                .iter()
                .any(|r| matches!(r, Refusal::Drift { .. } | Refusal::Movement { .. })),
            |_| true
        ),
        "{:?}",
        approved.verdict
    );
}

#[test]
fn a_model_that_would_let_more_attacks_pass_is_refused() {
    let clean = shoppers(1, 0, 900);
    let first = learn_from(&clean, None, false, 5).verdict.unwrap().bytes().to_vec();
    // Of the clients that calibrate, each sends one attack late in the day: none of them can be told from others.
    let attacker = Attacker::new(7, 6000, Persona::InjectionScanner);
    let attacks = Site { requests: 900, ..SITE }.traffic([(attacker.identity().address, attacker)], 3);
    let mut dirty = shoppers(2, 10_000, 900);
    let mut sent = BTreeSet::new();
    for (event, attack) in dirty.iter_mut().rev().zip(attacks.iter().cycle()) {
        if sent.insert(event.client) {
            event.observation = attack.observation.clone();
        }
    }
    let refusals = learn_from(&dirty, Some(first.clone()), false, 5).verdict.unwrap_err();
    let detection = refusals.iter().find(|refusal| matches!(refusal, Refusal::Detection { .. }));
    assert!(detection.unwrap().to_string().contains("--approve-drift"), "{refusals:?}");
}

#[test]
fn a_route_that_breaks_the_promise_refuses_the_model() {
    let mut events = shoppers(1, 0, 900);
    // A small route, calibrated on only: half of its requests are like nothing else.
    let late = SITE.start_ms + 24_000_000;
    for (at, event) in events.iter_mut().enumerate().filter(|(at, event)| at % 300 == 0 && event.at_ms > late)
    {
        event.route = "reports".to_owned();
        if at % 600 == 0 {
            event.observation.params.iter_mut().for_each(|param| {
                param.summary.lexical.sqli = true;
                param.summary.lexical.quotes = 40;
                param.summary.chars = u64::MAX >> 23;
            });
        }
    }
    let outcome = learn_from(&events, None, false, 5);
    let refusals = outcome.verdict.unwrap_err();
    assert!(
        refusals.iter().any(|r| matches!(r, Refusal::Route { route, .. } if route == "reports")),
        "{refusals:?} {:?}",
        outcome.candidate.routes
    );
}
