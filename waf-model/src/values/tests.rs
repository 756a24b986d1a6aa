//! What is extracted from small requests, from broken ones, and from hostile ones.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Finding, Limits, Location, Values};
use crate::request::{BodyExtent, BodyView, Header, RequestView};

/// A request with the given parts; everything else is empty.
fn request<'a>(headers: &'a [Header<'a>], body: &'a [u8], extent: BodyExtent) -> RequestView<'a> {
    RequestView {
        method: "POST",
        path: b"/",
        query: None,
        protocol: "HTTP/1.1",
        headers,
        body: BodyView { bytes: body, extent },
        client_address: "192.0.2.1",
    }
}

/// `Location name=value|deeper|deeper` of every value that is no header, then `!Finding`s.
fn render(values: &Values<'_>) -> String {
    let text = |bytes: &[u8]| {
        bytes.escape_ascii().to_string().replace("\\\"", "\"").replace("\\\\", "\\").replace("\\'", "'")
    };
    let items = values.items.iter().filter(|value| value.location != Location::Header).map(|value| {
        let layers: Vec<String> = value.layers().map(text).collect();
        format!("{:?} {}={}", value.location, text(&value.name), layers.join("|"))
    });
    items.chain(values.findings.iter().map(|finding| format!("!{finding:?}"))).collect::<Vec<_>>().join("\n")
}

fn header<'a>(name: &'a str, value: &'a str) -> Header<'a> {
    Header { name, value: value.as_bytes() }
}

#[track_caller]
fn check_body(content_type: &str, body: &[u8], expected: &[&str]) {
    let headers = [header("content-type", content_type)];
    let request = request(&headers, body, BodyExtent::Complete);
    assert_eq!(render(&Values::extract(&request, &Limits::default())), expected.join("\n"));
}

#[track_caller]
fn check_cut(content_type: &str, body: &[u8], expected: &[&str]) {
    let headers = [header("content-type", content_type)];
    let request = request(&headers, body, BodyExtent::Truncated);
    assert_eq!(render(&Values::extract(&request, &Limits::default())), expected.join("\n"));
}

#[track_caller]
fn check_target(path: &str, query: Option<&str>, expected: &[&str]) {
    let mut view = request(&[], b"", BodyExtent::Complete);
    view.path = path.as_bytes();
    view.query = query.map(str::as_bytes);
    assert_eq!(render(&Values::extract(&view, &Limits::default())), expected.join("\n"));
}

#[test]
fn path_and_query() {
    check_target("/a//b%2Fc/%zz", None, &["Path =a", "Path =b/c", "Path =%zz"]);
    check_target("/", Some(""), &[]);
    check_target(
        "/",
        Some("a=1&&b+c=d+e%20f&flag&=x&a=2;c=3"),
        &["Query a=1", "Query b c=d e f", "Query flag=", "Query =x", "Query a=2;c=3"],
    );
    // Browsers send all of this as it is.
    check_target(
        "/{x}|y",
        Some("f[a]={\"b\":\"c|d\"}&p=100%&q=a=b"),
        &["Path ={x}|y", "Query f[a]={\"b\":\"c|d\"}", "Query p=100%", "Query q=a=b"],
    );
}

#[test]
fn headers_and_cookies() {
    let headers = [
        header("host", "a.example"),
        header("cookie", "a=1; b = x%20y ;; flag;c=d=e"),
        header("x-note", "%3Cb%3E"),
        header("cookie", "a=2"),
    ];
    let view = request(&headers, b"", BodyExtent::Complete);
    let values = Values::extract(&view, &Limits::default());
    assert_eq!(render(&values), "Cookie a=1\nCookie b=x%20y|x y\nCookie flag=\nCookie c=d=e\nCookie a=2");
    let names: Vec<&[u8]> = values.items.iter().take(2).map(|value| &*value.name).collect();
    assert_eq!(names, [&b"host"[..], b"x-note"]);
    assert_eq!(values.items.get(1).unwrap().deeper, [b"<b>".to_vec()]);
}

