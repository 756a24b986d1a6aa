//! What people may do with `redis-cli`, and what happens when Redis loses its memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use waf_model::{client::Suspicion, keys::ClientKey};

use super::{block, changes_until, in_an_hour, server::RedisServer};
use crate::{
    audit::Audit,
    block_list::{BlockList, sync::Sync},
    clock,
    config::{Config, ConfigSlot},
    store::{BlockChange, BlockOrigin, BlockStore, raw_block::address_key},
    telemetry::store_metrics::StoreMetrics,
    waf::evidence::Clients,
};

fn is_release(change: &BlockChange, text: &str) -> bool {
    matches!(change, BlockChange::Released { client, .. } if client.to_string() == text)
}

fn blocked<'a>(changes: &'a [BlockChange], text: &str) -> Option<&'a crate::store::Block> {
    changes.iter().find_map(|change| match change {
        BlockChange::Blocked(block) if block.client.0.to_string() == text => Some(&**block),
        _ => None,
    })
}

#[tokio::test]
async fn a_block_is_a_readable_hash_with_an_expiry_and_others_learn_of_it() {
    let server = RedisServer::start().await;
    let (one, other) = (server.store(), server.store());
    other.blocks.snapshot().await.unwrap();
    let expires_ms = in_an_hour();
    one.blocks.put(block("ip:1.2.3.4", expires_ms)).await.unwrap();
    let key = "portcullis:block:all:ip:1.2.3.4";
    assert_eq!(server.ask::<String>(&["HGET", key, "reason"]).await, "evidence 12 of 10");
    assert_eq!(server.ask::<String>(&["HGET", key, "last_seen"]).await, "2023-11-14T22:13:20.002Z");
    assert_eq!(server.ask::<u64>(&["PEXPIRETIME", key]).await, expires_ms);
    assert_eq!(server.ask::<u64>(&["ZSCORE", "portcullis:blocks", key]).await, expires_ms);
    let seen = changes_until(&*other.blocks, |seen| blocked(seen, "ip:1.2.3.4").is_some()).await;
    assert_eq!(blocked(&seen, "ip:1.2.3.4").unwrap().count, 2);
}

#[tokio::test]
async fn deleting_the_key_releases_at_every_gateway() {
    let server = RedisServer::start().await;
    let (one, other) = (server.store(), server.store());
    one.blocks.snapshot().await.unwrap();
    one.blocks.put(block("ip:1.2.3.4", in_an_hour())).await.unwrap();
    one.blocks.put(block("ip:5.6.7.8", in_an_hour())).await.unwrap();
    assert_eq!(other.blocks.snapshot().await.unwrap().len(), 2);
    server.ask::<()>(&["DEL", "portcullis:block:all:ip:1.2.3.4"]).await;
    for gateway in [&one, &other] {
        let seen = changes_until(&*gateway.blocks, |seen| !seen.is_empty()).await;
        assert!(seen.iter().any(|change| is_release(change, "ip:1.2.3.4")), "{seen:?}");
        assert!(!seen.iter().any(|change| is_release(change, "ip:5.6.7.8")), "{seen:?}");
    }
}

