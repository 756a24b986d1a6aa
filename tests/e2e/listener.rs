//! Who may connect, how often, how slowly, and for which host.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use tests::gateway::{Gateway, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use crate::raw::{RawOrigin, Reply, Seen, Then, exchange};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

async fn start(directory: &Path, origin: &RawOrigin, change: impl FnOnce(&mut Settings)) -> Gateway {
    let mut settings = Settings::new(origin.url());
    change(&mut settings);
    Gateway::start(directory, &settings).await.unwrap()
}

fn reply(seen: &Seen) -> Reply {
    let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    match seen.line() {
        line if line.contains("/hang") => Reply { bytes: Vec::new(), then: Then::Hang },
        line if line.contains("/endless") => Reply { bytes: head, then: Then::Repeat(&[b'x'; 16_384]) },
        _ => Reply::ok(),
    }
}

fn error(gateway: &Gateway, reason: &str) -> impl Future<Output = ()> {
    let name = format!("portcullis_connection_errors_total{{reason=\"{reason}\"}}");
    async move { gateway.wait_metric(&name, 1.0, Duration::from_secs(20)).await.unwrap() }
}

/// A connection that is held open after one request and its answer.
async fn hold(gateway: &Gateway, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    stream
}

fn from(address: &str) -> String {
    format!("PROXY TCP4 {address} 192.0.2.9 4711 443\r\n{GET}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_front_says_who_connects() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let gateway = start(&directory.path().join("trusted"), &origin, |settings| {
        settings.listener = vec!["proxy_protocol: [127.0.0.1]".to_owned()];
        settings.more = vec!["limits: {connections_per_address: 2}".to_owned()];
    })
    .await;
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    second.extend([198, 51, 100, 7, 192, 0, 2, 9, 0x12, 0x67, 0x20, 0xfb]);
    second.extend(GET.as_bytes());
    for (bytes, client, port) in
        [(from("198.51.100.6").into_bytes(), "198.51.100.6", "443"), (second, "198.51.100.7", "8443")]
    {
        assert_eq!(exchange(gateway.address(), &bytes, 1).await.unwrap().statuses, [200]);
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.values("x-forwarded-for").collect::<Vec<_>>(), [client]);
        assert_eq!(seen.values("x-forwarded-port").collect::<Vec<_>>(), [port]);
    }
    // The proxy's own request, as in a health check.
    let local = format!("PROXY UNKNOWN\r\n{GET}");
    assert_eq!(exchange(gateway.address(), local.as_bytes(), 1).await.unwrap().statuses, [200]);
    // Nothing else is believed: neither no header nor a wrong one.
    let before = origin.seen().len();
    for bytes in [GET.to_owned(), from("nobody"), format!("\r\n{}", from("192.0.2.1"))] {
        assert_eq!(exchange(gateway.address(), bytes.as_bytes(), 1).await.unwrap().bytes, b"", "{bytes}");
    }
    assert_eq!(origin.seen().len(), before);
    error(&gateway, "proxy_protocol").await;

    // Each of the proxy's clients has its own places.
    let held = (hold(&gateway, &from("192.0.2.1")).await, hold(&gateway, &from("192.0.2.1")).await);
    assert_eq!(exchange(gateway.address(), from("192.0.2.1").as_bytes(), 1).await.unwrap().bytes, b"");
    error(&gateway, "per_address").await;
    drop(hold(&gateway, &from("192.0.2.2")).await);
    drop(held);

    // Who is not such a proxy sends a request that begins oddly.
    let other = start(&directory.path().join("other"), &origin, |settings| {
        settings.listener = vec!["proxy_protocol: [192.0.2.0/24]".to_owned()];
    })
    .await;
    assert_eq!(exchange(other.address(), from("192.0.2.1").as_bytes(), 1).await.unwrap().statuses, [400]);
    assert_eq!(exchange(other.address(), GET.as_bytes(), 1).await.unwrap().statuses, [200]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_the_host_it_was_opened_for() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    for (sni, expected) in [("strict", 421), ("any", 200)] {
        let gateway = start(&directory.path().join(sni), &origin, |settings| {
            settings.tls = Some((certificate.clone(), key.clone()));
            settings.listener = vec![format!("sni: {sni}")];
        })
        .await;
        for http1 in [true, false] {
            let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
            let builder = reqwest::Client::builder().tls_certs_only([root]).timeout(Duration::from_secs(20));
            let client = if http1 { builder.http1_only() } else { builder }.build().unwrap();
            let url = format!("https://localhost:{}/a", gateway.address().port());
            let own = client.get(&url).send().await.unwrap();
            assert_eq!(own.status(), 200);
            if http1 {
                let other = client.get(&url).header("host", "other.example").send().await.unwrap();
                assert_eq!(other.status(), expected, "{sni}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_after_so_many_requests() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let gateway = start(directory.path(), &origin, |settings| {
        settings.more = vec!["limits: {requests_per_connection: 3}".to_owned()];
    })
    .await;
    let outcome = exchange(gateway.address(), GET.repeat(5).as_bytes(), 5).await.unwrap();
    assert_eq!(outcome.statuses, [200; 3]);
    assert_eq!(outcome.text().matches("connection: close").count(), 1);
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let gateway = start(directory.path(), &origin, |settings| {
        settings.more = vec!["limits: {requests_in_flight: 2}".to_owned()];
    })
    .await;
    let hang = GET.replace("/a", "/hang");
    let mut held = Vec::new();
    for count in 1..=2 {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        stream.write_all(hang.as_bytes()).await.unwrap();
        held.push(stream);
        let arrived = async {
            while origin.seen().len() < count {
                sleep(Duration::from_millis(10)).await
            }
        };
        tokio::time::timeout(Duration::from_secs(20), arrived).await.unwrap();
    }
    let refused = exchange(gateway.address(), GET.as_bytes(), 1).await.unwrap();
    assert_eq!(refused.statuses, [503], "{}", refused.text());
    assert!(refused.text().contains("retry-after: 1\r\n"), "{}", refused.text());
    assert_eq!(gateway.metric("portcullis_http_requests_shed_total").await.unwrap(), 1.0);
    // Whoever leaves makes room.
    drop(held);
    let served = async {
        while exchange(gateway.address(), GET.as_bytes(), 1).await.unwrap().statuses != [200] {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), served).await.unwrap();
}

/// Sends a byte now and then until the gateway answers or leaves; returns what it said.
async fn trickle(server: SocketAddr, start: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(start.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let mut answer = Vec::new();
    let sending = async {
        while writer.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sending => {}
        _ = reader.read_to_end(&mut answer) => {}
        () = sleep(Duration::from_secs(20)) => panic!("the gateway waits without end"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_now_and_then_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let gateway = start(directory.path(), &origin, |settings| {
        settings.more = vec![
            "limits: {header_timeout: 1s, body_idle_timeout: 1s, keep_alive: 1s, body_rate: 1GiB, inspect: 4KiB}"
                .to_owned(),
        ];
    })
    .await;
    let head = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let inspected = trickle(gateway.address(), head).await;
    assert!(inspected.starts_with("HTTP/1.1 408 "), "{inspected}");
    let streamed = trickle(gateway.address(), &format!("{head}{}", "x".repeat(10_000))).await;
    assert!(streamed.starts_with("HTTP/1.1 408 "), "{streamed}");
    trickle(gateway.address(), "GET /a HTTP/1.1\r\nHost: a\r\nX: ").await;
    error(&gateway, "header_timeout").await;
    assert!(origin.seen().is_empty(), "{:?}", origin.seen());

    // The other way round: whoever takes a little now and then.
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    stream.write_all(GET.replace("/a", "/endless").as_bytes()).await.unwrap();
    let mut part = vec![0; 64 * 1024];
    let reading = async {
        while stream.read_exact(&mut part).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("a slow reader is cut off");
    error(&gateway, "write_timeout").await;
}
