//! The example API: the shop of `datasets`, as an origin serves it. Answers depend on the request alone.

use bytes::Bytes;
use datasets::shop;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

/// Answers one request.
pub fn answer(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let method = request.method();
    match (method.as_str(), segments.as_slice()) {
        ("GET" | "HEAD", [""]) => page("Shop"),
        ("GET" | "HEAD", ["healthz"]) => json_response(StatusCode::OK, &json!({"status": "ok"})),
        ("GET", ["about" | "cart" | "search" | "account"]) => page("Shop"),
        ("GET", ["robots.txt"]) => text("text/plain", "User-agent: *\nDisallow: /api/\n"),
        ("GET", ["sitemap.xml"]) => text("application/xml", "<?xml version=\"1.0\"?><urlset></urlset>"),
        ("GET", ["favicon.ico"]) => text("image/x-icon", "icon"),
        ("GET", ["static", kind @ ("css" | "js"), _]) => asset(kind),
        ("GET", ["static", "img", name]) => match product(name.trim_end_matches(".jpg")) {
            Some(_) => asset("img"),
            None => not_found(),
        },
        ("GET", ["products", id]) => product(id).map_or_else(not_found, |id| page(&format!("Product {id}"))),
        ("POST", ["login"]) => login(request),
        (_, ["api", rest @ ..]) => api(request, method, rest),
        ("POST" | "PUT" | "GET", ["echo", ..]) => echo(request),
        _ => not_found(),
    }
}

fn api(request: &Request<Bytes>, method: &Method, path: &[&str]) -> Response<Full<Bytes>> {
    match (method.as_str(), path) {
        ("GET", ["home"]) => {
            json_response(StatusCode::OK, &json!({"banners": ["autumn"], "featured": listing(1)}))
        }
        ("GET", ["products"]) => json_response(StatusCode::OK, &listing(20)),
        ("GET", ["search" | "suggest"]) => json_response(StatusCode::OK, &listing(5)),
        ("GET", ["products", id]) => {
            product(id).map_or_else(not_found, |id| json_response(StatusCode::OK, &described(id)))
        }
        ("GET", ["products", id, "reviews"]) => product(id).map_or_else(not_found, |_| {
            json_response(StatusCode::OK, &json!([{"rating": 4, "text": "fine"}]))
        }),
        ("POST", ["products", id, "reviews"]) if product(id).is_some() => {
            accept(request, StatusCode::CREATED)
        }
        ("GET", ["stock"]) => json_response(StatusCode::OK, &json!({"stock": [3, 1, 4, 1, 5, 9, 2, 6]})),
        ("GET", ["cart"]) => json_response(StatusCode::OK, &json!({"items": []})),
        ("POST", ["cart"]) => accept(request, StatusCode::OK),
        ("POST", ["login"]) => login(request),
        ("POST", ["partner", "orders"]) => match account(request) {
            Some(_) => accept(request, StatusCode::CREATED),
            None => refused(StatusCode::UNAUTHORIZED),
        },
        ("GET", ["orders"]) => match account(request) {
            Some(account) => {
                json_response(StatusCode::OK, &json!([shop::order(account, 0), shop::order(account, 1)]))
            }
            None => refused(StatusCode::UNAUTHORIZED),
        },
        ("GET", ["orders", id]) => order(request, id),
        ("GET" | "PUT", ["profile"]) => match account(request) {
            Some(account) => json_response(StatusCode::OK, &json!({"name": shop::user_name(account)})),
            None => refused(StatusCode::UNAUTHORIZED),
        },
        ("POST", ["uploads"]) => match account(request) {
            Some(_) => json_response(StatusCode::CREATED, &json!({"bytes": request.body().len()})),
            None => refused(StatusCode::UNAUTHORIZED),
        },
        _ => not_found(),
    }
}

