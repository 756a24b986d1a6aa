//! The answer of the server behind the firewall: empty, unless the test asks for one at `/reflect`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::wire::Message;

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Its status.
    pub(crate) status: u16,
    /// Lower-case names and their values.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The answer to `message`.
    pub(crate) fn to(message: &Message) -> Self {
        let is_reflection = message.path == b"/reflect" || message.path.starts_with(b"/reflect/");
        if message.method == "POST" && is_reflection {
            reflect(&message.body)
        } else {
            Self::new(200, Vec::new(), Vec::new())
        }
    }

    fn new(status: u16, mut headers: Vec<(String, Vec<u8>)>, body: Vec<u8>) -> Self {
        if !body.is_empty() && !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".to_owned(), media_type(&body).into()));
        }
        headers.push(("content-length".to_owned(), body.len().to_string().into()));
        Self { status, headers, body }
    }
}

/// The response that the JSON text `demand` describes.
fn reflect(demand: &[u8]) -> Reply {
    let bad = |why: &str| Reply::new(400, Vec::new(), why.into());
    let Ok(Value::Object(demand)) = serde_json::from_slice(demand) else { return bad("Invalid JSON") };
    let status =
        match demand.get("status").map_or(Some(200), Value::as_u64).and_then(|n| u16::try_from(n).ok()) {
            Some(0) => 200,
            Some(status @ 100..600) => status,
            _ => return bad("Invalid status"),
        };
    let headers = demand.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers = headers
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.as_str()?.into())))
        .collect();
    let text = |key: &str| demand.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let body = match (text("body"), text("encodedBody")) {
        (Some(body), _) => body.as_bytes().to_vec(),
        (None, Some(encoded)) => match BASE64_STANDARD.decode(encoded) {
            Ok(body) => body,
            Err(_) => return bad("Invalid base64"),
        },
        (None, None) => Vec::new(),
    };
    Reply::new(status, headers, body)
}

/// The type that a server gives a body whose type nobody named, by how it begins.
fn media_type(body: &[u8]) -> &'static str {
    let start = body.trim_ascii_start();
    let begins = |tag: &str| {
        start.get(..tag.len()).is_some_and(|found| found.eq_ignore_ascii_case(tag.as_bytes()))
            && start.get(tag.len()).is_some_and(|next| matches!(next, b' ' | b'>'))
    };
    let tags = [
        "<!doctype html",
        "<html",
        "<head",
        "<script",
        "<iframe",
        "<h1",
        "<div",
        "<font",
        "<table",
        "<a",
        "<style",
        "<title",
        "<b",
        "<body",
        "<br",
        "<p",
    ];
    if tags.iter().any(|tag| begins(tag)) || start.starts_with(b"<!--") {
        "text/html; charset=utf-8"
    } else if start.starts_with(b"<?xml") {
        "text/xml; charset=utf-8"
    } else if body.iter().take(512).any(|byte| matches!(byte, 0..=8 | 11 | 14..=26 | 28..=31)) {
        "application/octet-stream"
    } else {
        "text/plain; charset=utf-8"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(method: &str, target: &str, body: &str) -> Reply {
        let length = body.len();
        Reply::to(&Message::parse(
            format!("{method} {target} HTTP/1.1\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes(),
        ))
    }

    #[test]
    fn most_requests_get_nothing() {
        for (method, target) in [("GET", "/"), ("GET", "/reflect"), ("POST", "/reflections")] {
            let reply = reply(method, target, "");
            assert_eq!((reply.status, reply.body.len()), (200, 0));
        }
    }

    #[test]
    fn a_response_is_answered_as_described() {
        let plain = reply("POST", "/reflect", r#"{"status": 503, "headers": {"X-A": "b"}, "body": "<p>x"}"#);
        assert_eq!(plain.status, 503);
        assert_eq!(plain.body, b"<p>x");
        assert_eq!(plain.headers[0], ("x-a".to_owned(), b"b".to_vec()));
        assert_eq!(plain.headers[1], ("content-type".to_owned(), b"text/html; charset=utf-8".to_vec()));
        assert_eq!(reply("POST", "/reflect/", r#"{"encodedBody": "YQA="}"#).body, b"a\0");
        assert_eq!(reply("POST", "/reflect", "{").status, 400);
        assert_eq!(reply("POST", "/reflect", r#"{"status": 7}"#).status, 400);
    }
}