#[test]
fn layers() {
    let cases = [
        ("plain text, nothing to do", "Query q=plain text, nothing to do"),
        ("a%2526b", "Query q=a%26b|a&b"),
        ("%2526lt%253bx", "Query q=%26lt%3bx|&lt;x|<x"),
        ("%26%2360;b", "Query q=&#60;b|<b"),
        ("\\u003cb\\x3e", "Query q=\\u003cb\\x3e|<b>"),
        ("C:\\xampp\\new", "Query q=C:\\xampp\\new"),
        ("Tom %26 Jerry 100%25 \\o/", "Query q=Tom & Jerry 100% \\o/"),
        (
            "PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
            "Query q=PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==|<script>alert(1)</script>",
        ),
        ("0123456789abcdef0123456789abcdef", "Query q=0123456789abcdef0123456789abcdef"),
        ("/x?a=1%26lt=2%26gtx", "Query q=/x?a=1&lt=2&gtx"),
        ("1 %26lt 2", "Query q=1 &lt 2|1 < 2"),
        ("%25u003cb", "Query q=%u003cb|<b"),
        ("%2525252525", "Query q=%25252525|%252525|%2525|%25\n!TooManyLayers"),
    ];
    for (query, expected) in cases {
        check_target("/", Some(&format!("q={query}")), &[expected]);
    }
}

#[test]
fn forms() {
    let form = "application/x-www-form-urlencoded; charset=UTF-8";
    check_body(form, b"a=1&b=x+y%26", &["Form a=1", "Form b=x y&"]);
    check_body(form, b"{\"a\":\"\\u003c\"}", &["Form {\"a\":\"\\u003c\"}=", "Json a=<"]);
    check_cut(form, b"a=1&b=x%2", &["Form a=1", "Form b=x%2", "!TruncatedBody"]);
}

