//! Secrets that clients send are found nowhere: not in Redis, the lake, logs, artifacts or the state directory.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use datasets::request::GeneratedRequest;
use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
    redis_server::RedisServer,
    trainer::Workplace,
};
use trainer::lake::Lake;

/// Every secret starts with this, so that a search looks in few places.
const MARK: &str = "zq7x";

/// How much of a secret must show to be a leak.
pub(crate) const LEAK: usize = 11;

const SECRETS: usize = 1_000;

/// Lower case and digits only: lower-casing, as rules do, must not hide a leak.
pub(crate) fn secret(rng: &mut fastrand::Rng) -> String {
    let letters = (0..20).map(|_| if rng.bool() { rng.lowercase() } else { rng.digit(10) });
    format!("{MARK}{}", letters.collect::<String>())
}

/// A request with `secret` in the place number `nth`; every third one is an attack around it.
pub(crate) fn plant(nth: usize, secret: &str) -> GeneratedRequest {
    let value =
        if nth.is_multiple_of(3) { format!("{secret}' or 1=1-- {secret}") } else { secret.to_owned() };
    let encoded = datasets::request::encode(&value, datasets::request::Space::Percent);
    let mut request = GeneratedRequest {
        method: "GET",
        uri: "/api/profile".to_owned(),
        headers: vec![("user-agent", "test/1.0".to_owned())],
        body: Vec::new(),
        client: IpAddr::from(Ipv4Addr::from(0x0a01_0000 + nth as u32)),
        think: Duration::ZERO,
    };
    let post = |request: &mut GeneratedRequest, kind: &str, body: String| {
        request.method = "POST";
        request.headers.push(("content-type", kind.to_owned()));
        request.body = body.into_bytes();
    };
    match nth % 13 {
        0 => request.uri = format!("/api/search?q={encoded}"),
        1 => {
            post(&mut request, "application/x-www-form-urlencoded", format!("username=u&password={encoded}"))
        }
        2 => {
            post(&mut request, "application/json", serde_json::json!({"card": {"number": value}}).to_string())
        }
        3 => request.headers.push(("cookie", format!("theme=light; sid={secret}"))),
        4 => request.headers.push(("authorization", format!("Bearer {secret}"))),
        5 => request.headers.push(("x-api-key", secret.to_owned())),
        6 => request.uri = format!("/reset/{encoded}/confirm"),
        7 => post(
            &mut request,
            "multipart/form-data; boundary=b",
            format!("--b\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n{value}\r\n--b--\r\n"),
        ),
        8 => post(&mut request, "application/xml", format!("<a><token>{secret}</token></a>")),
        9 => request.headers.push(("referer", format!("https://shop.example/reset?token={encoded}"))),
        10 => post(&mut request, "text/plain", value),
        // As a name: of a parameter, of a JSON member.
        11 => request.uri = format!("/api/search?{encoded}=1"),
        _ => post(&mut request, "application/json", serde_json::json!({value: 1}).to_string()),
    }
    request
}

/// The secrets of which a part is in `bytes`.
pub(crate) fn leaks(bytes: &[u8], secrets: &BTreeSet<String>) -> Vec<String> {
    let starts = bytes.windows(LEAK).filter(|window| window.starts_with(MARK.as_bytes()));
    starts
        .map(|window| String::from_utf8_lossy(window).into_owned())
        .filter(|start| secrets.contains(start))
        .collect()
}

/// Every file below `directory`.
pub(crate) fn files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_secrets_are_found_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let server = RedisServer::start(directory.path().join("redis")).await.unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.redis = Some(server.url());
    settings.mode = "detect";
    settings.waf = vec!["api_key_header: x-api-key".to_owned(), "session_cookie: sid".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();

    let mut rng = fastrand::Rng::with_seed(4);
    let mut starts = BTreeSet::new();
    let http = gateway.client();
    let mut flagged = None;
    for nth in 0..SECRETS {
        let secret = secret(&mut rng);
        starts.insert(secret[..LEAK].to_owned());
        let answer = http.send(&plant(nth, &secret)).await.unwrap();
        if nth == 0 {
            flagged = answer.request_id().map(str::to_owned);
        }
    }
    assert_eq!(starts.len(), SECRETS);
    assert_eq!(origin.requests(), SECRETS as u64, "every secret went through");

    let mut shown = Vec::new();
    for arguments in [
        ["explain", flagged.as_deref().unwrap()].as_slice(),
        &["blocks", "list"],
        &["blocks", "list", "-o", "json"],
    ] {
        shown.extend_from_slice(gateway.command(arguments).await.unwrap().1.as_bytes());
    }
    gateway
        .wait_metric("portcullis_events_written_total", SECRETS as f64, Duration::from_secs(20))
        .await
        .unwrap();
    let trainer = Workplace::new(directory.path(), gateway.state(), settings.redis.clone());
    let (success, log) = trainer.run(&["ingest"]).await.unwrap();
    assert!(success, "{log}");
    let model = directory.path().join("secrets.model");
    // Whether this traffic makes a good model is not the question here; what is written on the way is.
    let (_, log) = trainer.run(&["train", "--output", model.to_str().unwrap()]).await.unwrap();
    shown.extend_from_slice(log.as_bytes());
    gateway.process().signal("TERM").unwrap();
    gateway.process().wait_exit(Duration::from_secs(20)).await.unwrap();

    // The lake is compressed: its events are looked at as they are encoded, uncompressed.
    let mut events = 0;
    let look = |event: waf_model::event::Event| {
        shown.extend_from_slice(&event.encode());
        events += 1;
        Ok(())
    };
    Lake::new(gateway.state().join("lake")).scan_events(look).unwrap();
    assert_eq!(events, SECRETS);

    let mut places = Vec::new();
    files(directory.path(), &mut places);
    // Redis' append-only file holds whatever was ever written to it.
    assert!(places.iter().any(|path| path.to_string_lossy().contains("appendonly")), "{places:?}");
    let mut found: Vec<String> =
        leaks(&shown, &starts).into_iter().map(|leak| format!("{leak} in output or lake")).collect();
    for path in &places {
        let bytes = fs::read(path).unwrap();
        found.extend(leaks(&bytes, &starts).into_iter().map(|leak| format!("{leak} in {}", path.display())));
    }
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found[..found.len().min(20)].join("\n"));
}

#[test]
fn the_search_finds_what_is_there() {
    let secret = secret(&mut fastrand::Rng::with_seed(1));
    let starts = BTreeSet::from([secret[..LEAK].to_owned()]);
    assert_eq!(leaks(format!("token={secret}&").as_bytes(), &starts).len(), 1);
    assert_eq!(leaks(b"token=zq7x&", &starts).len(), 0);
}
