//! The first look at a request: its form and its sizes, before anything is made of it.

use http::{HeaderMap, Method, Request, Uri, Version, header, uri::Authority};

use crate::{config::Limits, error::Fault};

pub mod shape;

/// How the listener saw the message framed on the wire; an extension of the request. The HTTP library accepts more
/// than one reading and drops what it does not need, so that only the raw bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// In one way.
    Plain,
    /// In more than one, or in none; the mistake by its name in the log.
    Refused(&'static str),
}

/// The host that a TLS client named when it connected, where requests must be for it; an extension of the request.
#[derive(Debug, Clone)]
pub struct ServerName(pub std::sync::Arc<str>);

/// More requests are in progress than may be; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Overload;

/// Refuses a request that comes at a bad time, that is too large, or that two parsers could read differently.
///
/// # Errors
/// The first thing that is wrong.
pub fn check<B>(limits: &Limits, request: &Request<B>) -> Result<(), Fault> {
    if request.extensions().get::<Overload>().is_some() {
        return Err(Fault::Overloaded);
    }
    check_framing(request)?;
    check_target(limits, request.method(), request.uri())?;
    check_size(limits, request.headers())?;
    check_host(request)?;
    if let Some(ServerName(name)) = request.extensions().get()
        && !host_name(request.uri(), request.headers()).eq_ignore_ascii_case(name)
    {
        return Err(Fault::Misdirected);
    }
    match content_length(request.headers()) {
        Some(length) if length > limits.body_bytes => Err(Fault::BodyTooLarge),
        _ => Ok(()),
    }
}

fn check_target(limits: &Limits, method: &Method, uri: &Uri) -> Result<(), Fault> {
    if method == Method::CONNECT {
        return Err(Fault::Tunnel);
    }
    let Some(target) = uri.path_and_query() else { return Err(Fault::Malformed("authority_form")) };
    if target.as_str().len() > limits.uri_bytes {
        return Err(Fault::UriTooLong);
    }
    if !uri.path().starts_with('/') {
        return Err(Fault::Malformed("request_target"));
    }
    if matches!(uri.scheme_str(), Some(scheme) if scheme != "http" && scheme != "https") {
        return Err(Fault::Malformed("request_scheme"));
    }
    Ok(())
}

fn check_size(limits: &Limits, headers: &HeaderMap) -> Result<(), Fault> {
    // Name, colon, space, value, CRLF: what the field takes on the wire, also for fields that are dropped later.
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > limits.header_count || bytes > limits.header_bytes {
        return Err(Fault::HeadersTooLarge);
    }
    Ok(())
}

/// HTTP/1.1 demands exactly one `Host` (HTTP/1.0 at most one), and an authority in the target may not contradict it.
fn check_host<B>(request: &Request<B>) -> Result<(), Fault> {
    let uri = request.uri();
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::Malformed("multiple_hosts"));
    }
    match (host, uri.authority()) {
        (None, None) if request.version() == Version::HTTP_10 => Ok(()),
        (None, None) => Err(Fault::Malformed("no_host")),
        (None, Some(authority)) => check_authority(authority),
        (Some(host), authority) => {
            let parsed = Authority::try_from(host.as_bytes()).map_err(|_| Fault::Malformed("host"))?;
            check_authority(&parsed)?;
            match authority {
                Some(other) if !other.as_str().eq_ignore_ascii_case(parsed.as_str()) => {
                    Err(Fault::Malformed("host_contradicts_target"))
                }
                _ => Ok(()),
            }
        }
    }
}

fn check_authority(authority: &Authority) -> Result<(), Fault> {
    // The type takes any text for a port.
    let has_sound_port = authority.as_str() == authority.host() || authority.port_u16().is_some();
    if authority.host().is_empty() || authority.as_str().contains('@') || !has_sound_port {
        return Err(Fault::Malformed("host"));
    }
    Ok(())
}

fn check_framing<B>(request: &Request<B>) -> Result<(), Fault> {
    if let Some(Framing::Refused(mistake)) = request.extensions().get() {
        return Err(Fault::Malformed(mistake));
    }
    let headers = request.headers();
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Fault::Malformed("multiple_content_lengths"));
    }
    if let Some(length) = headers.get(header::CONTENT_LENGTH)
        && (length.is_empty() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err(Fault::Malformed("content_length"));
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else { return Ok(()) };
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err(Fault::Malformed("conflicting_framing"));
    }
    let exact = encoding.as_bytes().eq_ignore_ascii_case(b"chunked") && encodings.next().is_none();
    if !exact || request.version() != Version::HTTP_11 {
        return Err(Fault::Malformed("transfer_encoding"));
    }
    Ok(())
}

