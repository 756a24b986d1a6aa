//! A request as it goes out, whatever HTTP version the connection turns out to speak.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;

use super::origin::Origin;
use crate::{
    body::Body,
    config::{Rewrite, Route},
    error::Fault,
    identity, router,
};

/// A request without the parts that depend on the connection.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    /// With `Host` if the client's is preserved.
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
    /// The protocol that the client asks to switch to.
    pub(super) upgrade: Option<HeaderValue>,
}

impl Sending {
    /// For HTTP/1.1: the target alone, the host in its field, and a framing.
    pub(super) fn over_h1(self, origin: &Origin) -> Request<Body> {
        let Self { method, target, mut headers, body, upgrade } = self;
        if let Some(protocol) = upgrade {
            identity::announce_switch(&mut headers, protocol);
        }
        if !headers.contains_key(header::HOST) {
            headers.insert(header::HOST, origin.host().clone());
        }
        if body.size_hint().exact().is_none() {
            // Otherwise the client connection drops the body of a GET in silence, and with it what was inspected.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        request(method, target.into(), headers, body, Version::HTTP_11)
    }

    /// For HTTP/2: scheme and authority are parts of the target.
    ///
    /// # Errors
    /// The host cannot be an authority.
    pub(super) fn over_h2(self, origin: &Origin) -> Result<Request<Body>, Fault> {
        let Self { method, target, mut headers, body, upgrade: _ } = self;
        // Trailers are passed on, which gRPC insists to hear.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let host = headers.remove(header::HOST);
        let host = host.as_ref().unwrap_or_else(|| origin.host());
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| Fault::Malformed("host"))?;
        let scheme = if origin.reach().tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build();
        let uri = uri.map_err(|_| Fault::Malformed("request_target"))?;
        Ok(request(method, uri, headers, body, Version::HTTP_2))
    }
}

/// The target as the route sends it.
///
/// # Errors
/// It is none, which the checks before rule out.
pub(super) fn target(route: &Route, uri: &Uri) -> Result<PathAndQuery, Fault> {
    let wrong = Fault::Malformed("request_target");
    let path = match &route.routing.rewrite {
        None if !route.strip_prefix => return uri.path_and_query().cloned().ok_or(wrong),
        None => Cow::Borrowed(router::without_prefix(route, uri.path())),
        Some(Rewrite::Prefix(prefix)) => {
            let rest = router::without_prefix(route, uri.path());
            let rest = if rest == "/" && !uri.path().ends_with('/') { "" } else { rest };
            match format!("{}{rest}", prefix.trim_end_matches('/')) {
                empty if empty.is_empty() => Cow::Borrowed("/"),
                path => Cow::Owned(path),
            }
        }
        Some(Rewrite::Template(template)) => {
            let variables =
                route.routing.templates.iter().find_map(|template| template.variables(uri.path()));
            Cow::Owned(template.fill(&variables.unwrap_or_default()))
        }
    };
    let target = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(&*path),
    };
    target.map_err(|_| wrong)
}

fn request(method: Method, uri: Uri, headers: HeaderMap, body: Body, version: Version) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    request
}
