//! Redis dies and comes back in the midst of traffic: nothing fails, nothing is lost, blocks stay.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use datasets::benign;
use tests::{
    crowd::{self, Pace, Pauses},
    gateway::{Gateway, Settings},
    origin::Origin,
    redis_server::RedisServer,
};

use crate::wire::{INJECTION, get, stream_events};

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_die_in_mid_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = RedisServer::start(directory.path().join("redis")).await.unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.redis = Some(server.url());
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let http = gateway.client();

    let attacker = "198.51.100.9";
    for _ in 0..12 {
        http.send(&get(INJECTION, attacker)).await.unwrap();
    }
    assert_eq!(
        http.send(&get("/healthz", attacker)).await.unwrap().status,
        403,
        "the attacker is not blocked"
    );
    // Requests of a blocked client are refused before inspection and make no event; those until then did.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = stream_events(&mut server.connection().await.unwrap()).await.len() as u64;
    assert!((4..=12).contains(&before), "{before} events");

    let stop = Arc::new(AtomicBool::new(false));
    let load = {
        let (http, stop) = (http.clone(), stop.clone());
        let pace = Pace { requests_each: usize::MAX, pauses: Pauses::Divided(8), arrival: Duration::ZERO };
        tokio::spawn(async move { crowd::run(&http, benign::population(9, 0, 40), &pace, stop).await })
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.kill().unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(http.send(&get("/healthz", attacker)).await.unwrap().status, 403, "a block was forgotten");
    }
    server.restart().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        http.send(&get("/healthz", attacker)).await.unwrap().status,
        403,
        "a block was lost with Redis"
    );
    stop.store(true, Ordering::Relaxed);
    let tally = load.await.unwrap();
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    assert!(tally.refused.is_empty(), "{:?}", tally.first_refused);
    assert!(tally.requests > 500, "{} requests are no traffic", tally.requests);
    let sent = before + tally.requests;

    // What waited in the spool is delivered, and nothing was dropped.
    gateway
        .wait_metric("portcullis_events_written_total", sent as f64, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(gateway.metric("portcullis_events_lost_total").await.unwrap(), 0.0);
    gateway.process().signal("TERM").unwrap();
    assert!(gateway.process().wait_exit(Duration::from_secs(20)).await.unwrap().success());
    let events = stream_events(&mut server.connection().await.unwrap()).await;
    let ids: BTreeSet<[u8; 16]> = events.iter().map(|event| event.id).collect();
    assert_eq!(
        ids.len() as u64,
        sent,
        "{} events, {} of them distinct, for {sent} requests",
        events.len(),
        ids.len()
    );
}
