//! Responses: those the gateway makes itself, and what is taken off those of an upstream.

pub mod compression;
pub mod cors;
pub mod leaving;

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{self, HeaderMap},
    request::Parts,
    uri::Authority,
};

use waf_model::rules::{Denial, Manner};

use crate::{
    body::{self, Body},
    config::Redirect,
    error::Fault,
    identity::{self, Peer},
    openapi::Violation,
};

/// The answer to a request that failed: RFC 9457, with the request id and nothing about rules, versions or upstreams.
pub fn problem(fault: &Fault, request_id: &str) -> Response<Body> {
    let status = fault.status();
    let mut headers = HeaderMap::new();
    let violation = match fault {
        Fault::Contract(violation) => Some(&**violation),
        _ => None,
    };
    let mut response = Response::new(document_about(&mut headers, status, request_id, violation));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    let headers = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE && !matches!(fault, Fault::Refused(_)) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Fault::Refused(refusal) = fault {
        for (name, value) in &refusal.headers {
            headers.append(name, value.clone());
        }
    }
    let allowed = match fault {
        Fault::MethodNotAllowed(methods) => {
            methods.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ")
        }
        Fault::Contract(violation) => {
            violation.allowed.iter().map(http::Method::as_str).collect::<Vec<_>>().join(", ")
        }
        Fault::Tunnel => "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".to_owned(),
        _ => String::new(),
    };
    if !allowed.is_empty()
        && let Ok(value) = HeaderValue::from_str(&allowed)
    {
        headers.insert(header::ALLOW, value);
    }
    if let Fault::Denied(Denial { manner: Manner::Redirect(address), .. }) = fault
        && let Ok(value) = HeaderValue::from_str(address)
    {
        headers.insert(header::LOCATION, value);
    }
    let drops = matches!(fault, Fault::Denied(Denial { manner: Manner::Drop, .. }));
    // Where the client broke the framing, the rest of the connection cannot be read safely.
    if drops
        || matches!(fault, Fault::Malformed(_) | Fault::Tunnel | Fault::BodyTooLarge | Fault::BodyStalled)
    {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The body of a problem document, and the headers that go with it.
fn document(headers: &mut HeaderMap, status: StatusCode, request_id: &str) -> Body {
    document_about(headers, status, request_id, None)
}

/// As [`document`]; with what the request breaks of a published description, by name.
fn document_about(
    headers: &mut HeaderMap,
    status: StatusCode,
    request_id: &str,
    violation: Option<&Violation>,
) -> Body {
    let mut document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "instance": format!("urn:portcullis:request:{request_id}"),
    });
    if let (Some(violation), Some(members)) = (violation, document.as_object_mut()) {
        members.insert("detail".to_owned(), violation.to_string().into());
        let violated =
            serde_json::json!({ "in": violation.place, "name": violation.name, "rule": violation.rule });
        members.insert("violation".to_owned(), violated);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    body::whole(Bytes::from(document.to_string()))
}

/// Sends a client elsewhere. What the redirect does not name stays as it was asked for.
///
/// # Errors
/// The address cannot stand in a header.
pub fn redirect(redirect: &Redirect, peer: &Peer, parts: &Parts) -> Result<Response<Body>, Fault> {
    let asked = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = redirect.scheme.unwrap_or(if peer.tls.is_some() { "https" } else { "http" });
    let is_named = redirect.scheme.is_some() || redirect.host.is_some() || redirect.port.is_some();
    let bare =
        Authority::try_from(asked).map_or_else(|_| String::new(), |authority| authority.host().to_owned());
    let authority = match (&redirect.host, redirect.port) {
        (host, Some(port)) => format!("{}:{port}", host.as_deref().unwrap_or(&bare)),
        (Some(host), None) => host.clone(),
        // The port belongs to the scheme that was asked for.
        (None, None) if is_named => bare,
        (None, None) => asked.to_owned(),
    };
    let path = redirect.path.as_deref().unwrap_or(parts.uri.path());
    let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::try_from(format!("{scheme}://{authority}{path}{query}"))
        .map_err(|_| Fault::Malformed("request_target"))?;
    let mut response = Response::new(body::whole(Bytes::new()));
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Takes off an upstream's response what concerns only its connection, or gives away what it runs.
pub fn clean(headers: &mut HeaderMap) {
    identity::strip_hop_by_hop(headers);
    headers.remove(header::SERVER);
    headers.remove("x-powered-by");
}

/// Gives every response the request id.
pub fn mark(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", value);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_problem_says_nothing_but_the_status_and_the_id() {
        let response = problem(&Fault::UpstreamUnreachable("10.1.2.3 refused".to_owned()), "abc");
        assert_eq!(response.status(), 502);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Bad Gateway", "status": 502, "instance": "urn:portcullis:request:abc"
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let response = problem(&Fault::MethodNotAllowed(vec![Method::GET, Method::PUT]), "abc");
        assert_eq!(response.headers()[header::ALLOW], "GET, PUT");
    }

    #[test]
    fn a_rule_may_send_a_client_elsewhere_or_close_its_connection() {
        let denied = |manner| {
            let denial = Denial { rule: 1, phase: 1, status: 403, manner };
            problem(&Fault::Denied(denial), "abc").into_parts().0
        };
        let away = denied(Manner::Redirect("https://shop.example/help".to_owned()));
        assert_eq!(
            (away.status.as_u16(), &away.headers[header::LOCATION]),
            (302, &HeaderValue::from_static("https://shop.example/help"))
        );
        let dropped = denied(Manner::Drop);
        assert_eq!(
            (dropped.status.as_u16(), &dropped.headers[header::CONNECTION]),
            (403, &HeaderValue::from_static("close"))
        );
        assert!(!denied(Manner::Deny).headers.contains_key(header::CONNECTION));
    }

    #[test]
    fn what_the_upstream_runs_is_not_told() {
        let mut headers = HeaderMap::new();
        for name in ["server", "x-powered-by", "keep-alive", "etag"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        clean(&mut headers);
        assert_eq!(headers.keys().map(header::HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    }
}
