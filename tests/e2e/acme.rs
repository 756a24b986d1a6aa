//! Certificates by ACME from a real authority: fetched by either challenge, kept, renewed, and never in the way.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use rustls::version::TLS13;
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    handshake::Handshaker,
    origin::Origin,
    pebble::{BOUND_KEY, Pebble, Wanted},
    ports,
};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);
const ISSUED: &str = "portcullis_acme_orders_total{result=\"issued\"}";
const FAILED: &str = "portcullis_acme_orders_total{result=\"failed\"}";

/// A TLS listener whose certificate for `hosts` is fetched, and a plain one beside it.
fn settings(origin: &Origin, pebble: &Pebble, hosts: &str, ports: (u16, u16), more: &str) -> Settings {
    let mut settings = Settings::new(origin.url());
    settings.port = Some(ports.1);
    let (directory, ca) = (pebble.directory_url(), pebble.authority());
    let acme =
        format!("directory: \"{directory}\", ca: {}, agree: on, hosts: [{hosts}], {more}", ca.display());
    settings.listener = vec![
        format!("tls: {{acme: {{{acme}}}}}"),
        format!("sni: strict\n  - name: plain\n    address: 127.0.0.1:{}", ports.0),
    ];
    settings
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_fetched_by_http_kept_and_served_without_the_authority() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let (http_port, tls_port) = (ports::free().unwrap(), ports::free().unwrap());
    let wanted = Wanted { http_port, tls_port, seconds: 90 * 24 * 3600, is_binding: false };
    let mut pebble = Pebble::prepare(&directory.path().join("pebble"), wanted).unwrap();
    let more = "contact: [\"mailto:admin@shop.test\"], challenge: http-01";
    let settings = settings(&origin, &pebble, "Shop.test, www.shop.test", (http_port, tls_port), more);

    // No authority: the gateway serves what it can, and says what is missing.
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    gateway.wait_metric(FAILED, 1.0, PATIENCE).await.unwrap();
    let (_, text) = gateway.command(&["status"]).await.unwrap();
    assert!(text.contains("not there yet") && text.contains("no new certificate for shop.test: "), "{text}");
    let plain = Client::new(([127, 0, 0, 1], http_port).into());
    assert_eq!(plain.get("/.well-known/acme-challenge/unknown").await.unwrap().status, 308);
    let early = Handshaker::new(&[&TLS13]).unwrap().ask(gateway.address(), "shop.test").await;
    assert!(early.is_err(), "{early:?}");

    pebble.start().await.unwrap();
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    gateway.wait_metric(ISSUED, 1.0, PATIENCE).await.unwrap();
    let root = reqwest::Certificate::from_pem(&pebble.root().await.unwrap()).unwrap();
    for host in ["shop.test", "www.shop.test"] {
        let builder = reqwest::Client::builder().tls_certs_only([root.clone()]).timeout(PATIENCE);
        let client = builder.resolve(host, gateway.address()).build().unwrap();
        let answer = client.get(format!("https://{host}:{tls_port}/")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{host}");
    }
    let (_, text) = gateway.command(&["status"]).await.unwrap();
    assert!(text.contains("shop.test www.shop.test") && !text.contains("no new certificate"), "{text}");
    let noted = async || {
        let noted = gateway.list(&["audit", "show", "--action", "certificate.changed"]).await.unwrap();
        noted.iter().any(|entry| entry["object"] == "shop.test, www.shop.test")
    };
    let written = async {
        while !noted().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the audit log does not know of it");
    let kept = gateway.state().join("acme");
    assert_eq!(mode(&kept), 0o700);
    let files: Vec<_> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");

    // The next start needs nobody.
    let shown = Handshaker::new(&[&TLS13]).unwrap().ask(gateway.address(), "shop.test").await.unwrap();
    pebble.stop();
    drop(gateway);
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let again = Handshaker::new(&[&TLS13]).unwrap().ask(gateway.address(), "shop.test").await.unwrap();
    assert_eq!(again.certificate, shown.certificate);
    let (_, text) = gateway.command(&["status"]).await.unwrap();
    assert!(!text.contains("no new certificate"), "{text}");
    for orders in [ISSUED, FAILED] {
        assert_eq!(gateway.metric(orders).await.unwrap(), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_fetched_by_handshakes_and_renewed_before_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let (http_port, tls_port) = (ports::free().unwrap(), ports::free().unwrap());
    let wanted = Wanted { http_port, tls_port, seconds: 9, is_binding: true };
    let mut pebble = Pebble::prepare(&directory.path().join("pebble"), wanted).unwrap();
    pebble.start().await.unwrap();
    let more = "challenge: tls-alpn-01, eab: {key_id: kid-1, hmac_key: \"${EAB_KEY}\"}";
    let mut settings = settings(&origin, &pebble, "api.test, a.test", (http_port, tls_port), more);
    settings.environment = vec![("EAB_KEY", BOUND_KEY.to_owned())];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    gateway.wait_metric(ISSUED, 1.0, PATIENCE).await.unwrap();
    let shown = async || {
        let client = Handshaker::new(&[&TLS13]).unwrap();
        client.ask(gateway.address(), "a.test").await.unwrap().certificate
    };
    let first = shown().await;
    let renewed = async {
        while shown().await == first {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, renewed).await.unwrap();
    assert_eq!(gateway.metric(FAILED).await.unwrap(), 0.0);
}
