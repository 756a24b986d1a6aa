//! A policy of a route: who may do what, by an expression; what it cannot tell it refuses.

use std::fs;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tests::{
    gateway::{Gateway, Settings},
    responder::Responder,
};

fn hash(key: &str) -> String {
    let digest = digest(&SHA256, key.as_bytes());
    let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

async fn status(gateway: &Gateway, method: Method, key: &str, tenant: &str) -> u16 {
    let uri = format!("http://{}/orders?key-of=none", gateway.address());
    let mut request = Request::builder().method(method).uri(uri).header("x-tenant", tenant);
    if !key.is_empty() {
        request = request.header("x-api-key", key);
    }
    gateway.client().exchange(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap().status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_decides_and_what_it_cannot_tell_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(|_| Response::new(Full::from("fine")))).await.unwrap();
    let (ada, bob) = ("key-of-ada-5c1e9d7b", "key-of-bob-7a2f4e6c");
    let mut settings = Settings::new(origin.url());
    settings.more = vec![
        "auth: {methods: {keys: {api_key: {header: X-Api-Key}}}}".to_owned(),
        format!(
            "consumers: [{{name: ada, groups: [staff], api_keys: [\"{}\"]}}, {{name: bob, groups: [guests], api_keys: [\"{}\"]}}]",
            hash(ada),
            hash(bob)
        ),
    ];
    settings.route = vec![
        "auth:".to_owned(),
        "  anonymous: on".to_owned(),
        "  policy: >-".to_owned(),
        "    !has(request.headers[\"x-api-key\"]) && !(\"x-api-key\" in request.headers) &&".to_owned(),
        "    (groups.exists(g, g == \"staff\") || (request.method == \"GET\" && request.headers[\"x-tenant\"] == consumer)".to_owned(),
        "    || (request.method == \"PUT\" && claims.tier == \"gold\"))".to_owned(),
    ];
    // `has` asks for a field by its name, not by an index: refused when the configuration is read.
    let refused = Gateway::start(directory.path(), &settings).await.err().map(|error| format!("{error:#}"));
    assert!(refused.is_some_and(|said| said.contains("routes[0].auth.policy")), "a wrong expression is told");
    settings.route[3] = "    !(\"x-api-key\" in request.headers) &&".to_owned();
    let directory = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();

    for (method, key, tenant, expected) in [
        (Method::POST, ada, "any", 200),
        (Method::GET, bob, "bob", 200),
        (Method::GET, bob, "ada", 403),
        (Method::POST, bob, "bob", 403),
        (Method::PUT, bob, "bob", 403),
        (Method::GET, "", "", 200),
        (Method::GET, "", "bob", 403),
        (Method::POST, "made-up", "bob", 401),
    ] {
        assert_eq!(status(&gateway, method.clone(), key, tenant).await, expected, "{method} {key} {tenant}");
    }
    assert_eq!(origin.seen().len(), 3);
    let metrics = gateway.metrics().await.unwrap();
    for refused in ["reason=\"policy_denied\"} 3", "reason=\"policy_failed\"} 1"] {
        let line = format!("portcullis_policy_refused_total{{route=\"shop\",{refused}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }

    // A reload with a mistake changes nothing and says where it is.
    let file = directory.path().join("portcullis.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("groups.exists", "group.exists")).unwrap();
    let (code, said) = gateway.command(&["reload"]).await.unwrap();
    assert!(
        code != 0 && said.contains("routes[0].auth.policy") && said.contains("there is no \"group\""),
        "{said}"
    );
    assert_eq!(status(&gateway, Method::POST, ada, "any").await, 200);
}
