//! The rule set in `gateway/rules`: every rule has cases, every case holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeSet, fs, path::Path};

use waf_model::{
    request::{BodyExtent, BodyView, Header, RequestView, ResponseView},
    rules::{Collections, Connection, Context, Evaluation, Options, RuleMatches, RuleSet, RuleSource},
    values::{Limits, Values},
};

/// Points at which a request is blocked by default.
const THRESHOLD: u32 = 5;

/// One line of `cases.txt`.
struct Case {
    line: usize,
    id: u32,
    hit: bool,
    location: String,
    value: Vec<u8>,
}

#[test]
fn every_rule_has_cases_and_every_case_holds() {
    let set = rule_set();
    let cases = cases();
    let mut wrong = Vec::new();
    for case in &cases {
        let found = send(&set, &case.location, &case.value);
        let ids: Vec<u32> = found.matches.iter().map(|found| found.id).collect();
        if ids.contains(&case.id) != case.hit {
            wrong.push(format!("line {}: {} expected {}, got {ids:?}", case.line, case.id, case.hit));
        }
        if !case.hit && found.points >= THRESHOLD {
            wrong.push(format!("line {}: harmless value blocked by {ids:?}", case.line));
        }
    }
    let ids: BTreeSet<u32> = set.rules().map(|rule| rule.id).collect();
    for id in &ids {
        for (hit, kind) in [(true, '+'), (false, '-')] {
            if !cases.iter().any(|case| case.id == *id && case.hit == hit) {
                wrong.push(format!("rule {id} has no {kind} case"));
            }
        }
    }
    wrong.extend(
        cases
            .iter()
            .filter(|case| !ids.contains(&case.id))
            .map(|case| format!("line {}: no such rule", case.line)),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rule_is_described() {
    for rule in rule_set().rules() {
        assert!(rule.id >= 1_000_100, "{} is below our range", rule.id);
        assert!(!rule.message.is_empty() && rule.severity.is_some(), "{}", rule.id);
        assert!(
            !rule.description.is_empty(),
            "rule {} has no comment that says what it finds and why",
            rule.id
        );
        for prefixes in [&["attack-"][..], &["CWE-", "CAPEC-"][..]] {
            let found = rule.tags.iter().any(|tag| prefixes.iter().any(|prefix| tag.starts_with(prefix)));
            assert!(found, "rule {} has no tag {prefixes:?}", rule.id);
        }
    }
}

fn rule_set() -> RuleSet {
    let mut files: Vec<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let texts: Vec<(String, String)> = files
        .iter()
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    let sources: Vec<_> = texts.iter().map(|(name, text)| RuleSource { name, text }).collect();
    RuleSet::compile(&sources, &Options::default()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/rules"))
}

fn cases() -> Vec<Case> {
    let text = fs::read_to_string(directory().join("cases.txt")).unwrap();
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| {
            let mut parts = text.splitn(4, '|');
            let mut next = || parts.next().unwrap_or_else(|| panic!("line {line}: four fields are needed"));
            let (id, sign, location) = (next().trim(), next().trim(), next().trim());
            Case {
                line,
                id: id.parse().unwrap(),
                hit: match sign {
                    "+" => true,
                    "-" => false,
                    other => panic!("line {line}: {other} is neither + nor -"),
                },
                location: location.to_owned(),
                value: unescape(next().strip_prefix(' ').unwrap_or_default()),
            }
        })
        .collect()
}

/// `\n`, `\r`, `\t`, `\\` and `\xHH`.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, (byte == b'\\').then(|| bytes.next()).flatten()) {
            (_, Some(b'n')) => out.push(b'\n'),
            (_, Some(b'r')) => out.push(b'\r'),
            (_, Some(b't')) => out.push(b'\t'),
            (_, Some(b'x')) => {
                let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            }
            (_, Some(other)) => out.push(other),
            (byte, None) => out.push(byte),
        }
    }
    out
}

