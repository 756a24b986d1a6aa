//! From a lake of small, made-up traffic to a published model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![expect(clippy::disallowed_methods, reason = "these tests have no runtime whose workers could be blocked")]

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use trainer::{
    calibrate::Budgets,
    dataset::Dataset,
    gate::{self, Refusal},
    lake::Lake,
    pipeline::{Outcome, Place, Settings, learn},
    publish::Shelf,
};
use waf_model::{
    artifact,
    client::{ClientVector, ClientWindow, ResponseSummary},
    event::{Event, Origin, Review, ReviewVerdict, Verdict},
    keys::key_id,
    model::{Model, calibration::Standing},
    observation::{Observation, ValueKey},
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::RuleMatches,
    segment::{self, Kind},
    values::{Limits, Values},
};

const KEY: ValueKey = ValueKey([7; 16]);

fn observe(target: &str) -> Observation {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let view = RequestView {
        method: "GET",
        path: path.as_bytes(),
        query: query.map(str::as_bytes),
        protocol: "HTTP/1.1",
        headers: &[
            Header { name: "host", value: b"shop.example" },
            Header { name: "user-agent", value: b"Browser/1.0 (made up)" },
            Header { name: "accept", value: b"text/html" },
        ],
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "",
    };
    Observation::of(&view, &Values::extract(&view, &Limits::default()), &RuleMatches::default(), &KEY)
}

/// What `clients` shoppers do, in order of time.
fn traffic(clients: u64, requests: u64) -> Vec<Event> {
    const WORDS: [&str; 8] = ["tea", "green+tea", "cup", "pot", "honey", "black+tea", "spoon", "sugar"];
    let mut events = Vec::new();
    for client in 0..clients {
        let start = 1_785_542_400_000 + client * 7_000;
        let mut window = ClientWindow::new(start);
        for at in 0..requests {
            let at_ms = start + at * (3_000 + (client * 37 + at * 61) % 2_000);
            let pick = client * 31 + at * 17;
            let target = match pick % 5 {
                0 => "/".to_owned(),
                1 => format!("/search?q={}&page={}", WORDS[(pick / 5) as usize % 8], pick % 4),
                2 => format!("/items/{}", 100 + pick % 900),
                3 => "/assets/site.css".to_owned(),
                _ => format!("/items/{}/reviews?sort=date&limit=20", 100 + pick % 900),
            };
            let observation = observe(&target);
            window.record_request(at_ms, &observation);
            let client_vector = window.vector();
            window.record_response(at_ms + 20, ResponseSummary { status: 200, bytes: 2_000 });
            events.push(Event {
                id: (u128::from(client) << 32 | u128::from(at)).to_be_bytes(),
                at_ms,
                client: client.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                network: client / 4,
                route: "shop".to_owned(),
                observation,
                client_vector,
                score: None,
                model: 0,
                key_id: key_id(&KEY),
                verdict: Verdict::Pass,
                status: 200,
                origin: Origin::Upstream,
                upstream_us: 900,
                response_bytes: 2_000,
                weight: 1.0,
                hits: Vec::new(),
                response_hits: Vec::new(),
            });
        }
    }
    events.sort_by_key(|event| (event.at_ms, event.id));
    events
}

fn settings() -> Settings {
    Settings {
        seed: 5,
        budgets: Budgets { request: 0.02, client: 0.08, confidence: 0.9 },
        min_requests: 500,
        may_remove: 0.2,
        approve_drift: false,
    }
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn place(seq: u64) -> Place {
    Place { seq, now_ms: 1, in_force: None }
}

fn learn_from(directory: &Path, events: &[Event], seq: u64) -> Outcome {
    let lake = Lake::new(directory.to_owned());
    lake.write_events("a", events).unwrap();
    learn(|| Dataset::of_lake(lake, KEY), &settings(), place(seq), &signer()).unwrap()
}

fn model_of(outcome: &Outcome) -> Model {
    let approved = outcome.verdict.as_ref().unwrap();
    artifact::decode(approved.bytes(), &[signer().verifying_key()]).unwrap()
}

#[test]
fn a_model_learned_from_shoppers_knows_them_from_attackers() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = learn_from(directory.path(), &traffic(150, 40), 4);
    let model = model_of(&outcome);
    assert_eq!(model.seq(), 4);
    let request = model.request_certificate();
    let client = model.client_certificate();
    assert_eq!(request.standing, Standing::Certified, "{}", outcome.report);
    assert_eq!(client.standing, Standing::Certified, "{}", outcome.report);
    let (kept, flagged) = outcome.report.holdout;
    assert!(kept > 100 && flagged as f64 <= 0.05 * kept as f64, "{}", outcome.report);

    let distance = |target: &str| model.score(&observe(target), &ClientVector::UNKNOWN).request_distance;
    for usual in ["/", "/search?q=pot&page=1", "/items/555"] {
        assert!(distance(usual) < request.threshold, "{usual} at {}", distance(usual));
    }
    for attack in [
        "/search?q=%27%20union%20select%20card%20from%20payments--&page=1",
        "/search?q=%3Csvg%20onload%3Dalert%281%29%3E&page=1",
        "/items/..%2f..%2f..%2fetc%2fpasswd",
    ] {
        assert!(distance(attack) >= request.threshold, "{attack} at {}", distance(attack));
    }
}

