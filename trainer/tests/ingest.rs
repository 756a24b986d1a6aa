//! The trainer killed at the worst moment loses no event and repeats none, with either store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)]
#![expect(clippy::disallowed_methods, reason = "these tests have no runtime whose workers could be blocked")]

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use redis::{Connection, Value, cmd};
use trainer::lake::Lake;
use waf_model::{
    client::{CLIENT_FEATURES, ClientVector},
    event::{EVENT_VERSION, Event, Origin, Verdict},
    keys,
    observation::Observation,
    segment::{self, Kind},
};

fn event(id: u64) -> Event {
    Event {
        id: u128::from(id).to_be_bytes(),
        // Twenty events, and a new day begins.
        at_ms: 1_785_542_400_000 + id * 4_320_000,
        client: id % 5,
        network: 0,
        route: "shop".to_owned(),
        observation: Observation { method: "GET".into(), path: "/".to_owned(), ..Observation::default() },
        client_vector: ClientVector([0.0; CLIENT_FEATURES]),
        score: None,
        model: 0,
        key_id: 1,
        verdict: Verdict::Pass,
        status: 200,
        origin: Origin::Upstream,
        upstream_us: 1,
        response_bytes: 1,
        weight: 1.0,
        hits: Vec::new(),
        response_hits: Vec::new(),
    }
}

/// Runs `trainer ingest` on `state`, until it aborts at `failpoint` if one is given.
fn ingest(state: &Path, store: Option<&str>, failpoint: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
    command.arg("ingest").arg("--state").arg(state).env_remove("PORTCULLIS_STORE");
    if let Some(store) = store {
        command.args(["--store", store]);
    }
    if let Some(failpoint) = failpoint {
        command.env("PORTCULLIS_FAILPOINT", failpoint);
    }
    command.output().unwrap()
}

