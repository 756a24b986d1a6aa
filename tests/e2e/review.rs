//! Review with plain Redis commands: read why a client is blocked, release it, add one, on every gateway.

use std::{collections::BTreeMap, time::Duration};

use redis::AsyncCommands as _;
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    origin::Origin,
    redis_server::RedisServer,
};
use tokio::time::Instant;
use waf_model::keys::{self, ClientKey};

use crate::wire::{INJECTION, get};

/// How soon what an operator does in Redis holds on every gateway.
const PROMISED: Duration = Duration::from_secs(5);

/// Waits until `client` gets `status` for a harmless request; fails when that takes longer than promised.
async fn wait_status(http: &Client, client: &str, status: u16) {
    let started = Instant::now();
    loop {
        let found = http.send(&get("/api/products/1", client)).await.unwrap().status;
        if found == status {
            return;
        }
        assert!(
            started.elapsed() < PROMISED,
            "{client} still gets {found}, not {status}, after {PROMISED:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_needs_nothing_but_redis() {
    let directory = tempfile::tempdir().unwrap();
    let server = RedisServer::start(directory.path().join("redis")).await.unwrap();
    let mut redis = server.connection().await.unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.redis = Some(server.url());
    let first = Gateway::start(&directory.path().join("first"), &settings).await.unwrap();
    let second = Gateway::start(&directory.path().join("second"), &settings).await.unwrap();
    let gateways = [first.client(), second.client()];

    // An attacker at one gateway is blocked on both, and Redis says why.
    let attacker = "198.51.100.7";
    for _ in 0..12 {
        assert_eq!(gateways[0].send(&get(INJECTION, attacker)).await.unwrap().status, 403);
    }
    for http in &gateways {
        wait_status(http, attacker, 403).await;
    }
    let key = keys::block("all", &ClientKey::Address(attacker.to_owned()));
    let block: BTreeMap<String, String> = redis.hgetall(&key).await.unwrap();
    assert!(!block.is_empty(), "no hash {key}");
    for field in ["reason", "score", "first_seen", "last_seen", "count", "explanation"] {
        assert!(block.get(field).is_some_and(|text| !text.is_empty()), "field {field}: {block:?}");
    }
    assert!(
        block["reason"].to_lowercase().contains("sql") || block["explanation"].to_lowercase().contains("sql"),
        "{block:?}"
    );
    let ttl: i64 = redis.ttl(&key).await.unwrap();
    assert!((500..=600).contains(&ttl), "a first block lasts ten minutes, not {ttl} s");
    let listed: Vec<String> = redis.zrange(keys::BLOCK_INDEX, 0, -1).await.unwrap();
    assert!(listed.iter().any(|entry| entry.contains(attacker)), "{listed:?}");

    // Deleting the key releases the client everywhere, and the release holds.
    let _: u32 = redis.del(&key).await.unwrap();
    for http in &gateways {
        wait_status(http, attacker, 200).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for http in &gateways {
        assert_eq!(
            http.send(&get("/api/products/1", attacker)).await.unwrap().status,
            200,
            "the release does not hold"
        );
    }

    // A hash written by hand blocks everywhere.
    let unwanted = "192.0.2.77";
    let key = keys::block("all", &ClientKey::Address(unwanted.to_owned()));
    let _: u32 = redis.hset(&key, "reason", "unpaid bills").await.unwrap();
    let _: bool = redis.expire(&key, 300).await.unwrap();
    for http in &gateways {
        wait_status(http, unwanted, 403).await;
    }
    let blocks = second.list(&["blocks", "list"]).await.unwrap();
    let block = blocks.iter().find(|block| block["client"] == format!("ip:{unwanted}")).expect("in the list");
    assert_eq!(block["reason"], "unpaid bills");
}
