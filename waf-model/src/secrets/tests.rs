//! What is taken out, and what stays for rules.

use proptest::prelude::*;

use super::*;
use crate::tests::grows_linearly;

fn concealed(input: &str, text: Text) -> String {
    String::from_utf8_lossy(&conceal(input.as_bytes(), text)).into_owned()
}

#[test]
fn pairs_lose_what_is_secret() {
    for (input, expected) in [
        ("q=union&password=hunter2&page=2", "q=union&password=x&page=2"),
        ("password=a%26b%3Dc&x=1", "password=x%26x%3Dx&x=1"),
        ("password=' or 1=1-- hunter2&x=1", "password=' or 1=1-- x&x=1"),
        ("user%5Bpassword%5D=hunter2", "user%5Bpassword%5D=x"),
        ("user[pwd]=hunter2&a=b", "user[pwd]=x&a=b"),
        ("next=%2Fa%3Ftoken%3Dabc%26b%3D1&c=d", "next=%2Fa%3Ftoken%3Dx%26b%3D1&c=d"),
        (
            "data=%7B%22password%22%3A%22hunter2%22%2C%22a%22%3A%22b%22%7D",
            "data=%7B%22password%22%3A%22x%22%2C%22a%22%3A%22b%22%7D",
        ),
        ("pin=1234&pins=1234", "pin=0&pins=1234"),
        ("author=jane&auth=jane", "author=jane&auth=x"),
        ("id=42&q=hello+world", "id=42&q=hello+world"),
    ] {
        assert_eq!(concealed(input, Text::Pairs), expected);
    }
}

#[test]
fn documents_lose_what_is_secret_and_stay_documents() {
    for (input, expected) in [
        (
            r#"{"user":"jane","password":"hun\"ter2\n\u00e4","n":1}"#,
            r#"{"user":"jane","password":"x\"x\nx","n":1}"#,
        ),
        (r#"{"pin" : 1234, "a":2}"#, r#"{"pin" : 0, "a":2}"#),
        (
            r#"{"credentials":{"a":"b c","d":[12,3]},"e":"f"}"#,
            r#"{"credentials":{"x":"x x","x":[0,3]},"e":"f"}"#,
        ),
        ("<a><token>hunter2</token><b>c</b></a>", "<a><token>x</token><b>c</b></a>"),
        ("<password type=\"t\">hunter2</password>", "<password type=\"t\">x</password>"),
        (
            "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhun ter2\r\n--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--b--\r\n",
            "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nx x\r\n--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--b--\r\n",
        ),
        ("password: hunter2\nname: jane", "password: x\nname: jane"),
        ("see https://a.example/?token=abc&b=c", "see https://a.example/?token=x&b=c"),
    ] {
        assert_eq!(concealed(input, Text::Free), expected);
        if input.starts_with('{') {
            assert!(serde_json::from_str::<serde_json::Value>(expected).is_ok());
        }
    }
}

#[test]
fn tokens_and_cards_are_known_by_their_looks() {
    for (input, expected) in [
        ("/reset/zq7xk2m9p4w8r1t6y3u5/confirm", "/reset/x/confirm"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4", "x"),
        ("AKIAIOSFODNN7EXAMPLE12 done", "x done"),
        ("card 4111 1111 1111 1111, thanks", "card 0000 0000 0000 0000, thanks"),
        ("4111111111111111", "0000000000000000"),
        ("4111111111111112 is no card, 2026-11-24 no number", "x is no card, 2026-11-24 no number"),
        ("information_schema.tables", "information_schema.tables"),
        ("/assets/app.js?v=3", "/assets/app.js?v=3"),
    ] {
        assert_eq!(concealed(input, Text::Free), expected);
    }
    let kind = "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW";
    let body = "------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n";
    assert_eq!(concealed(kind, Text::Free), "multipart/form-data; boundary=----x");
    assert_eq!(concealed(body, Text::Free), "------x--\r\n");
}

#[test]
fn headers_lose_credentials_and_cookies() {
    for (name, value, expected) in [
        ("authorization", "Bearer abc.def", "Bearer x.x"),
        ("authorization", "hunter2", "x"),
        ("cookie", "theme=light; sid=abc' or 1=1", "theme=x; sid=x' or 1=1"),
        ("x-api-key", "abc", "x"),
        ("x-auth-token", "abc", "x"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("referer", "https://a.example/?token=abc", "https://a.example/?token=x"),
    ] {
        assert_eq!(conceal_header(name, value.as_bytes()), expected.as_bytes(), "{name}: {value}");
    }
}

#[test]
fn it_is_linear_in_the_input() {
    for pattern in
        ["password=", "\"token\":{", "<pin>", "\r\n\r\n", "4111 ", "a1", "%22", ":", "name=\"pwd\"\n\n"]
    {
        let work = |input: &[u8]| {
            for text in [Text::Pairs, Text::Free] {
                conceal(input, text);
            }
        };
        grows_linearly(pattern, work, pattern.as_bytes());
    }
}

proptest! {
    #[test]
    fn a_named_secret_never_shows(
        secret in "[a-z]{2}[a-z0-9]{4,20}zq",
        name in "(password|api_key|access-token|user\\.pwd|csrfToken)",
        rest in "[a-z0-9 &=\"{}<>:,]{0,40}",
    ) {
        for (input, text) in [
            (format!("{name}={secret}&{rest}"), Text::Pairs),
            (format!("a=1&{name}={secret}"), Text::Pairs),
            (format!("{{\"{name}\": \"{secret}\", {rest}"), Text::Free),
            (format!("<{name}>{secret}</{name}>{rest}"), Text::Free),
            (format!("x; name=\"{name}\"\r\n\r\n{secret}\r\n--b{rest}"), Text::Free),
        ] {
            let shown = concealed(&input, text);
            prop_assert!(!shown.contains(&secret), "{input} -> {shown}");
        }
    }

    #[test]
    fn any_input_is_taken(input in proptest::collection::vec(any::<u8>(), 0..300)) {
        for text in [Text::Pairs, Text::Free] {
            prop_assert!(conceal(&input, text).len() <= input.len().max(1));
        }
        conceal_header("cookie", &input);
        conceal_header("authorization", &input);
    }
}
