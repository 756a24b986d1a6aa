//! Path tests: listener and pipeline in this process against a small origin, all on free ports.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use waf_model::rules::{RuleSet, RuleSource};

use super::*;
use crate::{
    admission::Admission,
    auth::Auth,
    body::BoxError,
    config::{ListenerTls, Member, Oversize, TlsVersion, Toggle, UpstreamGroup},
    listener, rate,
    rules::Rules,
    store::embedded_quotas::EmbeddedQuotas,
    tls::certificate::Certificate,
};

mod hostile;
mod inspection;
mod outbound;
mod window;

/// What the origin received.
#[derive(Debug, Clone)]
struct Seen {
    method: String,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

/// A gateway in front of an origin.
struct Site {
    address: SocketAddr,
    gateway: Arc<Gateway>,
    seen: Arc<Mutex<Vec<Seen>>>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl Site {
    async fn start(edit: impl FnOnce(&mut Config)) -> Self {
        Self::with_rules("", edit).await
    }

    async fn with_rules(rules: &str, edit: impl FnOnce(&mut Config)) -> Self {
        let (origin, seen) = origin().await;
        let mut config = Config::quick(&format!("http://{origin}"), Some("127.0.0.1:0"), None, None).unwrap();
        let source = RuleSource { name: "test", text: rules };
        let set = RuleSet::compile(&[source], &waf_model::rules::Options::default()).unwrap();
        edit_route(&mut config, |route| route.rules = Arc::new(Rules::new(set, vec!["test".to_owned()], 1)));
        edit(&mut config);
        let gateway = Arc::new(gateway(config));
        let bound = listener::bind(&gateway.config.snapshot().listeners[0], &gateway.acme).unwrap();
        let address = bound.address();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(listener::serve(bound, Arc::clone(&gateway), shutdown.clone()));
        Self { address, gateway, seen, shutdown, server }
    }

    /// Sends bytes as they are; returns everything that comes back until the connection closes or falls silent.
    async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        raw(self.address, bytes.as_ref()).await
    }

    async fn get(&self, target: &str) -> String {
        self.raw(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")).await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The access log, once it has `lines` lines.
    async fn log(&self, lines: usize) -> Vec<serde_json::Value> {
        for _ in 0..100 {
            if self.gateway.access_log.text().lines().count() >= lines {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let text = self.gateway.access_log.text();
        assert_eq!(text.lines().count(), lines, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Changes the one route.
fn edit_route(config: &mut Config, edit: impl FnOnce(&mut Route)) {
    let mut route = Route::clone(&config.routes[0]);
    edit(&mut route);
    config.routes = vec![Arc::new(route)];
}

/// Sends everything to `url`.
fn go_to(config: &mut Config, url: &str) {
    edit_route(config, |route| {
        let mut group = UpstreamGroup::clone(&route.upstream);
        group.origins = vec![Member::plain(url).unwrap()];
        route.upstream = Arc::new(group);
    });
}

fn gateway(config: Config) -> Gateway {
    let admission = Arc::new(Admission::new(config.limits.connections));
    let acme = Arc::new(Acme::new(&config.state));
    Gateway {
        collections: Arc::default(),
        auth: AuthSlot::new(Auth::new(&config, &ValueKey([7; 16]), None).unwrap()),
        model: Arc::default(),
        clients: Arc::default(),
        blocks: Arc::default(),
        events: Arc::default(),
        records: Arc::new(Records::new(&config.records, Arc::default()).0),
        rates: Arc::new(rates(&config)),
        inventory: Arc::default(),
        decisions: Arc::default(),
        metrics: Arc::default(),
        access_log: AccessLog::memory(),
        audit: Audit::nowhere(),
        admin: Published::default(),
        upstream: Upstream::new(&config),
        site_key: ValueKey([7; 16]),
        admission,
        acme,
        config: Arc::new(ConfigSlot::new(Arc::new(config))),
    }
}

/// Limits that nobody shares.
fn rates(config: &Config) -> RateLimits {
    let directory = tempfile::tempdir().unwrap();
    let quotas = Arc::new(EmbeddedQuotas::open(directory.path()).unwrap());
    RateLimits::new(config, ValueKey([7; 16]), rate::Stores { rates: None, quotas }, Arc::default())
}

/// An origin that answers what it is asked for by path, and remembers every request.
async fn origin() -> (SocketAddr, Arc<Mutex<Vec<Seen>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let log = Arc::clone(&log);
            let service = service_fn(move |request| reply(request, Arc::clone(&log)));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, seen)
}

async fn reply(request: Request<Incoming>, log: Arc<Mutex<Vec<Seen>>>) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = parts.uri.path().to_owned();
    log.lock().unwrap().push(Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: body.clone(),
    });
    let response = Response::builder()
        .header("server", "origin/1.0")
        .header("x-powered-by", "origin")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-end", "2");
    Ok(match path.as_str() {
        "/slow" => {
            sleep(Duration::from_millis(400)).await;
            response.body(crate::body::whole(Bytes::from_static(b"slow")))?
        }
        "/hang" => std::future::pending().await,
        "/break" => return Err("the origin breaks off".into()),
        "/stream" => {
            let (sender, receiver) = tokio::sync::mpsc::channel(1);
            tokio::spawn(async move {
                for _ in 0..3 {
                    let frame = http_body::Frame::data(Bytes::from_static(b"tick;"));
                    let _ = sender.send(Ok::<_, BoxError>(frame)).await;
                    sleep(Duration::from_millis(150)).await;
                }
            });
            let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
                Some((receiver.recv().await?, receiver))
            });
            response.body(StreamBody::new(frames).boxed_unsync())?
        }
        _ => response.body(crate::body::whole(Bytes::from(format!("{} bytes", body.len()))))?,
    })
}

async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The gateway may answer and close before everything is sent.
    let _ = stream.write_all(bytes).await;
    drain(&mut stream).await
}

async fn drain(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(count @ 1..)) = timeout(Duration::from_millis(1500), stream.read(&mut buffer)).await {
        received.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&received).into_owned()
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or("nothing")
}

fn header<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let head = response.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
}

