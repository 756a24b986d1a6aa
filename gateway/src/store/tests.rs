//! Contract tests that every store must pass, and what Redis promises beyond.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod delivery;
mod redis_blocks;
pub(crate) mod server;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use waf_model::{
    client::ClientVector,
    event::{Event, Origin, Review, ReviewVerdict, Verdict},
    keys::ClientKey,
    observation::Observation,
};

use crate::{
    clock,
    store::{
        Block, BlockChange, BlockStore, Charge, ModelSource, QuotaStore, RateStore, StoreError,
        embedded::{EmbeddedBlocks, SegmentSink},
        embedded_quotas::EmbeddedQuotas,
        model_directory::ModelDirectory,
        raw_block::RawBlock,
        redis::RedisStore,
        tests::server::RedisServer,
    },
};

pub(super) fn block(client: &str, expires_ms: u64) -> Arc<Block> {
    let raw = RawBlock {
        client: client.to_owned(),
        reason: Some("evidence 12 of 10".to_owned()),
        score: Some(12.5),
        model: Some(3),
        first_seen_ms: Some(1_700_000_000_001),
        last_seen_ms: Some(1_700_000_000_002),
        expires_ms: Some(expires_ms),
        count: Some(2),
        origin: Some("gateway".to_owned()),
        request_id: Some("0190".to_owned()),
        ..RawBlock::default()
    };
    Arc::new(raw.check(0).unwrap())
}

pub(super) fn event(number: u64) -> Event {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Event {
        id,
        at_ms: number,
        client: 1,
        network: 2,
        route: "r".to_owned(),
        observation: Observation::default(),
        client_vector: ClientVector([0.0; waf_model::client::CLIENT_FEATURES]),
        score: None,
        model: 0,
        key_id: 0,
        verdict: Verdict::Rules,
        status: 200,
        origin: Origin::Upstream,
        upstream_us: 1,
        response_bytes: 1,
        weight: 1.0,
        hits: Vec::new(),
        response_hits: Vec::new(),
    }
}

pub(super) fn review() -> Review {
    Review { request: Some([7; 16]), client: 9, verdict: ReviewVerdict::FalsePositive, at_ms: 11 }
}

pub(super) fn in_an_hour() -> u64 {
    clock::now_ms() + 3_600_000
}

/// Collects changes until `enough` holds, at most the five seconds that are promised.
pub(super) async fn changes_until(
    store: &dyn BlockStore,
    enough: impl Fn(&[BlockChange]) -> bool,
) -> Vec<BlockChange> {
    let started = Instant::now();
    let mut seen = Vec::new();
    while !enough(&seen) {
        assert!(started.elapsed() < Duration::from_secs(5), "after 5 s: {seen:?}");
        seen.extend(store.changes().await.unwrap());
    }
    seen
}

