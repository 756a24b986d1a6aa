//! Fields of the connection and of the gateway, several messages, and half of one.

use super::{Case, Expect, cut, harmless, no, yes};

pub(super) const HOPS: &[Case] = &[
    harmless("keep alive", "Connection: keep-alive|Keep-Alive: timeout={t}"),
    harmless("a proxy's connection", "Proxy-Connection: {t}"),
    harmless("a proxy's credentials", "Proxy-Authorization: Basic {t}"),
    harmless("codings of transfer", "TE: deflate, {t}"),
    harmless("announced trailers", "Trailer: {t}"),
    harmless("h2c", "Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABkAAQAAP__"),
    harmless("h2c without a connection", "Upgrade: h2c"),
    harmless("HTTP2-Settings alone", "HTTP2-Settings: {t}"),
    harmless("an unknown protocol", "Connection: upgrade|Upgrade: {t}/1"),
    harmless("a nominated field", "Connection: X-Secret|X-Secret: {t}"),
    harmless("a nominated host", "Connection: Host"),
    harmless(
        "the gateway's fields nominated",
        "Connection: x-forwarded-for, x-forwarded-proto, x-request-id",
    ),
    harmless("a nominated connection", "Connection: connection, keep-alive"),
    harmless("nonsense nominated", "Connection: ,, ;@ \u{ff}"),
    harmless("an expectation of nothing", "Expect: 100-continue"),
    harmless("another expectation", "Expect: {t}"),
    yes(
        "an expectation",
        "POST /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 6||{t}",
        &[("POST /a HTTP/1.1", "{t}")],
    ),
    yes(
        "a nominated length",
        "POST /a HTTP/1.1|Host: a|Connection: Content-Length, Transfer-Encoding|Content-Length: 6||{t}",
        &[("POST /a HTTP/1.1", "{t}")],
    ),
    yes(
        "nominated chunks",
        "POST /a HTTP/1.1|Host: a|Connection: Transfer-Encoding|Transfer-Encoding: chunked||6|{t}|0||",
        &[("POST /a HTTP/1.1", "{t}")],
    ),
    yes(
        "h2c with a body",
        "POST /a HTTP/1.1|Host: a|Connection: upgrade|Upgrade: h2c|Content-Length: 6||{t}",
        &[("POST /a HTTP/1.1", "{t}")],
    ),
    yes(
        "h2c with chunks",
        "POST /a HTTP/1.1|Host: a|Connection: upgrade|Upgrade: h2c|Transfer-Encoding: chunked||6|{t}|0||",
        &[("POST /a HTTP/1.1", "{t}")],
    ),
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no("a request behind an upgrade", "GET /a HTTP/1.1|Host: a|Connection: upgrade|Upgrade: h2c||")
    },
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no(
            "the preface of HTTP/2 behind an upgrade",
            "GET /a HTTP/1.1|Host: a|Connection: upgrade|Upgrade: h2c||PRI * HTTP/2.0||SM||",
        )
    },
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no("a request behind the last", "GET /a HTTP/1.1|Host: a|Connection: close||")
    },
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no("a request behind the last of several words", "GET /a HTTP/1.1|Host: a|Connection: A, Close||")
    },
];

pub(super) const ALIASES: &[Case] = &[
    harmless("X_Forwarded_For", "X_Forwarded_For: {t}"),
    harmless("X.Forwarded.For", "X.Forwarded.For: {t}"),
    harmless("X-Forwarded_For", "X-Forwarded_For: {t}"),
    harmless("X-Forwarded-For with nonsense", "X-Forwarded-For: {t}, 192.0.2.1"),
    harmless("X-Forwarded-For twice", "X-Forwarded-For: {t}|X-Forwarded-For: 192.0.2.1"),
    harmless("X_Forwarded_Proto", "X_Forwarded_Proto: {t}"),
    harmless("X-Forwarded-Proto with nonsense", "X-Forwarded-Proto: {t}"),
    harmless("X-Forwarded-Port with nonsense", "X-Forwarded-Port: {t}"),
    harmless("X-Forwarded-Host with nonsense", "X-Forwarded-Host: <{t}>"),
    harmless("X-Forwarded-Prefix", "X-Forwarded-Prefix: /{t}"),
    harmless("Forwarded", "Forwarded: for={t}"),
    harmless("X-Real-IP", "X-Real-IP: {t}"),
    harmless("X_Real_IP", "X_Real_IP: {t}"),
    harmless("X-Request-Id with nonsense", "X-Request-Id: {t}"),
    harmless("X_Request_Id", "X_Request_Id: {t}"),
    harmless("X-Consumer-Username", "X-Consumer-Username: {t}"),
    harmless("X_Consumer.Username", "X_Consumer.Username: {t}"),
    harmless("X-Original-URL", "X-Original-URL: /{t}"),
    harmless("X-Rewrite-URL", "X-Rewrite-URL: /{t}"),
    harmless("Proxy", "Proxy: {t}"),
    harmless("Content_Length", "Content_Length: 5"),
    harmless("Content.Length", "Content.Length: 5"),
    harmless("Transfer_Encoding", "Transfer_Encoding: chunked"),
    harmless("Transfer.Encoding", "Transfer.Encoding: chunked"),
    harmless("Content_Type", "Content_Type: {t}"),
    harmless("Proxy_Connection", "Proxy_Connection: {t}"),
];

