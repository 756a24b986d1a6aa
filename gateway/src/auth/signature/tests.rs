//! Tests of the module above: the example of RFC 9421, and what a signature must cover.

use http::Request;

use super::*;
use crate::auth::principal::Findings;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn signatures(secret: &[u8], id: &str) -> Signatures {
    let settings = auth::Signature { window: std::time::Duration::from_secs(300), forward: Toggle::Off };
    let findings = Findings { consumer: Some("acme".into()), ..Findings::default() };
    let caller = Principal::new(findings, &"signed".into(), &waf_model::observation::ValueKey([1; 16]));
    Signatures::new(&settings, [(id.to_owned(), secret, Arc::new(caller))].into_iter())
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// Signs as a client would.
fn sign(parts: &mut Parts, written: &str) {
    let input = Input::parse(written).unwrap();
    let base = base(&input, &Message { parts, secured: false }).unwrap();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), base.as_bytes());
    let signature = format!("sig1=:{}:", STANDARD.encode(tag.as_ref()));
    parts.headers.insert(&auth::SIGNATURE_INPUT, format!("sig1={written}").parse().unwrap());
    parts.headers.insert(&auth::SIGNATURE, signature.parse().unwrap());
}

#[test]
fn the_example_of_rfc_9421_has_this_signature() {
    // Appendix B.2.5.
    let secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";
    let parts = request(
        "POST",
        "/foo?param=Value&Pet=dog",
        &[
            ("host", "example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-type", "application/json"),
        ],
    );
    let written = r#"("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret""#;
    let base = base(&Input::parse(written).unwrap(), &Message { parts: &parts, secured: false }).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(secret).unwrap());
    let expected = bytes_of("sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:", "sig-b25").unwrap();
    assert!(hmac::verify(&key, base.as_bytes(), &expected).is_ok(), "{base}");
    // It covers neither the method nor the target, and is not taken for this request.
    assert!(!covers_enough(&Input::parse(written).unwrap().components, &parts));
}

fn outcome(all: &Signatures, parts: &Parts, now: u64) -> String {
    match all.verify(parts, false, now) {
        Outcome::Verified(caller) => caller.consumer().unwrap().to_owned(),
        Outcome::Refused { reason } => reason.name().to_owned(),
        other => format!("{other:?}"),
    }
}

fn get(written: &str) -> Parts {
    let mut parts = request("GET", "/orders?a=1", &[("host", "api.example")]);
    sign(&mut parts, written);
    parts
}

#[test]
fn a_signature_is_good_once_and_for_a_while() {
    let all = signatures(SECRET, "k");
    let written = format!(r#"("@method" "@authority" "@path" "@query");created={NOW};keyid="k""#);
    let parts = get(&written);
    assert_eq!(outcome(&all, &parts, NOW), "acme");
    assert_eq!(outcome(&all, &parts, NOW), "replayed");
    assert_eq!(outcome(&all, &parts, NOW + 299), "replayed");
    assert_eq!(outcome(&signatures(SECRET, "k"), &parts, NOW + 300), "token_expired");
    assert_eq!(outcome(&signatures(SECRET, "k"), &parts, NOW - 31), "token_too_early");
    let again = get(&format!("{written};nonce=\"2\""));
    assert_eq!(outcome(&all, &again, NOW), "acme");
    let short = get(&format!("{written};expires={}", NOW + 10));
    assert_eq!(outcome(&signatures(SECRET, "k"), &short, NOW + 10), "token_expired");
    assert_eq!(outcome(&signatures(SECRET, "other"), &parts, NOW), "wrong_signature");
    assert_eq!(
        outcome(&signatures(b"another secret of enough bytes..", "k"), &parts, NOW),
        "wrong_signature"
    );
}

#[test]
fn what_is_covered_cannot_be_changed_and_enough_has_to_be() {
    let written = format!(r#"("@method" "@authority" "@path" "@query" "x-a");created={NOW};keyid="k""#);
    let mut parts = request("GET", "/orders?a=1", &[("host", "api.example"), ("x-a", "1")]);
    sign(&mut parts, &written);
    let changed = |edit: fn(&mut Parts)| {
        let mut copy = request("GET", "/orders?a=1", &[]);
        copy.headers = parts.headers.clone();
        edit(&mut copy);
        outcome(&signatures(SECRET, "k"), &copy, NOW)
    };
    assert_eq!(changed(|_| {}), "acme");
    assert_eq!(changed(|parts| parts.uri = "/orders?a=2".parse().unwrap()), "wrong_signature");
    assert_eq!(changed(|parts| parts.uri = "/order?a=1".parse().unwrap()), "wrong_signature");
    assert_eq!(changed(|parts| parts.method = http::Method::DELETE), "wrong_signature");
    assert_eq!(changed(|parts| drop(parts.headers.insert("x-a", "2".parse().unwrap()))), "wrong_signature");
    assert_eq!(
        changed(|parts| drop(parts.headers.insert("host", "b.example".parse().unwrap()))),
        "wrong_signature"
    );
    assert_eq!(changed(|parts| drop(parts.headers.remove("x-a"))), "signature_covers_too_little");
    for little in [
        r#"("@authority" "@path" "@query")"#,
        r#"("@method" "@path" "@query")"#,
        r#"("@method" "@authority" "@path")"#,
        "()",
    ] {
        let parts = get(&format!("{little};created={NOW};keyid=\"k\""));
        assert_eq!(outcome(&signatures(SECRET, "k"), &parts, NOW), "signature_covers_too_little", "{little}");
    }
    let mut post = request("POST", "/", &[("host", "a"), ("content-length", "2")]);
    sign(&mut post, &format!(r#"("@method" "@authority" "@request-target");created={NOW};keyid="k""#));
    assert_eq!(
        outcome(&signatures(SECRET, "k"), &post, NOW),
        "signature_covers_too_little",
        "the body is not"
    );
}

#[test]
fn only_the_described_form_is_read() {
    for bad in [
        "",
        "sig",
        r#"("@method";req);created=1;keyid="k""#,
        r#"("@method" "@method");created=1;keyid="k""#,
        r#"("@method");created=1"#,
        r#"("@method");keyid="k""#,
        r#"("@method");created=1;created=2;keyid="k""#,
        r#"("@method");created=1;keyid="k";alg="rsa-v1_5-sha256""#,
        r#"("@method");created=1;keyid="k";new=1"#,
        r#"("@method");created=1;keyid="k"x"#,
        r#"("@Method");created=1;keyid="k""#,
    ] {
        assert_eq!(Input::parse(bad), None, "{bad}");
    }
    assert_eq!(bytes_of("a=:AA==:, a=:AA==:", "a"), None);
    assert_eq!(bytes_of("a=1", "a"), None);
}

#[test]
fn the_body_is_the_one_that_was_signed() {
    let headers = |text: &'static str| {
        HeaderMap::from_iter([(auth::CONTENT_DIGEST, http::HeaderValue::from_static(text))])
    };
    // The example of RFC 9530, appendix B.
    let body = b"{\"hello\": \"world\"}\n";
    let good = headers("sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
    assert!(body_matches(&good, body));
    assert!(!body_matches(&good, b"{\"hello\": \"other\"}\n"));
    assert!(!body_matches(&headers("md5=:AAAA:"), body), "no digest that is known");
    assert!(!body_matches(&HeaderMap::new(), body) && body_matches(&HeaderMap::new(), b""));
}
