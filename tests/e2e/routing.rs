//! Where requests go: by path, template and header, rewritten, redirected, split, and copied.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tests::{client::Answer, echo::Echo, gateway::Gateway, ports};

async fn ask(
    gateway: &Gateway,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{}{path}", gateway.address()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway
        .client()
        .exchange(request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap())
        .await
        .unwrap()
}

fn location(answer: &Answer) -> String {
    answer.headers["location"].to_str().unwrap().to_owned()
}

async fn text(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> String {
    String::from_utf8_lossy(&ask(gateway, "GET", path, headers, "").await.body).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_matched_rewritten_and_redirected() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Echo::start("a").await.unwrap(), Echo::start("b").await.unwrap());
    let yaml = format!(
        "upstreams:\n  a: {{origins: [{{url: \"{}\"}}]}}\n  b: {{origins: [{{url: \"{}\"}}]}}\nroutes:\n\
         - {{name: moved, match: {{exact: [/old]}}, redirect: {{path: /new, status: 301}}}}\n\
         - {{name: secure, match: {{hosts: [plain.example]}}, redirect: {{scheme: https, status: 308}}}}\n\
         - {{name: user, match: {{templates: ['/users/{{id}}/orders/{{order}}']}}, rewrite: '/o/{{order}}/of/{{id}}', upstream: b}}\n\
         - {{name: beta, match: {{paths: [/app], headers: {{X-Beta: 'yes'}}}}, rewrite: /next, upstream: b}}\n\
         - {{name: rest, upstream: a}}\n",
        a.url(),
        b.url()
    );
    let gateway = Gateway::start_with(directory.path(), &yaml).await.unwrap();
    assert_eq!(text(&gateway, "/users/7/orders/a%20b?x=1", &[]).await, "b GET /o/a%20b/of/7?x=1 0");
    assert_eq!(text(&gateway, "/users/7/orders/8/", &[]).await, "a GET /users/7/orders/8/ 0");
    assert_eq!(text(&gateway, "/app/x?y", &[("x-beta", "yes")]).await, "b GET /next/x?y 0");
    assert_eq!(text(&gateway, "/app", &[("x-beta", "yes")]).await, "b GET /next 0");
    assert_eq!(text(&gateway, "/app/x", &[("x-beta", "no")]).await, "a GET /app/x 0");
    // What could be read as another route's path is refused, rewritten or not.
    for path in ["/users/7/orders/..%2f..%2f9", "/x/..%2fapp", "/%6fld"] {
        assert_eq!(ask(&gateway, "GET", path, &[("x-beta", "yes")], "").await.status, 400, "{path}");
    }
    let address = gateway.address();
    let moved = ask(&gateway, "GET", "/old?a=b", &[], "").await;
    assert_eq!((moved.status.as_u16(), location(&moved)), (301, format!("http://{address}/new?a=b")));
    let secure = ask(&gateway, "GET", "/p?q", &[("host", "plain.example:8080")], "").await;
    assert_eq!((secure.status.as_u16(), location(&secure)), (308, "https://plain.example/p?q".to_owned()));
    assert!(secure.request_id().is_some());
    // An attack is rejected, not sent elsewhere.
    let attack = ask(&gateway, "GET", "/old?id=1%27%20or%201=1--%20-", &[], "").await;
    assert_eq!(attack.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_split_and_requests_copied() {
    let directory = tempfile::tempdir().unwrap();
    let (stable, canary) = (Echo::start("stable").await.unwrap(), Echo::start("canary").await.unwrap());
    let shadow = Echo::start("shadow").await.unwrap();
    let yaml = format!(
        "upstreams:\n  stable: {{origins: [{{url: \"{}\"}}]}}\n  canary: {{origins: [{{url: \"{}\"}}]}}\n  \
         shadow: {{origins: [{{url: \"{}\"}}]}}\n  gone: {{origins: [{{url: \"http://127.0.0.1:{}\"}}]}}\nroutes:\n\
         - name: lost\n  match: {{paths: [/lost]}}\n  upstream: stable\n  mirror: {{upstream: gone}}\n\
         - name: copied\n  match: {{paths: [/copied]}}\n  upstream: stable\n  mirror: {{upstream: shadow}}\n\
         - name: every\n  split:\n  - {{upstream: stable, weight: 3}}\n  - {{upstream: canary, weight: 1, headers: {{X-Canary: '*'}}}}\n\
         limits: {{inspect: 1KiB}}\n",
        stable.url(),
        canary.url(),
        shadow.url(),
        ports::free().unwrap()
    );
    let gateway = Gateway::start_with(directory.path(), &yaml).await.unwrap();
    let mut counts = BTreeMap::new();
    for client in 0..200 {
        let address = format!("198.51.{}.{}", client / 100, client % 100);
        let first = text(&gateway, "/", &[("x-forwarded-for", &address)]).await;
        assert_eq!(text(&gateway, "/", &[("x-forwarded-for", &address)]).await, first, "a client stays");
        *counts.entry(first).or_insert(0) += 1;
    }
    assert!((25..=75).contains(&counts["canary GET / 0"]), "{counts:?}");
    assert_eq!(text(&gateway, "/", &[("x-canary", "1")]).await, "canary GET / 0");

    let patience = Duration::from_secs(20);
    for _ in 0..5 {
        let copied = ask(&gateway, "POST", "/copied", &[], "hello").await;
        assert_eq!(copied.body, "stable POST /copied 5");
        assert_eq!(text(&gateway, "/lost", &[]).await, "stable GET /lost 0");
    }
    gateway.wait_metric("portcullis_mirrored_requests", 10.0, patience).await.unwrap();
    assert_eq!(shadow.requests(), 5);
    // What is not whole in memory is not copied.
    let long: &'static str = "x".repeat(100_000).leak();
    assert_eq!(
        ask(&gateway, "POST", "/copied", &[("content-type", "application/octet-stream")], long).await.status,
        200
    );
    gateway.wait_metric("portcullis_mirrored_requests", 11.0, patience).await.unwrap();
    assert_eq!(shadow.requests(), 5);
}
