//! Mode `detect` never changes a response: what comes through the gateway is what the origin says directly.

use std::{net::IpAddr, time::Duration};

use datasets::{
    attackers::{Attacker, Persona},
    benign::{BenignClient, Kind},
    request::{GeneratedRequest, Space, encode_bytes},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tests::{
    client::{Answer, Client},
    gateway::{Gateway, Settings},
    origin::Origin,
    teacher::{self, Teacher},
};

/// Any request: of an attacker, of a benign client, or of nobody at all.
fn any_request() -> impl Strategy<Value = GeneratedRequest> {
    let attack = (any::<u64>(), 0..Persona::ALL.len(), 0..30_usize)
        .prop_map(|(seed, persona, nth)| Attacker::new(seed, 9_000, Persona::ALL[persona]).nth(nth).unwrap());
    let benign = (any::<u64>(), 0..Kind::ALL.len(), 0..30_usize)
        .prop_map(|(seed, kind, nth)| BenignClient::new(seed, 9_001, Kind::ALL[kind]).nth(nth).unwrap());
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let kind = prop::sample::select(vec![
        "application/json",
        "application/x-www-form-urlencoded",
        "application/xml",
        "multipart/form-data; boundary=x",
        "text/plain; charset=utf-7",
        "application/json; application/xml",
    ]);
    let nobody = (bytes(), bytes(), bytes(), kind).prop_map(|(name, value, body, kind)| GeneratedRequest {
        method: if body.is_empty() { "GET" } else { "POST" },
        uri: format!(
            "/echo/{}?{}={}",
            encode_bytes(&name, Space::Percent),
            encode_bytes(&value, Space::Plus),
            encode_bytes(&name, Space::Plus)
        ),
        headers: vec![
            ("content-type", kind.to_owned()),
            ("x-test-value", encode_bytes(&value, Space::Percent)),
        ],
        body,
        client: IpAddr::from([192, 0, 2, 1]),
        think: Duration::ZERO,
    });
    // All in the name of one client: if anything could be blocked, it would be.
    prop_oneof![3 => attack, 1 => benign, 2 => nobody]
        .prop_map(|request| GeneratedRequest { client: IpAddr::from([192, 0, 2, 1]), ..request })
}

/// What a client can tell of a response, but for what every proxy adds or renews.
fn visible(answer: &Answer) -> impl PartialEq + std::fmt::Debug {
    let own =
        ["date", "x-request-id", "connection", "keep-alive", "via", "content-length", "transfer-encoding"];
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| !own.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    headers.sort();
    (answer.status.as_u16(), headers, answer.body.clone())
}

#[test]
fn detect_never_changes_a_response() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let teacher = Teacher::new(41).unwrap();
    teacher.install_keys(&state).unwrap();
    teacher::publish(&state, 1, &teacher.artifact(&teacher.model(1).unwrap()).unwrap()).unwrap();
    let (origin, gateway) = runtime.block_on(async {
        let origin = Origin::start(Duration::ZERO).await.unwrap();
        let mut settings = Settings::new(origin.url());
        settings.mode = "detect";
        // What leaves is another matter: here every difference would be one that detection made.
        settings.more = vec!["responses: {security_headers: off, errors: pass}".to_owned()];
        let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
        gateway.wait_model(1, Duration::from_secs(10)).await.unwrap();
        (origin, gateway)
    });
    let (direct, through) = (Client::new(origin.address()), gateway.client());
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&any_request(), |request| {
            let (expected, found) = runtime.block_on(async {
                (
                    direct.send(&request).await.expect("the origin answers"),
                    through.send(&request).await.expect("the gateway answers"),
                )
            });
            prop_assert_eq!(visible(&expected), visible(&found));
            Ok(())
        })
        .unwrap();
    // The attacks were seen all the same: in mode `block` they would have been answered.
    let found = runtime.block_on(gateway.metric("portcullis_waf_rule_matches_total")).unwrap();
    assert!(found >= 50.0, "{found} rule matches in 400 requests: too little was detected to prove anything");
}
