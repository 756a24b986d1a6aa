//! SIGTERM: what is under way is finished, nothing new is taken, and the gateway ends by itself.

use std::time::{Duration, Instant};

use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
};

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_finished() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::from_millis(800)).await.unwrap();
    let mut gateway = Gateway::start(directory.path(), &Settings::new(origin.url())).await.unwrap();
    let under_way: Vec<_> = (1..=32)
        .map(|id| {
            let http = gateway.client();
            tokio::spawn(async move { http.get(&format!("/api/products/{id}")).await })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(10);
    while origin.requests() < 32 {
        assert!(Instant::now() < deadline, "only {} requests arrived", origin.requests());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    gateway.process().signal("TERM").unwrap();
    let status = gateway.process().wait_exit(Duration::from_secs(10)).await.unwrap();
    for request in under_way {
        let answer = request.await.unwrap().expect("a request under way was cut off");
        assert_eq!(answer.status, 200);
    }
    assert!(status.success(), "{status}");
    assert!(gateway.client().get("/healthz").await.is_err(), "something still listens");
}
