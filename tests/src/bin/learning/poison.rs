//! Rows of few attackers among those learned from: what is lost, and whether a gate saw it.

use std::net::IpAddr;

use anyhow::{Result, bail};
use datasets::{
    attackers::{Attacker, Persona},
    benign,
    request::GeneratedRequest,
    traffic::Site,
};
use waf_model::{
    event::{Event, Verdict},
    model::Model,
};

use super::{SITE, learn_from, say, settings, share, shoppers, spread};

/// Attackers of each trial that send what is to be learned.
const POISONERS: u32 = 6;

/// Share of points of detection whose loss is a bad promotion.
const LOSS: f64 = 0.01;

/// A patient attacker sends one attack among so many requests of a shopper: too few for a scanner.
const PATIENCE: usize = 12;

/// How attackers go about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Every request is an attack.
    Bold,
    /// One in [`PATIENCE`] is; the others are a shopper's.
    Patient,
}

/// Share of `attacks` that the model flags.
fn detection(model: &Model, attacks: &[Event]) -> f64 {
    let flags = |event: &&Event| {
        model.flags_request(&model.score(&event.observation, &event.client_vector), &event.route)
    };
    attacks.iter().filter(flags).count() as f64 / attacks.len().max(1) as f64
}

fn attackers(seed: u64, first: u32, count: u32, requests: usize, style: Style) -> Vec<Event> {
    const TEACHERS: [Persona; 3] =
        [Persona::InjectionScanner, Persona::CommandInjection, Persona::ParameterFuzzer];
    let covers = benign::population(seed, first, count);
    let personas = TEACHERS.into_iter().cycle();
    let clients = (first..).zip(personas).zip(covers).map(|((number, persona), mut cover)| {
        let mut attacker = Attacker::new(seed, number, persona);
        let address = attacker.identity().address;
        let sent = (0..).map_while(move |at: usize| match style {
            Style::Patient if at % PATIENCE != PATIENCE - 1 => cover.next(),
            _ => attacker.next(),
        });
        (address, Box::new(sent) as Box<dyn Iterator<Item = GeneratedRequest>>)
    });
    let clients: Vec<(IpAddr, _)> = clients.collect();
    Site { requests, ..SITE }.traffic(clients, seed)
}

/// One trial: the points of TPR that were lost, and whether a gate refused.
fn trial(number: u64, percent: usize, style: Style) -> Result<(f64, bool)> {
    let clean = shoppers(number, 0, 1000);
    let attacks = attackers(10_900 + number, 700_000, 27, 40, Style::Bold);
    let settings = settings(number, 0.01, 0.08);
    let before = learn_from(&clean, &settings, None)?;
    let Ok(in_force) = &before.verdict else { bail!("the clean model is refused: {:?}", before.verdict) };
    let in_force = in_force.bytes().to_vec();
    let rows = clean.len() * percent / 100 / POISONERS as usize;
    let mut dirty = clean;
    // Other numbers than the shoppers' seed: the same one would make the same ids, and half would be repeats.
    dirty.extend(attackers(20_000 + number, 800_000, POISONERS, rows, style));
    // What the model in force would have said of it, as the gateway notes it.
    let before = before.candidate.model;
    for event in &mut dirty {
        if before.flags_request(&before.score(&event.observation, &event.client_vector), &event.route) {
            event.verdict = Verdict::Model;
        }
    }
    let after = learn_from(&dirty, &settings, Some(in_force))?;
    let [had, has] = [&before, &after.candidate.model].map(|model| detection(model, &attacks));
    if std::env::var_os("VERBOSE").is_some() {
        let threshold = |model: &Model| model.request_certificate().threshold;
        say(&format!(
            "  {percent}% {style:?} trial {number}: TPR {had:.4} then {has:.4}, threshold {:.2} then {:.2}; {:?}; {:?}",
            threshold(&before),
            threshold(&after.candidate.model),
            after.report.extent.left_out,
            after.verdict.as_ref().err()
        ));
    }
    Ok((had - has, after.verdict.is_err()))
}

/// Learns from clean traffic, then from the same with rows of attackers; half of the trials are of each style.
pub(crate) fn poison() -> Result<()> {
    let trials: u64 = std::env::var("TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(34);
    let shares = std::env::var("SHARES").unwrap_or_else(|_| "1,5,10".to_owned());
    for percent in shares.split(',').filter_map(|text| text.parse().ok()) {
        for style in [Style::Bold, Style::Patient] {
            let (mut refused, mut lost, mut bad) = (0, Vec::new(), 0);
            let own = (0..trials).filter(|number| (number % 2 == 0) == (style == Style::Bold));
            let mut count = 0;
            for number in own {
                count += 1;
                let (loss, is_refused) = trial(number, percent, style)?;
                if is_refused {
                    refused += 1;
                } else {
                    bad += u64::from(loss > LOSS);
                    lost.push(100.0 * loss);
                }
            }
            say(&format!(
                "poisoning, {percent}% of the rows from {POISONERS} clients, {style:?}: {refused} of {count} refused, bad \
                 promotions {}; points of TPR lost {}",
                share(bad, count),
                spread(lost)
            ));
        }
    }
    Ok(())
}