/// The declared length of the body, if there is one.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Host name of a request that passed [`check`]: lower case, without port and final dot.
pub fn host_name(uri: &Uri, headers: &HeaderMap) -> String {
    let authority = match (headers.get(header::HOST), uri.authority()) {
        (Some(host), _) => Authority::try_from(host.as_bytes()).ok(),
        (None, authority) => authority.cloned(),
    };
    let host = authority.as_ref().map_or("", |authority| authority.host());
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits() -> Limits {
        Limits {
            header_bytes: 200,
            header_count: 4,
            uri_bytes: 20,
            body_bytes: 10,
            inspect_bytes: 10,
            header_timeout: Duration::from_secs(1),
            body_idle_timeout: Duration::from_secs(1),
            keep_alive: Duration::from_secs(1),
            body_rate: 1,
            connections: 1,
            connections_per_address: 1,
            requests_per_connection: 1,
            requests_in_flight: 1,
            response_bytes: 1,
            response_inspect_bytes: 1,
            response_hold: Duration::from_secs(1),
        }
    }

    #[track_caller]
    fn refused(expected: &str, method: &str, uri: &str, headers: &[(&str, &str)]) {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let found = check(&limits(), &request.body(()).unwrap());
        assert_eq!(found.err().map_or("fine", |fault| fault.name()), expected, "{method} {uri} {headers:?}");
    }

    #[test]
    fn only_one_reading_of_a_request_passes() {
        let host = ("host", "a.example");
        refused("fine", "GET", "/x?y", &[host]);
        refused("fine", "POST", "/", &[host, ("content-length", "10")]);
        refused("fine", "POST", "/", &[host, ("transfer-encoding", "Chunked")]);
        refused("fine", "GET", "http://a.example/", &[]);
        refused("tunnel", "CONNECT", "a.example:80", &[host]);
        refused("authority_form", "GET", "a.example:80", &[host]);
        refused("request_target", "OPTIONS", "*", &[host]);
        refused("request_scheme", "GET", "ftp://a.example/", &[]);
        refused("uri_too_long", "GET", "/01234567890123456789", &[host]);
        refused("no_host", "GET", "/", &[]);
        refused("host", "GET", "/", &[("host", "a b")]);
        refused("host", "GET", "/", &[("host", "user@a.example")]);
        for host in ["a:b", "a:", "a:65536", "[::1]:x"] {
            refused("host", "GET", "/", &[("host", host)]);
        }
        refused("fine", "GET", "/", &[("host", "[::1]:80")]);
        refused("multiple_hosts", "GET", "/", &[host, host]);
        refused("host_contradicts_target", "GET", "http://b.example/", &[host]);
        refused("body_too_large", "POST", "/", &[host, ("content-length", "11")]);
        refused("content_length", "POST", "/", &[host, ("content-length", "+3")]);
        let length = ("content-length", "3");
        refused("multiple_content_lengths", "POST", "/", &[host, length, length]);
        let chunked = ("transfer-encoding", "chunked");
        refused("conflicting_framing", "POST", "/", &[host, length, chunked]);
        refused("transfer_encoding", "POST", "/", &[host, chunked, chunked]);
        for value in ["gzip, chunked", "identity", "chunked, identity", "xchunked", "chunked;a", ""] {
            refused("transfer_encoding", "POST", "/", &[host, ("transfer-encoding", value)]);
        }
        refused("headers_too_large", "GET", "/", &[host, ("a", ""), ("b", ""), ("c", ""), ("d", "")]);
        refused("headers_too_large", "GET", "/", &[host, ("a", &"x".repeat(200))]);
    }

    #[test]
    fn a_request_is_for_the_host_that_its_connection_was_opened_for() {
        let fault = |host: &str| {
            let mut request = Request::builder().uri("/").header("host", host).body(()).unwrap();
            request.extensions_mut().insert(ServerName("Shop.example".into()));
            check(&limits(), &request).err()
        };
        assert_eq!(fault("shop.Example.:8443"), None);
        assert_eq!(fault("b.example"), Some(Fault::Misdirected));
    }

    #[test]
    fn the_host_name_is_in_one_form() {
        let name = |uri: &str, host: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(host) = host {
                headers.insert(header::HOST, host.parse().unwrap());
            }
            host_name(&uri.parse().unwrap(), &headers)
        };
        assert_eq!(name("/", Some("Shop.Example:8080")), "shop.example");
        assert_eq!(name("/", Some("shop.example.")), "shop.example");
        assert_eq!(name("http://Shop.Example/", None), "shop.example");
        assert_eq!(name("/", Some("[::1]:80")), "[::1]");
    }
}
