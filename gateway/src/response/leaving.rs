//! What leaves: the last look at every response of a route, the gateway's own included.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{
    body::Body,
    config::{
        Toggle,
        responses::{Cookies, Errors, Names, Responses, Security},
    },
    error::{Fault, Refusal},
    response::document,
};

/// Headers without which HTTP does not work; no list of allowed ones has to name them.
const NEEDED: [HeaderName; 14] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONNECTION,
    header::UPGRADE,
    header::DATE,
    header::LOCATION,
    header::ALLOW,
    header::RETRY_AFTER,
    header::VARY,
    header::WWW_AUTHENTICATE,
];

/// Lets nothing through on a route that is gone.
///
/// # Errors
/// [`Fault::Refused`] with 410.
pub fn refuse_retired(responses: &Responses) -> Result<(), Fault> {
    match responses.retired {
        Toggle::Off => Ok(()),
        Toggle::On => Err(Refusal::new(StatusCode::GONE, "retired").into()),
    }
}

/// Takes off an upstream's response what must not leave, and hides its errors.
pub fn clean(responses: &Responses, response: &mut Response<Body>, request_id: &str) {
    let Responses { strip, only, errors, .. } = responses;
    if *errors == Errors::Hide && is_telling_error(response) {
        let status = response.status();
        let headers = response.headers_mut();
        for name in [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::ETAG, header::TRAILER] {
            headers.remove(name);
        }
        *response.body_mut() = document(headers, status, request_id);
    }
    strip_names(response.headers_mut(), |name| {
        strip.contain(name) || only.as_ref().is_some_and(|only| !is_allowed(only, name))
    });
}

/// What every response gets, its own errors and refusals included; `tls` says by what it leaves.
pub fn dress(responses: &Responses, headers: &mut HeaderMap, tls: bool) {
    let Responses { set, security, hsts, cookies, lifecycle, .. } = responses;
    for (name, value) in careful(*security) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(hsts) = hsts.as_ref().filter(|_| tls) {
        headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
    }
    harden(headers, cookies, tls);
    for (name, value) in lifecycle {
        headers.append(name, value.clone());
    }
    for (name, value) in set {
        headers.insert(name, value.clone());
    }
}

fn is_telling_error<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    response.status().is_server_error() && !kind.starts_with(b"application/problem+json")
}

fn is_allowed(only: &Names, name: &HeaderName) -> bool {
    NEEDED.contains(name) || only.contain(name)
}

fn strip_names(headers: &mut HeaderMap, leaves_not: impl Fn(&HeaderName) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| leaves_not(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn careful(security: Security) -> Vec<(HeaderName, &'static str)> {
    let basic = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
    ];
    let api = [
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    match security {
        Security::Off => Vec::new(),
        Security::Basic => basic.to_vec(),
        Security::Api => basic.into_iter().chain(api).collect(),
    }
}

/// Adds attributes that cookies lack.
fn harden(headers: &mut HeaderMap, cookies: &Cookies, tls: bool) {
    let wanted = [
        (tls && cookies.secure == Toggle::On).then_some("Secure"),
        (cookies.http_only == Toggle::On).then_some("HttpOnly"),
        cookies.same_site,
    ];
    let wanted: Vec<&str> = wanted.into_iter().flatten().collect();
    if wanted.is_empty() {
        return;
    }
    let hardened = |value: &HeaderValue| {
        let text = value.to_str().ok()?;
        let name =
            |attribute: &str| attribute.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
        let has = |attribute: &str| text.split(';').skip(1).any(|own| name(own) == name(attribute));
        let missing: String = wanted
            .iter()
            .filter(|attribute| !has(attribute))
            .map(|attribute| format!("; {attribute}"))
            .collect();
        HeaderValue::try_from(format!("{text}{missing}")).ok()
    };
    if let header::Entry::Occupied(mut entry) = headers.entry(header::SET_COOKIE) {
        for value in entry.iter_mut() {
            if let Some(hardened) = hardened(value) {
                *value = hardened;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::{body, config::Config};

    fn route(responses: &str) -> Responses {
        let text =
            format!("version: 1\nroutes:\n  - upstreams: [{{url: \"http://127.0.0.1:1\"}}]\n{responses}");
        let config = Config::load(&text, "p.yaml").unwrap_or_else(|mistakes| panic!("{mistakes}"));
        config.routes[0].responses.clone()
    }

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> Response<Body> {
        let mut response = Response::new(body::whole("a secret trace".into()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn errors_of_an_upstream_are_told_without_their_bodies() {
        let hides = route("");
        let mut broken =
            response(503, &[("content-type", "text/html"), ("content-length", "14"), ("retry-after", "3")]);
        clean(&hides, &mut broken, "abc");
        assert_eq!(broken.headers()["content-type"], "application/problem+json");
        assert_eq!(broken.headers()["retry-after"], "3");
        let body = broken.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            text.contains("\"status\":503") && text.contains("abc") && !text.contains("secret"),
            "{text}"
        );
        for (responses, status, kind) in [
            ("", 404, "text/html"),
            ("", 500, "application/problem+json"),
            ("    responses: {errors: pass}\n", 500, "text/html"),
        ] {
            let mut left = response(status, &[("content-type", kind)]);
            clean(&route(responses), &mut left, "abc");
            assert_eq!(
                left.into_body().collect().await.unwrap().to_bytes(),
                "a secret trace",
                "{responses}{status}"
            );
        }
    }

    #[test]
    fn telling_headers_never_leave_and_a_list_leaves_only_what_it_names() {
        let fields = [
            ("server", "x"),
            ("x-debug-token", "x"),
            ("etag", "x"),
            ("x-internal-id", "x"),
            ("content-type", "a/b"),
        ];
        let mut stripped = response(200, &fields);
        clean(&route("    responses: {strip: [X-Internal-*]}\n"), &mut stripped, "abc");
        assert_eq!(names(stripped.headers()), ["content-type", "etag"]);
        let mut only = response(200, &fields);
        clean(&route("responses: {only: [x-nothing]}\n"), &mut only, "abc");
        assert_eq!(names(only.headers()), ["content-type"]);
    }

    #[test]
    fn responses_are_dressed_and_cookies_hardened() {
        let careful = route(
            "    lifecycle: {deprecated: 2026-01-01, sunset: 2026-12-31, link: \"https://docs.example/v2\"}\n    responses:\n      \
             security_headers: api\n      set: {X-Team: shop}\n      cookies: {secure: on, http_only: on, same_site: lax}\n",
        );
        let fields = [
            ("set-cookie", "a=1; path=/; httponly"),
            ("set-cookie", "b=2; SameSite=None"),
            ("x-frame-options", "SAMEORIGIN"),
        ];
        let mut headers = response(200, &fields).into_parts().0.headers;
        dress(&careful, &mut headers, true);
        let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
        assert_eq!(
            cookies,
            ["a=1; path=/; httponly; Secure; SameSite=Lax", "b=2; SameSite=None; Secure; HttpOnly"]
        );
        assert_eq!(headers["x-frame-options"], "SAMEORIGIN", "the upstream's own");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["strict-transport-security"], "max-age=31536000");
        assert_eq!(headers["deprecation"], "@1767225600");
        assert_eq!(headers["sunset"], "Thu, 31 Dec 2026 00:00:00 GMT");
        assert_eq!(headers["link"], "<https://docs.example/v2>; rel=\"deprecation\"");
        assert_eq!(headers["x-team"], "shop");
        let mut plain = HeaderMap::new();
        dress(&route("responses: {security_headers: off}\n"), &mut plain, false);
        assert!(plain.is_empty(), "{plain:?}");
    }
}