#[tokio::test]
async fn a_request_goes_to_the_origin_and_back() {
    let site = Site::start(|_| ()).await;
    let response = site
        .raw(
            "POST /orders/7?x=1&y=%20 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\nX-Own: a\r\n\
             Connection: close, X-Drop\r\nX-Drop: 1\r\nX_Forwarded_For: 1.1.1.1\r\nX-Forwarded-For: 1.1.1.1\r\n\
             Upgrade: h2c\r\n\r\nhello",
        )
        .await;
    assert_eq!(status(&response), "200", "{response}");
    assert!(response.ends_with("5 bytes"));
    for absent in ["server", "x-powered-by", "x-hop", "connection: x-hop"] {
        assert_eq!(header(&response, absent), None, "{response}");
    }
    assert_eq!(header(&response, "x-end"), Some("2"));

    let seen = &site.seen()[0];
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/orders/7?x=1&y=%20"));
    assert_eq!(seen.body, "hello");
    assert_eq!(seen.headers["content-length"], "5");
    assert_eq!(seen.headers["x-own"], "a");
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers["x-forwarded-host"], "shop.example");
    assert_eq!(seen.headers["x-forwarded-proto"], "http");
    assert_eq!(seen.headers["x-request-id"], header(&response, "x-request-id").unwrap());
    for absent in ["x-drop", "upgrade", "x_forwarded_for", "connection"] {
        assert!(!seen.headers.contains_key(absent), "{absent}: {:?}", seen.headers);
    }

    let line = &site.log(1).await[0];
    assert_eq!(line["http.response.status_code"], 200);
    assert_eq!(line["http.request.size"], 5);
    assert_eq!(line["http.response.size"], 7);
    assert_eq!(line["client.address"], "127.0.0.1");
    assert_eq!(line["portcullis.request.id"], header(&response, "x-request-id").unwrap());
    assert!(line.get("error.type").is_none(), "{line}");
    assert!(!line.to_string().contains("y=%20"), "a query is never logged: {line}");
}

#[tokio::test]
async fn bodies_arrive_whole_however_they_are_sent() {
    let site = Site::start(|config| config.limits.inspect_bytes = 1000).await;
    let chunked = "POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Trailer: 1\r\n\r\n";
    assert!(site.raw(chunked).await.ends_with("7 bytes"));
    assert_eq!(site.seen()[0].body, "abcdefg");

    // Beyond the inspection window the rest streams; the length is kept.
    let large = "x".repeat(200_000);
    let head = "POST /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let response = site.raw(format!("{head}Content-Length: 200000\r\n\r\n{large}")).await;
    assert!(response.ends_with("200000 bytes"), "{response}");
    assert_eq!(site.seen()[1].headers["content-length"], "200000");
    assert_eq!(site.log(2).await[1]["http.request.size"], 200_000);
}

