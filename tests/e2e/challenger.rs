//! Champion and challenger: a new model is tried on live traffic before it may act; and one command goes back.

use std::{net::IpAddr, path::Path, time::Duration};

use datasets::benign::{BenignClient, Kind};
use redis::AsyncCommands as _;
use serde_json::Value;
use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
    redis_server::RedisServer,
    teacher::{self, Teacher},
};
use tokio::time::Instant;
use waf_model::{
    keys,
    model::{Model, RawModel},
};

const LONGEST: Duration = Duration::from_secs(10);

/// Ordinary requests of a dozen clients of as many networks; none of them may be refused.
async fn ordinary_traffic(gateway: &Gateway, round: u32) {
    let http = gateway.client();
    for number in 0..12 {
        let client = IpAddr::from([198, 51, number as u8, round as u8]);
        for mut request in BenignClient::new(5, 3_000 + 20 * round + number, Kind::Browser).take(12) {
            request.client = client;
            let answer = http.send(&request).await.unwrap();
            assert_ne!(answer.status, 403, "{} {}", request.method, request.uri);
        }
    }
}

/// What `gateway models list` says of one model.
async fn listed(gateway: &Gateway, seq: u64) -> Value {
    let models = gateway.list(&["models", "list"]).await.unwrap();
    models.into_iter().find(|model| model["seq"] == seq).expect("in the list")
}

/// Waits until the state of a model in the list has this word.
async fn wait_state(gateway: &Gateway, seq: u64, word: &str) -> Value {
    let started = Instant::now();
    loop {
        let model = listed(gateway, seq).await;
        if model["state"].as_str().unwrap().contains(word) {
            return model;
        }
        assert!(started.elapsed() < LONGEST, "model {seq} is not {word}: {model}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn publish(teacher: &Teacher, state: &Path, model: &Model) {
    teacher::publish(state, model.seq(), &teacher.artifact(model).unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_model_is_tried_before_it_acts_and_one_command_goes_back() {
    let directory = tempfile::tempdir().unwrap();
    let teacher = Teacher::new(52).unwrap();
    let state = directory.path().join("state");
    teacher.install_keys(&state).unwrap();
    let model = teacher.model(1).unwrap();
    let numbered = |seq| teacher.renumbered(&model, seq).unwrap();
    publish(&teacher, &state, &model);
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.waf.push("challenger: {requests: 140}".to_owned());
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    gateway.wait_model(1, LONGEST).await.unwrap();

    // As good as the champion: it waits for its trial, and takes over after it.
    publish(&teacher, &state, &numbered(2));
    let trial = wait_state(&gateway, 2, "on trial").await["trial"].clone();
    assert_eq!((&trial["seen"], &trial["of"]), (&Value::from(0), &Value::from(140)));
    assert_eq!(gateway.model().await.unwrap(), Some(1));
    ordinary_traffic(&gateway, 1).await;
    gateway.wait_model(2, LONGEST).await.unwrap();
    assert!(listed(&gateway, 2).await["state"].as_str().unwrap().contains("in force"));

    // One that flags everybody: nobody is refused because of it, and it never takes over.
    let mut hasty = RawModel::from(&numbered(3));
    hasty.request_certificate.threshold = 0.01;
    publish(&teacher, &state, &Model::try_from(hasty).unwrap());
    wait_state(&gateway, 3, "on trial").await;
    ordinary_traffic(&gateway, 2).await;
    let refused = wait_state(&gateway, 3, "refused").await;
    let reason = refused["refused"].as_str().unwrap();
    assert!(reason.contains("clients that nothing else speaks against"), "{reason}");
    assert_eq!(gateway.model().await.unwrap(), Some(2));
    let (_, shown) = gateway.command(&["models", "list"]).await.unwrap();
    assert!(shown.contains("model 3 was refused"), "{shown}");
    assert_eq!(gateway.metric("portcullis_model_refused_total").await.unwrap(), 1.0);

    // A restart does not smuggle it in: the champion is remembered, and the trial begins anew.
    drop(gateway);
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    wait_state(&gateway, 3, "on trial").await;
    assert_eq!(gateway.model().await.unwrap(), Some(2));

    // A person may put it in force all the same, and go back with one command: 3, then 2, then 1.
    let (code, shown) = gateway.command(&["models", "promote", "3"]).await.unwrap();
    assert_eq!(code, 0, "{shown}");
    wait_state(&gateway, 3, "in force").await;
    for seq in [2, 1] {
        let (code, shown) = gateway.command(&["models", "rollback"]).await.unwrap();
        assert_eq!(code, 0, "{shown}");
        wait_state(&gateway, seq, "in force").await;
    }
    let (code, shown) = gateway.command(&["models", "rollback"]).await.unwrap();
    assert!(code == 1 && shown.contains("no model from before model 1"), "{shown}");
    ordinary_traffic(&gateway, 3).await;

    // Who keeps the champion on purpose ends the trial of the next one.
    publish(&teacher, &state, &numbered(4));
    wait_state(&gateway, 4, "on trial").await;
    assert_eq!(gateway.command(&["models", "promote", "1"]).await.unwrap().0, 0);
    let started = Instant::now();
    while listed(&gateway, 4).await["state"] != "" {
        assert!(started.elapsed() < LONGEST, "the trial goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(gateway.model().await.unwrap(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_choice_holds_on_every_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let teacher = Teacher::new(53).unwrap();
    let server = RedisServer::start(directory.path().join("redis")).await.unwrap();
    let mut redis = server.connection().await.unwrap();
    let model = teacher.model(1).unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.redis = Some(server.url());
    let mut gateways = Vec::new();
    for name in ["first", "second"] {
        let home = directory.path().join(name);
        teacher.install_keys(&home.join("state")).unwrap();
        gateways.push(Gateway::start(&home, &settings).await.unwrap());
    }
    for seq in [1, 2] {
        let artifact = teacher.artifact(&teacher.renumbered(&model, seq).unwrap()).unwrap();
        let _: () = redis.set(keys::model(seq), artifact).await.unwrap();
        let _: () = redis.set(keys::MODEL_CURRENT, seq).await.unwrap();
        for gateway in &gateways {
            wait_state(gateway, seq, if seq == 1 { "in force" } else { "on trial" }).await;
        }
    }
    // One that joins takes the champion of the others, not what is on trial.
    let home = directory.path().join("third");
    teacher.install_keys(&home.join("state")).unwrap();
    gateways.push(Gateway::start(&home, &settings).await.unwrap());
    wait_state(&gateways[2], 2, "on trial").await;
    assert_eq!(gateways[2].model().await.unwrap(), Some(1));
    for (gateway, order, seq) in
        [(0, ["models", "promote", "2"].as_slice(), 2), (1, &["models", "rollback"], 1)]
    {
        let (code, shown) = gateways[gateway].command(order).await.unwrap();
        assert_eq!(code, 0, "{shown}");
        for gateway in &gateways {
            wait_state(gateway, seq, "in force").await;
        }
    }
}
