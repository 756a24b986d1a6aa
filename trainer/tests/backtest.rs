//! `trainer backtest`: what another model would have done to the traffic in the lake.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "support/command.rs"]
mod command;

use std::fs;

use command::trainer;
use datasets::{
    attackers::{Attacker, Persona},
    benign::population,
    traffic::Site,
};
use trainer::lake::Lake;
use waf_model::observation::ValueKey;

const SITE: Site =
    Site { key: ValueKey([7; 16]), start_ms: 1_785_544_200_000, span_ms: 36_000_000, requests: 20 };

#[test]
fn a_backtest_names_who_would_be_stopped_and_who_let_through() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    fs::create_dir_all(state.join("keys")).unwrap();
    fs::write(state.join("keys/site.key"), "07".repeat(16)).unwrap();
    let shoppers = population(1, 0, 700).into_iter().map(|c| (c.identity().address, c));
    let mut events = SITE.traffic(shoppers, 1);
    Lake::new(state.join("lake")).write_events("a", &events).unwrap();
    let [loose, tight] = ["loose.model", "tight.model"].map(|name| state.join(name).display().to_string());
    for (model, budget) in [(&loose, "0.01"), (&tight, "0.05")] {
        let budgets = ["--request-budget", budget, "--client-budget", "0.2", "--output", model];
        let (code, _, err) = trainer(state, &[&["train"], &budgets[..]].concat());
        assert_eq!(code, Some(0), "{err}");
    }
    // A lake with an attacker in it.
    let attacker = Attacker::new(9, 5000, Persona::InjectionScanner);
    events.extend(Site { requests: 60, ..SITE }.traffic([(attacker.identity().address, attacker)], 3));
    let lake = state.join("other");
    Lake::new(lake.clone()).write_events("b", &events).unwrap();
    let lake = lake.display().to_string();

    let (code, out, err) = trainer(state, &["backtest", "--model", &loose, "--lake", &lake]);
    assert_eq!(code, Some(2), "{out} {err}");
    assert!(out.contains("against what was decided at the time: 14060 requests"), "{out}");
    assert!(
        out.contains("newly rejected: ") && out.contains("  route ") && out.contains("distance "),
        "{out}"
    );

    let both = ["backtest", "--model", &tight, "--against", &loose, "--lake", &lake, "-o", "json"];
    let (code, out, err) = trainer(state, &both);
    assert_eq!(code, Some(2), "{err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        found["changes"]["passed"],
        serde_json::Value::Null,
        "a larger budget lets nobody through: {out}"
    );
    let rejected = &found["changes"]["rejected"];
    let routes: u64 = rejected["routes"].as_array().unwrap().iter().map(|r| r[1].as_u64().unwrap()).sum();
    assert_eq!(rejected["requests"].as_u64(), Some(routes), "{out}");
    assert_eq!(rejected["examples"][0]["request"].as_str().map(str::len), Some(36), "{out}");

    let (code, out, _) =
        trainer(state, &["backtest", "--model", &loose, "--against", &loose, "--lake", &lake]);
    assert_eq!(code, Some(0));
    assert!(out.contains("nothing would change"), "{out}");
    let (code, _, err) = trainer(state, &["backtest", "--rules", "x.conf"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("record: full"), "{err}");
    let (code, _, err) = trainer(state, &["backtest", "--model", &loose, "--lake", "nowhere"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("--lake"), "{err}");
}
