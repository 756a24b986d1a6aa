//! What inspection does to responses, and what it never does.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use waf_model::event::Verdict;

use super::*;

const RULES: &str = r#"
SecResponseBodyAccess On
SecResponseBodyMimeType text/plain text/html
SecResponseBodyLimit 10000
SecRule RESPONSE_BODY "@contains leaked" "id:2001,phase:4,block,severity:ERROR,msg:'Leak'"
SecRule RESPONSE_HEADERS:X-Secret "@rx ." "id:2002,phase:3,deny,severity:CRITICAL,msg:'Secret header'"
"#;

/// What an origin sends, and how many milliseconds it waits before.
type Part = (u64, Vec<u8>);

/// An origin that sends the same parts to the first request of every connection, and closes.
async fn origin_of(parts: Vec<Part>) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let parts = parts.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                for (pause, bytes) in parts {
                    sleep(Duration::from_millis(pause)).await;
                    let _ = stream.write_all(&bytes).await;
                }
            });
        }
    });
    address
}

fn reply(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

async fn site(mode: Mode, parts: Vec<Part>) -> Site {
    let origin = origin_of(parts).await;
    Site::with_rules(RULES, |config| {
        config.limits.response_hold = Duration::from_millis(300);
        edit_route(config, |route| route.mode = mode);
        go_to(config, &format!("http://{origin}"));
    })
    .await
}

async fn status_of(parts: Vec<Part>) -> String {
    status(&site(Mode::Block, parts).await.get("/").await).to_owned()
}

#[tokio::test]
async fn a_leak_is_withheld_and_is_nobodys_fault_but_the_origins() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 22\r\nContent-Type: text/html\r\nSet-Cookie: a=b\r\n\r\nthe password is leaked";
    let site = site(Mode::Block, vec![(0, text.into())]).await;
    let response = site.get("/items/7").await;
    assert_eq!(status(&response), "403");
    assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    for secret in ["leaked", "2001", "Leak", "set-cookie"] {
        assert!(!response.contains(secret), "{response}");
    }
    let id = header(&response, "x-request-id").unwrap();
    assert!(response.contains(&format!("urn:portcullis:request:{id}")));

    let line = &site.log(1).await[0];
    assert_eq!(
        (&line["portcullis.waf.verdict"], &line["error.type"]),
        (&"response".into(), &"response_rejected".into())
    );
    assert_eq!(line["portcullis.waf.response.points"], 4);
    let found = &line["portcullis.waf.response.matches"][0];
    assert_eq!((&found["rule"], &found["variable"]), (&2001.into(), &"RESPONSE_BODY".into()));
    let flagged = site.gateway.decisions.find(id).unwrap();
    assert_eq!((flagged.verdict, flagged.status, flagged.response_points), (Verdict::Response, 403, (4, 4)));
    assert_eq!((flagged.response_rules[0].id, flagged.rules.len()), (2001, 0));
    assert_eq!(flagged.evidence.0, 0.0, "no evidence against the client");
    let metrics = site.gateway.metrics.encode();
    for expected in [
        "portcullis_waf_rule_matches_total{rule_id=\"2001\"} 1",
        "portcullis_waf_response_bodies_total{inspected=\"whole\"} 1",
    ] {
        assert!(metrics.contains(expected), "{expected}\n{metrics}");
    }
    for _ in 0..20 {
        site.get("/items/7").await;
    }
    assert!(site.gateway.blocks.in_force(0).is_empty(), "whoever asks is not blocked for the answers");
}

#[tokio::test]
async fn a_client_cannot_choose_a_coding_that_hides_the_body() {
    for (mode, expected) in [(Mode::Block, "br, gzip;q=0.5"), (Mode::Detect, "br, gzip;q=0.5, dcz")] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = socket.local_addr().unwrap();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            stream.write_all(&reply("Content-Type: text/html\r\n", "fine")).await.unwrap();
            String::from_utf8(head[..read].to_vec()).unwrap()
        });
        let site = Site::with_rules(RULES, |config| {
            edit_route(config, |route| route.mode = mode);
            go_to(config, &format!("http://{origin}"));
        })
        .await;
        let response =
            site.raw("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nAccept-Encoding: br, gzip;q=0.5, dcz\r\n\r\n").await;
        assert_eq!(status(&response), "200");
        let asked = asked.await.unwrap().to_ascii_lowercase();
        assert!(asked.contains(&format!("accept-encoding: {expected}\r\n")), "{mode:?}: {asked}");
    }
}

