//! Pages of other sites: the gateway says to browsers which of them may call, and nobody else does (Fetch standard,
//! CORS protocol).

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{
    body::{self, Body},
    config::{Cors, Toggle},
};

/// Every header by which a server says which pages may call.
const SAID: [HeaderName; 7] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    HeaderName::from_static("access-control-allow-private-network"),
];

/// The method that a browser asks for beforehand, if this request is such a question.
pub fn preflight(parts: &Parts) -> Option<Method> {
    if parts.method != Method::OPTIONS || !parts.headers.contains_key(header::ORIGIN) {
        return None;
    }
    let asked = parts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

/// The answer to such a question; [`dress`] adds whether this page may call at all.
pub fn answer(cors: &Cors) -> Response<Body> {
    let mut response = Response::new(body::whole(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, cors.methods.clone());
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    if let Some(names) = &cors.headers {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

/// Takes off what an upstream says about this.
pub fn clean(headers: &mut HeaderMap) {
    for name in SAID {
        headers.remove(name);
    }
}

/// Says on a response whether the page of `origin` may read it.
pub fn dress(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    if cors.varies() {
        vary(headers, header::ORIGIN);
    }
    let Some(allowed) = origin.and_then(|origin| cors.allow(origin)) else { return };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if cors.credentials == Toggle::On {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    if let Some(names) = &cors.expose {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
    }
}

/// Says that a response depends on a field of the request, if that is not said yet.
pub fn vary(headers: &mut HeaderMap, name: HeaderName) {
    let said =
        headers.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_said = said
        .map(<[u8]>::trim_ascii)
        .any(|field| field == b"*" || field.eq_ignore_ascii_case(name.as_str().as_bytes()));
    if !is_said {
        headers.append(header::VARY, HeaderValue::from(name));
    }
}
