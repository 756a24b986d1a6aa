//! What fifty reviews are worth: false flags without and with them, at equal detection.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use datasets::attackers::{Attacker, Persona};
use waf_model::{
    event::{Event, Review, ReviewVerdict, Verdict},
    model::Model,
    values::Location,
};

use super::{SEEDS, SITE, learn_from, learn_judged, say, settings, shoppers, summary};

const REVIEWS: usize = 50;

/// Share of the attacks that each model must detect.
const DETECTION: f64 = 0.95;

/// Habits come up after a first model, which rejects some of them; fifty of those are judged harmless.
pub(crate) fn reviews() -> Result<()> {
    let (mut saved, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for seed in SEEDS {
        let mut events = shoppers(seed, 0, 1500);
        let mut fresh = shoppers(100 + seed, 20_000, 1500);
        let settings = settings(seed, 0.01, 0.08);
        let first = learn_from(&events, &settings, None)?.candidate.model;
        form_habits(&mut fresh);
        form_habits(&mut events);
        let mut judged = Vec::new();
        for event in &mut events {
            if first.flags_request(&first.score(&event.observation, &event.client_vector), &event.route) {
                event.verdict = Verdict::Model;
                judged.push(Review {
                    request: Some(event.id),
                    client: event.client,
                    verdict: ReviewVerdict::FalsePositive,
                    at_ms: 1,
                });
            }
        }
        ensure!(judged.len() >= REVIEWS, "only {} requests are flagged", judged.len());
        // Of different times and clients, as a person meets them.
        let step = judged.len() / REVIEWS;
        let judged: Vec<Review> = judged.into_iter().step_by(step).take(REVIEWS).collect();
        let reviewed: HashSet<[u8; 16]> = judged.iter().filter_map(|review| review.request).collect();
        ensure!(reviewed.len() == REVIEWS, "a request was reviewed twice");
        let without = learn_from(&events, &settings, None)?.candidate.model;
        let with = learn_judged(&events, &judged, &settings, None)?.candidate.model;
        let attacks = attacks(seed);
        let (less, more) = (false_flags(&with, &attacks, &fresh), false_flags(&without, &attacks, &fresh));
        saved.push(1.0 - less / more);
        before.push(more / fresh.len() as f64);
        after.push(less / fresh.len() as f64);
    }
    say(&format!("reviews: false flags at {DETECTION} detection without reviews: {}", summary(before)));
    say(&format!("reviews: with {REVIEWS} of them: {}; saved {}", summary(after), summary(saved)));
    Ok(())
}

/// Some shoppers have habits that few share: a name with an apostrophe, code in a comment.
fn form_habits(events: &mut [Event]) {
    for (at, event) in events.iter_mut().enumerate().filter(|(at, _)| at % 61 == 0) {
        let habit = (at / 61 % 6) as u8;
        let is_param = |location| !matches!(location, Location::Header | Location::Cookie);
        if let Some(param) = event.observation.params.iter_mut().find(|param| is_param(param.location)) {
            param.summary.chars |= 1 << (9 + habit);
            param.summary.form ^= u64::from(habit) + 1;
            param.summary.bytes += 40 + u32::from(habit);
        }
    }
}

fn attacks(seed: u64) -> Vec<Event> {
    let personas = [Persona::InjectionScanner, Persona::CommandInjection, Persona::PaddedInjection];
    let attackers = (9000..).zip(personas).map(|(number, persona)| {
        let attacker = Attacker::new(seed, number, persona);
        (attacker.identity().address, attacker)
    });
    SITE.traffic(attackers, seed)
}

/// Requests of `fresh` at and above the distance that [`DETECTION`] of the attacks reach.
fn false_flags(model: &Model, attacks: &[Event], fresh: &[Event]) -> f64 {
    let distance = |event: &Event| model.score(&event.observation, &event.client_vector).request_distance;
    let mut reached: Vec<f32> = attacks.iter().map(distance).collect();
    reached.sort_by(f32::total_cmp);
    let at = (reached.len() as f64 * (1.0 - DETECTION)) as usize;
    let threshold = reached.get(at).copied().unwrap_or(0.0);
    fresh.iter().filter(|event| distance(event) >= threshold).count() as f64
}