/// Puts `value` where `location` says into an otherwise ordinary request.
fn send(set: &RuleSet, location: &str, value: &[u8]) -> RuleMatches {
    let escaped: String = value.iter().map(|byte| format!("%{byte:02X}")).collect();
    let text = String::from_utf8_lossy(value).into_owned();
    let (mut method, mut path, mut query, mut body) =
        ("GET".to_owned(), "/shop/list".to_owned(), "page=2".to_owned(), Vec::new());
    let mut headers = vec![
        ("host".to_owned(), b"shop.example.com".to_vec()),
        ("user-agent".to_owned(), b"Mozilla/5.0 (X11; Linux x86_64) Firefox/122.0".to_vec()),
        ("accept".to_owned(), b"*/*".to_vec()),
    ];
    let mut post = |kind: &str, content: Vec<u8>| {
        headers.push(("content-type".to_owned(), kind.as_bytes().to_vec()));
        method = "POST".to_owned();
        body = content;
    };
    match location.split_once(':').unwrap_or((location, "")) {
        ("method", _) => method = text,
        ("path", _) => path = text,
        ("put", _) => (method, path) = ("PUT".to_owned(), text),
        ("segment", _) => path = format!("/shop/{escaped}"),
        ("query", _) => query = format!("id=1&q={escaped}"),
        ("custom", name) => query = format!("id=1&{name}={escaped}"),
        ("name", _) => query = format!("id=1&{escaped}=x"),
        ("form", _) => post("application/x-www-form-urlencoded", format!("id=1&q={escaped}").into_bytes()),
        ("json", _) => {
            let text = serde_json::to_string(&text).unwrap();
            post("application/json", format!("{{\"id\":1,\"q\":{text}}}").into_bytes());
        }
        ("body", kind) => post(kind, value.to_vec()),
        ("untyped", _) => (method, body) = ("POST".to_owned(), value.to_vec()),
        ("xml", _) => post("application/xml", value.to_vec()),
        ("file", _) => {
            let head = "--b\r\ncontent-disposition: form-data; name=\"f\"; filename=\"";
            let content = [head.as_bytes(), value, b"\"\r\n\r\nx\r\n--b--\r\n"].concat();
            post("multipart/form-data; boundary=b", content);
        }
        ("cookie", _) => headers.push(("cookie".to_owned(), [b"sid=", value].concat())),
        ("header", name) => {
            headers.retain(|(known, _)| known != name);
            headers.push((name.to_owned(), value.to_vec()));
        }
        ("response" | "response-header", _) => {}
        (other, _) => panic!("location {other} is unknown"),
    }
    let headers: Vec<_> = headers.iter().map(|(name, value)| Header { name, value }).collect();
    let request = RequestView {
        method: &method,
        path: path.as_bytes(),
        query: Some(query.as_bytes()),
        protocol: "HTTP/1.1",
        headers: &headers,
        body: BodyView { bytes: &body, extent: BodyExtent::Complete },
        client_address: "192.0.2.1",
    };
    let collections = Collections::default();
    let context = Context {
        now_ms: 0,
        request_id: "test",
        collections: &collections,
        connection: Connection::default(),
    };
    let evaluation = set.evaluate(&context, &request, &Values::extract(&request, &Limits::default()));
    match location.split_once(':') {
        Some(("response", status)) => {
            let html = [Header { name: "content-type", value: b"text/html" }];
            answer(set, &context, evaluation, status.parse().unwrap(), &html, value)
        }
        Some(("response-header", name)) => {
            answer(set, &context, evaluation, 302, &[Header { name, value }], b"")
        }
        _ => evaluation.matches,
    }
}

/// What the rules find in the answer to a harmless request.
fn answer(
    set: &RuleSet,
    context: &Context<'_>,
    evaluation: Evaluation,
    status: u16,
    headers: &[Header<'_>],
    body: &[u8],
) -> RuleMatches {
    assert!(evaluation.matches.matches.is_empty(), "the request itself is found");
    let body = BodyView { bytes: body, extent: BodyExtent::Complete };
    let response = ResponseView { status, protocol: "HTTP/1.1", headers, body };
    set.evaluate_response(context, evaluation.carry, &response)
}
