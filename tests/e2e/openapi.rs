//! Requests against the OpenAPI document of their route: refused in `block`, told in `detect`, and read again with the
//! configuration.

use std::{fs, io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use http::{Request, Response};
use http_body_util::Full;
use serde_json::Value;
use tests::{client::Answer, gateway::Gateway, responder::Responder};

const DOCUMENT: &str = r#"
openapi: 3.1.0
info: {title: shop, version: "1"}
servers: [{url: https://shop.example/v1}]
paths:
  /orders:
    get:
      parameters: [{name: limit, in: query, schema: {type: integer, maximum: 100}}]
    post:
      requestBody:
        required: true
        content:
          application/json:
            schema: {type: object, required: [sku], additionalProperties: false, properties: {sku: {type: string, maxLength: 20}, note: {type: string}}}
  /orders/{id}:
    get:
      parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
"#;

/// What neither an answer nor a log may repeat.
const VALUE: &str = "zq7x9k3planted";

struct Case {
    method: &'static str,
    target: String,
    body: String,
    gzip: bool,
    status: u16,
    detail: &'static str,
}

fn case(method: &'static str, target: &str, body: &str, status: u16, detail: &'static str) -> Case {
    Case { method, target: target.to_owned(), body: body.to_owned(), gzip: false, status, detail }
}

fn cases() -> Vec<Case> {
    vec![
        case("GET", "/v1/orders?limit=10", "", 200, ""),
        case("GET", "/v1/orders/7", "", 200, ""),
        case("POST", "/v1/orders", r#"{"sku": "a-1"}"#, 200, ""),
        Case { gzip: true, ..case("POST", "/v1/orders", r#"{"sku": "a-1"}"#, 200, "") },
        case("GET", &format!("/v1/orders?limit={VALUE}"), "", 400, "query limit: type"),
        case("GET", "/v1/orders?limit=101", "", 400, "query limit: maximum"),
        case("GET", &format!("/v1/orders/{VALUE}"), "", 400, "path id: type"),
        case("GET", "/v1/users", "", 404, "path: unknown"),
        case("PUT", "/v1/orders", "", 405, "method: unknown"),
        case("POST", "/v1/orders", "", 400, "body: missing"),
        case("POST", "/v1/orders", r#"{"sku": "a", "sku": "b"}"#, 400, "body: duplicate_key"),
        case("POST", "/v1/orders", &format!("{{\"sku\": [\"{VALUE}\"]}}"), 400, "body /sku: type"),
        Case { gzip: true, ..case("POST", "/v1/orders", r#"{"note": "x"}"#, 400, "body /sku: required") },
    ]
}

async fn ask(gateway: &Gateway, case: &Case) -> Answer {
    let mut request = Request::builder()
        .method(case.method)
        .uri(format!("http://{}{}", gateway.address(), case.target))
        .header("x-forwarded-for", "203.0.113.7");
    let mut body = case.body.clone().into_bytes();
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    if case.gzip {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).unwrap();
        body = encoder.finish().unwrap();
        request = request.header("content-encoding", "gzip");
    }
    gateway.client().exchange(request.body(Full::from(body)).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_keep_to_the_document_of_their_route() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(|_| Response::new(Full::default()))).await.unwrap();
    let file = directory.path().join("api.yaml");
    fs::write(&file, DOCUMENT).unwrap();
    let yaml = format!(
        "routes:\n  - name: shop\n    upstreams: [{{url: \"{}\"}}]\n    waf: {{mode: block}}\n    \
         openapi: {{file: \"{}\", mode: block}}\n",
        origin.url(),
        file.display()
    );
    let gateway = Gateway::start_with(directory.path(), &yaml).await.unwrap();
    let reload = async |from: &str, to: &str| {
        let config = directory.path().join("portcullis.yaml");
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains(from));
        fs::write(&config, text.replace(from, to)).unwrap();
        gateway.command(&["reload"]).await.unwrap()
    };

    let cases = cases();
    let good = cases.iter().filter(|case| case.status == 200).count();
    for case in &cases {
        let answer = ask(&gateway, case).await;
        assert_eq!(answer.status.as_u16(), case.status, "{} {} {}", case.method, case.target, case.body);
        if case.status != 200 {
            assert_eq!(answer.headers["content-type"], "application/problem+json");
            let problem: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(problem["detail"], case.detail);
            assert!(!problem.to_string().contains(VALUE), "{problem}");
        }
        if case.status == 405 {
            assert_eq!(answer.headers["allow"], "GET, POST");
        }
    }
    assert_eq!(origin.seen().len(), good, "nothing else reaches the origin");
    // What rules find is answered as what it is, and counts against the client.
    let attack = case("GET", "/v1/orders?limit=1%27%20or%201=1--%20-", "", 403, "");
    assert_eq!(ask(&gateway, &attack).await.status, 403);

    // Without inspection the document holds all the same.
    let (code, said) = reload("waf: {mode: block}", "waf: {mode: off}").await;
    assert_eq!(code, 0, "{said}");
    for case in &cases {
        assert_eq!(ask(&gateway, case).await.status.as_u16(), case.status, "{} {}", case.method, case.target);
    }

    let counted = gateway.metric("portcullis_openapi_violations_total").await.unwrap();
    assert!(counted >= (2 * (cases.len() - good)) as f64, "{counted}");
    let (code, said) = reload("mode: block}", "mode: detect}").await;
    assert_eq!(code, 0, "{said}");
    for case in &cases {
        assert_eq!(ask(&gateway, case).await.status, 200, "{} {}", case.method, case.target);
    }
    let told = counted + (cases.len() - good) as f64;
    gateway.wait_metric("portcullis_openapi_violations_total", told, Duration::from_secs(10)).await.unwrap();
    // Three rounds: each breaks it once.
    let line = "\"portcullis.openapi.violation\":\"body /sku: type\"";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while gateway.watch().log().matches(line).count() < 3 {
        assert!(tokio::time::Instant::now() < deadline, "{}", gateway.watch().log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!gateway.watch().log().contains(VALUE));

    // A document that cannot be used changes nothing, and says where it is wrong.
    fs::write(&file, DOCUMENT.replace("type: integer, maximum", "type: integr, maximum")).unwrap();
    let (_, said) = gateway.command(&["reload"]).await.unwrap();
    assert!(
        said.contains("refused") && said.contains("api.yaml:8: #/paths/~1orders/get/parameters/0"),
        "{said}"
    );
    assert_eq!(ask(&gateway, &cases[0]).await.status, 200);
}