#[test]
fn the_same_lake_and_seed_give_the_same_bytes() {
    let bytes = || {
        let directory = tempfile::tempdir().unwrap();
        learn_from(directory.path(), &traffic(60, 40), 1).verdict.unwrap().bytes().to_vec()
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn too_little_is_refused_with_every_reason() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = learn_from(directory.path(), &traffic(12, 20), 1);
    let refusals = outcome.verdict.unwrap_err();
    assert!(refusals.iter().any(|refusal| matches!(refusal, Refusal::Requests { wanted: 500, .. })));
    assert!(refusals.iter().any(|refusal| matches!(refusal, Refusal::Clients { .. })), "{refusals:?}");
    let empty = tempfile::tempdir().unwrap();
    let lake = Lake::new(empty.path().to_owned());
    let error = learn(|| Dataset::of_lake(lake, KEY), &settings(), place(1), &signer()).unwrap_err();
    assert!(error.to_string().contains("no requests to learn from"), "{error}");
}

#[test]
fn a_request_that_was_judged_harmless_and_would_be_rejected_refuses_the_model() {
    let directory = tempfile::tempdir().unwrap();
    let mut events = traffic(100, 40);
    let odd = events.len() / 2;
    events[odd].observation = observe("/search?q=%27%20union%20select%20card%20from%20payments--&page=1");
    events[odd].verdict = Verdict::Model;
    let request = events[odd].id;
    let review = Review {
        request: Some(request),
        client: events[odd].client,
        verdict: ReviewVerdict::FalsePositive,
        at_ms: 1,
    };
    let outcome = learn_from(directory.path(), &events, 1);
    assert!(outcome.verdict.is_ok());
    Lake::new(directory.path().to_owned()).write_reviews("a", &[review]).unwrap();
    let refusals = learn_from(directory.path(), &events, 1).verdict.unwrap_err();
    assert_eq!(refusals, [Refusal::MustPass { request, count: 1 }]);
}

#[test]
fn a_model_that_no_longer_sees_an_attack_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let in_force = learn_from(directory.path(), &traffic(100, 40), 1).verdict.unwrap().bytes().to_vec();
    // The same site after an attacker taught it every canary, from many clients.
    let poisoned: Vec<Event> = traffic(100, 40)
        .into_iter()
        .enumerate()
        .map(|(at, mut event)| {
            if at % 2 == 0 {
                let path = event.observation.path.replace("{int}", "1");
                let (_, query) = gate::ATTACKS[at / 2 % gate::ATTACKS.len()];
                event.observation = observe(&format!("{path}?{query}"));
            }
            event
        })
        .collect();
    let other = tempfile::tempdir().unwrap();
    let lake = Lake::new(other.path().to_owned());
    lake.write_events("a", &poisoned).unwrap();
    let place = Place { in_force: Some(in_force), ..place(2) };
    let outcome = learn(|| Dataset::of_lake(lake, KEY), &settings(), place, &signer()).unwrap();
    let refusals = outcome.verdict.unwrap_err();
    assert!(refusals.iter().any(|refusal| matches!(refusal, Refusal::Regression { .. })), "{refusals:?}");
}

#[test]
fn models_are_published_in_order_and_the_newest_five_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let shelf = Shelf::Directory(directory.path().join("models"));
    let models = directory.path().join("models");
    assert_eq!(shelf.last().unwrap(), 0);
    let events = traffic(60, 40);
    for seq in 1..=7 {
        let outcome = learn_from(&directory.path().join("lake"), &events, seq);
        shelf.publish(&outcome.verdict.unwrap()).unwrap();
        assert_eq!(shelf.last().unwrap(), seq);
        // A gateway keeps the first: the others do not pass their trial there.
        assert_eq!(shelf.current().unwrap().unwrap(), fs::read(models.join("1.model")).unwrap());
        fs::write(models.join("in-force"), "1").unwrap();
    }
    assert_eq!(fs::read_to_string(models.join("current")).unwrap().trim(), "7");
    let kept = |seq: u64| models.join(format!("{seq}.model")).exists();
    assert!(kept(1) && !kept(2) && kept(3), "the newest five, and the one in force");
    fs::remove_file(models.join("in-force")).unwrap();
    assert_eq!(shelf.current().unwrap().unwrap(), fs::read(models.join("7.model")).unwrap());
    let again = learn_from(&directory.path().join("lake"), &events, 7);
    let message = shelf.publish(&again.verdict.unwrap()).unwrap_err().to_string();
    assert!(message.contains("model 7 is published already"), "{message}");
}

