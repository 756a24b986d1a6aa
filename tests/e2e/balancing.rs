//! Several origins: who gets what, who is left out, and what happens when none has room.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tests::{client::Client, gateway::Gateway, ports};
use tokio::{net::TcpListener, sync::Semaphore};

const PATIENCE: Duration = Duration::from_secs(20);

/// An origin that answers with its name, is well or not, and keeps requests for /held until it is let go.
#[derive(Clone)]
struct Origin {
    address: SocketAddr,
    sick: Arc<AtomicBool>,
    gate: Arc<Semaphore>,
}

impl Origin {
    async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Self { address, sick: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
        let shared = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let origin = shared.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let origin = origin.clone();
                    async move {
                        if request.uri().path() == "/held" {
                            origin.gate.acquire().await.unwrap().forget();
                        }
                        let mut response = Response::new(Full::new(Bytes::from(name)));
                        if request.uri().path() == "/healthz" && origin.sick.load(Ordering::Relaxed) {
                            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                        }
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        origin
    }

    fn url(&self) -> String {
        format!("{{url: \"http://{}\"}}", self.address)
    }
}

async fn gateway(place: &std::path::Path, origins: &[String], lines: &str) -> Gateway {
    let yaml = format!(
        "upstreams:\n  g:\n    origins: [{}]\n{lines}routes: [{{name: every, upstream: g}}]\n",
        origins.join(", ")
    );
    Gateway::start_with(place, &yaml).await.unwrap()
}

/// The answers to so many requests.
async fn answers(client: &Client, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let answer = client.get("/").await.unwrap();
        names.push(format!("{} {}", answer.status.as_u16(), String::from_utf8_lossy(&answer.body)));
    }
    names
}

/// Waits until so many origins get requests.
async fn wait_up(gateway: &Gateway, count: f64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while gateway.metric("portcullis_upstream_up").await.unwrap() != count {
        assert!(tokio::time::Instant::now() < deadline, "{count} origins are never up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_not_well_gets_nothing_until_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let health = "    health: {path: /healthz, interval: 20ms, timeout: 5s, healthy: 2, unhealthy: 2}\n";
    let gateway = gateway(directory.path(), &[a.url(), b.url()], health).await;
    let client = gateway.client();
    assert_eq!(answers(&client, 4).await, ["200 a", "200 b", "200 a", "200 b"]);
    a.sick.store(true, Ordering::Relaxed);
    wait_up(&gateway, 1.0).await;
    assert_eq!(answers(&client, 4).await, ["200 b"; 4]);
    let (_, status) = gateway.command(&["status"]).await.unwrap();
    assert!(
        status.lines().any(|line| line.contains(&a.address.to_string()) && line.contains("down")),
        "{status}"
    );
    a.sick.store(false, Ordering::Relaxed);
    wait_up(&gateway, 2.0).await;
    assert_eq!(answers(&client, 4).await.into_iter().collect::<BTreeSet<_>>().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_cannot_be_reached_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let gone = format!("{{url: \"http://127.0.0.1:{}\"}}", ports::free().unwrap());
    let lines = "    balance: least_requests\n    ejection: {failures: 2, time: 1h}\n";
    let gateway = gateway(directory.path(), &[a.url(), gone, b.url()], lines).await;
    let client = gateway.client();
    // Each GET finds an origin on its second try at the latest.
    let mut tries = 0;
    while gateway.metric("portcullis_upstream_ejections").await.unwrap() == 0.0 {
        assert!(answers(&client, 1).await[0].starts_with("200 "));
        tries += 1;
        assert!(tries < 500, "the dead origin is never left out");
    }
    let retries = gateway.metric("portcullis_upstream_retries_total").await.unwrap();
    assert_eq!(retries, 2.0);
    answers(&client, 20).await.iter().for_each(|answer| assert!(answer.starts_with("200 "), "{answer}"));
    assert_eq!(gateway.metric("portcullis_upstream_retries_total").await.unwrap(), retries);
    wait_up(&gateway, 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_origin_refuses_at_once_and_a_key_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let lines = "    max_requests: 1\n    balance: {hash: header:x-tenant}\n";
    let gateway = gateway(directory.path(), &[a.url(), b.url()], lines).await;
    let client = gateway.client();
    let of = async |tenant: &str| {
        let uri = format!("http://{}/", gateway.address());
        let request = Request::builder().uri(uri).header("x-tenant", tenant).body(Full::default()).unwrap();
        String::from_utf8_lossy(&client.exchange(request).await.unwrap().body).into_owned()
    };
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for names in [&mut first, &mut again] {
        for tenant in 0..24 {
            names.push(of(&tenant.to_string()).await);
        }
    }
    assert_eq!(first, again);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 2, "{first:?}");

    let held: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("/held").await.unwrap().status.as_u16() })
        })
        .collect();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while gateway.metric("portcullis_upstream_active_requests").await.unwrap() != 2.0 {
        assert!(tokio::time::Instant::now() < deadline, "two requests are never in progress");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = client.get("/").await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(gateway.metric("portcullis_upstream_refused").await.unwrap(), 1.0);
    for origin in [&a, &b] {
        origin.gate.add_permits(2);
    }
    for held in held {
        assert_eq!(held.await.unwrap(), 200);
    }
    assert_eq!(client.get("/").await.unwrap().status, 200);
}
