//! Both formats, in small.

use super::*;

fn read(text: &str, writer: Writer) -> Result<TestFile> {
    parse("REQUEST-1-GROUP", "123456", text, writer)
}

const OLD: &str = r#"
meta: {author: somebody, enabled: false}
tests:
  - test_title: 123456-7
    desc: an old one
    stages:
      - stage:
          input:
            dest_addr: 127.0.0.1
            headers: {Host: shop.example, X-Count: 3}
            uri: /a?b=c
            version: HTTP/1.0
          output: {status: [403, 400], no_log_contains: 'id "5"'}
"#;

const NEW: &str = r#"
rule_id: 654321
tests:
  - test_id: 2
    stages:
      - input: {method: PUT, data: "x", headers: {Host: a}}
        output: {status: 200, retry_once: true, log: {expect_ids: [1, 2], match_regex: 'found in \w+'}}
      - input: {encoded_request: R0VUIC8=}
        output: {expect_error: true}
"#;

#[test]
fn the_format_of_version_3_is_read() {
    let file = read(OLD, Writer::Version3).unwrap();
    let [test] = &file.tests[..] else { panic!("{file:?}") };
    assert_eq!((file.group.as_str(), test.id.as_str()), ("REQUEST-1-GROUP", "123456-7"));
    let [stage] = &test.stages[..] else { panic!("{test:?}") };
    let bytes = String::from_utf8_lossy(&stage.bytes);
    assert_eq!(bytes, "GET /a?b=c HTTP/1.0\r\nHost: shop.example\r\nX-Count: 3\r\n\r\n");
    assert_eq!(stage.expected.status, [403, 400]);
    assert!(stage.expected.no_log.as_ref().unwrap().is_match(r#"[id "5"]"#));
    assert!(!stage.expected.error && stage.expected.log.is_none());
}

#[test]
fn the_format_of_version_4_is_read() {
    let file = read(NEW, Writer::Version4).unwrap();
    let [test] = &file.tests[..] else { panic!("{file:?}") };
    assert_eq!(test.id, "654321-2");
    let [first, second] = &test.stages[..] else { panic!("{test:?}") };
    assert_eq!(first.expected.rules, [1, 2]);
    assert_eq!(first.expected.status, [200]);
    assert!(first.expected.log.as_ref().unwrap().is_match("found in ARGS"));
    assert!(second.expected.error);
    assert_eq!(second.bytes, b"GET /");
}

#[test]
fn what_is_not_understood_is_an_error() {
    let wrong = |from: &str, to: &str| {
        assert!(NEW.contains(from));
        read(&NEW.replace(from, to), Writer::Version4).expect_err(to).to_string()
    };
    assert!(wrong("retry_once", "retry_twice").contains("retry_twice"));
    assert!(wrong("method: PUT", "methods: PUT").contains("methods"));
    assert!(wrong("expect_ids: [1, 2]", "expects_ids: [1, 2]").contains("expects_ids"));
    wrong("test_id: 2", "desc: nameless");
    wrong("expect_error: true", "expect_error: false");
    wrong(r"found in \w+", "found in (");
    wrong("R0VUIC8=", "!!");
}

#[test]
fn a_file_may_hold_only_comments() {
    assert!(
        read("# nothing\n\n  # here\n".replace("  #", "#").as_str(), Writer::Version4)
            .unwrap()
            .tests
            .is_empty()
    );
}
