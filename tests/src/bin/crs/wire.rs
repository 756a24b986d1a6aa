//! A request out of its bytes, as leniently as any server in front of a firewall might read it.
//!
//! Many tests send what our gateway refuses before any rule; the rules have to be right about it nevertheless.

use waf_model::request::{BodyExtent, BodyView, Header, RequestView};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The first word.
    pub(crate) method: String,
    /// What stands before the first question mark of the target.
    pub(crate) path: Vec<u8>,
    /// What stands after it.
    pub(crate) query: Option<Vec<u8>>,
    /// The last word of the first line.
    pub(crate) protocol: String,
    /// Lower-case names and their values.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Whether it says both how long its body is and that it comes in chunks; the length is left out then.
    pub(crate) is_framed_twice: bool,
    /// The body without chunks.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// Reads one request; what follows it is left out.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let (head, rest) = split_head(bytes);
        let mut lines =
            head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let (method, target, protocol) = words(lines.next().unwrap_or_default());
        let (path, query) = match target.iter().position(|byte| *byte == b'?') {
            Some(at) => {
                let (path, query) = target.split_at(at);
                (path, query.get(1..))
            }
            None => (target, None),
        };
        let mut headers: Vec<(String, Vec<u8>)> = lines.filter(|line| !line.is_empty()).map(field).collect();
        let has = |name| value(&headers, name).is_some();
        let is_framed_twice = has("transfer-encoding") && has("content-length");
        if is_framed_twice {
            // As the standard has it, and as servers hand it on.
            headers.retain(|(name, _)| name != "content-length");
        }
        let body = body(&headers, rest);
        Self {
            method: text(method),
            path: path.to_vec(),
            query: query.map(<[u8]>::to_vec),
            protocol: text(protocol),
            headers,
            is_framed_twice,
            body,
        }
    }

    /// The fields as the engine takes them.
    pub(crate) fn fields(&self) -> Vec<Header<'_>> {
        self.headers.iter().map(|(name, value)| Header { name, value }).collect()
    }

    /// The request as the engine takes it, with `headers` from [`Message::fields`].
    pub(crate) fn view<'a>(&'a self, headers: &'a [Header<'a>]) -> RequestView<'a> {
        RequestView {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            protocol: &self.protocol,
            headers,
            body: BodyView { bytes: &self.body, extent: BodyExtent::Complete },
            client_address: "127.0.0.1",
        }
    }
}

fn value<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What stands before and after the first empty line.
fn split_head(bytes: &[u8]) -> (&[u8], &[u8]) {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    for at in ends {
        let (head, rest) = bytes.split_at(at);
        if let Some(body) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            return (head, body);
        }
    }
    (bytes, &[])
}

/// Method, target and protocol. The target may hold spaces; the protocol is what follows the last of them.
fn words(line: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let start = line.iter().position(|byte| *byte != b' ').unwrap_or(0);
    let space = |from: usize| line.iter().skip(from).position(|byte| *byte == b' ').map(|at| from + at);
    let Some(first) = space(start) else { return (line, &[], &[]) };
    let (method, rest) = line.split_at(first);
    let rest = rest.get(1..).unwrap_or_default();
    match rest.iter().rposition(|byte| *byte == b' ') {
        Some(last) => {
            let (target, protocol) = rest.split_at(last);
            (method, target, protocol.get(1..).unwrap_or_default())
        }
        None => (method, rest, &[]),
    }
}

fn field(line: &[u8]) -> (String, Vec<u8>) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    (text(name.trim_ascii()).to_lowercase(), value.get(1..).unwrap_or_default().trim_ascii().to_vec())
}

fn body(headers: &[(String, Vec<u8>)], rest: &[u8]) -> Vec<u8> {
    if value(headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) {
        return unchunked(rest);
    }
    let length =
        value(headers, "content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    rest.get(..length.unwrap_or(0)).unwrap_or(rest).to_vec()
}

/// The chunks of `rest` in one piece, as far as they are well formed.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, chunks) = rest.split_at(end + 1);
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(chunk) = size.filter(|size| *size > 0).and_then(|size| chunks.get(..size)) else { break };
        body.extend_from_slice(chunk);
        let after = chunks.get(chunk.len()..).unwrap_or_default();
        rest = after.strip_prefix(b"\r\n").or_else(|| after.strip_prefix(b"\n")).unwrap_or(after);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_leniently() {
        let message =
            Message::parse(b"GET /a b?c?d HTTP/1.1\r\nHost: h\nX: \xff \r\ncontent-length: 2\r\n\r\nxyz");
        assert_eq!(message.method, "GET");
        assert_eq!(message.path, b"/a b");
        assert_eq!(message.query.as_deref(), Some(b"c?d".as_slice()));
        assert_eq!(message.protocol, "HTTP/1.1");
        assert_eq!(value(&message.headers, "x"), Some(b"\xff".as_slice()));
        assert_eq!(message.body, b"xy");
    }

    #[test]
    fn parts_may_be_missing() {
        let message = Message::parse(b"GET");
        assert_eq!((message.method.as_str(), message.path.len(), message.body.len()), ("GET", 0, 0));
        assert_eq!(Message::parse(b"").method, "");
        assert_eq!(Message::parse(b"GET /\r\n\r\n").path, b"/");
        assert_eq!(Message::parse(b"POST / HTTP/1.1\ncontent-length: 9\n\nabc").body, b"abc");
    }

    #[test]
    fn chunks_are_joined() {
        let body = |chunks: &[u8]| {
            Message::parse(&[b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", chunks].concat()).body
        };
        assert_eq!(body(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), b"abcde");
        assert_eq!(body(b"9\r\nabc"), b"");
        assert_eq!(body(b"zz"), b"");
    }
}
