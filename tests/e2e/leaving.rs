//! What leaves: plain HTTP is sent to HTTPS, an upstream's errors and telling headers stay behind, and a route says when
//! it ends.

use std::{fs, net::SocketAddr, time::Duration};

use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    origin::Origin,
    ports,
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
