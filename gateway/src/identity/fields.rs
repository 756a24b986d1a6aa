//! Which header fields of a client or an upstream may pass.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields about one connection, never about the message.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields that only the gateway may write, in folded form; and those by which a client could pretend to be another
/// or could give the upstream another path than the one that was inspected.
const OWNED: [&str; 14] = [
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "client-ip",
    "true-client-ip",
    "x-original-forwarded-for",
    "x-request-id",
    "x-credential-identifier",
    "x-anonymous-consumer",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "proxy",
];

/// Prefixes of further such fields.
const OWNED_PREFIXES: [&str; 2] = ["x-forwarded-", "x-consumer-"];

/// Fields that frame or address the message: no alias may pass, and `Connection` cannot name them away.
const FRAMING: [&str; 5] = ["host", "content-length", "content-type", "transfer-encoding", "connection"];

/// Leaves of a client's headers what may go on: without fields about the connection, fields that only the gateway
/// writes, and every spelling that some server takes for one of those. `Cookie` becomes one line, as HTTP/1.1 demands.
pub fn sanitize(headers: &mut HeaderMap) {
    let mut dropped = nominated(headers);
    dropped.extend(headers.keys().filter(|name| is_foreign(name.as_str())).cloned());
    for name in dropped {
        headers.remove(name);
    }
    headers.remove(header::EXPECT);
    join_cookies(headers);
}

/// Removes what concerns only the connection a message came by, and what its `Connection` names.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It overrides a length beside it (RFC 9112, 6.3), which would frame the message anew, and wrongly.
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in nominated(headers) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Says in the fields of a message that its connection switches to another protocol.
pub fn announce_switch(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| !FRAMING.contains(&name.as_str()) && !is_owned(name.as_str()))
        .collect()
}

fn is_foreign(name: &str) -> bool {
    if HOP_BY_HOP.contains(&name) {
        return true;
    }
    let folded = fold(name);
    let is_alias = folded != name;
    is_owned(&folded) || (is_alias && (FRAMING.contains(&&*folded) || HOP_BY_HOP.contains(&&*folded)))
}

/// Whether a header of this name (lower case) is only the gateway's to write to an upstream, or says how the message is
/// to be read.
pub fn is_reserved(name: &str) -> bool {
    is_foreign(name) || FRAMING.contains(&name) || matches!(name, "content-encoding" | "expect")
}

fn is_owned(name: &str) -> bool {
    OWNED.contains(&name) || OWNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// One form for names that CGI-like servers cannot tell apart; case was folded by the HTTP parser.
pub fn fold(name: &str) -> Cow<'_, str> {
    if name.contains(['_', '.']) { Cow::Owned(name.replace(['_', '.'], "-")) } else { Cow::Borrowed(name) }
}

/// HTTP/2 may split cookies over several fields; HTTP/1.1 knows one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pairs: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        sanitize(&mut headers);
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn fields_of_the_connection_and_aliases_of_ours_are_dropped() {
        for name in [
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Upgrade",
            "HTTP2-Settings",
            "Expect",
            "X-Forwarded-For",
            "X_Forwarded_For",
            "X.Forwarded.For",
            "x-forwarded_for",
            "Forwarded",
            "X-Real-IP",
            "X_Real_IP",
            "X-Request-Id",
            "X_Request.Id",
            "X-Consumer-Id",
            "X_Consumer_Username",
            "X-Original-URL",
            "Content_Length",
            "Transfer_Encoding",
            "transfer.encoding",
            "Proxy",
            "Proxy_Connection",
        ] {
            assert_eq!(kept(&[(name, "1")]), Vec::<String>::new(), "{name}");
        }
        for name in ["accept", "x-my_header", "content-type", "traceparent", "authorization", "host"] {
            assert_eq!(kept(&[(name, "1")]), [format!("{name}: 1")]);
        }
    }

    #[test]
    fn connection_names_fields_away_but_not_those_that_matter() {
        let given = [
            ("connection", "close, X-Hop, Host, x-forwarded-for"),
            ("x-hop", "1"),
            ("host", "a"),
            ("b", "c"),
        ];
        assert_eq!(kept(&given), ["host: a", "b: c"]);
    }

    #[test]
    fn cookies_become_one_line() {
        assert_eq!(kept(&[("cookie", "a=b"), ("cookie", "c=d")]), ["cookie: a=b; c=d"]);
    }
}
