//! Bodies made smaller on their way to clients that can read them so, as they stream.
//!
//! Off unless a route asks for it: where one response holds both a secret and text that an attacker chose, its size tells
//! the secret letter by letter (BREACH), and no gateway can see which responses do.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tower_http::{
    CompressionLevel,
    compression::{
        Compression,
        predicate::{Predicate, SizeAbove},
    },
};
use tower_service::Service;

use super::cors::vary;
use crate::body::{self, Body};

/// How hard gzip, Brotli and Zstandard try: two thirds of what is possible, for a tenth of the time.
const LEVEL: CompressionLevel = CompressionLevel::Precise(4);

/// Digests of a body as it was before.
pub const DIGESTS: [&str; 3] = ["content-digest", "digest", "content-md5"];

/// Compresses a body as the client that sent `accepted` (its `Accept-Encoding`) can read it, if it is text of at least
/// `least` bytes, not coded yet, no part of a whole, and may be changed.
pub async fn compress(
    least: u64,
    method: &Method,
    accepted: &[HeaderValue],
    mut response: Response<Body>,
) -> Response<Body> {
    let status = response.status();
    if method == Method::HEAD {
        // It has the length of a body that nobody compresses for it.
        if may_compress(status, response.headers()) {
            vary(response.headers_mut(), header::ACCEPT_ENCODING);
        }
        return response;
    }
    let mut request = Request::new(());
    for value in accepted {
        request.headers_mut().append(header::ACCEPT_ENCODING, value.clone());
    }
    let wanted = SizeAbove::new(least).and(
        |status: StatusCode, _: http::Version, headers: &HeaderMap, _: &http::Extensions| {
            may_compress(status, headers)
        },
    );
    let was_coded = response.headers().contains_key(header::CONTENT_ENCODING);
    let mut service = Compression::new(Answered(Some(response))).compress_when(wanted).quality(LEVEL);
    let Ok(response) = service.call(request).await;
    let mut response = response.map(|body| body.map_err(Into::into).boxed_unsync());
    // Whoever accepts no coding at all, not even none, gets what there is.
    *response.status_mut() = status;
    if !was_coded && response.headers().contains_key(header::CONTENT_ENCODING) {
        let headers = response.headers_mut();
        for name in DIGESTS {
            headers.remove(name);
        }
        weaken(headers);
    }
    response
}

/// A tag of other bytes with the same meaning is a weak one (RFC 9110, 8.8.3).
pub fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
}

fn may_compress(status: StatusCode, headers: &HeaderMap) -> bool {
    let has_whole_body = !status.is_informational()
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED);
    let fixed = headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
        let mut directives = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
    });
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    has_whole_body && !fixed && is_text(kind)
}

/// Whether bodies of this type shrink; streams of events must not wait in a buffer.
pub fn is_text(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let named = matches!(
        kind.as_str(),
        "application/json"
            | "application/javascript"
            | "application/xml"
            | "application/x-ndjson"
            | "application/wasm"
            | "application/x-www-form-urlencoded"
    );
    (kind.starts_with("text/") && kind != "text/event-stream")
        || named
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
}

/// A service that has its answer.
struct Answered(Option<Response<Body>>);

impl Service<Request<()>> for Answered {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(self.0.take().unwrap_or_else(|| Response::new(body::whole(bytes::Bytes::new())))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn coding(accepted: &'static str, fields: &[(&'static str, &'static str)]) -> Response<Body> {
        let mut response = Response::new(body::whole("text ".repeat(1000).into()));
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
        for (name, value) in fields {
            response.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        compress(1024, &Method::GET, &[HeaderValue::from_static(accepted)], response).await
    }

    #[tokio::test]
    async fn the_client_and_the_response_say_whether() {
        for (accepted, expected) in [
            ("gzip", Some("gzip")),
            ("gzip, br;q=0.9", Some("gzip")),
            ("gzip, br, zstd", Some("zstd")),
            ("br", Some("br")),
            ("identity", None),
            ("gzip;q=0", None),
            ("identity;q=0, gzip;q=0", None),
            ("", None),
        ] {
            let response = coding(accepted, &[("etag", "\"a\"")]).await;
            let found = response.headers().get("content-encoding").map(|value| value.to_str().unwrap());
            assert_eq!(found, expected, "{accepted}");
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["vary"], "accept-encoding", "{accepted}");
            assert_eq!(response.headers()["etag"], if expected.is_some() { "W/\"a\"" } else { "\"a\"" });
        }
        for field in [
            ("content-type", "image/png"),
            ("content-type", "text/event-stream"),
            ("content-type", "application/grpc"),
            ("content-type", "application/grpc-web+proto"),
            ("content-encoding", "br"),
            ("content-range", "bytes 0-1/2"),
            ("cache-control", "public, No-Transform"),
            ("content-length", "1023"),
        ] {
            let mut response = coding("gzip", &[field]).await;
            if field.0 == "content-length" {
                let short = Response::builder().header("content-type", "text/plain");
                let short = short.body(body::whole("text ".repeat(200).into())).unwrap();
                response = compress(1024, &Method::GET, &[HeaderValue::from_static("gzip")], short).await;
            }
            let found = response.headers().get("content-encoding").map(HeaderValue::as_bytes);
            assert_eq!(found, (field.0 == "content-encoding").then_some(&b"br"[..]), "{field:?}");
        }
    }
}
