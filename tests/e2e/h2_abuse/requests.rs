//! Requests over HTTP/2 that HTTP/1.1 cannot say, or says differently.

use super::{
    client::{Client, Event, field, frame, headers},
    *,
};

/// What has to become of a request.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// An error of the stream, of the connection or of HTTP, and nothing at the origin.
    Refused,
    /// One request at the origin: request line and body, and a field that it has.
    Forwarded(&'static str, &'static str, Option<(&'static str, &'static str)>),
}

use Fate::{Forwarded, Refused};

type Fields = &'static [(&'static str, &'static str)];

/// Fields of the head, data if there is any, fields of the trailers if there are any, and the fate.
type Case = (&'static str, Fields, Option<&'static str>, Fields, Fate);

const GET: (&str, &str) = (":method", "GET");
const POST: (&str, &str) = (":method", "POST");
const HTTP: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/a");
const HOST: (&str, &str) = (":authority", "a");
const PASSED: Fate = Forwarded("GET /a HTTP/1.1", "", None);

const CASES: &[Case] = &[
    ("plain", &[GET, HTTP, PATH, HOST], None, &[], PASSED),
    ("https", &[GET, (":scheme", "https"), PATH, HOST], None, &[], PASSED),
    ("a host for an authority", &[GET, HTTP, PATH, ("host", "a")], None, &[], PASSED),
    ("both", &[GET, HTTP, PATH, HOST, ("host", "a")], None, &[], PASSED),
    ("te: trailers", &[GET, HTTP, PATH, HOST, ("te", "trailers")], None, &[], PASSED),
    ("a body", &[POST, HTTP, PATH, HOST], Some("hello"), &[], Forwarded("POST /a HTTP/1.1", "hello", None)),
    (
        "a body of known length",
        &[POST, HTTP, PATH, HOST, ("content-length", "5")],
        Some("hello"),
        &[],
        Forwarded("POST /a HTTP/1.1", "hello", None),
    ),
    (
        "trailers",
        &[POST, HTTP, PATH, HOST],
        Some("hello"),
        &[("a", "b"), ("x-forwarded-for", "c")],
        Forwarded("POST /a HTTP/1.1", "hello", None),
    ),
    (
        "crumbs of a cookie",
        &[GET, HTTP, PATH, HOST, ("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")],
        None,
        &[],
        Forwarded("GET /a HTTP/1.1", "", Some(("cookie", "a=b; c=d; e=f"))),
    ),
    (
        "an alias",
        &[GET, HTTP, PATH, HOST, ("x_forwarded_for", "b"), ("x.forwarded.for", "c")],
        None,
        &[],
        Forwarded("GET /a HTTP/1.1", "", Some(("x-forwarded-for", "127.0.0.1"))),
    ),
    // Pseudo fields.
    ("no method", &[HTTP, PATH, HOST], None, &[], Refused),
    ("no path", &[GET, HTTP, HOST], None, &[], Refused),
    ("no scheme", &[GET, PATH, HOST], None, &[], Refused),
    ("no authority", &[GET, HTTP, PATH], None, &[], Refused),
    ("two methods", &[GET, POST, HTTP, PATH, HOST], None, &[], Refused),
    ("two paths", &[GET, HTTP, PATH, (":path", "/b"), HOST], None, &[], Refused),
    ("two schemes", &[GET, HTTP, HTTP, PATH, HOST], None, &[], Refused),
    ("two authorities", &[GET, HTTP, PATH, HOST, HOST], None, &[], Refused),
    ("a status", &[GET, HTTP, PATH, HOST, (":status", "200")], None, &[], Refused),
    ("an unknown one", &[GET, HTTP, PATH, HOST, (":host", "a")], None, &[], Refused),
    ("a protocol without CONNECT", &[GET, HTTP, PATH, HOST, (":protocol", "websocket")], None, &[], Refused),
    ("one behind a field", &[GET, HTTP, HOST, ("a", "b"), PATH], None, &[], Refused),
    ("a capital in one", &[GET, HTTP, (":Path", "/a"), PATH, HOST], None, &[], Refused),
    // No trailer goes on, whatever it is called.
    (
        "one in the trailers",
        &[POST, HTTP, PATH, HOST],
        Some("hello"),
        &[(":path", "/b")],
        Forwarded("POST /a HTTP/1.1", "hello", None),
    ),
    // Values of pseudo fields.
    ("an empty path", &[GET, HTTP, (":path", ""), HOST], None, &[], Refused),
    ("a path without a slash", &[GET, HTTP, (":path", "a"), HOST], None, &[], Refused),
    ("an absolute path", &[GET, HTTP, (":path", "http://b/"), HOST], None, &[], Refused),
    ("an asterisk", &[GET, HTTP, (":path", "*"), HOST], None, &[], Refused),
    ("options of everything", &[(":method", "OPTIONS"), HTTP, (":path", "*"), HOST], None, &[], Refused),
    ("a blank in the path", &[GET, HTTP, (":path", "/a b"), HOST], None, &[], Refused),
    ("a request in the path", &[GET, HTTP, (":path", "/ HTTP/1.1\r\nA: b"), HOST], None, &[], Refused),
    ("a NUL in the path", &[GET, HTTP, (":path", "/\0"), HOST], None, &[], Refused),
    ("a blank in the method", &[(":method", "GET /b"), HTTP, PATH, HOST], None, &[], Refused),
    ("a line in the method", &[(":method", "GET /\r\nA: b"), HTTP, PATH, HOST], None, &[], Refused),
    ("an empty method", &[(":method", ""), HTTP, PATH, HOST], None, &[], Refused),
    ("another scheme", &[GET, (":scheme", "ftp"), PATH, HOST], None, &[], Refused),
    ("a line in the scheme", &[GET, (":scheme", "http\r\nA: b"), PATH, HOST], None, &[], Refused),
    ("a path in the scheme", &[GET, (":scheme", "http://b/?"), PATH, HOST], None, &[], Refused),
    ("an empty authority", &[GET, HTTP, PATH, (":authority", "")], None, &[], Refused),
    ("a user in the authority", &[GET, HTTP, PATH, (":authority", "u@a")], None, &[], Refused),
    ("a path in the authority", &[GET, HTTP, PATH, (":authority", "a/b")], None, &[], Refused),
    ("a line in the authority", &[GET, HTTP, PATH, (":authority", "a\r\nA: b")], None, &[], Refused),
    ("a tunnel", &[(":method", "CONNECT"), HOST], None, &[], Refused),
    ("a tunnel with a path", &[(":method", "CONNECT"), HTTP, PATH, HOST], None, &[], Refused),
    (
        "a WebSocket",
        &[(":method", "CONNECT"), (":protocol", "websocket"), HTTP, PATH, HOST],
        None,
        &[],
        Refused,
    ),
    // Hosts.
    ("another host", &[GET, HTTP, PATH, HOST, ("host", "b")], None, &[], Refused),
    ("two hosts", &[GET, HTTP, PATH, HOST, ("host", "a"), ("host", "a")], None, &[], Refused),
    // Fields of a connection.
    ("connection", &[GET, HTTP, PATH, HOST, ("connection", "close")], None, &[], Refused),
    ("keep-alive", &[GET, HTTP, PATH, HOST, ("keep-alive", "1")], None, &[], Refused),
    ("proxy-connection", &[GET, HTTP, PATH, HOST, ("proxy-connection", "close")], None, &[], Refused),
    ("upgrade", &[GET, HTTP, PATH, HOST, ("upgrade", "h2c")], None, &[], Refused),
    ("te", &[GET, HTTP, PATH, HOST, ("te", "gzip")], None, &[], Refused),
    (
        "transfer-encoding",
        &[POST, HTTP, PATH, HOST, ("transfer-encoding", "chunked")],
        Some("0\r\n\r\n"),
        &[],
        Refused,
    ),
    // Characters.
    ("a capital", &[GET, HTTP, PATH, HOST, ("A", "b")], None, &[], Refused),
    ("a blank in a name", &[GET, HTTP, PATH, HOST, ("a b", "c")], None, &[], Refused),
    ("a colon in a name", &[GET, HTTP, PATH, HOST, ("a:b", "c")], None, &[], Refused),
    ("a line in a name", &[GET, HTTP, PATH, HOST, ("a\r\nb", "c")], None, &[], Refused),
    ("no name", &[GET, HTTP, PATH, HOST, ("", "c")], None, &[], Refused),
    ("a line in a value", &[GET, HTTP, PATH, HOST, ("a", "b\r\nc: d")], None, &[], Refused),
    ("a request in a value", &[GET, HTTP, PATH, HOST, ("a", "b\r\n\r\nGET /b HTTP/1.1")], None, &[], Refused),
    ("a line feed in a value", &[GET, HTTP, PATH, HOST, ("a", "b\nc: d")], None, &[], Refused),
    ("a NUL in a value", &[GET, HTTP, PATH, HOST, ("a", "b\0c")], None, &[], Refused),
    // Lengths.
    ("less than its length", &[POST, HTTP, PATH, HOST, ("content-length", "9")], Some("hello"), &[], Refused),
    ("more than its length", &[POST, HTTP, PATH, HOST, ("content-length", "3")], Some("hello"), &[], Refused),
    ("a length and no body", &[POST, HTTP, PATH, HOST, ("content-length", "5")], None, &[], Refused),
    ("a signed length", &[POST, HTTP, PATH, HOST, ("content-length", "+5")], Some("hello"), &[], Refused),
    ("a list of lengths", &[POST, HTTP, PATH, HOST, ("content-length", "5, 5")], Some("hello"), &[], Refused),
    (
        "two lengths",
        &[POST, HTTP, PATH, HOST, ("content-length", "5"), ("content-length", "9")],
        Some("hello"),
        &[],
        Refused,
    ),
    (
        "twice the same length",
        &[POST, HTTP, PATH, HOST, ("content-length", "5"), ("content-length", "5")],
        Some("hello"),
        &[],
        Refused,
    ),
];

