//! TLS, HTTP/2 by ALPN and HTTP/2 without TLS: the same answers and the same protection on each.

use std::{fs, time::Duration};

use reqwest::Version;
use tests::{
    gateway::{Gateway, Settings},
    origin::Origin,
};

use crate::wire::INJECTION;

async fn check(client: &reqwest::Client, base: &str, version: Version) {
    let benign = client.get(format!("{base}/api/products/3")).send().await.unwrap();
    assert_eq!((benign.status().as_u16(), benign.version()), (200, version));
    assert!(benign.text().await.unwrap().contains("\"id\":3"));
    let attack = client.get(format!("{base}{INJECTION}")).send().await.unwrap();
    assert_eq!(attack.status(), 403);
    let body = "a=1&b=".to_owned() + &"x".repeat(100_000);
    let form =
        client.post(format!("{base}/echo/form")).header("content-type", "application/x-www-form-urlencoded");
    let echoed: serde_json::Value =
        serde_json::from_str(&form.body(body.clone()).send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(echoed["body"].as_str().unwrap().len(), body.len() * 2, "the body arrives whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_is_served_and_inspected() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();

    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let plain = Gateway::start(&directory.path().join("plain"), &Settings::new(origin.url())).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.tls = Some((certificate, key));
    let secure = Gateway::start(&directory.path().join("secure"), &settings).await.unwrap();

    let trusting = || {
        let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([root]).timeout(Duration::from_secs(10))
    };
    let (http, https) =
        (format!("http://{}", plain.address()), format!("https://localhost:{}", secure.address().port()));
    check(&trusting().build().unwrap(), &http, Version::HTTP_11).await;
    check(&trusting().http2_prior_knowledge().build().unwrap(), &http, Version::HTTP_2).await;
    check(&trusting().http1_only().build().unwrap(), &https, Version::HTTP_11).await;
    check(&trusting().build().unwrap(), &https, Version::HTTP_2).await;
}
