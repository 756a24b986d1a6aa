//! `record: full`: whole requests go from the gateway into the lake, without secrets and sealed, and rules are tried on
//! them there.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
    redis_server::RedisServer,
    trainer::Workplace,
};
use trainer::{
    lake::{Lake, day::Day},
    state,
};
use waf_model::{event::Verdict, full_record::FullRecord};

use crate::secrets::{LEAK, files, leaks, plant, secret};

/// Requests with a secret in them, three for each place of one.
const PLANTED: usize = 39;

async fn recorded_ingested_and_replayed(redis: Option<&RedisServer>, directory: &Path) {
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.redis = redis.map(RedisServer::url);
    settings.mode = "detect";
    settings.waf = vec!["api_key_header: x-api-key".to_owned(), "session_cookie: sid".to_owned()];
    settings.route = vec!["record: full".to_owned()];
    let key_file = match redis {
        None => directory.join("state/keys/record.key"),
        Some(_) => {
            let shared = directory.join("shared.key");
            fs::write(&shared, "0a".repeat(32)).unwrap();
            shared
        }
    };
    let key = if redis.is_some() { format!("key: {}, ", key_file.display()) } else { String::new() };
    settings.more = vec![format!("records: {{{key}keep: 2d, body: 2KiB, per_second: 1000}}")];
    let mut gateway = Gateway::start(directory, &settings).await.unwrap();
    let http = gateway.client();

    let mut rng = fastrand::Rng::with_seed(11);
    let mut starts = BTreeSet::new();
    for nth in 0..PLANTED {
        let secret = secret(&mut rng);
        starts.insert(secret[..LEAK].to_owned());
        http.send(&plant(nth, &secret)).await.unwrap();
    }
    for client in 0..5 {
        let mut request = plant(0, "");
        request.uri = format!("/api/search?q=coupon+{client}");
        http.send(&request).await.unwrap();
    }
    let mut large = plant(10, "");
    large.body = b"long ".repeat(2_000);
    http.send(&large).await.unwrap();
    let sent = PLANTED + 6;
    let written = "portcullis_full_records_written_total";
    gateway.wait_metric(written, sent as f64, Duration::from_secs(20)).await.unwrap();
    gateway.process().signal("TERM").unwrap();
    gateway.process().wait_exit(Duration::from_secs(20)).await.unwrap();

    let trainer = Workplace::new(directory, gateway.state(), settings.redis.clone());
    for expected in [format!("and {sent} whole requests ingested"), "and 0 whole requests".to_owned()] {
        let (success, log) = trainer.run(&["ingest"]).await.unwrap();
        assert!(success && log.contains(&expected), "{log}");
    }

    // What is kept opens with the key, and has no secret in it.
    let key = state::record_key(&key_file).unwrap();
    assert!(redis.is_some() || fs::metadata(&key_file).unwrap().permissions().mode() & 0o777 == 0o600);
    let (mut opened, mut attacks, mut cut) = (0, 0, 0);
    Lake::new(gateway.state().join("lake"))
        .scan_full(Day::of(0), |sealed| {
            let record = FullRecord::open(sealed, &key)?;
            let shown = leaks(format!("{record:?}").as_bytes(), &starts);
            let raw = [&record.path, record.query.as_deref().unwrap_or_default(), &record.body].concat();
            let names = record.headers.iter().flat_map(|(_, value)| value.clone()).collect::<Vec<_>>();
            let found = [shown, leaks(&raw, &starts), leaks(&names, &starts)].concat();
            assert!(found.is_empty(), "{found:?} in {}", String::from_utf8_lossy(&raw));
            opened += 1;
            attacks += usize::from(record.verdict == Verdict::Rules);
            cut += usize::from(!record.complete && record.body.len() == 2048);
            Ok(())
        })
        .unwrap();
    assert_eq!((opened, cut), (sent, 1));
    assert!(attacks >= 5, "{attacks} attacks were found in {PLANTED} requests");

    // A rule that is new behind those in force: whom would it hit?
    let rules = directory.join("coupons.conf");
    let text =
        "SecRule ARGS:q \"@contains coupon\" \"id:7001,phase:2,block,msg:'Coupons',severity:CRITICAL\"\n";
    fs::write(&rules, text).unwrap();
    let (rules, key_file) = (rules.display().to_string(), key_file.display().to_string());
    let new = ["backtest", "--rules", "builtin", &rules, "--against", "builtin", "--record-key", &key_file];
    let (same, log) = trainer.run(&new).await.unwrap();
    assert!(!same && log.contains(&format!("{sent} requests, 0 skipped")), "{log}");
    assert!(log.contains("newly rejected: 5 requests of 1 clients"), "{log}");
    assert!(log.contains("route   shop") && log.contains("rule 7001 Coupons in ARGS:q: "), "{log}");
    // And the same rules again decide as the gateway did, though they see no secrets any more.
    let (same, log) =
        trainer.run(&["backtest", "--rules", "builtin", "--record-key", &key_file]).await.unwrap();
    assert!(same && log.contains("nothing would change"), "{log}");

    let mut places = Vec::new();
    files(directory, &mut places);
    for path in &places {
        let found = leaks(&fs::read(path).unwrap(), &starts);
        assert!(found.is_empty(), "{found:?} in {}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_requests_come_through_segments() {
    let directory = tempfile::tempdir().unwrap();
    recorded_ingested_and_replayed(None, directory.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_requests_come_through_a_stream() {
    let directory = tempfile::tempdir().unwrap();
    let server = RedisServer::start(directory.path().join("redis")).await.unwrap();
    recorded_ingested_and_replayed(Some(&server), directory.path()).await;
}
