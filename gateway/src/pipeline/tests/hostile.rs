//! Requests that no honest client sends, byte by byte.

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_request_that_two_parsers_read_differently_never_reaches_the_origin() {
    let site = Site::start(|_| ()).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = "POST /x HTTP/1.1\r\nHost: a\r\n";
    let cases: Vec<(&str, String)> = vec![
        (
            "both framings",
            format!("{head}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "both, the other way",
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("two lengths", format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello{smuggled}")),
        ("a list of lengths", format!("{head}Content-Length: 5, 5\r\n\r\nhello{smuggled}")),
        ("a signed length", format!("{head}Content-Length: +5\r\n\r\nhello{smuggled}")),
        ("a huge length", format!("{head}Content-Length: 18446744073709551617\r\n\r\n{smuggled}")),
        ("identity", format!("{head}Transfer-Encoding: identity\r\n\r\n{smuggled}")),
        (
            "identity, chunked",
            format!("{head}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("gzip, chunked", format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        (
            "chunked twice",
            format!(
                "{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
            ),
        ),
        ("xchunked", format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a blank before the colon", format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("a folded line", format!("{head}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        (
            "chunked in 1.0",
            format!("POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        ("two hosts", format!("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{smuggled}")),
        ("no host", format!("GET /x HTTP/1.1\r\n\r\n{smuggled}")),
        ("another host in the target", format!("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}")),
        ("a fragment of a line", format!("GET /x\0y HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}")),
    ];
    for (what, request) in &cases {
        let response = site.raw(request).await;
        assert_eq!(status(&response), "400", "{what}: {response}");
        assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{what}: the connection ends there: {response}");
    }
    assert!(site.seen().is_empty(), "{:?}", site.seen());
    assert!(site.gateway.metrics.encode().contains("reason=\"malformed\""));
    assert_eq!(status(&site.get("/alive").await), "200");
}

#[tokio::test]
async fn tunnels_and_odd_targets_are_refused_without_harm() {
    let site = Site::start(|_| ()).await;
    for (request, expected) in [
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", "405"),
        ("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", "400"),
        ("GET / HTTP/9.9\r\nHost: a\r\n\r\n", "400"),
        ("\0\0\0\0\r\n\r\n", "400"),
    ] {
        let response = site.raw(request).await;
        assert_eq!(status(&response), expected, "{request:?}: {response}");
    }
    assert!(site.seen().is_empty());
    assert_eq!(status(&site.get("/alive").await), "200");
}

#[tokio::test]
async fn bytes_behind_an_upgrade_belong_to_nobody() {
    let site = Site::start(|_| ()).await;
    let response = site
        .raw(
            "GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\
             GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert_eq!((response.matches("HTTP/1.1 200").count(), response.matches("HTTP/1.1 400").count()), (1, 1));
    let seen = site.seen();
    assert_eq!(seen.iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(), ["/a"]);
    assert!(!seen[0].headers.contains_key("upgrade"));
}

#[tokio::test]
async fn a_pipelined_chunked_request_ends_the_connection() {
    let site = Site::start(|_| ()).await;
    let response = site
        .raw(
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
             POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    assert!(response.matches("HTTP/1.1 ").count() <= 2, "{response}");
    assert!(site.seen().iter().all(|seen| seen.target != "/smuggled"));
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let site = Site::start(|config| {
        config.limits.header_timeout = Duration::from_millis(300);
        config.limits.body_idle_timeout = Duration::from_millis(300);
        config.limits.keep_alive = Duration::from_millis(800);
    })
    .await;
    // A head that never ends, whatever was sent of it.
    for start in ["", "PRI * HT", "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(site.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let started = Instant::now();
        assert_eq!(drain(&mut stream).await, "", "{start:?}");
        assert!(started.elapsed() < Duration::from_millis(1000), "{start:?}: {:?}", started.elapsed());
    }
    // A body that stops.
    let stopped = site.raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab").await;
    assert_eq!(status(&stopped), "408", "{stopped}");
    // A kept connection may be idle for longer than a head may take, but not forever.
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(500)).await;
    stream.write_all(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let started = Instant::now();
    let both = drain(&mut stream).await;
    assert_eq!(both.matches("200 OK").count(), 2, "{both}");
    assert!(started.elapsed() < Duration::from_millis(1400), "{:?}", started.elapsed());
    assert!(site.gateway.metrics.encode().contains("connection_errors_total{reason=\"header_timeout\"} 3"));
}

#[tokio::test]
async fn more_connections_than_allowed_wait_their_turn() {
    let site = Site::start(|config| config.limits.connections = 1).await;
    let mut first = TcpStream::connect(site.address).await.unwrap();
    first.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let address = site.address;
    let second = tokio::spawn(async move {
        raw(address, b"GET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await
    });
    sleep(Duration::from_millis(300)).await;
    assert_eq!(site.seen().len(), 1, "the second connection waits");
    drop(first);
    assert_eq!(status(&second.await.unwrap()), "200");
}

#[tokio::test]
async fn a_large_body_is_treated_as_the_route_says() {
    let post = |bytes: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("{head}{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes))
    };
    for (mode, oversize, expected) in [
        (Mode::Block, Oversize::Reject, "413"),
        (Mode::Detect, Oversize::Reject, "200"),
        (Mode::Block, Oversize::InspectPrefix, "200"),
        (Mode::Block, Oversize::Pass, "200"),
        (Mode::Off, Oversize::Reject, "200"),
    ] {
        let site = Site::start(|config| {
            config.limits.inspect_bytes = 100;
            let mut route = Route::clone(&config.routes[0]);
            (route.mode, route.oversize) = (mode, oversize);
            config.routes = vec![Arc::new(route)];
        })
        .await;
        let response = site.raw(post(5000)).await;
        assert_eq!(status(&response), expected, "{mode:?} {oversize:?}: {response}");
        if expected == "200" {
            assert!(response.ends_with("5000 bytes"), "{mode:?} {oversize:?}");
        }
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_cut_off_while_it_streams() {
    let site = Site::start(|config| {
        config.limits.inspect_bytes = 100;
        config.limits.body_bytes = 100_000;
    })
    .await;
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = site.raw(format!("{head}{}0\r\n\r\n", chunk.repeat(30))).await;
    assert_eq!(status(&response), "413", "{response}");
    assert!(site.seen().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_panic_a_stage(
        target in prop_oneof![
            "/[ -~]{0,60}",
            "(/|\\.|%2e|%2F|%5c|;|a|admin|//){1,12}",
            "[a-z]{0,8}:[ -~]{0,20}",
        ],
        fields in proptest::collection::vec(
            (
                prop_oneof![
                    Just("host"), Just("content-length"), Just("transfer-encoding"), Just("connection"),
                    Just("x-forwarded-for"), Just("cookie"), Just("x-request-id"), Just("x_real.ip"),
                    Just("traceparent"), Just("x-forwarded-port"),
                ],
                proptest::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..40),
            ),
            0..8,
        ),
    ) {
        let mut config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        config.trusted_proxies = vec!["0.0.0.0/0".parse().unwrap()];
        config.waf.session_cookie = Some("a".to_owned());
        let mut admin = Route::clone(&config.routes[0]);
        admin.paths = vec!["/admin".to_owned()];
        config.routes.insert(0, Arc::new(admin));
        let Ok(uri) = target.parse::<http::Uri>() else { return Ok(()) };
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        for (name, value) in &fields {
            request.headers_mut().append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let checked = limits::check(&config.limits, &request);
        let (mut parts, ()) = request.into_parts();
        let peer = Peer {
            address: "127.0.0.1:1".parse().unwrap(),
            listener: "http".into(),
            local: "127.0.0.1:80".parse().unwrap(),
            tls: None,
            certificate: None,
        };
        let identity = identity::identify(&config, &ValueKey([1; 16]), &peer, &parts.headers, identity::fresh_request_id());
        let host = limits::host_name(&parts.uri, &parts.headers);
        let forwarding = identity::Forwarding::new(&peer, &identity, &parts.headers);
        sanitize(&mut parts);
        let mut outbound = parts.headers.clone();
        forwarding.write(&identity, &mut outbound);
        prop_assert!(outbound.get_all("x-request-id").iter().count() == 1);
        prop_assert!(!outbound.contains_key("transfer-encoding") && !outbound.contains_key("x_real.ip"));
        let place = router::Target {
            listener: "http",
            host: &host,
            path: parts.uri.path(),
            method: &parts.method,
            headers: &parts.headers,
        };
        let found = router::find(&config.routes, &place);
        if checked.is_ok() && let Ok(route) = found {
            prop_assert!(router::without_prefix(&route, parts.uri.path()).starts_with('/'));
        }
    }
}
