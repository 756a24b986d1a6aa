//! How often clients may come: refused with what the client needs to know, delayed, shared by gateways, kept over a
//! restart, and still there when Redis is not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tests::{
    client::Answer,
    gateway::{Gateway, Settings},
    origin::Origin,
    redis_server::RedisServer,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The gateway's answer to a client with this address.
async fn ask(gateway: &Gateway, address: &str) -> Answer {
    let uri = format!("http://{}/api/products/1", gateway.address());
    let request = Request::builder().uri(uri).header("x-forwarded-for", address);
    gateway.client().exchange(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

async fn statuses(gateway: &Gateway, address: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(ask(gateway, address).await.status.as_u16());
    }
    statuses
}

fn settings(origin: &Origin, limits: &str) -> Settings {
    let mut settings = Settings::new(origin.url());
    settings.route = vec![format!("rate_limits: [{limits}]")];
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_too_often_is_told_when_to_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let limits = "{name: calm, rate: 6/h, burst: 3}, {name: all-day, quota: 4/day, key: [route]}";
    let mut settings = settings(&origin, limits);
    settings.waf = vec!["allow: [192.0.2.99]".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    assert_eq!(statuses(&gateway, "192.0.2.1", 3).await, [200, 200, 200]);
    let refused = ask(&gateway, "192.0.2.1").await;
    let header = |name: &str| refused.headers[name].to_str().unwrap();
    assert_eq!(refused.status, 429);
    assert_eq!(header("ratelimit-policy"), "\"calm\";q=3;w=1800");
    assert_eq!(header("ratelimit"), "\"calm\";r=0;t=600");
    let again: u64 = header("retry-after").parse().unwrap();
    assert!((500..=600).contains(&again), "{again}");
    assert_eq!(header("content-type"), "application/problem+json");

    // Counted apart by address; together by route, whose quota has one left. Who is allowed is not counted.
    assert_eq!(statuses(&gateway, "192.0.2.2", 2).await, [200, 429]);
    assert_eq!(statuses(&gateway, "192.0.2.99", 5).await, [200; 5]);
    assert!((gateway.metric("portcullis_rate_limited_total").await.unwrap() - 2.0).abs() < 0.5);

    // A reload that leaves the limits alone forgets nothing, and neither does a restart of what a quota counted.
    assert_eq!(gateway.command(&["reload"]).await.unwrap().0, 0);
    assert_eq!(statuses(&gateway, "192.0.2.1", 1).await, [429]);
    gateway.process().signal("TERM").unwrap();
    assert!(gateway.process().wait_exit(PATIENCE).await.unwrap().success());
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    // One goes before the count is known again.
    assert_eq!(ask(&gateway, "192.0.2.3").await.status, 200);
    let deadline = Instant::now() + PATIENCE;
    while ask(&gateway, "192.0.2.4").await.status != 429 {
        assert!(Instant::now() < deadline, "the quota was forgotten");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_their_turn_and_only_so_many_are_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::from_millis(1_500)).await.unwrap();
    let settings = settings(&origin, "{name: few, concurrent: 2}");
    let gateway = Gateway::start(&directory.path().join("few"), &settings).await.unwrap();
    let (a, b) =
        tokio::join!(async { tokio::join!(ask(&gateway, "192.0.2.1"), ask(&gateway, "192.0.2.1")) }, async {
            let deadline = Instant::now() + PATIENCE;
            while origin.requests() < 2 {
                assert!(Instant::now() < deadline, "two do not arrive");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::join!(ask(&gateway, "192.0.2.1"), ask(&gateway, "192.0.2.2"))
        });
    let statuses = [a.0, a.1, b.0, b.1].map(|answer| answer.status.as_u16());
    assert_eq!(statuses, [200, 200, 429, 200]);
    assert_eq!(ask(&gateway, "192.0.2.1").await.status, 200, "the places are free again");

    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let settings = self::settings(&origin, "{rate: 5/s, burst: 1, delay: 20s}");
    let gateway = Gateway::start(&directory.path().join("slow"), &settings).await.unwrap();
    let started = Instant::now();
    assert_eq!(self::statuses(&gateway, "192.0.2.1", 4).await, [200; 4]);
    assert!(started.elapsed() >= Duration::from_millis(600), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_share_limits_and_each_keeps_them_when_redis_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut redis = RedisServer::start(directory.path().join("redis")).await.unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let limits =
        "{name: shared, rate: 40/h, burst: 40}, {name: strict, rate: 1000/s, key: [], when_away: closed}";
    let mut open = settings(&origin, limits.split(", {name: strict").next().unwrap());
    open.redis = Some(redis.url());
    let one = Gateway::start(&directory.path().join("1"), &open).await.unwrap();
    let other = Gateway::start(&directory.path().join("2"), &open).await.unwrap();
    let mut closed = settings(&origin, limits);
    closed.redis = Some(redis.url());
    let third = Gateway::start(&directory.path().join("3"), &closed).await.unwrap();

    assert_eq!(statuses(&one, "192.0.2.1", 40).await, [200; 40]);
    // What one let through is known to the others once they have asked.
    let known = |gateway| async move {
        let deadline = Instant::now() + PATIENCE;
        let mut through = 0;
        while ask(gateway, "192.0.2.1").await.status == 200 {
            through += 1;
            assert!(Instant::now() < deadline, "the limit is not shared");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        through
    };
    let (by_other, by_third) = (known(&other).await, known(&third).await);
    assert!(by_other < 40 && by_third < 40, "{by_other} and {by_third} more");

    redis.kill().unwrap();
    for gateway in [&one, &other] {
        let answers = statuses(gateway, "192.0.2.2", 50).await;
        let through = answers.iter().filter(|status| **status == 200).count();
        assert!((40..=41).contains(&through), "{answers:?}");
    }
    let deadline = Instant::now() + PATIENCE;
    while ask(&third, "192.0.2.3").await.status != 503 {
        assert!(Instant::now() < deadline, "it goes on without its store");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, status) = one.command(&["status", "-o", "json"]).await.unwrap();
    assert!(status.contains("\"limits\""), "{status}");
}