#[tokio::test]
async fn headers_are_inspected_without_the_body() {
    let parts = vec![(
        0,
        b"HTTP/1.1 200 OK\r\nX-Secret: 1\r\nContent-Type: image/png\r\nContent-Length: 5\r\n\r\n".to_vec(),
    )];
    let started = Instant::now();
    let site = site(Mode::Block, parts).await;
    assert_eq!(status(&site.get("/").await), "403");
    assert!(started.elapsed() < Duration::from_millis(1500), "nothing waited for the body");
    let line = &site.log(1).await[0];
    assert_eq!(line["portcullis.waf.response.matches"][0]["rule"], 2002);
}

#[tokio::test]
async fn only_the_bodies_that_rules_name_are_looked_at() {
    let leak = "it is leaked";
    let deflated = {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(leak.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let mut brotli = Vec::new();
    brotli::BrotliCompress(&mut leak.as_bytes(), &mut brotli, &Default::default()).unwrap();
    let padded = format!("{}{leak}", "x".repeat(20_000));
    for (expected, headers, body) in [
        ("403", "Content-Type: text/html; charset=utf-8\r\n", leak.as_bytes().to_vec()),
        ("403", "Content-Type: TEXT/plain\r\n", leak.as_bytes().to_vec()),
        ("403", "Content-Type: text/html\r\nContent-Encoding: gzip\r\n", gzip(leak)),
        ("403", "Content-Type: text/html\r\nContent-Encoding: deflate\r\n", deflated),
        ("403", "Content-Type: text/html\r\nContent-Encoding: br\r\n", brotli),
        (
            "403",
            "Content-Type: text/html\r\nContent-Encoding: zstd\r\n",
            zstd::encode_all(leak.as_bytes(), 0).unwrap(),
        ),
        ("200", "Content-Type: text/html\r\nContent-Encoding: dcz\r\n", leak.as_bytes().to_vec()),
        ("200", "Content-Type: text/html\r\nContent-Encoding: gzip\r\n", leak.as_bytes().to_vec()),
        ("200", "Content-Type: image/png\r\n", leak.as_bytes().to_vec()),
        ("200", "Content-Type: text/event-stream\r\n", leak.as_bytes().to_vec()),
        ("200", "", leak.as_bytes().to_vec()),
        ("200", "Content-Type: text/html\r\n", padded.into_bytes()),
        ("200", "Content-Type: text/html\r\n", b"harmless".to_vec()),
    ] {
        let found = status_of(vec![(0, reply(headers, body))]).await;
        assert_eq!(found, expected, "{headers:?}");
    }
    let site =
        site(Mode::Block, vec![(0, reply("Content-Type: text/html\r\nContent-Encoding: dcz\r\n", leak))])
            .await;
    site.get("/").await;
    let metrics = site.gateway.metrics.encode();
    assert!(metrics.contains("portcullis_waf_response_bodies_total{inspected=\"no\"} 1"), "{metrics}");
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&site.raw(head).await), "200");
}

#[tokio::test]
async fn a_slow_body_is_held_for_a_bounded_time_only() {
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 30\r\n\r\nearly part...".to_vec();
    for (parts, expected) in [
        // In time: all of it is seen.
        (vec![(0, head.clone()), (100, b"then leaked 67890".to_vec())], "403"),
        // The leak comes after the time: the first part has gone on already.
        (vec![(0, head.clone()), (900, b"then leaked 67890".to_vec())], "200"),
    ] {
        let site = site(Mode::Block, parts).await;
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let started = Instant::now();
        let count = stream.read(&mut [0; 4096]).await.unwrap();
        assert!(count > 0 && started.elapsed() < Duration::from_millis(800), "{:?}", started.elapsed());
        drain(&mut stream).await;
        assert_eq!(site.log(1).await[0]["http.response.status_code"].to_string(), expected);
    }
    // The prefix is inspected when the time is over.
    let leak =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 30\r\n\r\nleaked early ".to_vec();
    assert_eq!(status_of(vec![(0, leak), (900, b"and more".to_vec())]).await, "403");
}

