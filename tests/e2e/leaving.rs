//! What leaves: plain HTTP is sent to HTTPS, an upstream's errors and telling headers stay behind, a route says when it
//! ends and which pages may call it, and text is made smaller.

use std::{fs, io::Read as _, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tests::{
    client::{Answer, Client},
    gateway::{Gateway, Settings},
    origin::Origin,
    ports,
    responder::Responder,
};

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_sent_to_https_and_responses_leave_dressed() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.tls = Some((certificate, key));
    settings.route = vec!["lifecycle: {deprecated: 2026-01-31, sunset: 2026-12-31}".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let plain = SocketAddr::from(([127, 0, 0, 1], ports::free().unwrap()));
    let file = directory.path().join("portcullis.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let with_plain =
        text.replace("listeners:\n", &format!("listeners:\n  - name: plain\n    address: {plain}\n"));
    fs::write(&file, &with_plain).unwrap();
    let (code, said) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{said}");

    let sent = Client::new(plain).get("/api/products/1?x=1").await.unwrap();
    let port = gateway.address().port();
    assert_eq!(sent.status, 308);
    assert_eq!(sent.headers["location"], format!("https://127.0.0.1:{port}/api/products/1?x=1"));
    assert!(!sent.headers.contains_key("strict-transport-security"), "only where TLS is");

    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let https =
        reqwest::Client::builder().tls_certs_only([root]).timeout(Duration::from_secs(20)).build().unwrap();
    let url = format!("https://localhost:{port}/api/products/1");
    let answer = https.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for (name, value) in [
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("deprecation", "@1769817600"),
        ("sunset", "Thu, 31 Dec 2026 00:00:00 GMT"),
    ] {
        assert_eq!(answer.headers().get(name).and_then(|value| value.to_str().ok()), Some(value), "{name}");
    }

    // The route is gone, and every request is told so.
    fs::write(&file, with_plain.replace("deprecated: 2026-01-31", "retired: on, deprecated: 2026-01-31"))
        .unwrap();
    let (code, said) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{said}");
    let gone = https.get(&url).send().await.unwrap();
    assert_eq!(gone.status(), 410);
    assert!(gone.headers().contains_key("sunset"));
}

/// Says yes to every page, and gives a large text.
fn open_hearted(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .header("access-control-allow-origin", "*")
        .header("access-control-allow-credentials", "true")
        .header("content-type", "application/json")
        .header("etag", "\"v1\"");
    let size = if request.uri().path() == "/small" { 10 } else { 5000 };
    response.body(Full::from(format!("{{\"text\": \"{}\"}}", "word ".repeat(size)))).unwrap()
}

async fn ask(gateway: &Gateway, method: Method, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(format!("http://{}{target}", gateway.address()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    gateway.client().exchange(request.body(Full::default()).unwrap()).await.unwrap()
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_says_which_pages_may_call_before_anybody_is_asked_who_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(open_hearted)).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.more = vec!["auth: {methods: {keys: {api_key: {header: X-Api-Key}}}}".to_owned()];
    settings.route = vec![
        "match: {methods: [GET, PUT]}".to_owned(),
        "auth: {any_of: [keys], anonymous: on}".to_owned(),
        "cors: {origins: [\"https://*.shop.example\"], headers: [X-Api-Key], expose: [ETag], credentials: on, max_age: 1h}".to_owned(),
    ];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let page = ("origin", "https://app.shop.example");

    let asked =
        [page, ("access-control-request-method", "PUT"), ("access-control-request-headers", "x-api-key")];
    let answer = ask(&gateway, Method::OPTIONS, "/orders", &asked).await;
    assert_eq!(answer.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.shop.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-api-key"),
        ("access-control-max-age", "3600"),
        ("vary", "origin"),
    ] {
        assert_eq!(header(&answer, name), Some(value), "{name}");
    }
    let strange = [("origin", "https://shop.example.evil.example"), ("access-control-request-method", "PUT")];
    let answer = ask(&gateway, Method::OPTIONS, "/orders", &strange).await;
    assert_eq!(
        (header(&answer, "access-control-allow-origin"), header(&answer, "vary")),
        (None, Some("origin"))
    );
    // What asks for nothing beforehand is a request like any other, and this method is not listed.
    assert_eq!(ask(&gateway, Method::OPTIONS, "/orders", &[page]).await.status, 405);
    assert!(origin.seen().is_empty());

    // Refusals can be read, too; and what the upstream says about pages is not what counts.
    let refused = ask(&gateway, Method::GET, "/orders", &[page, ("x-api-key", "made-up")]).await;
    assert_eq!(
        (refused.status.as_u16(), header(&refused, "access-control-allow-origin")),
        (401, Some(page.1))
    );
    let answer = ask(&gateway, Method::GET, "/orders", &[page]).await;
    assert_eq!((answer.status.as_u16(), header(&answer, "access-control-allow-origin")), (200, Some(page.1)));
    assert_eq!(header(&answer, "access-control-expose-headers"), Some("etag"));
    let answer = ask(&gateway, Method::GET, "/orders", &[("origin", "https://evil.example")]).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")),
        "{:?}",
        answer.headers
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_compressed_for_those_who_can_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(open_hearted)).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.route = vec!["responses: {compression: on}".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let plain = ask(&gateway, Method::GET, "/text", &[]).await;
    assert_eq!((header(&plain, "content-encoding"), header(&plain, "vary")), (None, Some("accept-encoding")));
    assert_eq!((plain.body.len(), header(&plain, "etag")), (25_012, Some("\"v1\"")));
    for (accepted, expected) in
        [("gzip, deflate", "gzip"), ("br;q=0.9, gzip;q=0.1", "br"), ("zstd, br, gzip", "zstd")]
    {
        let answer = ask(&gateway, Method::GET, "/text", &[("accept-encoding", accepted)]).await;
        assert_eq!(header(&answer, "content-encoding"), Some(expected), "{accepted}");
        assert_eq!((header(&answer, "etag"), header(&answer, "content-length")), (Some("W/\"v1\""), None));
        let mut text = Vec::new();
        match expected {
            "gzip" => flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut text).unwrap(),
            "br" => brotli::Decompressor::new(&*answer.body, 4096).read_to_end(&mut text).unwrap(),
            _ => zstd::stream::read::Decoder::new(&*answer.body).unwrap().read_to_end(&mut text).unwrap(),
        };
        assert!(text == plain.body && answer.body.len() < 500, "{expected}: {} bytes", answer.body.len());
    }
    let small = ask(&gateway, Method::GET, "/small", &[("accept-encoding", "gzip")]).await;
    assert_eq!((header(&small, "content-encoding"), small.body.len()), (None, 62));
}
