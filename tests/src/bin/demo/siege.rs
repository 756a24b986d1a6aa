//! Attackers among benign clients: who was blocked, after how many requests, and why; then an operator's review.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use datasets::{
    attackers::{Attacker, Persona},
    benign::{self, BenignClient, Kind},
};
use serde_json::Value;
use tests::crowd::{self, Pace, Pauses, Tally};

use crate::{
    learning::{Learned, SEED, benign_pace, judge_benign, statuses},
    story::Story,
    world::World,
};

/// Numbers of benign clients during the attack, and of attackers: apart from each other and from those before.
const BENIGN_FROM: u32 = 2_000;
const BENIGN: u32 = 200;
const ATTACKERS_FROM: u32 = 4_000;

/// Attackers of each persona.
const EACH: u32 = 2;

/// How long the attack may last.
const LONGEST: Duration = Duration::from_secs(40);

/// What is worth reviewing.
#[derive(Debug)]
pub(crate) struct Siege {
    /// A blocked client: its address, and what it was.
    blocked: Option<(IpAddr, Persona)>,
}

/// Lets the attackers loose, and says what became of everybody.
pub(crate) async fn attack(story: &mut Story, world: &World, model: &Learned) -> Result<Siege> {
    story.chapter("Attackers mix with benign clients");
    let http = world.gateway.client();
    let attackers: Vec<Attacker> = Persona::ALL
        .iter()
        .flat_map(|&persona| (0..EACH).map(move |nth| (persona, nth)))
        .zip(ATTACKERS_FROM..)
        .map(|((persona, nth), index)| Attacker::new(SEED + u64::from(nth), index, persona))
        .collect();
    let personas: BTreeMap<IpAddr, Persona> =
        attackers.iter().map(|attacker| (attacker.identity().address, attacker.persona())).collect();
    story.line(&format!(
        "{} attackers of {} kinds, {BENIGN} benign clients, side by side",
        attackers.len(),
        Persona::ALL.len()
    ));

    let (stop, started) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let good = {
        let (http, clients) = (http.clone(), benign::population(SEED, BENIGN_FROM, BENIGN));
        // They end by themselves: an unfinished client would be an easier one.
        let pace = benign_pace();
        tokio::spawn(async move { crowd::run(&http, clients, &pace, Arc::default()).await })
    };
    let bad = {
        let (http, stop) = (http.clone(), stop.clone());
        let pace =
            Pace { requests_each: usize::MAX, pauses: Pauses::Divided(2), arrival: Duration::from_secs(2) };
        tokio::spawn(async move { crowd::run(&http, attackers, &pace, stop).await })
    };
    let mut blocks = BTreeMap::new();
    while started.elapsed() < LONGEST {
        tokio::time::sleep(Duration::from_millis(500)).await;
        blocks = blocked(world).await?;
        if personas.keys().all(|address| blocks.contains_key(address)) {
            break;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let bad = bad.await.context("the attackers")?;
    let good = good.await.context("the benign clients")?;
    blocks.extend(blocked(world).await?);

    story.line(&format!("attackers: {} requests in {seconds:.1} s: {}", bad.requests, statuses(&bad)));
    story.line(&format!("benign:    {} requests: {}", good.requests, statuses(&good)));
    if bad.failed > 0 {
        story.fail(format!("{} requests of attackers failed: {}", bad.failed, bad.failures.join("; ")));
    }
    judge_benign(story, &good, model.request_budget);
    report(story, &personas, &blocks, &bad);

    let wrong: Vec<String> = blocks
        .iter()
        .filter(|(address, _)| !personas.contains_key(address))
        .map(|(address, block)| format!("{address}: {}", text_of(block, "reason")))
        .collect();
    if wrong.is_empty() {
        story.line(&format!("benign clients blocked: 0 of {}", good.sent.len()));
    } else {
        story.fail(format!("{} benign clients were blocked: {}", wrong.len(), wrong.join("; ")));
    }
    let mut known = personas.iter().filter(|(address, _)| blocks.contains_key(address));
    // The most telling block is one that no rule would have made.
    let chosen =
        known.clone().find(|(_, persona)| **persona == Persona::IdEnumeration).or_else(|| known.next());
    Ok(Siege { blocked: chosen.map(|(address, persona)| (*address, *persona)) })
}

/// One line for each persona.
fn report(
    story: &mut Story,
    personas: &BTreeMap<IpAddr, Persona>,
    blocks: &BTreeMap<IpAddr, Value>,
    tally: &Tally,
) {
    story.line("");
    story.line(&format!("{:<20} {:<22} {:<12} why", "attacker", "requests until blocked", "of them 403"));
    for persona in Persona::ALL {
        for (address, _) in personas.iter().filter(|(_, of)| **of == persona) {
            let sent = tally.sent.get(address).map(Vec::as_slice).unwrap_or_default();
            let Some(block) = blocks.get(address) else {
                story.fail(format!(
                    "{} {address} was not blocked in {} requests",
                    persona.name(),
                    sent.len()
                ));
                continue;
            };
            // The block says which request was the last straw.
            let straw = text_of(block, "request_id");
            let count = sent.iter().position(|(id, _)| *id == straw).map_or(sent.len(), |at| at + 1);
            let before = sent.get(..count).unwrap_or_default();
            let refused = before.iter().filter(|(_, status)| *status == 403).count();
            story.line(&format!(
                "{:<20} {:<22} {:<12} {}",
                persona.name(),
                before.len(),
                refused,
                text_of(block, "reason")
            ));
        }
    }
    story.line("");
}

/// The blocks in force, by address.
async fn blocked(world: &World) -> Result<BTreeMap<IpAddr, Value>> {
    let blocks = world.gateway.list(&["blocks", "list"]).await?;
    Ok(blocks
        .into_iter()
        .filter_map(|block| {
            let address = block.get("client")?.as_str()?.strip_prefix("ip:")?.parse().ok()?;
            Some((address, block))
        })
        .collect())
}

fn text_of(block: &Value, field: &str) -> String {
    block.get(field).and_then(Value::as_str).unwrap_or("(nothing said)").to_owned()
}

/// Does what an operator would: lists, asks why, releases, and sees the client served again.
pub(crate) async fn review(story: &mut Story, world: &World, siege: &Siege) -> Result<()> {
    story.chapter("An operator reviews");
    let Some((address, persona)) = siege.blocked else {
        story.fail("there is no block to review".to_owned());
        return Ok(());
    };
    let client = format!("ip:{address}");
    for (arguments, most_lines) in
        [(["blocks", "list"].as_slice(), 24), (&["blocks", "explain", &client], 40)]
    {
        let (code, output) = world.gateway.command(arguments).await?;
        story.command(&format!("gateway {}", arguments.join(" ")), &output, most_lines);
        if code != 0 {
            story.fail(format!("`gateway {}` ended with {code}", arguments.join(" ")));
        }
    }

    let http = world.gateway.client();
    // The same address, now behaving.
    let mut harmless =
        BenignClient::new(SEED, 0, Kind::Browser).next().context("a client without requests")?;
    harmless.client = address;
    let before = http.send(&harmless).await?.status;
    let (code, output) = world.gateway.command(&["blocks", "release", &client]).await?;
    story.command(&format!("gateway blocks release {client}"), &output, 10);
    let released = Instant::now();
    let mut answer = http.send(&harmless).await?;
    while answer.status != 200 && released.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = http.send(&harmless).await?;
    }
    let after = answer.status;
    story.line(&format!(
        "{} {address}: a harmless request got {before} before, {after} {:.1} s after",
        persona.name(),
        released.elapsed().as_secs_f64()
    ));
    if after != 200 {
        let answer = http.send(&harmless).await?;
        let (_, why) = world.gateway.command(&["explain", answer.request_id().unwrap_or_default()]).await?;
        story.command("gateway explain <request-id>", &why, 30);
    }
    if code != 0 || before != 403 || after != 200 {
        if let Some(id) = answer.request_id() {
            let (_, why) = world.gateway.command(&["explain", id]).await?;
            story.command(&format!("gateway explain {id}"), &why, 20);
        }
        story.fail(format!(
            "a release must turn 403 into 200 within 5 s (exit code {code}, {before}, {after})"
        ));
    }
    Ok(())
}