fn login(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let (mut user, mut password) = (String::new(), String::new());
    if let Ok(body) = serde_json::from_slice::<Value>(request.body()) {
        let field = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        (user, password) = (field("username"), field("password"));
    } else {
        for pair in String::from_utf8_lossy(request.body()).split('&') {
            match pair.split_once('=') {
                Some(("username", value)) => user = percent_decoded(value),
                Some(("password", value)) => password = percent_decoded(value),
                _ => {}
            }
        }
    }
    let Some(account) = shop::account_of(&user).filter(|&account| shop::password(account) == password) else {
        return refused(StatusCode::UNAUTHORIZED);
    };
    let mut response = json_response(StatusCode::OK, &json!({"token": shop::session(account)}));
    if let Ok(cookie) = HeaderValue::from_str(&format!("sid={}; HttpOnly; Path=/", shop::session(account))) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn order(request: &Request<Bytes>, id: &str) -> Response<Full<Bytes>> {
    let Some(account) = account(request) else { return refused(StatusCode::UNAUTHORIZED) };
    match id.parse().ok().and_then(shop::order_owner) {
        None => not_found(),
        Some(owner) if owner != account => refused(StatusCode::FORBIDDEN),
        Some(_) => json_response(StatusCode::OK, &json!({"order": id, "state": "shipped", "total": 41.9})),
    }
}

/// The account of the request's session cookie, bearer token or API key.
fn account(request: &Request<Bytes>) -> Option<u32> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let cookie = header("cookie")
        .and_then(|cookies| cookies.split("; ").find_map(|cookie| cookie.strip_prefix("sid=")));
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    cookie.or(bearer).or_else(|| header("x-api-key")).and_then(shop::session_account)
}

/// Says what arrived, so that a test can tell whether anything was changed on the way.
fn echo(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let headers: Vec<String> = request
        .headers()
        .iter()
        .filter(|(name, _)| {
            name.as_str().starts_with("x-test-") || *name == header::CONTENT_TYPE || *name == header::COOKIE
        })
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let body = json!({
        "method": request.method().as_str(),
        "uri": request.uri().path_and_query().map(|target| target.as_str()),
        "headers": headers,
        "body": request.body().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    });
    json_response(StatusCode::OK, &body)
}

/// Takes a JSON document, or refuses what is none.
fn accept(request: &Request<Bytes>, status: StatusCode) -> Response<Full<Bytes>> {
    match serde_json::from_slice::<Value>(request.body()) {
        Ok(_) => json_response(status, &json!({"accepted": true})),
        Err(_) => json_response(StatusCode::BAD_REQUEST, &json!({"error": "not JSON"})),
    }
}

fn product(id: &str) -> Option<u32> {
    id.parse().ok().filter(|id| (1..=shop::PRODUCTS).contains(id))
}

fn listing(count: u32) -> Value {
    (1..=count).map(|id| json!({"id": id, "sku": shop::sku(id), "price": 19.99})).collect()
}

fn described(id: u32) -> Value {
    json!({"id": id, "sku": shop::sku(id), "price": 19.99, "description": "A fine thing for every purpose.".repeat(8)})
}

fn page(title: &str) -> Response<Full<Bytes>> {
    text(
        "text/html; charset=utf-8",
        &format!("<!doctype html><title>{title}</title><p>{}</p>", "Welcome. ".repeat(60)),
    )
}

fn asset(kind: &str) -> Response<Full<Bytes>> {
    let (kind, size) = match kind {
        "css" => ("text/css", 4_000),
        "js" => ("text/javascript", 12_000),
        _ => ("image/jpeg", 6_000),
    };
    text(kind, &"x".repeat(size))
}

fn not_found() -> Response<Full<Bytes>> {
    json_response(StatusCode::NOT_FOUND, &json!({"error": "not found"}))
}

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    json_response(status, &json!({"error": "not allowed"}))
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = text("application/json", &body.to_string());
    *response.status_mut() = status;
    response
}

fn text(kind: &'static str, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn percent_decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).unwrap_or(0) as u8;
                let high = digit();
                out.push(high << 4 | digit());
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