#[tokio::test]
async fn what_no_route_takes_is_refused_with_the_right_status() {
    let site = Site::start(|config| {
        let mut route = Route::clone(&config.routes[0]);
        route.paths = vec!["/api".to_owned()];
        route.methods = vec![http::Method::GET];
        config.routes = vec![Arc::new(route)];
        config.limits.uri_bytes = 100;
        config.limits.header_bytes = 500;
        config.limits.header_count = 10;
        config.limits.body_bytes = 50;
        config.limits.inspect_bytes = 20;
    })
    .await;
    assert_eq!(status(&site.get("/other").await), "404");
    let wrong =
        site.raw("POST /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((status(&wrong), header(&wrong, "allow")), ("405", Some("GET")));
    assert_eq!(status(&site.get(&format!("/api?{}", "x".repeat(100))).await), "414");
    let many = "A: b\r\n".repeat(11);
    let head = "GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    assert_eq!(status(&site.raw(format!("{head}{many}\r\n")).await), "431");
    assert_eq!(status(&site.raw(format!("{head}A: {}\r\n\r\n", "x".repeat(500))).await), "431");
    assert_eq!(status(&site.raw(format!("{head}Content-Length: 51\r\n\r\n")).await), "413");
    let chunks = "14\r\n01234567890123456789\r\n".repeat(3);
    let response = site.raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")).await;
    assert_eq!(status(&response), "413", "{response}");
    let refused = site.get("/other").await;
    assert!(refused.contains("application/problem+json") && refused.contains("urn:portcullis:request:"));
    assert!(site.seen().iter().all(|seen| seen.method == "GET" && seen.body.len() <= 50));
    let log = site.log(8).await;
    let names: Vec<_> = log.iter().map(|line| line["error.type"].as_str().unwrap_or("-")).collect();
    let expected = [
        "no_route",
        "method_not_allowed",
        "uri_too_long",
        "headers_too_large",
        "headers_too_large",
        "body_too_large",
        "body_too_large",
        "no_route",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let site = Site::start(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let id = "0190b3a4-1111-7222-8333-444455556666";
    let response = site
        .raw(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 6.6.6.6, 203.0.113.9\r\n\
             X-Forwarded-Proto: https\r\nX-Request-Id: {id}\r\n\r\n"
        ))
        .await;
    assert_eq!(header(&response, "x-request-id"), Some(id));
    let seen = &site.seen()[0];
    assert_eq!(seen.headers["x-forwarded-for"], "6.6.6.6, 203.0.113.9, 127.0.0.1");
    assert_eq!(seen.headers["x-forwarded-proto"], "https");
    assert_eq!(site.log(1).await[0]["client.address"], "203.0.113.9");
}

#[tokio::test]
async fn upstream_failures_are_told_from_ours() {
    let site = Site::start(|config| {
        let mut route = Route::clone(&config.routes[0]);
        route.upstream_timeout = Duration::from_millis(200);
        config.routes = vec![Arc::new(route)];
    })
    .await;
    assert_eq!(status(&site.get("/hang").await), "504");
    let broken = site.get("/break").await;
    assert_eq!(status(&broken), "502");
    assert!(!broken.contains("127.0.0.1"), "nothing about upstreams: {broken}");
    // The origin saw the broken request twice: once more because a GET is safe to repeat.
    assert_eq!(site.seen().iter().filter(|seen| seen.target == "/break").count(), 2);
    let post = "POST /break HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(status(&site.raw(post).await), "502");
    assert_eq!(site.seen().iter().filter(|seen| seen.method == "POST").count(), 1);

    let half = Site::start(|config| {
        edit_route(config, |route| {
            let mut group = UpstreamGroup::clone(&route.upstream);
            group.origins.insert(0, Member::plain("http://127.0.0.1:1").unwrap());
            route.upstream = Arc::new(group);
        });
    })
    .await;
    for _ in 0..4 {
        assert_eq!(status(&half.get("/").await), "200", "the other origin takes what one cannot");
    }

    let closed = Site::start(|config| {
        go_to(config, "http://127.0.0.1:1");
    })
    .await;
    assert_eq!(status(&closed.get("/").await), "502");
    assert_eq!(closed.log(1).await[0]["error.type"], "upstream_unreachable");
}

/// An origin that sends `reply` to the first request of every connection, and closes.
async fn scripted(reply: &'static [u8]) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(reply).await;
        }
    });
    address
}