#[tokio::test]
async fn a_key_written_by_hand_is_a_block() {
    let server = RedisServer::start().await;
    let store = server.store();
    store.blocks.snapshot().await.unwrap();
    server.ask::<()>(&["HSET", "portcullis:block:all:ip:9.9.9.9", "reason", "by hand"]).await;
    server.ask::<()>(&["HSET", "portcullis:block:api:ip:10.1.2.3/8", "reason", "noise"]).await;
    server.ask::<()>(&["HSET", "portcullis:block:all:ip:2001:db8::1", "note", "no reason"]).await;
    // Mistakes must not hide the others.
    server.ask::<()>(&["SET", "portcullis:block:all:ip:8.8.8.8", "text"]).await;
    server.ask::<()>(&["HSET", "portcullis:block:all:ip:7.7.7.7", "score", "high"]).await;
    server.ask::<()>(&["HSET", "portcullis:block:nonsense", "reason", "x"]).await;
    server.ask::<()>(&["SET", "portcullis:allow:192.0.2.0/24", "office"]).await;
    let seen = changes_until(&*store.blocks, |seen| seen.len() >= 3).await;
    assert_eq!(seen.len(), 3, "{seen:?}");
    let by_hand = blocked(&seen, "ip:9.9.9.9").unwrap();
    assert_eq!((by_hand.reason.as_str(), by_hand.expires_ms), ("by hand", u64::MAX));
    assert_eq!((by_hand.origin, by_hand.count), (BlockOrigin::Operator, 1));
    assert_eq!(blocked(&seen, "ip:10.0.0.0/8").unwrap().scope, "api");
    assert!(blocked(&seen, "ip:2001:db8::/64").is_some());
    assert_eq!(store.blocks.allowed().await.unwrap(), ["192.0.2.0/24"]);
    // A release through the gateway finds the key as the person spelled it.
    let client = ClientKey::Address("10.0.0.0/8".to_owned());
    assert!(store.blocks.release("api", &client).await.unwrap());
    assert_eq!(server.ask::<u64>(&["EXISTS", "portcullis:block:api:ip:10.1.2.3/8"]).await, 0);
    // So does an expiry that is set later.
    server.ask::<()>(&["PEXPIRE", "portcullis:block:all:ip:9.9.9.9", "60000"]).await;
    let seen = changes_until(&*store.blocks, |seen| !seen.is_empty()).await;
    assert!(blocked(&seen, "ip:9.9.9.9").unwrap().expires_ms <= clock::now_ms() + 60_000);
}

#[tokio::test]
async fn an_expired_block_is_no_release() {
    let server = RedisServer::start().await;
    let store = server.store();
    store.blocks.put(block("ip:1.2.3.4", clock::now_ms() + 500)).await.unwrap();
    store.blocks.snapshot().await.unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        assert_eq!(store.blocks.changes().await.unwrap(), []);
    }
    assert_eq!(server.ask::<u64>(&["ZCARD", "portcullis:blocks"]).await, 0);
}

#[tokio::test]
async fn an_emptied_redis_releases_nobody_and_is_filled_again() {
    let mut server = RedisServer::start().await;
    let (one, other) = (server.store(), server.store());
    one.blocks.snapshot().await.unwrap();
    one.blocks.put(block("ip:1.2.3.4", in_an_hour())).await.unwrap();
    one.blocks.put(block("ip:5.6.7.8", in_an_hour())).await.unwrap();
    one.blocks.set_allowed("192.0.2.0/24", true).await.unwrap();
    assert_eq!(other.blocks.snapshot().await.unwrap().len(), 2);
    for round in ["FLUSHALL", "restart"] {
        match round {
            "FLUSHALL" => server.ask::<()>(&["FLUSHALL"]).await,
            _ => server.restart().await,
        }
        let started = Instant::now();
        while server
            .ask::<u64>(&["EXISTS", "portcullis:block:all:ip:1.2.3.4", "portcullis:allow:192.0.2.0/24"])
            .await
            < 2
            || started.elapsed() < Duration::from_millis(4_500)
        {
            assert!(started.elapsed() < Duration::from_secs(10), "not filled again after {round}");
            for gateway in [&one, &other] {
                for change in gateway.blocks.changes().await.unwrap_or_default() {
                    assert!(matches!(change, BlockChange::Blocked(_)), "{change:?} after {round}");
                }
            }
        }
        let left = server.ask::<i64>(&["PTTL", "portcullis:block:all:ip:5.6.7.8"]).await;
        assert!(left > 3_500_000, "{left}");
    }
    // And releases work as before.
    server.ask::<()>(&["DEL", "portcullis:block:all:ip:1.2.3.4"]).await;
    for gateway in [&one, &other] {
        changes_until(&*gateway.blocks, |seen| seen.iter().any(|change| is_release(change, "ip:1.2.3.4")))
            .await;
    }
}

