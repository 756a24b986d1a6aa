//! What is changed on the way: inspection sees what was sent, the other side gets that with the stated changes; what is
//! masked in responses; and the bounds on the parts of a request.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use tests::{
    client::Answer,
    gateway::{Gateway, Settings},
    responder::Responder,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn send(gateway: &Gateway, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let body = body.into();
    let method = if body.is_empty() { Method::GET } else { Method::POST };
    let mut request = Request::builder().method(method).uri(format!("http://{}{target}", gateway.address()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.client().exchange(request.body(Full::new(body)).unwrap()).await.unwrap()
}

/// Answers `/cards` with a text, `/plain` with the same as another type, `/coded` with the same coded whatever was asked for, `/large` with more than is held.
fn shop(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let text = r#"{"card": "4111 1111 1111 1111", "number":4111111111111111,"customer":{"iban":"DE02120300000000202051","n":1.50},"key":"AKIAIOSFODNN7EXAMPLE"}"#;
    let kind = if request.uri().path() == "/plain" { "text/plain" } else { "application/json" };
    let response =
        Response::builder().header("content-type", kind).header("etag", "\"1\"").header("x-old", "1");
    let (response, body) = match request.uri().path() {
        "/coded" => (response.header("content-encoding", "gzip"), gzip(text.as_bytes())),
        "/large" => (response, format!("[{}1]", "1, ".repeat(3000)).into_bytes()),
        _ => (response, text.as_bytes().to_vec()),
    };
    response.body(Full::from(body)).unwrap()
}

fn seen(origin: &Responder) -> (String, HeaderMap, Bytes) {
    let seen = origin.seen();
    let last = seen.last().unwrap();
    (last.uri().to_string(), last.headers().clone(), last.body().clone())
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_gets_what_was_inspected_and_the_stated_changes() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(shop)).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.more = vec!["limits: {inspect: 8KiB}".to_owned()];
    settings.route = vec![
        "transform:".to_owned(),
        "  request:".to_owned(),
        "    headers: {remove: [X-Debug], rename: {X-Old: X-New}, set: {X-Trace: \"{request_id}\"}, add: {X-From: \"{client_address}\"}}".to_owned(),
        "    query: {remove: [debug], set: {tenant: \"t-{consumer}\"}}".to_owned(),
        "    json: {remove: [/role], rename: {/mail: email}, set: {/origin/verified: true}}".to_owned(),
        "  response: {headers: {rename: {X-Old: X-New}, set: {X-Served-For: \"{client_address}\"}}}".to_owned(),
    ];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();

    let headers = [JSON, ("x-debug", "1"), ("x-old", "a"), ("x-forwarded-for", "192.0.2.7")];
    let body = r#"{"role":"admin","mail":"a@b.example","price":1.10,"role":"root"}"#;
    let answer = send(&gateway, "/orders?debug=1&a=%41&tenant=other", &headers, body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        (&answer.headers["x-new"], &answer.headers["x-served-for"]),
        (&"1".parse().unwrap(), &"192.0.2.7".parse().unwrap())
    );
    assert!(!answer.headers.contains_key("x-old"));
    let (target, headers, body) = seen(&origin);
    assert_eq!(target, "/orders?a=%41&tenant=t-");
    assert_eq!(body, r#"{"email":"a@b.example","price":1.10,"origin":{"verified":true}}"#);
    assert_eq!(
        (&headers["x-new"], &headers["x-from"]),
        (&"a".parse().unwrap(), &"192.0.2.7".parse().unwrap())
    );
    assert_eq!(headers["x-trace"], answer.request_id().unwrap());
    assert!(!headers.contains_key("x-debug") && !headers.contains_key("x-old"));

    // A coded body is changed, too, and one that hides its type.
    let coded = gzip(br#"{"role":"admin","a":1}"#);
    assert_eq!(send(&gateway, "/", &[JSON, ("content-encoding", "gzip")], coded).await.status, 200);
    let (_, headers, body) = seen(&origin);
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({"a": 1, "origin": {"verified": true}})
    );
    assert!(!headers.contains_key("content-encoding"));
    assert_eq!(send(&gateway, "/", &[("content-type", "text/plain")], r#" {"role":1}"#).await.status, 200);
    assert_eq!(seen(&origin).2, r#"{"origin":{"verified":true}}"#);
    assert_eq!(send(&gateway, "/", &[("content-type", "text/plain")], "role=1").await.status, 200);
    assert_eq!(seen(&origin).2, "role=1");

    let marked = "\u{feff}{\"role\":1}";
    assert_eq!(send(&gateway, "/", &[("content-type", "text/plain")], marked).await.status, 200);
    assert_eq!(seen(&origin).2, r#"{"origin":{"verified":true}}"#);

    // What is taken out was inspected; what cannot be changed does not go on.
    let reached = origin.seen().len();
    for (kind, coding) in
        [("text/plain", "identity"), ("application/json", "identity"), ("text/plain", "lz4")]
    {
        let headers = [("content-type", kind), ("content-encoding", coding)];
        let status = send(&gateway, "/", &headers, r#"{"role":1,}"#).await.status.as_u16();
        assert_eq!(status, if coding == "lz4" { 415 } else { 400 }, "{kind} {coding}");
    }
    let attack = r#"{"role":"1' or 1=1 union select password from users--"}"#;
    assert_eq!(send(&gateway, "/", &[JSON], attack).await.status, 403);
    assert_eq!(send(&gateway, "/?debug=1%27%20or%201=1--%20-", &[], "").await.status, 403);
    let large = format!(r#"{{"role":1,"a":"{}"}}"#, "word ".repeat(3000));
    assert_eq!(send(&gateway, "/", &[JSON], large).await.status, 413);
    assert_eq!(origin.seen().len(), reached);
}

/// A server that sends a number of a card in two chunks, whatever it is asked.
async fn splitting() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let first = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n8\r\n41111111\r\n";
            // A client that has left is no concern of the test.
            let _ = stream.write_all(first.as_bytes()).await;
            tokio::task::yield_now().await;
            let _ = stream.write_all(b"8\r\n11111111\r\n0\r\n\r\n").await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_masked_does_not_leave_and_what_cannot_be_looked_through_is_withheld() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(shop)).await.unwrap();
    let (url, split) = (origin.url(), splitting().await);
    let mask = "mask: {fields: [/customer/iban], cards: on, keys: on";
    let yaml = format!(
        "limits: {{response_inspect: 4KiB, response_hold: 10s}}\nroutes:\n\
         - {{name: split, match: {{paths: [/split]}}, upstreams: [{{url: \"{split}\"}}], responses: {{{mask}}}}}}}\n\
         - {{name: open, match: {{paths: [/open]}}, strip_prefix: on, upstreams: [{{url: \"{url}\"}}], responses: {{{mask}, beyond: pass}}}}}}\n\
         - {{name: shut, upstreams: [{{url: \"{url}\"}}], responses: {{{mask}}}}}}}\n"
    );
    let gateway = Gateway::start_with(directory.path(), &yaml).await.unwrap();
    let expected =
        r#"{"card":"**** **** **** 1111","number":0,"customer":{"iban":"***","n":1.50},"key":"***"}"#;
    for target in ["/cards", "/coded", "/plain", "/open/cards"] {
        let answer =
            send(&gateway, target, &[("accept-encoding", "gzip, br"), ("range", "bytes=0-20")], "").await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (200, expected.as_bytes()), "{target}");
        assert_eq!(answer.headers["etag"], "W/\"1\"");
        let (_, headers, _) = seen(&origin);
        assert_eq!(headers["accept-encoding"], "identity");
        assert!(!headers.contains_key("range"));
    }
    assert_eq!(send(&gateway, "/split", &[], "").await.body, "************1111");
    let withheld = send(&gateway, "/large", &[], "").await;
    assert_eq!(
        (withheld.status.as_u16(), &withheld.headers["content-type"]),
        (502, &"application/problem+json".parse().unwrap())
    );
    assert_eq!(send(&gateway, "/open/large", &[], "").await.body.len(), 9003);
    let metrics = gateway.metrics().await.unwrap();
    for outcome in [
        "{route=\"shut\",outcome=\"withheld\"} 1",
        "{route=\"shut\",outcome=\"changed\"} 3",
        "{route=\"open\",outcome=\"passed\"} 1",
    ] {
        assert!(
            metrics.contains(&format!("portcullis_response_changes_total{outcome}")),
            "{outcome}: {metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_request_have_bounds_and_what_is_beyond_reaches_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(shop)).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.mode = "off";
    settings.more = vec![
        "limits: {inspect: 8KiB}".to_owned(),
        "shape: {query_arguments: 3, header_count: 20, headers: 2KiB, multipart_parts: 2, json: {depth: 3, keys: 5, string: 16B}}".to_owned(),
    ];
    settings.route = vec!["shape: {query_arguments: 2, json: {array: 3}}".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let form = ("content-type", "multipart/form-data; boundary=b");
    let part = "--b\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n";
    let (two, three) = (format!("{}--b--\r\n", part.repeat(2)), format!("{}--b--\r\n", part.repeat(3)));
    let large = format!("[{}1]", "{},".repeat(5000));
    let long = "x".repeat(3000);
    let cases: [(&str, (&str, &str), Bytes, u16); 12] = [
        ("/?a&b", JSON, r#"{"a":[[1,2,3]]}"#.into(), 200),
        ("/?a&b&c", JSON, "".into(), 414),
        ("/", ("x-long", &long), "".into(), 431),
        ("/", JSON, "[[[[1]]]]".into(), 400),
        ("/", JSON, r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}"#.into(), 413),
        ("/", JSON, r#"["0123456789abcdefg"]"#.into(), 413),
        ("/", JSON, "[1,2,3,4]".into(), 413),
        ("/", ("content-type", "text/plain"), "[1,2,3,4]".into(), 413),
        ("/", JSON, large.into(), 413),
        ("/", form, two.into(), 200),
        ("/", form, three.into(), 413),
        ("/", ("content-type", "text/plain"), "x".repeat(10_000).into(), 200),
    ];
    for (target, header, body, expected) in cases {
        let answer = send(&gateway, target, &[header], body.clone()).await;
        assert_eq!(answer.status, expected, "{target} {} {:?}", header.0, body.get(..40.min(body.len())));
    }
    let coded = gzip(b"[1,2,3,4]");
    assert_eq!(send(&gateway, "/", &[JSON, ("content-encoding", "gzip")], coded).await.status, 413);
    assert_eq!(origin.seen().len(), 3, "what is beyond reaches nobody");
}
