//! The inventory: endpoints as they are seen, compared with a document, kept over restarts, added up over gateways.

use std::{fs, time::Duration};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tests::{gateway::Gateway, redis_server::RedisServer, responder::Responder};

/// What no list may hold.
const VALUE: &str = "zq7x9k3planted";

/// Answers for two endpoints and for nothing else.
async fn origin() -> Responder {
    Responder::start(Box::new(|request| {
        let path = request.uri().path();
        let status = match (request.method().as_str(), path) {
            ("GET", "/orders/500") => 500,
            ("GET", path) if path.starts_with("/orders/") => 200,
            ("POST", "/orders") => 201,
            (_, path) if path.starts_with("/orders") => 405,
            _ => 404,
        };
        let body = Full::from("{}");
        Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
    }))
    .await
    .unwrap()
}

fn yaml(origin: &Responder, more: &str) -> String {
    format!(
        "consumers: [{{name: acme, api_keys: [\"${{ACME_HASH}}\"]}}]\n\
         auth: {{methods: {{keys: {{api_key: {{header: X-Api-Key}}}}}}}}\n\
         routes:\n  - name: shop\n    upstreams: [{{url: \"{}\"}}]\n    \
         auth: {{any_of: [keys], anonymous: on}}\n{more}",
        origin.url()
    )
}

async fn ask(gateway: &Gateway, method: &str, target: &str, client: u8, body: &str) -> StatusCode {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{}{target}", gateway.address()))
        .header("x-forwarded-for", format!("203.0.113.{client}"));
    if client == 1 {
        request = request.header("x-api-key", "key-of-acme-0123456789");
    }
    if !body.is_empty() {
        request = request.header("content-type", "application/json; charset=utf-8");
    }
    gateway.client().exchange(request.body(Full::from(body.to_owned())).unwrap()).await.unwrap().status
}

/// The endpoints once they count `requests` together.
async fn listed(gateway: &Gateway, requests: u64) -> Vec<Value> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let listed = gateway.list(&["inventory"]).await.unwrap();
        let sum: u64 = listed.iter().map(|one| one["requests"].as_u64().unwrap()).sum();
        if sum >= requests {
            assert_eq!(sum, requests, "{listed:#?}");
            return listed;
        }
        assert!(tokio::time::Instant::now() < deadline, "{sum} of {requests}: {listed:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn find<'a>(listed: &'a [Value], method: &str, path: &str) -> &'a Value {
    let found = listed.iter().find(|one| one["method"] == method && one["path"] == path);
    found.unwrap_or_else(|| panic!("no {method} {path} in {listed:#?}"))
}

async fn stop(mut gateway: Gateway) {
    gateway.process().signal("TERM").unwrap();
    gateway.process().wait_exit(Duration::from_secs(20)).await.unwrap();
}

