//! Benign programs: the shop's app, a stock poller, a partner's batch job, a crawler, a health check.

use serde_json::json;

use super::Visit;
use crate::{
    headers::{self, Headers},
    request::{Space, encode},
    shop, text,
};

/// What the app's user does next.
pub(super) fn app_step(visit: &mut Visit) {
    if visit.steps == 0 {
        let body = json!({
            "username": shop::user_name(visit.identity.account),
            "password": shop::password(visit.identity.account),
            "device": {"id": format!("{:016x}", visit.rng.u64(..)), "os": "mobile"},
        });
        let headers = app_headers(visit, true);
        visit.push(500, "POST", "/api/login", headers, body.to_string());
        visit.logged_in = true;
        let headers = app_headers(visit, false);
        return visit.push(100, "GET", "/api/home?v=4", headers, "");
    }
    match visit.rng.u8(..10) {
        0..3 => {
            let uri = format!(
                "/api/products?category={}&page={}&limit=20",
                visit.pick(&shop::CATEGORIES),
                visit.rng.u32(1..5)
            );
            let headers = app_headers(visit, false);
            visit.push(2_500, "GET", uri, headers, "");
        }
        3..6 => {
            let id = visit.product();
            let headers = app_headers(visit, false);
            visit.push(3_000, "GET", format!("/api/products/{id}"), headers, "");
        }
        6 | 7 => {
            let query = text::search(&mut visit.rng);
            let headers = app_headers(visit, false);
            visit.push(
                4_000,
                "GET",
                format!("/api/search?q={}&page=1", encode(&query, Space::Percent)),
                headers,
                "",
            );
        }
        8 => {
            let body = json!({"items": [{"sku": shop::sku(visit.product()), "quantity": visit.rng.u8(1..4)}], "gift": false});
            let headers = app_headers(visit, true);
            visit.push(2_500, "POST", "/api/cart", headers, body.to_string());
        }
        _ => {
            let order = shop::order(visit.identity.account, visit.rng.u32(..shop::ORDERS_TAKEN));
            let headers = app_headers(visit, false);
            visit.push(1_500, "GET", format!("/api/orders/{order}"), headers, "");
        }
    }
}

fn app_headers(visit: &Visit, posts: bool) -> Headers {
    let mut headers = headers::app(&visit.identity, visit.logged_in);
    if posts {
        headers.push(("content-type", "application/json".to_owned()));
    }
    headers
}

/// Asks for the stock of the same few products, in the same order, again and again.
pub(super) fn poll(visit: &mut Visit) {
    let first = 1 + visit.identity.account * 37 % (shop::PRODUCTS - 20);
    let skus: Vec<String> = (first..first + 8).map(shop::sku).collect();
    let headers = program_headers(visit, false);
    visit.push(2_000, "GET", format!("/api/stock?sku={}", skus.join(",")), headers, "");
}

/// Hands in a day's orders of a partner.
pub(super) fn batch(visit: &mut Visit) {
    let lines: Vec<_> = (0..visit.rng.usize(5..25))
        .map(|_| {
            let product = visit.product();
            let rng = &mut visit.rng;
            json!({"sku": shop::sku(product), "quantity": rng.u16(1..200), "unit_price": f64::from(rng.u32(100..20_000)) / 100.0})
        })
        .collect();
    let rng = &mut visit.rng;
    let body = json!({
        "partner": format!("P-{:04}", visit.identity.account),
        "reference": format!("{}-{:06}", 2026, rng.u32(..999_999)),
        "ship_to": {"name": text::name(rng), "street": text::address(rng), "phone": text::phone(rng)},
        "lines": lines,
    });
    let headers = program_headers(visit, true);
    visit.push(3_000, "POST", "/api/partner/orders", headers, body.to_string());
}

fn program_headers(visit: &Visit, posts: bool) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("user-agent", visit.identity.user_agent.clone()),
        ("accept", "*/*".to_owned()),
        ("x-api-key", shop::session(visit.identity.account)),
    ];
    if posts {
        headers.push(("content-type", "application/json".to_owned()));
    }
    headers
}

/// Reads the map of the site and then one product page after the other.
pub(super) fn crawl(visit: &mut Visit) {
    let headers = |visit: &Visit| {
        vec![
            ("user-agent", visit.identity.user_agent.clone()),
            ("accept", "text/html,application/xhtml+xml,*/*;q=0.5".to_owned()),
            ("accept-encoding", "gzip".to_owned()),
            ("from", "bot@search.example".to_owned()),
        ]
    };
    if visit.steps == 0 {
        for uri in ["/robots.txt", "/sitemap.xml", "/"] {
            let headers = headers(visit);
            visit.push(2_500, "GET", uri, headers, "");
        }
    }
    let start = visit.identity.account * 53;
    let id = 1 + (start + visit.steps * 7) % shop::PRODUCTS;
    let headers = headers(visit);
    visit.push(2_500, "GET", format!("/products/{id}"), headers, "");
}

/// Asks whether the shop is well.
pub(super) fn check_health(visit: &mut Visit) {
    let headers = vec![("user-agent", visit.identity.user_agent.clone()), ("accept", "*/*".to_owned())];
    let method = if visit.identity.account.is_multiple_of(2) { "GET" } else { "HEAD" };
    visit.push(5_000, method, "/healthz", headers, "");
}