pub(super) const PIPELINES: &[Case] = &[
    yes(
        "two requests",
        "GET /a HTTP/1.1|Host: a||GET /b?{t} HTTP/1.1|Host: a||",
        &[("GET /a HTTP/1.1", ""), ("GET /b?{t} HTTP/1.1", "")],
    ),
    yes(
        "a request behind a length",
        "POST /a HTTP/1.1|Host: a|Content-Length: 5||helloGET /b?{t} HTTP/1.1|Host: a||",
        &[("POST /a HTTP/1.1", "hello"), ("GET /b?{t} HTTP/1.1", "")],
    ),
    yes(
        "a request behind chunks",
        "POST /a HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||GET /b?{t} HTTP/1.1|Host: a||",
        &[("POST /a HTTP/1.1", "hello"), ("GET /b?{t} HTTP/1.1", "")],
    ),
    yes(
        "chunks behind a request",
        "GET /a HTTP/1.1|Host: a||POST /b HTTP/1.1|Host: a|Transfer-Encoding: chunked||6|{t}|0||",
        &[("GET /a HTTP/1.1", ""), ("POST /b HTTP/1.1", "{t}")],
    ),
    yes(
        "an empty line between",
        "POST /a HTTP/1.1|Host: a|Content-Length: 5||hello|GET /b?{t} HTTP/1.1|Host: a||",
        &[("POST /a HTTP/1.1", "hello"), ("GET /b?{t} HTTP/1.1", "")],
    ),
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no(
            "CL.TE behind a request",
            "GET /a HTTP/1.1|Host: a||POST /b HTTP/1.1|Host: a|Content-Length: 5|Transfer-Encoding: chunked||0||",
        )
    },
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no(
            "twice the same length behind a request",
            "GET /a HTTP/1.1|Host: a||POST /b HTTP/1.1|Host: a|Content-Length: 5|Content-Length: 5||hello",
        )
    },
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no("a bare line feed behind a request", "GET /a HTTP/1.1|Host: a||GET /b HTTP/1.1|Host: a\n|")
    },
    Case {
        expect: Expect::Ended(&[("GET /a HTTP/1.1", "")]),
        ..no("a tunnel behind a request", "GET /a HTTP/1.1|Host: a||CONNECT a:80 HTTP/1.1|Host: a:80||")
    },
    Case {
        expect: Expect::Ended(&[("POST /a HTTP/1.1", "hello")]),
        ..no("more body than its length", "POST /a HTTP/1.1|Host: a|Content-Length: 5||hello world||")
    },
    Case {
        expect: Expect::Ended(&[("POST /a HTTP/1.1", "hello")]),
        ..no(
            "chunks twice over",
            "POST /a HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||5|hello|0||",
        )
    },
];

pub(super) const CUT: &[Case] = &[
    cut("nothing", ""),
    cut("half a method", "GE"),
    cut("half a target", "GET /{t}"),
    cut("half a request line", "GET /{t} HTTP/1.1"),
    cut("no fields", "GET /{t} HTTP/1.1|"),
    cut("half a field", "GET /{t} HTTP/1.1|Host: a"),
    cut("no empty line", "GET /{t} HTTP/1.1|Host: a|"),
    cut("half of the empty line", "GET /{t} HTTP/1.1|Host: a|\r"),
    cut("no body", "POST /{t} HTTP/1.1|Host: a|Content-Length: 5||"),
    cut("half a body", "POST /{t} HTTP/1.1|Host: a|Content-Length: 5||he"),
    cut("no chunk", "POST /{t} HTTP/1.1|Host: a|Transfer-Encoding: chunked||"),
    cut("half a size", "POST /{t} HTTP/1.1|Host: a|Transfer-Encoding: chunked||5"),
    cut("half a chunk", "POST /{t} HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|he"),
    cut("no last chunk", "POST /{t} HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|"),
    cut("half of the last chunk", "POST /{t} HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0|"),
    cut("half a trailer", "POST /{t} HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0|A: b|"),
    cut("the preface of HTTP/2 alone", "PRI * HTTP/2.0||SM||"),
    cut("half of the preface of HTTP/2", "PRI * HTTP/2.0||"),
];
