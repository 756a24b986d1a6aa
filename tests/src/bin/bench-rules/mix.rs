//! The requests: eight kinds that a shop's pages send, and forms of a given size.

use std::{net::IpAddr, sync::Arc, time::Duration};

use datasets::request::{GeneratedRequest, Space, form};

/// Distinct forms of one size: what is computed once a value is not computed once for all.
const FORMS: usize = 16;

/// One request of each of eight kinds: lists, details, JSON and form bodies, a static file, text that looks like SQL.
pub(crate) fn eight_kinds() -> Arc<[GeneratedRequest]> {
    let json = "application/json";
    let profile = r#"{"name":"Siobhan O'Neil","about":"C++ & Rust; write to <siobhan@example.com>","home":{"street":"12 rue d'Alésia","city":"Paris"},"flags":{"news":true,"languages":["en","fr"]}}"#;
    let item = r#"{"product":81274,"quantity":2,"options":{"colour":"blue","size":"42","note":"Leave it at the door, please!"}}"#;
    let login = form(
        &[("user", "siobhan@example.com"), ("password", "correct-horse-battery"), ("remember", "1")],
        Space::Plus,
    );
    [
        get("/api/v1/products?page=2&per_page=50&sort=-price&q=blue+running+shoes"),
        get("/api/v1/products/81274"),
        get("/api/v1/users/me/orders?status=shipped&from=2026-01-01&to=2026-06-30"),
        send("POST", "/api/v1/cart/items", json, item.into()),
        get("/static/app.3f9a1c.js"),
        send("POST", "/api/v1/login", "application/x-www-form-urlencoded", login.into_bytes()),
        get("/search?q=how+to+select+a+union+job+from+the+table&lang=en"),
        send("PUT", "/api/v1/users/7731/profile", json, profile.into()),
    ]
    .into()
}

/// Forms of `size` bytes, all different, whose values are ordinary prose.
pub(crate) fn forms(size: usize) -> Arc<[GeneratedRequest]> {
    let words = [
        "green", "lamps", "blue", "chairs", "warm", "wooden", "house", "garden", "noon", "lovely", "river",
        "twice",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    (0..FORMS)
        .map(|_| {
            let mut body = Vec::with_capacity(size + 100);
            let mut field = 0;
            while body.len() < size {
                let text: Vec<&str> = (0..40).filter_map(|_| random.choice(words)).collect();
                let token: String = (0..8).map(|_| random.lowercase()).collect();
                body.extend_from_slice(format!("&f{field}={}+{token}", text.join("+")).as_bytes());
                field += 1;
            }
            body.drain(..1);
            body.truncate(size);
            send("POST", "/api/v1/notes", "application/x-www-form-urlencoded", body)
        })
        .collect()
}

fn get(uri: &str) -> GeneratedRequest {
    GeneratedRequest {
        method: "GET",
        uri: uri.to_owned(),
        headers: vec![
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".to_owned(),
            ),
            ("accept", "application/json, text/plain, */*".to_owned()),
            ("accept-language", "en-GB,en;q=0.8".to_owned()),
            ("accept-encoding", "gzip, deflate, br".to_owned()),
            (
                "cookie",
                "sid=5f2a9c64d1e84b7a93b0c2d7e6f18a45; theme=dark; seen=GA1.2.7654321.1718000000".to_owned(),
            ),
            ("referer", "https://shop.example/products?page=1".to_owned()),
            ("x-requested-with", "XMLHttpRequest".to_owned()),
        ],
        body: Vec::new(),
        client: IpAddr::from([203, 0, 113, 7]),
        think: Duration::ZERO,
    }
}

fn send(method: &'static str, uri: &str, media: &str, body: Vec<u8>) -> GeneratedRequest {
    let mut request = get(uri);
    request.method = method;
    request.headers.push(("content-type", media.to_owned()));
    request.body = body;
    request
}
