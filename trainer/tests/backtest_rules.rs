//! `trainer backtest --rules` and `--exclusion`: what rules would have done to recorded requests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]

#[path = "support/command.rs"]
mod command;

use std::{
    fs,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use command::trainer;
use trainer::lake::Lake;
use waf_model::{
    event::{Review, ReviewVerdict, Verdict},
    full_record::{FullRecord, RecordKey},
};

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Request number `id` of `client` on `route`, recorded before rules saw it.
fn record(id: u8, client: u64, route: &str, query: &str, verdict: Verdict) -> FullRecord {
    FullRecord {
        id: [id; 16],
        at_ms: now_ms() - 3_600_000 + u64::from(id) * 1000,
        client,
        route: route.to_owned(),
        paranoia: 1,
        thresholds: (5, 4),
        verdict,
        acts: true,
        hits: Vec::new(),
        what: "GET /search".to_owned(),
        network: "192.0.2.0/24".to_owned(),
        method: "GET".to_owned(),
        path: b"/search".to_vec(),
        query: Some(query.as_bytes().to_vec()),
        protocol: "HTTP/1.1".to_owned(),
        headers: vec![
            ("host".to_owned(), b"shop.example".to_vec()),
            ("user-agent".to_owned(), b"Mozilla/5.0".to_vec()),
            ("accept".to_owned(), b"*/*".to_vec()),
        ],
        body: Vec::new(),
        complete: true,
    }
}

struct Site {
    directory: tempfile::TempDir,
    state: PathBuf,
}

impl Site {
    fn new(records: &[FullRecord]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        fs::create_dir_all(state.join("keys")).unwrap();
        fs::write(state.join("keys/record.key"), "05".repeat(32)).unwrap();
        let key = RecordKey::new([5; 32]);
        let until_ms = now_ms() + 86_400_000;
        let sealed: Vec<_> =
            records.iter().map(|record| record.seal(&key, [record.id[0]; 24], until_ms)).collect();
        Lake::new(state.join("lake")).write_full("a", &sealed).unwrap();
        Self { directory, state }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        trainer(&self.state, &[&["backtest"], args].concat())
    }
}

const NO_COUPONS: &str =
    "SecRule ARGS:q \"@rx coupon\" \"id:7001,phase:2,block,msg:'Coupons',severity:CRITICAL\"\n";

#[test]
fn a_rule_file_is_tried_on_recorded_requests() {
    let attack = "q=1%27%20or%201%3D1--%20-";
    let site = Site::new(&[
        record(1, 1, "api", "q=coupon", Verdict::Pass),
        record(2, 1, "api", "q=coupon-mary", Verdict::Pass),
        record(3, 2, "web", "q=coupon", Verdict::Pass),
        record(3, 2, "web", "q=coupon", Verdict::Pass),
        record(4, 3, "web", "q=shoes", Verdict::Pass),
        record(5, 4, "web", attack, Verdict::Rules),
        record(6, 5, "web", "q=shoes", Verdict::Model),
        record(7, 6, "web", "q=shoes", Verdict::Allowed),
        FullRecord { acts: false, ..record(8, 7, "web", "q=coupon", Verdict::Base) },
    ]);
    let review =
        Review { request: Some([1; 16]), client: 1, verdict: ReviewVerdict::FalsePositive, at_ms: 1 };
    Lake::new(site.state.join("lake")).write_reviews("a", &[review]).unwrap();
    let rules = site.file("coupons.conf", NO_COUPONS);

    let (code, out, err) = site.run(&["--rules", &rules, "-o", "json"]);
    assert_eq!(code, Some(2), "{out} {err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found["requests"], &found["skipped"]), (&7.into(), &2.into()), "{out}");
    assert_eq!(found["stopped"], serde_json::json!([2, 5]), "{out}");
    let rejected = &found["changes"]["rejected"];
    assert_eq!(rejected["routes"], serde_json::json!([["api", 2], ["web", 2]]), "{out}");
    assert_eq!((&rejected["client_count"], &rejected["harmless"]), (&3.into(), &1.into()), "{out}");
    let reason = rejected["examples"][1]["reason"].as_str().unwrap();
    assert!(reason.starts_with("rule 7001 Coupons in ARGS:q: ") && !reason.contains("mary"), "{reason}");
    assert_eq!(found["changes"]["passed"]["requests"], 1, "the attack: this file alone knows no attacks");

    // Behind the gateway's own rules, only what is new is new.
    let (code, out, err) = site.run(&["--rules", "builtin", &rules, "--against", "builtin"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(out.starts_with(&format!("rules builtin, {rules} against rules builtin: 7 requests")), "{out}");
    assert!(out.contains("newly rejected: 4 requests of 3 clients"), "{out}");
    assert!(!out.contains("newly let through"), "{out}");
    let (code, out, _) = site.run(&["--rules", "builtin"]);
    assert_eq!((code, out.contains("nothing would change")), (Some(0), true), "{out}");
}

#[test]
fn an_exclusion_is_tried_behind_the_rules_in_force() {
    let attack = |parameter: &str| format!("{parameter}=1%27%20or%201%3D1--%20-");
    let mut records: Vec<_> =
        (1..=6).map(|id| record(id, 1, "api", &attack("comment"), Verdict::Rules)).collect();
    records.push(record(7, 2, "api", &attack("id"), Verdict::Rules));
    // The client of the comments was blocked for them.
    records.push(record(8, 1, "api", "q=shoes", Verdict::Blocked));
    records.push(record(9, 9, "api", "q=shoes", Verdict::Blocked));
    let site = Site::new(&records);
    let exclusion = site.file(
        "exclusion.conf",
        "SecRuleUpdateTargetByTag \"attack-sqli\" \"!ARGS:comment\"\nSecRuleRemoveById 7001\n",
    );
    let own = site.file("own.conf", NO_COUPONS);
    let (code, out, err) = site.run(&["--exclusion", &exclusion, "--against", "builtin", &own, "-o", "json"]);
    assert_eq!(code, Some(2), "{out} {err}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let passed = &found["changes"]["passed"];
    assert_eq!(passed["requests"], 7, "six comments, and what their client was blocked for: {out}");
    assert_eq!(found["stopped"], serde_json::json!([9, 2]), "another's block has another reason: {out}");
    assert!(passed["examples"][0]["reason"].as_str().unwrap().contains("ARGS:comment"), "{out}");
    assert_eq!(found["changes"].as_object().unwrap().len(), 1, "{out}");
}

#[test]
fn what_cannot_be_tried_is_told() {
    let site = Site::new(&[record(1, 1, "api", "q=1", Verdict::Pass)]);
    let rules = site.file("own.conf", NO_COUPONS);
    let wrong = site.file("wrong.conf", "SecRule ARGS \"@nonsense x\" \"id:1\"\n");
    let other = site.file("other.key", &"06".repeat(32));
    let short = site.file("short.key", "06");
    let nowhere = site.directory.path().join("nowhere").display().to_string();
    for (args, expected) in [
        (&["--rules", &wrong][..], "wrong.conf:1"),
        (&["--rules", &rules, "--record-key", &other], "(1 skipped)"),
        (&["--rules", &rules, "--record-key", &short], "64 hexadecimal digits"),
        (&["--rules", &rules, "--record-key", &nowhere], "`record: full`"),
        (&["--rules", &rules, "--lake", &nowhere], "(0 skipped)"),
        (&["--rules", &nowhere], "cannot read the rules"),
    ] {
        let (code, _, err) = site.run(args);
        assert_eq!(code, Some(1), "{args:?}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
    let (code, _, err) = site.run(&[]);
    assert_eq!(code, Some(2), "{err}");
}