#[test]
fn json() {
    let json = "application/json";
    check_body(
        json,
        br#" {"a":{"b":[1,-2.5e+3,{"c":"x"}]},"d":null,"e":true} "#,
        &["Json a.b[]=1", "Json a.b[]=-2.5e+3", "Json a.b[].c=x", "Json d=null", "Json e=true"],
    );
    check_body(json, br#"["\u003c\n\ud83d\ude00\/"]"#, &[r"Json []=<\n\xf0\x9f\x98\x80/"]);
    check_body(json, br#"{"a":[],"b":{},"":""}"#, &["Json a=", "Json b=", "Json ="]);
    check_body(json, b"\xef\xbb\xbf\"x\"", &["Json =x"]);
    check_body(json, b"{}", &[]);
    // Every leaf is inspected, whatever an application would make of the names.
    check_body(
        "application/vnd.api+json",
        br#"{"a.b":1,"a":{"b":2},"a":3}"#,
        &["Json a.b=1", "Json a.b=2", "Json a=3", "!DuplicateJsonKey"],
    );
    check_body(json, br#"{"\u0061":1,"a":2}"#, &["Json a=1", "Json a=2", "!DuplicateJsonKey"]);
    for broken in [
        "{\"a\":1",
        "{\"a\":1}}",
        "{\"a\":1} {\"b\":2}",
        "{'a':1}",
        "{\"a\":1,}",
        "[1,]",
        "[01]",
        "[NaN]",
        "{\"a\"}",
        "[1}",
        "[\"a\nb\"]",
        "[\"\\q\"]",
        "<a/>",
        "a=1",
        "[1 2]",
        "{,}",
        "\"",
        " ",
        "[1.]",
        "[-]",
        "[1e]",
        "nul",
    ] {
        let headers = [header("content-type", json)];
        let view = request(&headers, broken.as_bytes(), BodyExtent::Complete);
        let values = Values::extract(&view, &Limits::default());
        assert_eq!(values.findings, [Finding::MalformedBody], "{broken}");
        let raw = values.items.last().unwrap();
        assert_eq!((raw.location, &*raw.value), (Location::Body, broken.as_bytes()), "{broken}");
    }
    check_body(json, br#"{"x":"<b>" oops"#, &["Json x=<b>", r#"Body ={"x":"<b>" oops"#, "!MalformedBody"]);
    check_cut(json, br#"{"a":"x","b":{"c":"hal"#, &["Json a=x", "Json b.c=hal", "!TruncatedBody"]);
    check_cut(json, br#"{"a":1,"a":tr"#, &["Json a=1", "Json a=tr", "!DuplicateJsonKey", "!TruncatedBody"]);
}

#[test]
fn xml() {
    let xml = "application/xml";
    check_body(xml, b"<?xml version=\"1.0\"?>\n<a x='1 &lt; 2'>\n <b>sel<!-- c -->ect &#60;<![CDATA[&x]]></b><e/>\n</a>\n", &[
        "Xml a.@x=1 < 2", "Xml a.b= c ", "Xml a.b=select <&x", "Xml a.e=",
    ]);
    check_body(
        "image/svg+xml; charset=utf-8",
        b"<s><script>alert(1)</script></s>",
        &["Xml s.script=alert(1)"],
    );
    check_body(
        "text/xml",
        b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><a>&x;</a>",
        &["Xml =a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]", "Xml a=&x;", "!XmlDoctype"],
    );
    check_body(xml, b"<?xml version='1.0' encoding='utf-7'?><a>x</a>", &["Xml a=x", "!AmbiguousContentType"]);
    check_body(xml, b"<a>x</b>", &["Xml a=x", "Body =<a>x</b>", "!MalformedBody"]);
    check_body(xml, b"<a>x", &["Xml a=x", "Body =<a>x", "!MalformedBody"]);
    check_body(xml, b"{\"a\":1}", &["Xml ={\"a\":1}", "Body ={\"a\":1}", "!MalformedBody"]);
    check_body(xml, b"<a/><b/>", &["Xml a=", "Xml b=", "Body =<a/><b/>", "!MalformedBody"]);
    check_body(
        xml,
        b"<a x=1 y='2'/>",
        &["Xml a= x=1 y='2'", "Xml a=", "Body =<a x=1 y='2'/>", "!MalformedBody"],
    );
    check_cut(xml, b"<a><b>x</b><c y='", &["Xml a.b=x", "!TruncatedBody"]);
}

#[test]
fn multipart() {
    let boundary = "multipart/form-data; boundary=XyZ";
    let good = "--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\ny\r\n--XyZ\r\n\
        Content-Disposition: form-data; name=\"f\"; filename=\"C:\\my [1].png\"\r\nContent-Type: image/png\r\n\r\n\
        \x01<script>\r\n--XyZ\r\nContent-Disposition: form-data; name=\"none\"; filename=\"\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n\r\n--XyZ--\r\n";
    let values = ["Multipart a=x\\r\\ny", "FileName f=C:\\my [1].png", "FileName none="];
    check_body(boundary, good.as_bytes(), &values);
    check_body("multipart/form-data; boundary=\"XyZ\"", good.as_bytes(), &values);
    let ambiguous = [
        // In the boundary, then in the body.
        ("multipart/form-data; boundary=XyZ; boundary=b", good.to_string()),
        ("multipart/form-data; boundary='XyZ'", good.replace("XyZ", "'XyZ'")),
        ("multipart/form-data; boundary=\"XyZ", good.to_string()),
        ("multipart/form-data; boundary = XyZ", good.to_string()),
        ("multipart/form-data; boundary=\"Xy\\Z\"", good.replace("XyZ", "Xy\\Z")),
        (boundary, good.replace("\r\n", "\n")),
        (boundary, good.replacen("--XyZ\r\n", "--XyZ \r\n", 1)),
        (boundary, good.replacen("x\r\ny", "x--XyZ", 1)),
        (boundary, good.replacen("x\r\ny", "x\r\n--XyZz", 1)),
        (boundary, format!("preamble\r\n{good}")),
        (boundary, format!("{good}trailing")),
        (boundary, good.replacen("name=\"a\"", "name=\"a\"; name=\"b\"", 1)),
        (boundary, good.replacen("name=\"a\"", "name=a\"b", 1)),
        (boundary, good.replacen("name=\"a\"", "name='a'", 1)),
        (boundary, good.replacen("name=\"a\"", "name=\"a\\\"b\"", 1)),
        (boundary, good.replacen("name=\"a\"", "name=\"a\"x", 1)),
        (boundary, good.replacen("name=\"a\"", "name=\"a", 1)),
        (boundary, good.replacen("; name=\"a\"", "", 1)),
        (boundary, good.replacen("form-data", "attachment", 1)),
        (boundary, good.replacen("filename=", "filename*=utf-8''a.php; filename=", 1)),
        (boundary, good.replacen("Content-Disposition:", "Content-Disposition :", 1)),
        (boundary, good.replacen("\r\n\r\nx", "\r\nContent-Disposition: form-data; name=\"z\"\r\n\r\nx", 1)),
        (boundary, good.replacen("\r\n\r\nx", "\r\nContent-Transfer-Encoding: base64\r\n\r\nx", 1)),
        (boundary, good.replacen("form-data; name", "form-data;\r\n name", 1)),
        (boundary, good.replacen("Content-Disposition: form-data; name=\"a\"", "X: y", 1)),
        (boundary, good.replacen("octet-stream\r\n\r\n", "octet-stream\r\n\r\nx", 1)),
    ];
    for (content_type, body) in &ambiguous {
        let headers = [header("content-type", content_type)];
        let view = request(&headers, body.as_bytes(), BodyExtent::Complete);
        let values = Values::extract(&view, &Limits::default());
        assert!(values.findings.contains(&Finding::AmbiguousMultipart), "{content_type}\n{body}");
        let raw = values.items.last().unwrap();
        assert_eq!((raw.location, &*raw.value), (Location::Body, body.as_bytes()), "{content_type}\n{body}");
    }
    check_body(
        "multipart/form-data",
        b"--b\r\n",
        &["Body =--b\\r\\n", "!MalformedBody", "!AmbiguousMultipart"],
    );
    check_body(boundary, b"a=1", &["Body =a=1", "!MalformedBody", "!AmbiguousMultipart"]);
    let field = b"--XyZ\r\nContent-Disposition: form-data; name=a\r\n\r\nxy".as_slice();
    check_cut(boundary, b"big preamble", &["Body =big preamble", "!AmbiguousMultipart", "!TruncatedBody"]);
    check_cut(boundary, field, &["Multipart a=xy", "!TruncatedBody"]);
    let charset = good.replacen("\r\n\r\nx", "\r\nContent-Type: text/plain; charset=utf-7\r\n\r\nx", 1);
    let expected: Vec<&str> = values.iter().copied().chain(["!AmbiguousContentType"]).collect();
    check_body(boundary, charset.as_bytes(), &expected);
}

#[test]
fn types() {
    check_body("text/plain", b"{\"a\":\"b\"}", &["Json a=b"]);
    check_body("", b"[1]\n[2]", &["Json []=1", "Json []=2"]);
    check_body("text/plain", b"user[name]=x&b=%41", &["Form user[name]=x", "Form b=A"]);
    check_body("text/plain", b"dear all, 1 = 1", &["Body =dear all, 1 = 1"]);
    check_body("text/csv", b"[draft", &["Json []=draft", "Body =[draft"]);
    check_body("text/csv", b"a,b\n1,2", &["Body =a,b\\n1,2"]);
    for opaque in [
        "application/octet-stream",
        "image/png",
        "application/grpc+proto",
        "Application/PDF; x=y",
        "font/woff2",
    ] {
        check_body(opaque, b"a=1", &[]);
        check_cut(opaque, b"a=1", &[]);
    }
    for charset in ["utf-8", "\"UTF-8\"", "iso-8859-1", "windows-1252", "us-ascii"] {
        check_body(&format!("application/json;charset={charset}"), b"[1]", &["Json []=1"]);
    }
    for ambiguous in [
        "application/json; charset=utf-7",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset=\"utf-8",
        "application/json, text/plain",
    ] {
        let headers = [header("content-type", ambiguous)];
        let view = request(&headers, b"[1]", BodyExtent::Complete);
        let values = Values::extract(&view, &Limits::default());
        assert_eq!(render(&values), "Json []=1\n!AmbiguousContentType", "{ambiguous}");
    }
}

#[test]
fn two_types_are_both_read() {
    let headers = [header("content-type", "application/json"), header("content-type", "text/plain")];
    let view = request(&headers, b"a=1", BodyExtent::Complete);
    let values = Values::extract(&view, &Limits::default());
    assert_eq!(render(&values), "Json =a=1\nBody =a=1\nForm a=1\n!MalformedBody\n!AmbiguousContentType");
}

#[test]
fn encoded_bodies() {
    let headers = [header("content-type", "application/json"), header("content-encoding", "gzip")];
    let cases: [(&[u8], &str); 3] = [
        (b"\x1f\x8b\x08x", "Body =\\x1f\\x8b\\x08x\n!EncodedBody"),
        (b"\x78\x9cxx", "Body =x\\x9cxx\n!EncodedBody"),
        (b"[1]", "Json []=1\n!EncodedBody"),
    ];
    for (body, expected) in cases {
        let view = request(&headers, body, BodyExtent::Complete);
        assert_eq!(render(&Values::extract(&view, &Limits::default())), expected);
    }
    let headers = [header("content-type", "application/json"), header("content-encoding", "Identity")];
    let view = request(&headers, b"[1]", BodyExtent::Complete);
    assert_eq!(render(&Values::extract(&view, &Limits::default())), "Json []=1");
}

#[test]
fn limits() {
    let headers = [header("content-type", "application/json")];
    let view = request(&headers, br#"[[["abc"]],"def","%2525"]"#, BodyExtent::Complete);
    let default = Limits::default();
    let cases = [
        (Limits { count: 3, ..default }, "Json [][][]=abc\nJson []=def\n!TooManyValues"),
        (
            Limits { count: 4, depth: 3, bytes: 68, layers: 2 },
            "Json [][][]=abc\nJson []=def\nJson []=%2525|%25|%",
        ),
        (
            Limits { depth: 2, ..default },
            "Body =[[[\"abc\"]],\"def\",\"%2525\"]|[[[\"abc\"]],\"def\",\"%25\"]|[[[\"abc\"]],\"def\",\"%\"]\n!TooDeep",
        ),
        (Limits { layers: 0, ..default }, "Json [][][]=abc\nJson []=def\nJson []=%2525\n!TooManyLayers"),
        (Limits { bytes: 40, ..default }, "Json [][][]=abc\nJson []=d\n!TooLarge"),
    ];
    for (limits, expected) in cases {
        assert_eq!(render(&Values::extract(&view, &limits)), expected, "{limits:?}");
    }
}

#[test]
fn bombs_are_cheap() {
    let part = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n";
    let dashes = format!("multipart/form-data; boundary={}", "-".repeat(70));
    let bombs: [(&str, Vec<u8>); 13] = [
        ("application/json", b"[".repeat(1 << 20)),
        ("application/json", b"{\"a\":".repeat(1 << 18)),
        ("application/json", [b"{".as_slice(), &b"\"a\":1,".repeat(100_000)].concat()),
        (
            "application/json",
            [b"[{\"".as_slice(), &b"k".repeat(1 << 19), b"\":[", &b"1,".repeat(1 << 18)].concat(),
        ),
        ("application/x-www-form-urlencoded", b"a=1&".repeat(100_000)),
        ("application/x-www-form-urlencoded", b"&".repeat(1 << 20)),
        ("application/xml", [b"<a>".as_slice(), &b"&amp;&#60;&x;".repeat(30_000), b"</a>"].concat()),
        ("application/xml", b"<a>".repeat(1 << 18)),
        ("application/xml", [b"<a ".as_slice(), &b"b='c' ".repeat(1 << 17), b"/>"].concat()),
        ("multipart/form-data; boundary=b", part.repeat(10_000).into_bytes()),
        ("multipart/form-data; boundary=b", [part.as_bytes(), &b"--b".repeat(1 << 18)].concat()),
        (&dashes, b"-".repeat(1 << 20)),
        ("text/plain", b"%2525&amp;\\u0026".repeat(1 << 15)),
    ];
    for (content_type, body) in &bombs {
        let headers = [header("content-type", content_type)];
        let view = request(&headers, body, BodyExtent::Complete);
        // The fastest of a few runs: other work on the machine is not what is measured.
        let fastest = (0..5).map(|_| {
            let start = Instant::now();
            let values = Values::extract(&view, &Limits::default());
            assert!(values.items.len() <= Limits::default().count);
            start.elapsed()
        });
        let fastest = fastest.min().unwrap();
        assert!(fastest < Duration::from_millis(50), "{content_type} {:?}: {fastest:?}", body.get(..20));
    }
}

const TYPES: [&str; 7] = [
    "application/json",
    "application/x-www-form-urlencoded",
    "text/xml",
    "multipart/form-data; boundary=b",
    "text/plain",
    "multipart/form-data; boundary=\"",
    "",
];

proptest! {
    #[test]
    fn total(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "{", "}", "[", "]", "\"", ":", ",", "\\u", "d83d", "1", "a", "=", "&", "%", "25", "&#", ";", "<", ">", "/",
            "<a", " b='", "<!--", "-->", "<![CDATA[", "]]>", "<!DOCTYPE", "<?", "--b", "--", "\r\n", "\n", "\r\n\r\n",
            "Content-Disposition: form-data", "; name=", "; filename=", "\\", "true", " ",
        ]), 0..60),
        truncated in any::<bool>(),
    ) {
        let text = pieces.concat();
        for body in [bytes.as_slice(), text.as_bytes()] {
            for content_type in TYPES.iter().map(|known| known.as_bytes()).chain([body]) {
                let headers = [Header { name: "content-type", value: content_type }, Header { name: "cookie", value: body }];
                let extent = if truncated { BodyExtent::Truncated } else { BodyExtent::Complete };
                let mut view = request(&headers, body, extent);
                view.path = body;
                view.query = Some(body);
                let values = Values::extract(&view, &Limits::default());
                prop_assert!(values.findings.is_sorted_by(|one, next| one < next));
                let malformed = values.findings.contains(&Finding::MalformedBody);
                prop_assert!(!(malformed && truncated));
                let raw = values.items.iter().any(|value| value.location == Location::Body);
                prop_assert!(!malformed || raw);
            }
        }
    }

    #[test]
    fn json_is_malformed_exactly_if_it_is_no_json(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "{", "}", "[", "]", "\"", ":", ",", "\"a\"", "\"b\":", "1", "-", "0", ".5", "e1", "true", "null", " ", "\n", "\\n",
        "\\u0041", "\\x", "\x0c", "\x01", "{}", "[]",
    ]), 1..12)) {
        let body = pieces.concat();
        let headers = [header("content-type", "application/json")];
        let view = request(&headers, body.as_bytes(), BodyExtent::Complete);
        let malformed = Values::extract(&view, &Limits::default()).findings.contains(&Finding::MalformedBody);
        prop_assert_eq!(malformed, serde_json::from_str::<serde::de::IgnoredAny>(&body).is_err(), "{}", body);
    }

    #[test]
    fn every_string_of_a_document_is_a_value(leaves in proptest::collection::vec(".{0,20}", 1..20)) {
        let mut document = serde_json::json!({});
        for (number, leaf) in leaves.iter().enumerate() {
            document = serde_json::json!({ "inner": document, format!("k{number}"): [leaf] });
        }
        let body = document.to_string();
        let headers = [header("content-type", "application/json")];
        let view = request(&headers, body.as_bytes(), BodyExtent::Complete);
        let values = Values::extract(&view, &Limits::default());
        prop_assert!(!values.findings.contains(&Finding::MalformedBody));
        for leaf in &leaves {
            prop_assert!(values.items.iter().any(|value| *value.value == *leaf.as_bytes()));
        }
    }
}