#[tokio::test]
async fn connections_stay_sane_after_a_withheld_response() {
    let site = Site::with_rules(
        r#"SecRule RESPONSE_HEADERS:X-End "@streq 2" "id:2003,phase:3,deny,severity:CRITICAL""#,
        |config| config.waf.block_clients = Toggle::Off,
    )
    .await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let mut request = b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    request.extend_from_slice(b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(&request).await.unwrap();
    let all = drain(&mut stream).await;
    assert_eq!(all.matches("HTTP/1.1 403").count(), 4, "{all}");
    assert!(!all.contains("tick;"), "{all}");
    assert_eq!(site.seen().len(), 4);
}

#[tokio::test]
async fn rules_of_phase_5_learn_of_denied_requests_too() {
    let site = Site::with_rules(
        r#"
SecAction "id:1,phase:1,nolog,pass,initcol:ip=%{REMOTE_ADDR}"
SecRule IP:SEEN "@ge 2" "id:2,phase:1,deny,status:429"
SecRule ARGS "@contains evil" "id:3,phase:1,deny"
SecAction "id:4,phase:5,nolog,pass,setvar:ip.seen=+1"
"#,
        |config| config.waf.block_clients = Toggle::Off,
    )
    .await;
    assert_eq!(status(&site.get("/?q=evil").await), "403");
    assert_eq!(status(&site.get("/").await), "200");
    assert_eq!(status(&site.get("/").await), "429");
}

#[tokio::test]
async fn whoever_is_allowed_gets_what_the_origin_sends() {
    let parts = vec![(0, reply("Content-Type: text/html\r\n", "it is leaked"))];
    let origin = origin_of(parts).await;
    for (allowed, mode) in [(true, Mode::Block), (false, Mode::Off)] {
        let site = Site::with_rules(RULES, |config| {
            if allowed {
                config.waf.allow = vec!["127.0.0.0/8".parse().unwrap()];
            }
            edit_route(config, |route| route.mode = mode);
            go_to(config, &format!("http://{origin}"));
        })
        .await;
        assert!(site.get("/").await.ends_with("it is leaked"));
        assert!(site.log(1).await[0].get("portcullis.waf.response.matches").is_none());
    }
}

#[tokio::test]
async fn mode_detect_never_changes_a_response() {
    let long = format!("{}leaked", "y".repeat(30_000));
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";
    let replies: Vec<Vec<Part>> = vec![
        vec![(0, reply("Content-Type: text/html\r\nX-Secret: 1\r\n", "leaked"))],
        vec![(0, reply("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", gzip(&long)))],
        vec![(0, reply("Content-Type: text/html\r\nContent-Encoding: gzip\r\n", "leaked, and no gzip"))],
        vec![(0, reply("Content-Type: text/html\r\n", &long))],
        vec![(0, reply("Content-Type: text/html\r\n", ""))],
        vec![(
            0,
            b"HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\nContent-Length: 50\r\n\r\n".to_vec(),
        )],
        vec![(0, b"HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\n\r\n".to_vec())],
        vec![(0, format!("{chunked}6\r\nleaked\r\n0\r\n\r\n").into())],
        // Until the connection closes.
        vec![(0, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nleaked".to_vec())],
        // Broken off within the held part, and behind it.
        vec![(0, b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 50\r\n\r\nleaked".to_vec())],
        vec![(0, format!("{chunked}6\r\nleaked\r\n").into()), (600, b"5\r\nab".to_vec())],
        vec![(0, format!("{chunked}6\r\nleaked\r\n").into()), (600, b"3\r\nend\r\n0\r\n\r\n".to_vec())],
    ];
    for parts in replies {
        let (off, detect) = (site(Mode::Off, parts.clone()).await, site(Mode::Detect, parts.clone()).await);
        let get = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let bodies = [off.raw(get).await, detect.raw(get).await].map(|response| unchunked(&response));
        assert_eq!(bodies[0], bodies[1], "{:?}", String::from_utf8_lossy(&parts[0].1));
        let error = |line: &serde_json::Value| line["error.type"].clone();
        assert_eq!(error(&off.log(1).await[0]), error(&detect.log(1).await[0]));
        let text = String::from_utf8_lossy(&parts[0].1).into_owned();
        if text.ends_with("leaked") && !text.contains("yyy") || text.contains("X-Secret") {
            assert_eq!(detect.log(1).await[0]["portcullis.waf.verdict"], "response", "{text}");
        }
    }
}

/// A response without what differs each time; chunks are joined, because where they end means nothing.
fn unchunked(response: &str) -> String {
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((response, ""));
    let mut head: Vec<_> = head
        .lines()
        .filter(|line| !line.starts_with("x-request-id: ") && !line.starts_with("date: "))
        .collect();
    let chunked = head.iter().any(|line| line.contains("chunked"));
    let text: String = if chunked {
        // Sizes and data take turns.
        body.split("\r\n").skip(1).step_by(2).collect::<String>()
            + if body.ends_with("0\r\n\r\n") { "|end" } else { "" }
    } else {
        body.to_owned()
    };
    head.push(&text);
    head.join("\n")
}
