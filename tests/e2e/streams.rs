//! What is no plain exchange: protocols that are switched to, gRPC, server-sent events.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2 as h2_client,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::gateway::{Gateway, Settings};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

use crate::raw::{RawOrigin, Reply, Then};

const PATIENCE: Duration = Duration::from_secs(20);

async fn gateway(place: &std::path::Path, origin: SocketAddr, group: &str, route: &str) -> Gateway {
    let yaml = format!(
        "upstreams:\n  u:\n    origins: [{{url: \"http://{origin}\"}}]\n{group}routes:\n  - name: r\n    upstream: u\n{route}"
    );
    Gateway::start_with(place, &yaml).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_pass_where_the_route_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_close() || socket.send(message).await.is_err() {
                        break;
                    }
                }
                let _ = socket.close(None).await;
            });
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let open = gateway(&directory.path().join("open"), origin, "", "    upgrades: [websocket]\n").await;
    let shut = gateway(&directory.path().join("shut"), origin, "", "").await;
    let connect = async |gateway: &Gateway| {
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        tokio_tungstenite::client_async(format!("ws://{}/chat", gateway.address()), stream).await
    };
    let (mut socket, response) = connect(&open).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"));
    let large = "x".repeat(1 << 20);
    for text in ["hello", &large, "again"] {
        socket.send(Message::text(text)).await.unwrap();
        let echoed = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(echoed.into_text().unwrap().as_str(), text);
    }
    assert_eq!(open.metric("portcullis_upstream_active_requests").await.unwrap(), 1.0);
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = timeout(PATIENCE, socket.next()).await.unwrap() {}
    drop(socket);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while open.metric("portcullis_upstream_active_requests").await.unwrap() != 0.0 {
        assert!(tokio::time::Instant::now() < deadline, "the tunnel never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(connect(&shut).await.is_err(), "no route allows it");
}

/// An origin that answers a head with `reply`, after it has looked whether more came before; returns all it was sent.
async fn scripted(reply: &'static str) -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let mut head = String::new();
            while !head.contains("\r\n\r\n") {
                let Ok(count @ 1..) = stream.read(&mut buffer).await else { break };
                head.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            if let Ok(Ok(count)) = timeout(Duration::from_millis(200), stream.read(&mut buffer)).await {
                head.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            shared.lock().unwrap().push_str(&head);
            let _ = stream.write_all(reply.as_bytes()).await;
            let mut rest = String::new();
            let _ = timeout(PATIENCE, stream.read_to_string(&mut rest)).await;
            shared.lock().unwrap().push_str(&format!("|{rest}"));
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_101_switches_and_nothing_is_sent_before_it() {
    let asked = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nEARLY";
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ";
    for (reply, status, tunnelled) in [
        (format!("{switching}WebSocket\r\n\r\nhello"), "101", true),
        (format!("{switching}other\r\n\r\nhello"), "502", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_owned(), "200", false),
        ("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n".to_owned(), "426", false),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (origin, seen) = scripted(reply.clone().leak()).await;
        let gateway = gateway(directory.path(), origin, "", "    upgrades: [websocket]\n").await;
        let mut client = TcpStream::connect(gateway.address()).await.unwrap();
        client.write_all(asked.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{reply}: {answer}");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tunnelled && !seen.lock().unwrap().ends_with("|EARLY") {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", seen.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(answer.ends_with("hello"), tunnelled, "{reply}: {answer}");
        let seen = seen.lock().unwrap();
        assert_eq!(seen.contains("EARLY"), tunnelled, "{seen}");
        assert_eq!(seen.matches("HTTP/1.1").count(), 1, "{seen}");
    }
}

type Streaming = BoxBody<Bytes, Infallible>;

/// Answers each message of a call with the same, and ends with a status that says whether trailers were expected.
async fn echo_call(request: Request<Incoming>) -> Result<Response<Streaming>, Infallible> {
    let expected = request.headers().get("te").is_some_and(|te| te == "trailers");
    let frames = stream::unfold(Some(request.into_body()), move |body| async move {
        let mut body = body?;
        match body.frame().await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                Some((Ok(Frame::data(data)), Some(body)))
            }
            _ => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(if expected { "0" } else { "13" }));
                Some((Ok(Frame::trailers(trailers)), None))
            }
        }
    });
    let body = BoxBody::new(StreamBody::new(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_with_trailers_and_streams_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let builder = http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(echo_call)));
        }
    });
    let directory = tempfile::tempdir().unwrap();
    for (name, route) in [("unary", ""), ("streaming", "    grpc: on\n")] {
        let gateway = gateway(&directory.path().join(name), origin, "    protocol: h2\n", route).await;
        let stream = TcpStream::connect(gateway.address()).await.unwrap();
        let (mut client, connection) =
            h2_client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (messages, queue) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
        let body = StreamBody::new(Box::pin(stream::unfold(queue, |mut queue| async move {
            queue.recv().await.map(|frame| (frame, queue))
        })));
        let request = Request::post(format!("http://{}/pkg.Service/Call", gateway.address()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let answer = tokio::spawn(client.send_request(request));
        let mut trailers = None;
        if name == "unary" {
            messages.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi")))).await.unwrap();
            drop(messages);
            let response = timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap();
            let collected = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
            trailers = collected.trailers().cloned();
            assert_eq!(collected.to_bytes(), &b"\0\0\0\0\x02hi"[..]);
        } else {
            let mut body = None;
            let mut answer = Some(answer);
            for part in [&b"\0\0\0\0\x01a"[..], b"\0\0\0\0\x01b", b"\0\0\0\0\x01c"] {
                // Each message is answered before the next is sent.
                messages.send(Ok(Frame::data(Bytes::from_static(part)))).await.unwrap();
                if let Some(answer) = answer.take() {
                    body = Some(timeout(PATIENCE, answer).await.unwrap().unwrap().unwrap().into_body());
                }
                let frame =
                    timeout(PATIENCE, body.as_mut().unwrap().frame()).await.unwrap().unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), part);
            }
            drop(messages);
            while let Some(frame) = timeout(PATIENCE, body.as_mut().unwrap().frame()).await.unwrap() {
                trailers = frame.unwrap().into_trailers().ok().or(trailers);
            }
        }
        assert_eq!(trailers.expect("trailers")["grpc-status"], "0", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_arrive_one_by_one() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let gate = Arc::new(Semaphore::new(1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let shared = Arc::clone(&gate);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let gate = Arc::clone(&shared);
            let service = service_fn(move |_: Request<Incoming>| {
                let gate = Arc::clone(&gate);
                async move {
                    let events = stream::unfold(0, move |count| {
                        let gate = Arc::clone(&gate);
                        async move {
                            if count == 3 {
                                return None;
                            }
                            gate.acquire().await.unwrap().forget();
                            let event = Bytes::from(format!("data: {count}\n\n"));
                            Some((Ok::<_, Infallible>(Frame::data(event)), count + 1))
                        }
                    });
                    let body = BoxBody::new(StreamBody::new(events));
                    let response: Response<Streaming> =
                        Response::builder().header("content-type", "text/event-stream").body(body).unwrap();
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let gateway = gateway(directory.path(), origin, "", "").await;
    let mut response =
        reqwest::Client::new().get(format!("http://{}/events", gateway.address())).send().await.unwrap();
    for count in 0..3 {
        // The next event is only let go when this one has arrived.
        let event = timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        assert_eq!(event, format!("data: {count}\n\n"));
        gate.add_permits(1);
    }
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_has_a_bound_whether_it_says_its_length_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(|seen| {
        let (head, body) = match seen.line().split(' ').nth(1) {
            Some("/said") => ("Content-Length: 4000", "a".repeat(4000)),
            Some("/unsaid") => {
                ("Transfer-Encoding: chunked", "3e8\r\n".to_owned() + &"a".repeat(1000) + "\r\n")
            }
            _ => ("Content-Length: 2000", "a".repeat(2000)),
        };
        let mut bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").into_bytes();
        let is_chunked = head.contains("chunked");
        bytes.extend(body.repeat(if is_chunked { 4 } else { 1 }).into_bytes());
        bytes.extend(if is_chunked { &b"0\r\n\r\n"[..] } else { b"" });
        Reply { bytes, then: Then::Keep }
    })
    .await
    .unwrap();
    let mut settings = Settings::new(origin.url());
    settings.more = vec!["limits: {response: 2KiB}".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    for _ in 0..2 {
        assert_eq!(gateway.client().get("/small").await.unwrap().body.len(), 2000);
        let refused = gateway.client().get("/said").await.unwrap();
        assert_eq!(refused.status, 502);
        assert!(refused.headers["content-type"].to_str().unwrap().starts_with("application/problem+json"));
        assert!(gateway.client().get("/unsaid").await.is_err(), "broken off");
    }
    let told = async {
        while gateway.watch().log().matches("\"error.type\":\"response_too_large\"").count() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("the access log does not say why");
}