#[tokio::test]
async fn an_origin_cannot_confuse_the_client() {
    for (reply, expected) in [
        (&b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], "HTTP/1.1 200"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 502"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200"),
        (b"not HTTP at all\r\n\r\n", "HTTP/1.1 502"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "HTTP/1.1 502"),
        (b"", "HTTP/1.1 502"),
    ] {
        let origin = scripted(reply).await;
        let site = Site::start(|config| {
            go_to(config, &format!("http://{origin}"));
        })
        .await;
        let response = site.get("/").await;
        let sent = String::from_utf8_lossy(reply);
        assert!(response.starts_with(expected), "{sent:?}: {response}");
    }
    // A body that ends too early ends the connection, so that the client notices.
    let origin = scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let site = Site::start(|config| {
        go_to(config, &format!("http://{origin}"));
    })
    .await;
    assert!(!site.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.ends_with("0\r\n\r\n"));
    assert_eq!(site.log(1).await[0]["error.type"], "upstream_broke_off");
}

#[tokio::test]
async fn responses_stream_and_connections_are_kept() {
    let site = Site::start(|_| ()).await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let started = Instant::now();
    let mut buffer = [0; 4096];
    let mut first = String::new();
    while !first.contains("tick;") {
        let count = stream.read(&mut buffer).await.unwrap();
        first.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(started.elapsed() < Duration::from_millis(250), "the first part comes before the last");
    stream.write_all(b"GET /again HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let rest = drain(&mut stream).await;
    assert!(rest.contains("200 OK") && rest.ends_with("0 bytes"), "{rest}");
}

#[tokio::test]
async fn http2_works_in_the_clear_and_over_tls() {
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).unwrap();
    let pem = format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem());
    let tls = ListenerTls {
        certificates: vec![Certificate::parse(pem.as_bytes()).unwrap()],
        acme: None,
        min_version: TlsVersion::V1_2,
        clients: None,
    };
    let site = Site::start(|config| config.listeners[0].tls = Some(tls)).await;

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    for (alpn, expected) in [(&b"h2"[..], "2"), (&b"http/1.1"[..], "1.1")] {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(site.address).await.unwrap();
        let name = "shop.example".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let io = TokioIo::new(stream);
        let request = Request::builder().uri("https://shop.example/x").header("host", "shop.example");
        let request = request.body(Full::new(Bytes::from_static(b"four"))).unwrap();
        let response = if expected == "2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "4 bytes");
    }
    let log = site.log(2).await;
    assert_eq!(log[0]["network.protocol.version"], "2");
    assert_eq!(log[1]["network.protocol.version"], "1.1");
    assert_eq!(log[0]["tls.protocol.version"], "1.3");
    assert_eq!(site.seen()[0].headers["x-forwarded-proto"], "https");
    assert_eq!(site.seen()[0].headers["x-forwarded-host"], "shop.example");

    let plain = Site::start(|_| ()).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let uri = format!("http://{}/h2c", plain.address);
    let request = Request::builder().uri(uri).body(Full::new(Bytes::new())).unwrap();
    assert_eq!(client.request(request).await.unwrap().status(), 200);
    assert_eq!(plain.log(1).await[0]["network.protocol.version"], "2");
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_takes_no_new_ones() {
    let site = Site::start(|_| ()).await;
    let address = site.address;
    let running = tokio::spawn(async move { raw(address, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await });
    let idle = TcpStream::connect(address).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    site.shutdown.cancel();
    let started = Instant::now();
    timeout(Duration::from_secs(3), site.server).await.expect("drained").unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(running.await.unwrap().ends_with("slow"));
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn a_drain_ends_what_does_not_finish() {
    let site = Site::start(|config| config.drain = Duration::from_millis(200)).await;
    let address = site.address;
    let running = tokio::spawn(async move { raw(address, b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await });
    sleep(Duration::from_millis(100)).await;
    site.shutdown.cancel();
    timeout(Duration::from_secs(2), site.server).await.expect("aborted").unwrap();
    assert_eq!(running.await.unwrap(), "");
    let line = serde_json::from_str::<serde_json::Value>(&site.gateway.access_log.text()).unwrap();
    assert_eq!(
        (line["http.response.status_code"].as_u64(), line["error.type"].as_str()),
        (Some(499), Some("downstream_closed"))
    );
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded() {
    let site = Site::start(|_| ()).await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    drop(stream);
    assert_eq!(site.log(1).await[0]["http.response.status_code"], 499);
}