#[test]
fn the_service_ingests_trains_and_publishes_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    fs::create_dir_all(state.join("events")).unwrap();
    fs::create_dir_all(state.join("keys")).unwrap();
    fs::write(state.join("keys/site.key"), "07".repeat(16)).unwrap();
    let mut frames = Vec::new();
    for event in traffic(80, 40) {
        assert!(segment::append(&mut frames, Kind::Event, &event.encode()));
    }
    fs::write(state.join("events/00000000000000000000.seg"), frames).unwrap();
    let mut service = Command::new(env!("CARGO_BIN_EXE_trainer"))
        .arg("run")
        .arg("--state")
        .arg(state)
        .args(["--interval", "1s", "--poll", "50ms", "--min-requests", "500", "--client-budget", "0.2"])
        .env_remove("PORTCULLIS_STORE")
        .spawn()
        .unwrap();
    let started = Instant::now();
    let current = state.join("models/current");
    while !current.exists() && started.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(50));
    }
    service.kill().unwrap();
    service.wait().unwrap();
    assert_eq!(fs::read_to_string(&current).expect("a model within a minute").trim(), "1");
    let page = fs::read_to_string(state.join("reports/1.html")).unwrap();
    assert!(page.contains("passed every gate") && page.contains("<circle"), "{page}");
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(state.join("reports/1.json")).unwrap()).unwrap();
    assert!(report["map"]["clusters"].as_array().is_some_and(|clusters| !clusters.is_empty()));
    let trusted = trainer::state::verifying_key(&state.join("keys/trainer.pub")).unwrap();
    let bytes = fs::read(state.join("models/1.model")).unwrap();
    assert_eq!(artifact::decode(&bytes, &[trusted]).unwrap().value_key(), &KEY);
}

#[test]
fn labelled_files_train_evaluate_and_publish_from_the_command_line() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("made-up.jsonl");
    let mut lines = String::new();
    for at in 0..2400 {
        lines += &format!(
            r#"{{"label":"benign","method":"GET","uri":"/items/{}?page={}"}}"#,
            at * 37 % 9001,
            at % 40
        );
        lines.push('\n');
    }
    for at in 0..50 {
        lines += &format!(
            r#"{{"label":"attack","class":"sqli","method":"GET","uri":"/items/{at}?page=1%27%20or%20%27x%27=%27{at}"}}"#
        );
        lines.push('\n');
    }
    fs::write(&input, lines).unwrap();
    let model = directory.path().join("made-up.model");
    let trainer = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args(args)
            .env("PORTCULLIS_STATE", directory.path().join("state"))
            .env_remove("PORTCULLIS_STORE")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (input, model) = (input.to_str().unwrap(), model.to_str().unwrap());
    let (code, out, err) = trainer(&["train", "--input", input, "--output", model]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("signed by"), "{out}");
    let (code, out, err) =
        trainer(&["evaluate", "--model", model, "--input", input, "--part", "holdout", "-o", "json"]);
    assert_eq!(code, Some(0), "{err}");
    let evaluation: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&evaluation["benign"], &evaluation["attacks"]), (&480.into(), &50.into()));
    assert!(evaluation["roc_auc"].as_f64().unwrap() > 0.99, "{out}");
    let report = directory.path().join("report.html");
    let wanted = ["evaluate", "--model", model, "--input", input, "--report", report.to_str().unwrap()];
    assert_eq!(trainer(&wanted).0, Some(0));
    let page = fs::read_to_string(&report).unwrap();
    assert!(page.contains("<polyline") && !page.contains("<script") && !page.contains("src=http"), "{page}");
    assert!(fs::read_to_string(report.with_extension("json")).unwrap().contains("\"curve\""));
    let (code, out, err) = trainer(&["publish", "--model", model]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.starts_with("model 1 published"), "{out}");
    let (code, _, err) = trainer(&["publish", "--model", model]);
    assert_eq!(code, Some(1));
    assert!(err.contains("train again"), "{err}");
    let (code, _, _) = trainer(&["train", "--output"]);
    assert_eq!(code, Some(2), "wrong usage");
    let (code, _, err) = trainer(&["train", "--output", model]);
    assert_eq!(code, Some(1));
    assert!(err.contains("no requests to learn from"), "{err}");
}
