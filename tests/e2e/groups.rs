//! Groups: a route with a promise of its own is judged, measured and explained by it, the others by theirs.

use std::time::Duration;

use datasets::benign::{BenignClient, Kind};
use serde_json::Value;
use tests::{
    gateway::Gateway,
    origin::Origin,
    teacher::{self, Teacher},
};
use tokio::time::Instant;
use waf_model::model::{Model, RawModel, calibration::Certificate, groups::RawGroups};

const LONGEST: Duration = Duration::from_secs(10);

/// What `gateway status` says of the route `strict`, once a request was counted there, and of the other.
async fn routes(gateway: &Gateway) -> [Value; 2] {
    let started = Instant::now();
    loop {
        let (code, text) = gateway.command(&["status", "-o", "json"]).await.unwrap();
        assert_eq!(code, 0, "{text}");
        let status: Value = serde_json::from_str(&text).unwrap();
        let route = |at: usize| status["routes"][at].clone();
        if route(0)["realised"]["hour"]["inspected"].as_u64() > Some(0)
            && route(1)["realised"]["hour"]["inspected"].as_u64() > Some(0)
        {
            return [route(0), route(1)];
        }
        assert!(started.elapsed() < LONGEST, "{text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_judged_by_the_promise_of_its_own_group() {
    let directory = tempfile::tempdir().unwrap();
    let teacher = Teacher::new(54).unwrap();
    let state = directory.path().join("state");
    teacher.install_keys(&state).unwrap();
    let mut raw = RawModel::from(&teacher.model(1).unwrap());
    // Nothing is usual enough for this one, and half of it may be wrong.
    let strict = Certificate { budget: 0.5, threshold: f32::MIN_POSITIVE, ..raw.request_certificate };
    raw.request_groups = RawGroups { routes: vec![("strict".to_owned(), strict)], others: None };
    let artifact = teacher.artifact(&Model::try_from(raw).unwrap()).unwrap();
    teacher::publish(&state, 1, &artifact).unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let yaml = format!(
        "upstreams: {{shop: {{origins: [{{url: \"{}\"}}]}}}}\nroutes:\n\
         - {{name: strict, match: {{paths: [/api]}}, upstream: shop, waf: {{mode: block}}}}\n\
         - {{name: rest, upstream: shop, waf: {{mode: block}}}}\n",
        origin.url()
    );
    let gateway = Gateway::start_with(directory.path(), &yaml).await.unwrap();
    gateway.wait_model(1, LONGEST).await.unwrap();

    let http = gateway.client();
    let mut usual = BenignClient::new(5, 3_000, Kind::Browser).next().unwrap();
    (usual.method, usual.uri) = ("GET", "/".to_owned());
    assert_ne!(http.send(&usual).await.unwrap().status, 403);
    usual.uri = "/api/products/1".to_owned();
    let refused = http.send(&usual).await.unwrap();
    assert_eq!(refused.status, 403);

    let [own, rest] = routes(&gateway).await;
    for (route, budget, whose) in
        [(&own, 0.5, "route strict: certified"), (&rest, 0.01, "the other routes: certified")]
    {
        assert!(route["promise"].as_str().unwrap().starts_with(whose), "{route}");
        let hour = &route["realised"]["hour"];
        let (inspected, allowed) = (hour["inspected"].as_f64().unwrap(), hour["allowed"].as_f64().unwrap());
        assert!((allowed - budget * inspected).abs() < 1e-9, "{hour}");
    }
    let (code, shown) = gateway.command(&["explain", refused.request_id().unwrap()]).await.unwrap();
    assert!(code == 0 && shown.contains("of route strict: certified: at most 5.00e-1"), "{shown}");
    let models = gateway.list(&["models", "list"]).await.unwrap();
    let certificates = models[0]["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 3, "one of a route, the others', that of clients: {certificates:?}");
}
