//! The circuit breaker: a model that flags many harmless clients only reports from then on; an attacker cannot bring
//! that about.

use std::{net::IpAddr, time::Duration};

use datasets::{
    benign::{BenignClient, Kind},
    request::GeneratedRequest,
};
use serde_json::Value;
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    origin::Origin,
    teacher::{self, Teacher},
};

use crate::wire::INJECTION;

/// What a client does before anything is odd about it; a dozen requests make its history tell something.
fn ordinary(number: u32, client: IpAddr) -> Vec<GeneratedRequest> {
    let requests = BenignClient::new(5, 3_000 + number, Kind::Browser).take(12);
    requests.map(|request| GeneratedRequest { client, ..request }).collect()
}

/// What a new version of the site might send: harmless, but nothing like what was learned.
fn odd(number: u32, client: IpAddr) -> GeneratedRequest {
    let mut request = ordinary(number, client).remove(0);
    request.method = "GET";
    request.body.clear();
    request.uri =
        "/api/products/1?palette=teal_ochre_umber_sienna&palette=mauve&layout=grid9x9&layout=wide".to_owned();
    request
}

async fn send_all(http: &Client, requests: &[GeneratedRequest]) -> u16 {
    let mut last = 0;
    for request in requests {
        last = http.send(request).await.unwrap().status.as_u16();
    }
    last
}

async fn status(gateway: &Gateway) -> Value {
    let (code, text) = gateway.command(&["status", "-o", "json"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_flags_many_harmless_clients_only_reports() {
    let directory = tempfile::tempdir().unwrap();
    let teacher = Teacher::new(51).unwrap();
    let state = directory.path().join("state");
    teacher.install_keys(&state).unwrap();
    let model = teacher.model(1).unwrap();
    teacher::publish(&state, 1, &teacher.artifact(&model).unwrap()).unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut gateway = Gateway::start(directory.path(), &Settings::new(origin.url())).await.unwrap();
    gateway.wait_model(1, Duration::from_secs(10)).await.unwrap();
    let http = gateway.client();

    // One network full of well-behaved clients that turn odd, and attackers from everywhere: the model keeps acting.
    for number in 0..12 {
        let client = IpAddr::from([203, 0, 113, number as u8 + 1]);
        send_all(&http, &ordinary(number, client)).await;
        assert_eq!(http.send(&odd(number, client)).await.unwrap().status, 403, "client {number}");
    }
    for number in 0..40 {
        let client = IpAddr::from([198, 18, number as u8, 7]);
        let mut attack = odd(number, client);
        attack.uri = INJECTION.to_owned();
        assert_eq!(http.send(&attack).await.unwrap().status, 403);
        assert_eq!(http.send(&odd(number, client)).await.unwrap().status, 403);
    }
    let route = status(&gateway).await["routes"][0].clone();
    assert_eq!((&route["model"], route["realised"].get("breaker")), (&Value::from("block"), None), "{route}");
    let realised = &route["realised"];
    assert_eq!(realised["disputed"], 2, "two of a network count: {realised}");
    assert!(realised["hour"]["flagged"].as_u64() >= Some(52), "{realised}");
    // What was refused by rules is not traffic that a model is measured by.
    assert_eq!(gateway.metric("portcullis_model_drift_psi").await.unwrap(), 0.0, "too few requests to tell");
    assert!(realised["hour"]["inspected"].as_u64() >= Some(150), "{realised}");

    // Well-behaved clients of many networks that turn odd: that is a new version of the site, not an attack.
    let mut refused = 0;
    for number in 0..12 {
        let client = IpAddr::from([198, 51, number as u8, 9]);
        send_all(&http, &ordinary(20 + number, client)).await;
        refused += u32::from(http.send(&odd(number, client)).await.unwrap().status == 403);
    }
    assert!((5..12).contains(&refused), "{refused} of 12 were refused before the breaker opened");
    let route = status(&gateway).await["routes"][0].clone();
    assert_eq!(
        (&route["rules"], &route["model"]),
        (&Value::from("block"), &Value::from("detect")),
        "{route}"
    );
    assert_eq!(gateway.metric("portcullis_model_breaker_open").await.unwrap(), 1.0);
    assert!(gateway.process().log().contains("breaker open"));
    let (_, shown) = gateway.command(&["status"]).await.unwrap();
    assert!(
        shown.contains("breaker open on shop") && shown.contains("nothing else speaks against"),
        "{shown}"
    );
    // Rules act as before.
    let mut attack = odd(0, IpAddr::from([192, 0, 2, 1]));
    attack.uri = INJECTION.to_owned();
    assert_eq!(http.send(&attack).await.unwrap().status, 403);

    // One command lets the model act again.
    let (code, shown) = gateway.command(&["breaker", "reset", "shop"]).await.unwrap();
    assert_eq!((code, shown.trim()), (0, "breaker of shop closed"));
    assert_eq!(http.send(&odd(0, IpAddr::from([192, 0, 2, 9]))).await.unwrap().status, 403);
    assert_eq!(gateway.metric("portcullis_model_breaker_open").await.unwrap(), 0.0);

    // With enough requests seen, it can be told how far they are from what the model learned.
    for number in 0..25 {
        send_all(&http, &ordinary(100 + number, IpAddr::from([198, 19, number as u8, 3]))).await;
    }
    assert!(gateway.metric("portcullis_model_drift_psi").await.unwrap() > 0.0);
    let drift = status(&gateway).await["model"]["drift"].clone();
    assert!(
        drift["requests"].as_u64() >= Some(500) && drift["most"].as_array().unwrap().len() == 5,
        "{drift}"
    );
    let (code, shown) = gateway.command(&["breaker", "reset", "nowhere"]).await.unwrap();
    assert!(code == 1 && shown.contains("there are: shop"), "{shown}");
}