async fn check_blocks(store: &dyn BlockStore) {
    assert!(store.snapshot().await.unwrap().is_empty());
    let address = block("ip:1.2.3.4", in_an_hour());
    store.put(Arc::clone(&address)).await.unwrap();
    store.put(block("ip:10.0.0.0/8", u64::MAX)).await.unwrap();
    store.put(block("session:ab", clock::now_ms() + 300)).await.unwrap();
    let kept = store.snapshot().await.unwrap();
    assert_eq!(kept.len(), 3);
    let found = kept.iter().find(|block| block.client == address.client).unwrap();
    assert!(found.expires_ms.abs_diff(address.expires_ms) < 1_500);
    assert_eq!(
        Block { expires_ms: 0, ..Block::clone(found) },
        Block { expires_ms: 0, ..Block::clone(&address) }
    );

    // Renewing replaces.
    let renewed = Block { count: 3, ..Block::clone(&address) };
    store.put(Arc::new(renewed)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let kept = store.snapshot().await.unwrap();
    assert_eq!(kept.len(), 2, "the session's block has expired: {kept:?}");
    assert!(kept.iter().any(|block| block.count == 3));
    assert!(kept.iter().any(|block| block.expires_ms == u64::MAX));

    let client = ClientKey::Address("1.2.3.4".to_owned());
    assert!(!store.release("api", &client).await.unwrap());
    assert!(store.release("all", &client).await.unwrap());
    assert!(!store.release("all", &client).await.unwrap());
    assert_eq!(store.snapshot().await.unwrap().len(), 1);

    store.set_allowed("192.0.2.0/24", true).await.unwrap();
    store.set_allowed("198.51.100.0/24", true).await.unwrap();
    store.set_allowed("192.0.2.0/24", false).await.unwrap();
    assert_eq!(store.allowed().await.unwrap(), ["198.51.100.0/24"]);
}

async fn check_models(models: &dyn ModelSource, publish: impl AsyncFn(u64)) {
    assert_eq!(models.current().await.unwrap(), None);
    assert!(models.list().await.unwrap().is_empty());
    assert!(matches!(models.set_current(1).await, Err(StoreError::Unexpected { .. })));
    assert!(models.fetch(1).await.is_err());
    for seq in [1, 2, 10] {
        publish(seq).await;
    }
    assert_eq!(models.list().await.unwrap(), [1, 2, 10]);
    assert_eq!(models.fetch(10).await.unwrap(), b"model 10");
    assert_eq!(models.current().await.unwrap(), Some(10));
    assert_eq!(models.chosen().await.unwrap(), None);
    models.set_current(2).await.unwrap();
    assert_eq!((models.current().await.unwrap(), models.chosen().await.unwrap()), (Some(2), Some(2)));
    assert_eq!(models.in_force().await.unwrap(), None);
    models.set_in_force(1).await.unwrap();
    assert_eq!((models.in_force().await.unwrap(), models.current().await.unwrap()), (Some(1), Some(2)));
    let key = models.site_key().await.unwrap();
    assert_eq!(models.site_key().await.unwrap(), key);
}

#[tokio::test]
async fn embedded_blocks_keep_the_contract_and_outlive_the_process() {
    let state = tempfile::tempdir().unwrap();
    let store = EmbeddedBlocks::open(state.path()).unwrap();
    check_blocks(&store).await;
    assert!(EmbeddedBlocks::open(state.path()).is_err(), "one gateway owns the file");
    drop(store);
    let store = EmbeddedBlocks::open(state.path()).unwrap();
    assert_eq!(store.snapshot().await.unwrap().len(), 1);
    assert_eq!(store.allowed().await.unwrap(), ["198.51.100.0/24"]);
}

#[tokio::test]
async fn redis_blocks_keep_the_contract() {
    let server = RedisServer::start().await;
    check_blocks(&*server.store().blocks).await;
}

#[tokio::test]
async fn embedded_models_keep_the_contract() {
    let state = tempfile::tempdir().unwrap();
    let directory = ModelDirectory::open(state.path()).unwrap();
    check_models(&directory, async |seq| {
        let models = state.path().join("models");
        std::fs::write(models.join(format!("{seq}.model")), format!("model {seq}")).unwrap();
        std::fs::write(models.join("current"), seq.to_string()).unwrap();
    })
    .await;
}

#[tokio::test]
async fn redis_models_keep_the_contract_and_gateways_share_one_site_key() {
    let server = RedisServer::start().await;
    let store = server.store();
    check_models(&*store.models, async |seq| {
        server.ask::<()>(&["SET", &format!("portcullis:model:{seq}"), &format!("model {seq}")]).await;
        server.ask::<()>(&["SET", "portcullis:model:current", &seq.to_string()]).await;
    })
    .await;
    let other = RedisStore::new(&server.url(), [9; 16], "other".to_owned()).unwrap();
    assert_eq!(other.models.site_key().await.unwrap(), store.models.site_key().await.unwrap());
}

#[tokio::test]
async fn embedded_events_are_frames_that_the_trainer_reads() {
    use crate::store::EventSink;
    use waf_model::segment::{self, Frame, Kind};

    let state = tempfile::tempdir().unwrap();
    let sink = SegmentSink::open(state.path(), 1 << 30).unwrap();
    sink.append(&[event(1), event(2)]).await.unwrap();
    sink.review(&review()).await.unwrap();
    let bytes = std::fs::read(state.path().join("events/00000000000000000000.seg")).unwrap();
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    while let Frame::Whole { kind, record, size } = segment::read(rest) {
        found.push((kind, record.to_vec()));
        rest = &rest[size..];
    }
    assert!(rest.is_empty());
    assert_eq!(found[1], (Kind::Event, event(2).encode()));
    assert_eq!(Event::decode(&found[0].1).unwrap(), event(1));
    assert_eq!(Review::decode(&found[2].1).unwrap(), review());
}

#[tokio::test]
async fn an_unreadable_block_is_no_reason_to_forget_the_others() {
    let state = tempfile::tempdir().unwrap();
    let store = EmbeddedBlocks::open(state.path()).unwrap();
    store.put(block("ip:1.2.3.4", u64::MAX)).await.unwrap();
    drop(store);
    let database = redb::Database::create(state.path().join("blocks.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let table: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("blocks");
    transaction.open_table(table).unwrap().insert("all:ip:9.9.9.9", &b"{"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let store = EmbeddedBlocks::open(state.path()).unwrap();
    assert_eq!(store.snapshot().await.unwrap().len(), 1);
}

#[tokio::test]
async fn redis_charges_rates_by_its_own_clock_and_quotas_by_period() {
    let server = RedisServer::start().await;
    let (one, other) = (server.store(), server.store());
    let ends_ms = in_an_hour();
    let charge = |key, count| Charge { key, count, ends_ms };
    let every = Duration::from_secs(10);
    let first = one.limits.charge_rates("slow", every, &[charge(1, 2), charge(2, 1)]).await.unwrap();
    assert_eq!(first, [20_000_000, 10_000_000]);
    let second = other.limits.charge_rates("slow", every, &[charge(1, 1)]).await.unwrap();
    assert!((29_000_000..=30_000_000).contains(&second[0]), "{second:?}");
    let left = server.ask::<i64>(&["PTTL", "portcullis:rate:slow:0000000000000001"]).await;
    assert!((28_000..=30_001).contains(&left), "{left}");
    assert_eq!(one.limits.charge_quotas("all", &[charge(1, 3), charge(2, 1)]).await.unwrap(), [3, 1]);
    assert_eq!(other.limits.charge_quotas("all", &[charge(1, 4)]).await.unwrap(), [7]);
}

#[tokio::test]
async fn embedded_quotas_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let charge = |ends_ms| Charge { key: 1, count: 2, ends_ms };
    let store = EmbeddedQuotas::open(directory.path()).unwrap();
    assert_eq!(store.charge_quotas("a", &[charge(in_an_hour()), charge(5)]).await.unwrap(), [2, 2]);
    let ends_ms = in_an_hour() + 1_000_000;
    assert_eq!(store.charge_quotas("a", &[charge(ends_ms)]).await.unwrap(), [2]);
    assert!(EmbeddedQuotas::open(directory.path()).is_err(), "one gateway alone");
    drop(store);
    let store = EmbeddedQuotas::open(directory.path()).unwrap();
    assert_eq!(store.charge_quotas("a", &[charge(ends_ms), charge(5)]).await.unwrap(), [4, 2]);
    assert_eq!(store.charge_quotas("b", &[charge(ends_ms)]).await.unwrap(), [2]);
}