fn ingest_whole(state: &Path, store: Option<&str>) -> String {
    let output = ingest(state, store, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// How often each event lies in the lake.
fn in_lake(state: &Path) -> BTreeMap<u64, u32> {
    let mut ids = BTreeMap::new();
    Lake::new(state.join("lake"))
        .scan_events(|found| {
            let id = u128::from_be_bytes(found.id) as u64;
            assert_eq!(found, event(id), "bit for bit");
            *ids.entry(id).or_default() += 1;
            Ok(())
        })
        .unwrap();
    ids
}

fn once(ids: Range<u64>) -> BTreeMap<u64, u32> {
    ids.map(|id| (id, 1)).collect()
}

fn append_segment(state: &Path, segment: u64, ids: Range<u64>) {
    let mut frames = Vec::new();
    ids.for_each(|id| assert!(segment::append(&mut frames, Kind::Event, &event(id).encode())));
    let path = state.join(format!("events/{segment:020}.seg"));
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(&frames).unwrap();
}

#[test]
fn killed_between_parquet_and_cursor_no_row_of_a_segment_is_lost_and_none_comes_twice() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path();
    fs::create_dir(state.join("events")).unwrap();
    append_segment(state, 0, 0..70);
    let killed = ingest(state, None, Some("ingest.before_ack"));
    assert!(!killed.status.success(), "the failpoint aborts");
    assert_eq!(in_lake(state), once(0..70), "the rows were durable already");
    assert!(!state.join("lake/cursor").exists(), "and not acknowledged");
    append_segment(state, 0, 70..100);
    append_segment(state, 100, 100..120);
    assert!(ingest_whole(state, None).starts_with("120 events"));
    assert_eq!(in_lake(state), once(0..120));
    assert!(ingest_whole(state, None).starts_with("0 events"));
    assert!(!state.join("events/00000000000000000000.seg").exists(), "consumed");
}

/// A Redis of its own, on a socket in a directory of its own; ended with the test.
struct Redis {
    server: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(directory.path().join("s"))
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test needs redis-server on the PATH: apt-get install redis-server");
        let redis = Self { server, directory };
        let started = Instant::now();
        while redis.try_connect().is_none() {
            assert!(started.elapsed() < Duration::from_secs(20), "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("s").display())
    }

    fn try_connect(&self) -> Option<Connection> {
        redis::Client::open(self.url()).unwrap().get_connection().ok()
    }

    fn connection(&self) -> Connection {
        self.try_connect().unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

fn add_events(connection: &mut Connection, ids: Range<u64>) {
    for id in ids {
        cmd("XADD")
            .arg(keys::EVENTS)
            .arg("*")
            .arg("v")
            .arg(EVENT_VERSION)
            .arg("d")
            .arg(event(id).encode())
            .exec(connection)
            .unwrap();
    }
}

fn pending(connection: &mut Connection) -> u64 {
    let (count, _, _, _): (u64, Value, Value, Value) =
        cmd("XPENDING").arg(keys::EVENTS).arg(keys::TRAINER_GROUP).query(connection).unwrap();
    count
}

#[test]
fn killed_between_parquet_and_acknowledgement_no_row_of_the_stream_is_lost_and_none_comes_twice() {
    let (redis, directory) = (Redis::start(), tempfile::tempdir().unwrap());
    let (state, url) = (directory.path(), redis.url());
    let mut connection = redis.connection();
    add_events(&mut connection, 0..70);
    let killed = ingest(state, Some(&url), Some("ingest.before_ack"));
    assert!(!killed.status.success(), "the failpoint aborts");
    assert_eq!(in_lake(state), once(0..70), "the rows were durable already");
    assert_eq!(pending(&mut connection), 70, "and not acknowledged");
    add_events(&mut connection, 70..100);
    assert!(ingest_whole(state, Some(&url)).starts_with("100 events"));
    assert_eq!(in_lake(state), once(0..100));
    assert_eq!(pending(&mut connection), 0);
}

#[test]
fn what_another_consumer_read_is_waited_for_and_reviews_come_along() {
    let (redis, directory) = (Redis::start(), tempfile::tempdir().unwrap());
    let (state, url) = (directory.path(), redis.url());
    let mut connection = redis.connection();
    add_events(&mut connection, 0..5);
    cmd("XGROUP").arg(&["CREATE", keys::EVENTS, keys::TRAINER_GROUP, "0"]).exec(&mut connection).unwrap();
    let _: Value = cmd("XREADGROUP")
        .arg(&["GROUP", keys::TRAINER_GROUP, "dead", "COUNT", "3", "STREAMS", keys::EVENTS, ">"])
        .query(&mut connection)
        .unwrap();
    cmd("XADD")
        .arg(keys::REVIEWS)
        .arg("*")
        .arg(&[
            "request",
            "00000000-0000-0000-0000-000000000003",
            "verdict",
            "confirmed",
            "client",
            "3",
            "at",
            "9",
        ])
        .exec(&mut connection)
        .unwrap();
    cmd("XADD").arg(keys::REVIEWS).arg(&["*", "verdict", "maybe"]).exec(&mut connection).unwrap();
    let text = ingest_whole(state, Some(&url));
    assert!(
        text.starts_with("2 events, 1 reviews and 0 whole requests ingested, 0 rejected, 1 damaged"),
        "{text}"
    );
    assert_eq!(pending(&mut connection), 3, "the other consumer may still be at work");
    let ids: Vec<String> = cmd("XCLAIM")
        .arg(&[keys::EVENTS, keys::TRAINER_GROUP, "dead", "0"])
        .arg(pending_ids(&mut connection))
        .arg(&["IDLE", "120000", "JUSTID"])
        .query(&mut connection)
        .unwrap();
    assert_eq!(ids.len(), 3);
    assert!(ingest_whole(state, Some(&url)).starts_with("3 events"), "abandoned for two minutes: taken over");
    assert_eq!(in_lake(state), once(0..5));
    let length: u64 = cmd("XLEN").arg(keys::EVENTS).query(&mut connection).unwrap();
    assert!(length <= 5);
}

fn pending_ids(connection: &mut Connection) -> Vec<String> {
    let entries: Vec<(String, String, u64, u64)> =
        cmd("XPENDING").arg(&[keys::EVENTS, keys::TRAINER_GROUP, "-", "+", "100"]).query(connection).unwrap();
    entries.into_iter().map(|(id, ..)| id).collect()
}

#[test]
fn what_is_acknowledged_is_trimmed_from_the_stream() {
    let (redis, directory) = (Redis::start(), tempfile::tempdir().unwrap());
    let mut connection = redis.connection();
    add_events(&mut connection, 0..1000);
    assert!(ingest_whole(directory.path(), Some(&redis.url())).starts_with("1000 events"));
    let length: u64 = cmd("XLEN").arg(keys::EVENTS).query(&mut connection).unwrap();
    assert!(length < 200, "{length} of 1000 entries left; Redis trims whole nodes of 100");
}

#[test]
fn a_model_is_published_to_redis_with_everything_that_a_gateway_waits_for() {
    let (redis, directory) = (Redis::start(), tempfile::tempdir().unwrap());
    let mut connection = redis.connection();
    let (input, model) = (directory.path().join("made-up.jsonl"), directory.path().join("made-up.model"));
    let lines: String = (0..2400)
        .map(|at| {
            format!("{{\"label\":\"benign\",\"method\":\"GET\",\"uri\":\"/items/{at}?page={}\"}}\n", at % 40)
        })
        .collect();
    fs::write(&input, lines).unwrap();
    let trainer = |action: &str, arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args([action, "--store", &redis.url(), "--state"])
            .arg(directory.path().join("state"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for seq in 1..=2_u64 {
        trainer("train", &["--input".as_ref(), input.as_ref(), "--output".as_ref(), model.as_ref()]);
        trainer("publish", &["--model".as_ref(), model.as_ref()]);
        let current: u64 = cmd("GET").arg(keys::MODEL_CURRENT).query(&mut connection).unwrap();
        assert_eq!(current, seq);
        let bytes: Vec<u8> = cmd("GET").arg(keys::model(seq)).query(&mut connection).unwrap();
        assert_eq!(bytes, fs::read(&model).unwrap());
        let announced: u64 = cmd("XLEN").arg(keys::CHANGES).query(&mut connection).unwrap();
        assert_eq!(announced, seq);
    }
}

#[test]
fn a_store_that_is_away_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("redis+unix://{}", PathBuf::from("/nowhere/redis.sock").display());
    let output = ingest(directory.path(), Some(&url), None);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot reach Redis at redis+unix:///nowhere/redis.sock"), "{text}");
}
