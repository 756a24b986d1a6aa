//! One generated request, and how its parts are put on the wire.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

/// One request that a simulated client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedRequest {
    /// Method, upper case.
    pub method: &'static str,
    /// Path and query exactly as they go on the wire.
    pub uri: String,
    /// Header fields in order, names in lower case; without `host`, `content-length` and `x-forwarded-for`.
    pub headers: Vec<(&'static str, String)>,
    /// Body; empty for none.
    pub body: Vec<u8>,
    /// The client's address, for the trusted proxy's `x-forwarded-for`.
    pub client: IpAddr,
    /// Pause before this request.
    pub think: Duration,
}

impl GeneratedRequest {
    /// The first value of header `name` (lower case), if present.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }
}

/// How a space is written in a query or form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// `+`, as browsers' forms do.
    Plus,
    /// `%20`, as most programs do.
    Percent,
}

/// Percent-encodes `text` for use as a name or value in a query or form.
pub fn encode(text: &str, space: Space) -> String {
    encode_bytes(text.as_bytes(), space)
}

/// Percent-encodes any bytes for use as a name or value in a query or form.
pub fn encode_bytes(bytes: &[u8], space: Space) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'*' => {
                out.push(char::from(byte))
            }
            b' ' if space == Space::Plus => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// Joins `pairs` into a query or form body.
pub fn form(pairs: &[(&str, &str)], space: Space) -> String {
    pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name, space), encode(value, space)))
        .collect::<Vec<_>>()
        .join("&")
}

/// One part of a multipart body: field name, file name, content type, content.
pub type Part<'a> = (&'a str, Option<&'a str>, Option<&'a str>, &'a [u8]);

/// A `multipart/form-data` body with `boundary`.
pub fn multipart(boundary: &str, parts: &[Part<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, file, kind, content) in parts {
        let mut head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"");
        if let Some(file) = file {
            let _ = write!(head, "; filename=\"{file}\"");
        }
        if let Some(kind) = kind {
            let _ = write!(head, "\r\nContent-Type: {kind}");
        }
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(content);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_leaves_nothing_that_a_request_line_cannot_hold() {
        assert_eq!(encode("men's \"A&B\" 50%", Space::Plus), "men%27s+%22A%26B%22+50%25");
        assert_eq!(encode("ü b", Space::Percent), "%C3%BC%20b");
        assert_eq!(form(&[("q", "a b"), ("page", "2")], Space::Plus), "q=a+b&page=2");
    }

    #[test]
    fn a_multipart_body_is_framed_as_rfc_7578_says() {
        let body = multipart(
            "xyz",
            &[("caption", None, None, b"hi"), ("photo", Some("a.png"), Some("image/png"), b"\x89PNG")],
        );
        let expected: &[u8] = b"--xyz\r\nContent-Disposition: form-data; name=\"caption\"\r\n\r\nhi\r\n--xyz\r\n\
            Content-Disposition: form-data; name=\"photo\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n--xyz--\r\n";
        assert_eq!(body, expected);
    }
}
