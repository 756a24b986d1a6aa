//! Benign traffic, until the trainer has learned a model from it and the gateway has it in force.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use datasets::benign::{self, Kind};
use serde_json::Value;
use tests::crowd::{self, Pace, Pauses, Tally};

use crate::{story::Story, world::World};

/// Seed of every generator of the demo.
pub(crate) const SEED: u64 = 20_261;

/// Clients whose traffic is learned from and calibrated on. Certifying one false block in a hundred client-days
/// with 95 % confidence takes 299 clean clients for calibration alone.
const LEARNERS: u32 = 1_300;

/// How the benign clients of the demo behave, before and during the attack alike: what was calibrated on one
/// pace says nothing of another. A visit takes 14 to 28 seconds; two minutes have no room for a person's pauses.
pub(crate) fn benign_pace() -> Pace {
    Pace {
        requests_each: REQUESTS_EACH as usize,
        pauses: Pauses::Within(Duration::from_secs(14), Duration::from_secs(28)),
        arrival: Duration::from_secs(9),
    }
}

/// Requests of each benign client.
const REQUESTS_EACH: u32 = 22;

/// Requests from which on the trainer trains: nearly all of those it is meant to learn from.
pub(crate) const LESSON: u32 = LEARNERS * REQUESTS_EACH - 20;

/// What is in force after learning.
#[derive(Debug)]
pub(crate) struct Learned {
    /// Highest share of benign requests that may be refused.
    pub(crate) request_budget: f64,
}

/// Sends benign traffic, waits for the model, and watches the swap.
pub(crate) async fn learn(story: &mut Story, world: &World) -> Result<Learned> {
    story.chapter("Several hundred benign clients, and a trainer that watches");
    let http = world.gateway.client();
    let population = benign::population(SEED, 0, LEARNERS);
    let of_kind = |kind| population.iter().filter(|client| client.kind() == kind).count();
    let mix: Vec<String> =
        Kind::ALL.iter().map(|&kind| format!("{} {}", of_kind(kind), kind.name())).collect();
    story.line(&format!("{LEARNERS} clients, each with an address of its own: {}", mix.join(", ")));

    let started = Instant::now();
    let tally = crowd::run(&http, population, &benign_pace(), Arc::default()).await;
    let seconds = started.elapsed().as_secs_f64();
    story.line(&format!(
        "{} requests in {seconds:.1} s ({:.0} a second): {}",
        tally.requests,
        tally.requests as f64 / seconds,
        statuses(&tally)
    ));
    judge_benign(story, &tally, 0.0);

    story.chapter("Train, calibrate, certify, publish, swap: under load");
    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (http, stop) = (http.clone(), stop.clone());
        let crowd = benign::population(SEED, LEARNERS, 300);
        tokio::spawn(async move { crowd::run(&http, crowd, &benign_pace(), stop).await })
    };
    let waiting = Instant::now();
    let swapped = world.gateway.wait_model(1, Duration::from_secs(45)).await;
    let waited = waiting.elapsed();
    // The old and the new model both serve some of this load.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let tally = load.await.context("the load behind the swap")?;
    let seq = swapped
        .with_context(|| format!("no model was published; the trainer says:\n{}", world.trainer.log()))?;

    story.line(&format!(
        "model {seq} in force {:.1} s after the last request to learn from",
        waited.as_secs_f64()
    ));
    story.line(&format!("{} requests while it was swapped in: {} failed", tally.requests, tally.failed));
    judge_benign(story, &tally, 0.0);
    describe(story, world).await
}

/// What is behind the model in force, as `gateway models list` has it.
async fn describe(story: &mut Story, world: &World) -> Result<Learned> {
    let models = world.gateway.list(&["models", "list"]).await?;
    let Some(model) = models.last() else {
        bail!("`gateway models list` is empty after a model was swapped in")
    };
    let provenance = model.pointer("/header/provenance").unwrap_or(&Value::Null);
    let number = |name: &str| provenance.get(name).and_then(Value::as_u64).unwrap_or(0);
    story.line(&format!(
        "learned from {} clean requests of {} clients ({} set aside), {} bytes signed",
        number("requests"),
        number("clients"),
        number("dropped"),
        model.get("bytes").and_then(Value::as_u64).unwrap_or(0)
    ));
    let promises: Vec<&str> = model
        .get("certificates")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for promise in &promises {
        story.line(promise);
        // Whose requests it is about may come before it.
        if !promise.split(": ").any(|part| part == "certified") {
            story.fail(format!("a budget could not be certified: {promise}"));
        }
    }
    let budget = |unit: &str| {
        let promise = promises.iter().find(|promise| promise.contains(&format!("per {unit}")));
        let number = promise
            .and_then(|promise| promise.split_once("at most ")?.1.split(' ').next()?.parse::<f64>().ok());
        number.with_context(|| format!("no promise per {unit} among {promises:?}"))
    };
    budget("client-day")?;
    Ok(Learned { request_budget: budget("request")? })
}

/// A line of statuses and their counts.
pub(crate) fn statuses(tally: &Tally) -> String {
    tally.statuses.iter().map(|(status, count)| format!("{count} x {status}")).collect::<Vec<_>>().join(", ")
}

/// Holds benign traffic to the promises: nothing failed, and no more refused than the budget allows (with three
/// standard deviations of luck).
pub(crate) fn judge_benign(story: &mut Story, tally: &Tally, budget: f64) {
    if tally.failed > 0 {
        story.fail(format!("{} requests failed: {}", tally.failed, tally.failures.join("; ")));
    }
    let refused: u64 = tally.refused.values().sum();
    let expected = tally.requests as f64 * budget;
    if refused as f64 > expected + 3.0 * expected.sqrt() {
        let examples: Vec<String> =
            tally.first_refused.values().take(5).map(|(id, what)| format!("{what} ({id})")).collect();
        story.fail(format!(
            "{refused} of {} benign requests were refused: {}",
            tally.requests,
            examples.join("; ")
        ));
    }
}