fn block(fields: Fields) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// Sends one request; the body of the answer if it has status 200.
async fn send(gateway: &Gateway, case: &Case) -> Option<Vec<u8>> {
    let (_, head, data, trailers, _) = case;
    let mut client = Client::connect(gateway.address()).await;
    client.send(&headers(1, if data.is_some() { 4 } else { 5 }, &block(head))).await;
    if let Some(data) = data {
        client.send(&frame(0, u8::from(trailers.is_empty()), 1, data.as_bytes())).await;
    }
    if !trailers.is_empty() {
        client.send(&headers(1, 5, &block(trailers))).await;
    }
    let (mut passed, mut body) = (false, Vec::new());
    loop {
        match client.next().await {
            // `:status: 200` is entry 8 of the static table.
            Event::Headers(1, block) => passed = block.first() == Some(&0x88),
            Event::Data(1, data) => body.extend(data),
            Event::End(1) => return passed.then_some(body),
            Event::Reset(_) | Event::GoAway | Event::Closed => return None,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_has_one_form_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(|_| Reply::ok()).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.waf = vec!["rules: []".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let mut failures = Vec::new();
    let mut arrived = 0;
    for case in CASES {
        let answer = send(&gateway, case).await;
        let seen = origin.seen().split_off(arrived);
        arrived += seen.len();
        let is_met = match (case.4, seen.as_slice()) {
            (Refused, []) => answer.is_none(),
            (Forwarded(line, body, wanted), [seen]) => {
                let found = |(name, value)| seen.values(name).collect::<Vec<_>>() == [value];
                let odd =
                    ["te", "connection", "upgrade"].iter().any(|name| seen.values(name).next().is_some());
                answer.as_deref() == Some(b"ok")
                    && (seen.line(), seen.body.as_slice()) == (line, body.as_bytes())
                    && wanted.is_none_or(found)
                    && !odd
            }
            _ => false,
        };
        if !is_met {
            failures.push(format!("{}: {answer:?}, the origin got {seen:?}", case.0));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), CASES.len(), failures.join("\n"));
    assert_eq!((origin.seen().len(), origin.strays().len()), (arrived, 0));
    assert!(gateway.process().is_running().unwrap());
}