/// Starts a gateway; the hash of its consumer's key is written into its configuration. Different clients are counted by
/// keyed hashes, of which some fall together: the key is one by which none of the test's clients do.
async fn start(directory: &std::path::Path, yaml: &str) -> Gateway {
    let keys = directory.join("state/keys");
    fs::create_dir_all(&keys).unwrap();
    fs::write(keys.join("site.key"), "5a".repeat(16)).unwrap();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"key-of-acme-0123456789");
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Gateway::start_with(directory, &yaml.replace("${ACME_HASH}", &format!("sha256:{hash}"))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_found_compared_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let yaml = yaml(&origin, "");
    let gateway = start(directory.path(), &yaml).await;

    for client in 1..=5 {
        assert_eq!(ask(&gateway, "GET", &format!("/orders/{client}?page={VALUE}"), client, "").await, 200);
    }
    assert_eq!(ask(&gateway, "GET", "/orders/500", 2, "").await, 500);
    let order = format!("{{\"items\": [{{\"sku\": \"{VALUE}\"}}]}}");
    assert_eq!(ask(&gateway, "POST", "/orders", 1, &order).await, 201);
    // None of these shows that there is an endpoint.
    for (method, target, status) in [
        ("DELETE", "/orders", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/orders/1?id=1%27%20or%201=1--%20-", 403),
    ] {
        assert_eq!(ask(&gateway, method, target, 9, "").await, status, "{method} {target}");
    }

    // The refused one counts for an endpoint that is known.
    let found = listed(&gateway, 8).await;
    assert_eq!(found.len(), 2, "{found:#?}");
    let orders = find(&found, "GET", "/orders/{int}");
    for (name, expected) in [("requests", 7), ("server_errors", 1), ("client_errors", 1), ("refused", 1)] {
        assert_eq!(orders[name], expected, "{name} of {orders:#}");
    }
    assert_eq!(orders["route"], "shop");
    assert_eq!(orders["clients"], 6);
    assert_eq!(
        (&orders["consumers"]["acme"], &orders["auth"]["keys"], &orders["auth"]["none"]),
        (&1.into(), &1.into(), &5.into())
    );
    assert_eq!(orders["parameters"]["query"]["page"], 5);
    let made = find(&found, "POST", "/orders");
    assert_eq!(made["request_types"]["application/json"], 1);
    assert_eq!(made["parameters"]["json"]["items[].sku"], 1);

    let (code, table) = gateway.command(&["inventory"]).await.unwrap();
    assert!(code == 0 && table.contains("/orders/{int}") && table.contains("acme"), "{table}");
    let (code, export) = gateway.command(&["inventory", "--openapi"]).await.unwrap();
    let export: Value = serde_json::from_str(&export).unwrap();
    assert_eq!(code, 0);
    assert_eq!(export["paths"]["/orders/{int}"]["get"]["parameters"][1]["name"], "page");

    // Against its own export nothing differs; against another document everything does.
    let file = directory.path().join("api.json");
    fs::write(&file, export.to_string()).unwrap();
    let compare = ["inventory", "--compare", file.to_str().unwrap()];
    let (code, said) = gateway.command(&compare).await.unwrap();
    assert!(code == 0 && said.contains("nothing differs"), "{said}");
    fs::write(&file, "openapi: 3.1.0\npaths:\n  /orders: {post: {deprecated: true}}\n  /users: {get: {}}\n")
        .unwrap();
    let (code, said) = gateway.command(&[&compare[..], &["--json"]].concat()).await.unwrap();
    let told: Vec<Value> = serde_json::from_str(&said).unwrap();
    let told: Vec<_> =
        told.iter().map(|one| (one["difference"].as_str().unwrap(), one["path"].as_str().unwrap())).collect();
    assert_eq!(code, 2);
    assert_eq!(told, [("undocumented", "/orders/{int}"), ("deprecated", "/orders"), ("unused", "/users")]);

    stop(gateway).await;
    let kept = fs::read_to_string(directory.path().join("state/inventory.json")).unwrap();
    assert!(kept.contains("/orders/{int}") && !kept.contains(VALUE));
    let again = start(directory.path(), &yaml).await;
    assert_eq!(listed(&again, 8).await, found);
    assert_eq!(ask(&again, "GET", "/orders/6", 6, "").await, 200);
    let found = listed(&again, 9).await;
    assert_eq!(find(&found, "GET", "/orders/{int}")["clients"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_with_one_redis_add_up() {
    let directory = tempfile::tempdir().unwrap();
    let server = RedisServer::start(directory.path().join("redis")).await.unwrap();
    let origin = origin().await;
    let yaml = yaml(&origin, &format!("store: {{redis: \"{}\"}}\n", server.url()));
    let first = start(&directory.path().join("first"), &yaml).await;
    for client in 1..=3 {
        ask(&first, "GET", &format!("/orders/{client}"), client, "").await;
    }
    // What it saw is published at the latest when it stops.
    stop(first).await;
    let second = start(&directory.path().join("second"), &yaml).await;
    for client in 3..=6 {
        ask(&second, "GET", &format!("/orders/{client}"), client, "").await;
    }
    let found = listed(&second, 7).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    // One client of the first came to the second, too.
    assert_eq!(found[0]["clients"], 6);
}
