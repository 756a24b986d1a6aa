//! Requests that are meant to be expensive, and attacks in every wrapping: no request costs much, and the same attack
//! gets the same verdict.
//!
//! `make bombs` runs this against a release build with the limit that we promise; here it is a generous one.

use std::{env, fs, io::Write as _, time::Duration};

use reqwest::Method;
use tests::gateway::{Gateway, Settings};

use crate::{
    bombs::payloads::{CODINGS, Code, FORM, JSON, MULTIPART, XML, bombs, gzip},
    raw::{RawOrigin, Reply, exchange},
};

mod payloads;

/// The most that a request of up to 1 MiB may cost in a debug build on a busy machine, in milliseconds.
const GENEROUS: f64 = 3_000.0;

/// CPU time that a process has used, in milliseconds; finer than the ticks of `stat`.
fn cpu(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0)
    };
    tasks.filter_map(Result::ok).map(spent).sum::<f64>() / 1e6
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_costs_much() {
    let limit = env::var("BOMB_MS").ok().and_then(|limit| limit.parse().ok()).unwrap_or(GENEROUS);
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(|_| Reply::ok()).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.waf = vec!["block_clients: off".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let pid = gateway.process().pid();
    gateway.client().get("/warm").await.unwrap();
    let mut costs = Vec::new();
    for (name, request) in bombs() {
        let name: String = name.chars().take(40).collect();
        let mut least = f64::MAX;
        // Other processes on the machine make a request dearer, never cheaper: where it looks dear, look again.
        for _ in 0..3 {
            let before = cpu(pid);
            let outcome = exchange(gateway.address(), &request, 1).await.unwrap();
            least = least.min(cpu(pid) - before);
            assert!(outcome.statuses.len() < 2, "{name}: {}", outcome.text());
            if least < limit / 2.0 {
                break;
            }
        }
        costs.push((least, name));
    }
    costs.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (cost, name) in costs.iter().take(20) {
        // Shown by `make bombs`.
        let _ = writeln!(std::io::stdout().lock(), "{cost:8.1} ms  {name:?}");
    }
    let dear: Vec<_> = costs.iter().filter(|(cost, _)| *cost > limit).collect();
    assert!(dear.is_empty(), "more than {limit} ms: {dear:?}");
    assert!(gateway.process().is_running().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_gets_the_same_verdict_in_every_wrapping() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(|_| Reply::ok()).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.waf = vec!["block_clients: off".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let url = format!("http://{}/a", gateway.address());
    let build = || reqwest::Client::builder().timeout(Duration::from_secs(20));
    let one = build().build().unwrap();
    let two = build().http2_prior_knowledge().build().unwrap();
    let bodies = |value: &str| {
        [
            (FORM, format!("a=b&id={}", value.replace(' ', "+"))),
            (JSON, serde_json::json!({"a": "b", "id": value}).to_string()),
            (XML, format!("<a><id>{value}</id></a>")),
            (
                MULTIPART,
                format!("--bnd\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n{value}\r\n--bnd--\r\n"),
            ),
        ]
    };
    for (value, expected) in [("a harmless value", 200), ("1' UNION SELECT password FROM users-- -", 403)] {
        for (kind, body) in bodies(value) {
            let plain = [("", (|bytes| bytes.to_vec()) as Code)];
            for (coding, code) in plain.into_iter().chain(CODINGS) {
                let bytes = code(body.as_bytes());
                for (client, chunked) in [(&one, false), (&one, true), (&two, false), (&two, true)] {
                    let mut request = client.request(Method::POST, &url).header("content-type", kind);
                    if !coding.is_empty() {
                        request = request.header("content-encoding", coding);
                    }
                    let parts: Vec<Result<Vec<u8>, std::io::Error>> =
                        bytes.chunks(7).map(|part| Ok(part.to_vec())).collect();
                    let request = if chunked {
                        request.body(reqwest::Body::wrap_stream(futures_util::stream::iter(parts)))
                    } else {
                        request.body(bytes.clone())
                    };
                    let status = request.send().await.unwrap().status();
                    assert_eq!(status, expected, "{kind} {coding:?}, chunked: {chunked}: {value}");
                    if expected == 200 {
                        let seen = origin.seen().pop().unwrap();
                        assert_eq!(seen.body, bytes, "it is forwarded as it came");
                        assert_eq!(seen.values("content-encoding").next().unwrap_or_default(), coding);
                    }
                }
            }
        }
    }
    // What cannot be looked into is refused.
    for (coding, body) in [
        ("gzip", b"id=1".to_vec()),
        ("gzip, gzip", gzip(&gzip(b"id=1"))),
        ("compress", b"id=1".to_vec()),
        ("gzip", gzip(&vec![b'a'; 900_000])),
        ("gzip", gzip(b"id=12345678901234567890")[..20].to_vec()),
        ("gzip", [gzip(b"id=1"), b"id=2".to_vec()].concat()),
    ] {
        let request = one.post(&url).header("content-type", FORM).header("content-encoding", coding);
        let status = request.body(body.clone()).send().await.unwrap().status();
        assert_eq!(status, 415, "{coding} {}", String::from_utf8_lossy(&body[..20.min(body.len())]));
    }
}
