//! The trainer dies between writing Parquet and acknowledging: no event is lost, and none stays twice.

use std::{collections::BTreeMap, path::Path, time::Duration};

use datasets::benign;
use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
    redis_server::RedisServer,
    trainer::Workplace,
};
use trainer::lake::Lake;

use crate::wire::id_bytes;

/// Sends some traffic; the ids of its requests.
async fn traffic(gateway: &Gateway, first: u32) -> Vec<[u8; 16]> {
    let http = gateway.client();
    let mut ids = Vec::new();
    for request in benign::population(10, first, 30).into_iter().flat_map(|client| client.take(10)) {
        let answer = http.send(&request).await.unwrap();
        ids.push(id_bytes(answer.request_id().expect("a request id")));
    }
    ids
}

/// How often each event is in the lake.
fn in_lake(state: &Path) -> BTreeMap<[u8; 16], u32> {
    let mut found = BTreeMap::new();
    let count = |event: waf_model::event::Event| {
        *found.entry(event.id).or_default() += 1;
        Ok(())
    };
    Lake::new(state.join("lake")).scan_events(count).unwrap();
    found
}

async fn killed_before_acknowledging(redis: Option<&RedisServer>, directory: &Path) {
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.redis = redis.map(RedisServer::url);
    let mut gateway = Gateway::start(directory, &settings).await.unwrap();
    let trainer = Workplace::new(directory, gateway.state(), settings.redis.clone());
    let mut dying = trainer.clone();
    dying.environment.push(("PORTCULLIS_FAILPOINT", "ingest.before_ack".to_owned()));

    let mut sent = traffic(&gateway, 0).await;
    gateway
        .wait_metric("portcullis_events_written_total", sent.len() as f64, Duration::from_secs(20))
        .await
        .unwrap();
    let (success, log) = dying.run(&["ingest"]).await.unwrap();
    assert!(!success && log.contains("FAILPOINT"), "it did not die where it should: {log}");
    assert!(!in_lake(&gateway.state()).is_empty(), "it died before writing anything");

    sent.extend(traffic(&gateway, 500).await);
    gateway
        .wait_metric("portcullis_events_written_total", sent.len() as f64, Duration::from_secs(20))
        .await
        .unwrap();
    gateway.process().signal("TERM").unwrap();
    gateway.process().wait_exit(Duration::from_secs(20)).await.unwrap();
    for _ in 0..2 {
        let (success, log) = trainer.run(&["ingest"]).await.unwrap();
        assert!(success, "{log}");
    }
    let found = in_lake(&gateway.state());
    let missing = sent.iter().filter(|id| !found.contains_key(*id)).count();
    assert_eq!(missing, 0, "{missing} of {} events are not in the lake", sent.len());
    let twice = found.values().filter(|count| **count > 1).count();
    assert_eq!(twice, 0, "{twice} events are in the lake more than once");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_acknowledging_segments() {
    let directory = tempfile::tempdir().unwrap();
    killed_before_acknowledging(None, directory.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_acknowledging_a_stream() {
    let directory = tempfile::tempdir().unwrap();
    let server = RedisServer::start(directory.path().join("redis")).await.unwrap();
    killed_before_acknowledging(Some(&server), directory.path()).await;
}