#[tokio::test]
async fn what_was_put_before_the_first_look_survives_an_emptied_redis() {
    let mut server = RedisServer::start().await;
    let store = server.store();
    store.blocks.put(block("ip:1.2.3.4", in_an_hour())).await.unwrap();
    store.blocks.set_allowed("192.0.2.0/24", true).await.unwrap();
    server.restart().await;
    // The first call may find the connection broken.
    let known = match store.blocks.snapshot().await {
        Err(_) => store.blocks.snapshot().await.unwrap(),
        Ok(known) => known,
    };
    assert_eq!(known.len(), 1);
    let names = ["EXISTS", "portcullis:block:all:ip:1.2.3.4", "portcullis:allow:192.0.2.0/24"];
    assert_eq!(server.ask::<u64>(&names).await, 2);
}

/// One gateway's block list, kept in step.
struct Gateway {
    list: Arc<BlockList>,
    clients: Arc<Clients>,
    task: JoinHandle<()>,
}

impl Gateway {
    fn start(store: Arc<dyn BlockStore>) -> Self {
        let (list, clients) = (Arc::new(BlockList::default()), Arc::new(Clients::default()));
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        let sync = Sync {
            list: Arc::clone(&list),
            store,
            clients: Arc::clone(&clients),
            config: Arc::new(ConfigSlot::new(Arc::new(config))),
            metrics: Arc::new(StoreMetrics::default()),
            audit: Audit::nowhere(),
        };
        Self { list, clients, task: tokio::spawn(sync.run()) }
    }

    fn blocks(&self, address: &str) -> bool {
        self.list.find(&[address_key(address.parse().unwrap())], "r", clock::now_ms()).is_some()
    }

    async fn until(&self, address: &str, blocked: bool) {
        let started = Instant::now();
        while self.blocks(address) != blocked {
            assert!(started.elapsed() < Duration::from_secs(5), "{address} not {blocked} after 5 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn gateways_share_blocks_and_a_release_holds() {
    let server = RedisServer::start().await;
    let one = Gateway::start(server.store().blocks);
    let other = Gateway::start(server.store().blocks);
    one.list.block((*block("ip:1.2.3.4", in_an_hour())).clone());
    assert!(one.blocks("1.2.3.4"), "in force here at once");
    other.until("1.2.3.4", true).await;
    let client = ClientKey::Address("1.2.3.4".to_owned());
    let suspicion = Suspicion { rule_points: 20, score: None };
    assert!(other.clients.suspect(&client, clock::now_ms(), "a", &suspicion) > 0.0);
    server.ask::<()>(&["DEL", "portcullis:block:all:ip:1.2.3.4"]).await;
    one.until("1.2.3.4", false).await;
    other.until("1.2.3.4", false).await;
    let level = other.clients.suspect(&client, clock::now_ms(), "b", &suspicion);
    assert_eq!(level.to_bits(), 0, "held after the release");
    // A release through one gateway reaches the other.
    server.ask::<()>(&["HSET", "portcullis:block:all:ip:9.0.0.0/8", "reason", "by hand"]).await;
    one.until("9.1.2.3", true).await;
    other.until("9.1.2.3", true).await;
    one.list.release("all", &ClientKey::Address("9.0.0.0/8".to_owned())).unwrap();
    assert!(!one.blocks("9.1.2.3"));
    other.until("9.1.2.3", false).await;
    one.list.settled().await;
}

#[tokio::test]
async fn blocks_made_while_redis_is_away_are_told_when_it_is_back() {
    let mut server = RedisServer::start().await;
    let one = Gateway::start(server.store().blocks);
    one.list.block((*block("ip:1.1.1.1", in_an_hour())).clone());
    while server.ask::<u64>(&["EXISTS", "portcullis:block:all:ip:1.1.1.1"]).await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop();
    one.list.block((*block("ip:2.2.2.2", in_an_hour())).clone());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(one.blocks("1.1.1.1") && one.blocks("2.2.2.2"), "what is known stays in force");
    // A gateway that starts meanwhile starts without the shared blocks, and learns of them later.
    let late = Gateway::start(server.store().blocks);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!late.blocks("2.2.2.2"));
    server.restart().await;
    late.until("2.2.2.2", true).await;
    late.until("1.1.1.1", true).await;
    assert!(one.blocks("1.1.1.1") && one.blocks("2.2.2.2"));
}
