//! Tests of the module above.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use super::*;
use crate::{
    request::{BodyExtent, BodyView, Header},
    tests::grows_linearly,
    values::Value,
};

fn compile(text: &str) -> RuleSet {
    RuleSet::compile(&[RuleSource { name: "test.conf", text }], &Options::default()).unwrap()
}

fn errors(text: &str) -> Vec<String> {
    let errors =
        RuleSet::compile(&[RuleSource { name: "test.conf", text }], &Options::default()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn value<'a>(location: Location, name: &'a str, value: &'a str) -> Value<'a> {
    Value {
        location,
        name: name.as_bytes().into(),
        alias: None,
        value: value.as_bytes().into(),
        deeper: Vec::new(),
    }
}

fn run(set: &RuleSet, items: Vec<Value<'_>>) -> RuleMatches {
    let headers = [
        Header { name: "host", value: b"example.com" },
        Header { name: "cookie", value: b"sid=1; theme=dark" },
    ];
    let request = RequestView {
        method: "POST",
        path: b"/shop/a%2fb/item.php",
        query: Some(b"q=%61"),
        protocol: "HTTP/1.1",
        headers: &headers,
        body: BodyView { bytes: b"raw body", extent: BodyExtent::Complete },
        client_address: "10.1.2.3",
    };
    let mut all = vec![value(Location::Header, "host", "example.com"), value(Location::Cookie, "sid", "1")];
    all.extend(items);
    let collections = Collections::default();
    let context =
        Context { now_ms: 0, request_id: "id", collections: &collections, connection: Connection::default() };
    set.evaluate(&context, &request, &Values { items: all, ..Values::default() }).matches
}

fn ids(set: &RuleSet, items: Vec<Value<'_>>) -> Vec<u32> {
    run(set, items).matches.iter().map(|found| found.id).collect()
}

#[test]
fn a_match_says_where_and_counts() {
    let set = compile(
        "SecRule ARGS \"@rx (?i)union\\s+select\" \"id:1,phase:2,block,t:none,t:urlDecodeUni,\
         msg:'Union',severity:CRITICAL,tag:'attack-sqli'\"\n\
         SecRule ARGS|ARGS_NAMES \"@pm evil\" \"id:2,block,severity:NOTICE,msg:'Evil'\"\n\
         SecRule ARGS \"@rx .\" \"id:3,pass,severity:CRITICAL\"",
    );
    let found =
        run(&set, vec![value(Location::Query, "q", "1 Union%20SELECT 2"), value(Location::Form, "EVIL", "")]);
    assert_eq!(found.points, 7);
    // The third one passes, but has a severity.
    assert_eq!(found.matches.len(), 3);
    assert_eq!(found.matches[0].variable, "ARGS:q");
    assert_eq!(found.matches[0].location, Some(Location::Query));
    assert_eq!(found.matches[0].tags, ["attack-sqli"]);
    assert_eq!(found.matches[1].variable, "ARGS_NAMES:EVIL");
    assert_eq!(ids(&set, vec![value(Location::Query, "q", "union jack select")]), [3]);
}

#[test]
fn every_variable_is_read() {
    for (variable, text) in [
        ("ARGS", "^val$"),
        ("ARGS_GET:a", "^val$"),
        ("ARGS_GET_NAMES", "^a$"),
        ("ARGS_POST", "^posted$"),
        ("ARGS_POST_NAMES", "^j$"),
        ("ARGS_NAMES:j", "^j$"),
        ("REQUEST_HEADERS:Host", "^example"),
        ("REQUEST_HEADERS:Cookie", "theme=dark"),
        ("REQUEST_HEADERS_NAMES", "^host$"),
        ("REQUEST_COOKIES:/^s/", "^1$"),
        ("REQUEST_COOKIES_NAMES", "^sid$"),
        ("FILES", "^x.php$"),
        ("FILES_NAMES", "^upload$"),
        ("XML:/*", "^text$"),
        ("PATH_SEGMENTS", "^seg$"),
        ("REQUEST_URI", "^/shop/a%2fb/item.php[?]q=%61$"),
        ("REQUEST_URI_RAW", "^/shop/a%2fb/item.php[?]q=%61$"),
        ("REQUEST_FILENAME", "^/shop/a/b/item.php$"),
        ("REQUEST_BASENAME", "^item.php$"),
        ("QUERY_STRING", "^q=%61$"),
        ("REQUEST_METHOD", "^POST$"),
        ("REQUEST_PROTOCOL", "^HTTP/1.1$"),
        ("REQUEST_LINE", "^POST /shop/a%2fb/item.php[?]q=%61 HTTP/1.1$"),
        ("REQUEST_BODY", "^raw body$"),
        ("REMOTE_ADDR", "^10.1.2.3$"),
        ("&ARGS_GET", "^1$"),
        ("&REQUEST_HEADERS:Accept", "^0$"),
        ("ARGS|!ARGS:a", "^posted$"),
    ] {
        let items = || {
            vec![
                value(Location::Query, "a", "val"),
                value(Location::Json, "j", "posted"),
                value(Location::FileName, "upload", "x.php"),
                value(Location::Xml, "e", "text"),
                value(Location::Path, "", "seg"),
            ]
        };
        let set = compile(&format!("SecRule {variable} \"@rx {text}\" \"id:1,block,severity:CRITICAL\""));
        assert_eq!(ids(&set, items()), [1], "{variable}");
    }
    let set = compile("SecRule ARGS|!ARGS:/^_/|!ARGS:a \"@rx val\" \"id:1,block,severity:CRITICAL\"");
    assert_eq!(
        ids(&set, vec![value(Location::Query, "a", "val"), value(Location::Query, "_x", "val")]),
        [0; 0]
    );
}

#[test]
fn chains_macros_and_arithmetic() {
    let set = compile(
        "SecAction \"id:1,pass,setvar:tx.limit=5,setvar:tx.score=1\"\n\
         SecRule ARGS \"@contains bad\" \"id:2,pass,setvar:'tx.score=+%{tx.limit}',setvar:tx.last=%{matched_var_name}\"\n\
         SecRule ARGS:a \"@rx ^(b)(.*)$\" \"id:3,pass,capture,chain\"\n\
           SecRule TX:2 \"@streq ad\" \"setvar:'tx.score=-1',setvar:tx.%{rule.id}=%{matched_var}\"\n\
         SecRule TX:SCORE \"@ge %{tx.limit}\" \"id:4,block,severity:CRITICAL,chain\"\n\
           SecRule TX:last \"@streq ARGS:b\" \"chain\"\n\
           SecRule TX:3 \"@streq ad\" \"\"\n\
         SecRule TX:score \"@eq 10\" \"id:5,block,severity:CRITICAL\"\n\
         SecRule &TX:missing \"!@eq 0\" \"id:6,block,severity:CRITICAL\"",
    );
    let items = vec![value(Location::Query, "a", "bad"), value(Location::Query, "b", "so bad")];
    assert_eq!(ids(&set, items), [4, 5]);
    assert_eq!(ids(&set, vec![value(Location::Query, "a", "good")]), [0; 0]);
}

#[test]
fn a_chained_rule_sees_what_the_one_before_matched() {
    let rules = |name: &str| {
        compile(&format!(
            "SecRule ARGS \"@beginsWith a\" \"id:1,block,severity:CRITICAL,chain\"\nSecRule {name} \"@endsWith z\" \"t:none\""
        ))
    };
    let items = || vec![value(Location::Query, "p", "a-z"), value(Location::Query, "q", "a-y")];
    assert_eq!(ids(&rules("MATCHED_VARS"), items()), [1]);
    assert_eq!(ids(&rules("MATCHED_VAR"), items()), [0; 0]);
    // `ARGS` would see a text that the first rule did not match.
    let others = || vec![value(Location::Query, "p", "a-y"), value(Location::Query, "q", "b-z")];
    assert_eq!(ids(&rules("ARGS"), others()), [1]);
    assert_eq!(ids(&rules("MATCHED_VARS"), others()), [0; 0]);
}

#[test]
fn markers_and_controls() {
    let set = compile(
        "SecRule ARGS:skip \"@eq 1\" \"id:1,pass,skipAfter:END\"\n\
         SecRule ARGS:x \"@streq bad\" \"id:2,block,severity:CRITICAL\"\n\
         SecMarker END\n\
         SecRule ARGS:off \"@eq 1\" \"id:3,pass,ctl:ruleRemoveById=5-6,ctl:ruleRemoveTargetById=7;ARGS:x\"\n\
         SecRule ARGS:x \"@streq bad\" \"id:5,block,severity:CRITICAL\"\n\
         SecRule ARGS:x|ARGS:y \"@streq bad\" \"id:7,block,severity:CRITICAL\"",
    );
    let bad = || value(Location::Query, "x", "bad");
    assert_eq!(ids(&set, vec![bad()]), [2, 5, 7]);
    assert_eq!(ids(&set, vec![bad(), value(Location::Query, "skip", "1")]), [5, 7]);
    assert_eq!(ids(&set, vec![bad(), value(Location::Query, "off", "1")]), [2]);
    let items = vec![bad(), value(Location::Query, "off", "1"), value(Location::Form, "y", "bad")];
    assert_eq!(ids(&set, items), [2, 7]);
}

#[test]
fn phase_one_runs_first_and_defaults_apply() {
    let set = compile(
        "SecDefaultAction \"phase:2,log,deny,t:lowercase\"\n\
         SecRule ARGS \"@streq bad\" \"id:2,phase:2\"\n\
         SecRule ARGS \"@streq bad\" \"id:3,phase:2,t:none\"\n\
         SecRule ARGS \"@streq BAD\" \"id:1,phase:1,block,severity:ERROR\"",
    );
    let found = run(&set, vec![value(Location::Query, "x", "BAD")]);
    assert_eq!(found.matches.iter().map(|m| m.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found.points, 4);
    let denial = Denial { rule: 2, phase: 2, status: 403, manner: Manner::Deny };
    assert_eq!(found.denied, Some(denial));
}

#[test]
fn removed_rules_and_engine_modes() {
    let rules = "SecRule ARGS \"@rx x\" \"id:1,block,severity:CRITICAL,tag:'a/b'\"\nSecRule ARGS \"@rx x\" \"id:2,block,severity:CRITICAL\"\n\
        SecRule ARGS \"@rx x\" \"id:3,block,severity:CRITICAL\"\n";
    let hit = || vec![value(Location::Query, "x", "x")];
    assert_eq!(ids(&compile(&format!("{rules}SecRuleRemoveById 2-3")), hit()), [1]);
    assert_eq!(ids(&compile(&format!("{rules}SecRuleRemoveByTag a/")), hit()), [2, 3]);
    assert_eq!(ids(&compile(&format!("{rules}SecRuleEngine Off")), hit()), [0; 0]);
    let reported = run(&compile(&format!("{rules}SecRuleEngine DetectionOnly")), hit());
    assert_eq!((reported.matches.len(), reported.points), (3, 0));
    assert_eq!(compile(rules).rules().map(|rule| rule.id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn layers_and_multi_match() {
    let mut layered = value(Location::Query, "q", "b64");
    layered.deeper.push(b"deep".to_vec());
    let rule = "SecRule ARGS \"@streq deep\" \"id:1,block,severity:CRITICAL\"\n";
    assert_eq!(ids(&compile(rule), vec![layered.clone()]), [0; 0]);
    assert_eq!(ids(&compile(&format!("SecInspectLayers On\n{rule}")), vec![layered]), [1]);
    let path =
        "SecInspectLayers On\nSecRule REQUEST_URI \"@contains /a/b/\" \"id:1,block,severity:CRITICAL\"";
    assert_eq!(ids(&compile(path), Vec::new()), [1]);
    // The setting ends with its file.
    let sources =
        ["SecInspectLayers On", "SecRule REQUEST_URI \"@contains /a/b/\" \"id:1,block,severity:CRITICAL\""]
            .map(|text| RuleSource { name: "x", text });
    assert_eq!(ids(&RuleSet::compile(&sources, &Options::default()).unwrap(), Vec::new()), [0; 0]);
    for (multi, expected) in [("", vec![]), (",multiMatch", vec![1])] {
        let rule = format!(
            "SecRule ARGS \"@streq A%20\" \"id:1,block,severity:CRITICAL,t:urlDecode,t:lowercase{multi}\""
        );
        assert_eq!(ids(&compile(&rule), vec![value(Location::Query, "q", "A%20")]), expected);
    }
}

#[test]
fn negation_looks_at_every_text() {
    let set = compile(
        "SecRule REQUEST_METHOD \"!@within GET HEAD\" \"id:1,block,severity:CRITICAL\"\n\
        SecRule ARGS \"!@rx ^\\d+$\" \"id:2,block,severity:CRITICAL\"",
    );
    assert_eq!(ids(&set, vec![value(Location::Query, "n", "12")]), [1]);
    assert_eq!(ids(&set, vec![value(Location::Query, "n", "12"), value(Location::Query, "n", "x")]), [1, 2]);
}

#[test]
fn every_mistake_names_file_line_and_remedy() {
    let found = errors(
        "SecRule ARGS \"@rx (?R)\" \"id:1,block,severity:CRITICAL\"\n\
         SecRule FOO|ARGS \"@foo\" \"id:2,phase:6,exec:x\"\n\
         SecRule ARGS \"@rx a\" \"deny\"\n\
         SecRule ARGS \"@rx a\" \"id:3,block,severity:CRITICAL\"\n\
         SecRule ARGS \"@rx a\" \"id:3,block,severity:CRITICAL\"\n\
         SecRule ARGS \"@rx a\" \"id:4,block,severity:CRITICAL,chain\"\n\
         SecMarker X\n\
         SecRule ARGS \"@rx a\" \"id:5,skipAfter:Y\"\n\
         SecRule ARGS \"@rx a\" \"id:6,chain\"\n\
           SecRule ARGS \"@rx a\" \"id:7\"\n\
         SecRuleScript x.lua\n\
         SecRuleRemoveById x\n\
         SecRuleEngine Perhaps\n\
         SecRule ARGS\n\
         SecRule ARGS \"open",
    );
    let lines: Vec<_> = found
        .iter()
        .map(|error| error.strip_prefix("test.conf:").and_then(|rest| rest.split(':').next()).unwrap())
        .collect();
    let expected = ["1", "2", "2", "2", "2", "3", "5", "6", "8", "10", "11", "12", "13", "14", "15"];
    assert_eq!(lines, expected, "{found:#?}");
    assert!(found.iter().all(|error| error.contains("; ") || error.contains("remove")), "{found:#?}");
}

/// Texts that make naive loops start over again and again.
const HOSTILE: [&[u8]; 14] = [
    b"a",
    b"' ",
    b"/*",
    b"<!--",
    b"%25",
    b"&#x",
    b"\\u0",
    b"../",
    b"\\\"",
    b"\xc2\xa0",
    b"<a x=",
    b"1 or ",
    b"-- ",
    b"(((",
];

#[test]
fn every_operator_is_linear_in_the_text() {
    for operator in [
        "@rx (?:a+)+b|(?:x*)*y|(?:\\.\\./)+z",
        "@rx (\\w+) like \\1(?!x)",
        "!@rx ^(?:a|aa)+$",
        "@pm aaaab aab ../../x",
        "@contains aaaaaaab",
        "@containsWord a",
        "@within aaaa",
        "@beginsWith aaab",
        "@endsWith aaab",
        "@eq 1",
        "@detectSQLi",
        "@detectXSS",
        "@validateByteRange 0-254",
        "@validateUrlEncoding",
        "@validateUtf8Encoding",
        "@verifyCC \\d{13,16}",
        "@ipMatch 10.0.0.0/8",
    ] {
        let set = compile(&format!("SecRule ARGS \"{operator}\" \"id:1,block,severity:CRITICAL,capture\""));
        for pattern in HOSTILE {
            let text = |input: &[u8]| {
                let value = Value {
                    location: Location::Query,
                    name: b"q".as_slice().into(),
                    alias: None,
                    value: input.to_vec().into(),
                    deeper: Vec::new(),
                };
                run(&set, vec![value]);
            };
            grows_linearly(operator, text, pattern);
        }
    }
}

#[test]
fn every_transformation_is_linear_in_the_text() {
    for step in crate::decode::ALL {
        for pattern in HOSTILE {
            grows_linearly(
                &format!("{step:?}"),
                |input| assert!(step.apply(input).len() <= 4 * input.len() + 20),
                pattern,
            );
        }
    }
}

#[test]
fn every_body_parser_is_linear_in_the_body() {
    let set = compile(
        "SecRule ARGS|ARGS_NAMES|FILES|XML:/*|MULTIPART_PART_HEADERS|FILES_SIZES|REQUEST_BODY \"@pm zzz\" \"id:1,deny\"",
    );
    for (kind, patterns) in [
        ("application/x-www-form-urlencoded", [b"a&".as_slice(), b"%", b"a=%u00&"]),
        ("application/json", [b"[", b"{\"a\":", b"[\"\\u0"]),
        ("application/xml", [b"<a>", b"<a b='", b"&lt;<!--"]),
        ("multipart/form-data; boundary=b", [b"--b\r\n", b"--b", b"\r\n--b\r\nA: b\r\n\r\n"]),
        ("text/plain", [b"{", b"a=", b"\0"]),
    ] {
        let work = |body: &[u8]| {
            let headers = [Header { name: "content-type", value: kind.as_bytes() }];
            let request = RequestView {
                method: "POST",
                path: b"/",
                query: None,
                protocol: "HTTP/1.1",
                headers: &headers,
                body: BodyView { bytes: body, extent: BodyExtent::Complete },
                client_address: "10.1.2.3",
            };
            let collections = Collections::default();
            let context = Context {
                now_ms: 0,
                request_id: "id",
                collections: &collections,
                connection: Connection::default(),
            };
            let values = Values::extract(&request, &crate::values::Limits::default());
            set.evaluate(&context, &request, &values);
        };
        for pattern in patterns {
            grows_linearly(kind, work, pattern);
        }
    }
}

#[test]
fn reading_rules_is_linear_in_their_text() {
    for pattern in
        ["SecRule ARGS \"@rx a\" \"id:1,chain\"\n", "SecMarker A\n", "# x\n", "\\\n", "\"", "SecRule |"]
    {
        let read = |input: &[u8]| {
            let text = std::str::from_utf8(input).unwrap();
            let _ = RuleSet::compile(&[RuleSource { name: "x", text }], &Options::default());
        };
        grows_linearly(pattern, read, pattern.as_bytes());
    }
}

/// Variables with `ask` after them that match for a request of these headers and this body.
fn matching(
    variables: &[&str],
    ask: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    connection: Connection,
) -> Vec<String> {
    let rule = |(id, name): (usize, &&str)| {
        format!("SecRule {name} \"{ask}\" \"id:{},phase:2,block,severity:NOTICE\"\n", id + 1)
    };
    let set = compile(&variables.iter().enumerate().map(rule).collect::<String>());
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    let request = RequestView {
        method: "POST",
        path: b"/",
        query: None,
        protocol: "HTTP/1.1",
        headers: &headers,
        body: BodyView { bytes: body, extent: BodyExtent::Complete },
        client_address: "10.1.2.3",
    };
    let collections = Collections::default();
    let context = Context { now_ms: 0, request_id: "id", collections: &collections, connection };
    let values = Values::extract(&request, &crate::values::Limits::default());
    let found = set.evaluate(&context, &request, &values).matches.matches;
    found.iter().map(|found| found.variable.clone()).collect()
}

#[test]
fn every_departure_of_a_multipart_body_has_a_name_of_its_own() {
    const NAMES: [&str; 13] = [
        "BOUNDARY_QUOTED",
        "BOUNDARY_WHITESPACE",
        "CRLF_LF_LINES",
        "DATA_AFTER",
        "DATA_BEFORE",
        "FILE_LIMIT_EXCEEDED",
        "HEADER_FOLDING",
        "INVALID_HEADER_FOLDING",
        "INVALID_PART",
        "INVALID_QUOTING",
        "LF_LINE",
        "MISSING_SEMICOLON",
        "UNMATCHED_BOUNDARY",
    ];
    let variables = NAMES.map(|name| format!("MULTIPART_{name}"));
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let plain = "boundary=b";
    let part = "Content-Disposition: form-data; name=\"a\"\r\n\r\n1";
    let with = |part: &str| format!("--b\r\n{part}\r\n--b--\r\n");
    let many = format!("{}--b--\r\n", format!("--b\r\n{part}\r\n").repeat(1100));
    for (parameter, body, expected) in [
        (plain, with(part), &[][..]),
        ("boundary=\"b\"", with(part), &["BOUNDARY_QUOTED"]),
        ("boundary= b", with(part), &["BOUNDARY_WHITESPACE"]),
        ("boundary=\"b c\"", with(part).replace("--b", "--b c"), &["BOUNDARY_QUOTED", "BOUNDARY_WHITESPACE"]),
        (plain, format!("x{}", with(part).replacen("--b", "\r\n--b", 1)), &["DATA_BEFORE"]),
        (plain, format!("{}x", with(part)), &["DATA_AFTER"]),
        (plain, many, &["FILE_LIMIT_EXCEEDED"]),
        (plain, with(&part.replace("; name", ";\r\n name")), &["HEADER_FOLDING", "INVALID_PART"]),
        (
            plain,
            with(&part.replace("\r\n\r\n", "\r\n\x0bx\r\n\r\n")),
            &["HEADER_FOLDING", "INVALID_HEADER_FOLDING"],
        ),
        (plain, with("X: y\r\n\r\n1"), &["INVALID_PART"]),
        (plain, with(&part.replace("name=\"a\"", "name='a'")), &["INVALID_QUOTING"]),
        (plain, with(&part.replace("name=\"a\"", "name=\"a")), &["INVALID_QUOTING"]),
        (plain, with(part).replace("\r\n", "\n"), &["LF_LINE"]),
        (plain, with(&part.replace("\r\n\r\n", "\n\r\n")), &["CRLF_LF_LINES", "LF_LINE"]),
        (plain, with(&part.replace("; name", " name")), &["INVALID_PART", "MISSING_SEMICOLON"]),
        (plain, with(&format!("{part}\r\n--bc\r\n2")), &["UNMATCHED_BOUNDARY"]),
        (plain, with(&format!("{part}--b\r\n2")), &["UNMATCHED_BOUNDARY"]),
    ] {
        let kind = format!("multipart/form-data; {parameter}");
        let headers = [("content-type", kind.as_str())];
        let found = matching(&variables, "@eq 1", &headers, body.as_bytes(), Connection::default());
        let expected: Vec<_> = expected.iter().map(|name| format!("MULTIPART_{name}")).collect();
        assert_eq!(found, expected, "{parameter}: {}", &body[..body.len().min(300)]);
    }
}

#[test]
fn who_connected_and_who_says_to_be_whom_is_known_where_it_can_be() {
    let asked = ["REMOTE_PORT", "SERVER_ADDR", "SERVER_PORT", "SERVER_NAME", "AUTH_TYPE", "REMOTE_USER"];
    let connection =
        Connection { client_port: Some(4000), server: Some("[::ffff:10.0.0.1]:8443".parse().unwrap()) };
    let basic = [("host", "shop.example:8443"), ("authorization", "Basic YWxpY2U6aHVudGVyMg==")];
    let within = |list: &str, headers: &[(&str, &str)], connection| {
        matching(&asked, &format!("@within {list}"), headers, b"", connection)
    };
    assert_eq!(within("4000 10.0.0.1 8443 shop.example Basic alice", &basic, connection), asked);
    assert!(matching(&asked, "@rx hunter2|:8443", &basic, b"", connection).is_empty());
    let bearer = [("host", "[::1]"), ("authorization", "Bearer YWxpY2U6aHVudGVyMg==")];
    assert_eq!(within("[::1] Bearer alice", &bearer, Connection::default()), ["SERVER_NAME", "AUTH_TYPE"]);
    assert!(matching(&asked, "@rx ^", &[], b"", Connection::default()).is_empty());
    let set = compile(
        "SecAction \"id:1,phase:1,pass,nolog,setsid:abc,setuid:%{REMOTE_ADDR}\"\n\
         SecRule SESSIONID \"@streq abc\" \"id:2,phase:1,block,severity:NOTICE\"\n\
         SecRule USERID \"@streq 10.1.2.3\" \"id:3,phase:1,block,severity:NOTICE\"",
    );
    assert_eq!(ids(&set, Vec::new()), [2, 3]);
}
