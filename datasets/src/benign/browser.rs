//! A person with a browser: a page with its assets, then the next page.

use serde_json::{Value, json};

use super::Visit;
use crate::{
    headers::{self, Headers},
    request::{Space, encode, form, multipart},
    shop, text,
};

/// What the person does next.
pub(super) fn step(visit: &mut Visit) {
    if visit.steps == 0 {
        return land(visit);
    }
    match visit.rng.u8(..100) {
        0..28 => product(visit),
        28..48 => listing(visit),
        48..66 => search(visit),
        66..78 => cart(visit),
        78..84 if !visit.logged_in => login(visit),
        78..88 => orders(visit),
        88..92 => profile(visit),
        92..95 => review(visit),
        95..97 => upload(visit),
        97 => mistyped_link(visit),
        _ => page(visit, "/about"),
    }
}

fn land(visit: &mut Visit) {
    match visit.rng.u8(..3) {
        0 => page(visit, "/"),
        1 => {
            let query = form(&[("utm_source", "newsletter"), ("utm_campaign", "autumn-26")], Space::Plus);
            page(visit, &format!("/?{query}"));
        }
        _ => product(visit),
    }
    for asset in ["/static/css/shop.css", "/static/js/app.3f9c2e1b.js", "/favicon.ico"] {
        asset_of(visit, asset, "/");
    }
}

fn page(visit: &mut Visit, uri: &str) {
    let headers = navigation(visit, "/");
    visit.push(2_500, "GET", uri, headers, "");
}

fn listing(visit: &mut Visit) {
    let category = visit.pick(&shop::CATEGORIES);
    let mut uri = format!("/api/products?category={category}&page={}", visit.rng.u32(1..8));
    if visit.rng.bool() {
        uri += &format!("&sort={}", visit.pick(&shop::SORTS));
    }
    if visit.rng.u8(..5) == 0 {
        uri += &format!("&price[min]={}&price[max]={}", visit.rng.u32(1..40), visit.rng.u32(40..400));
    }
    let headers = fetch(visit, "/");
    visit.push(3_000, "GET", uri, headers, "");
    images(visit, "/");
}

fn search(visit: &mut Visit) {
    let query = text::search(&mut visit.rng);
    // Suggestions while typing, then the search itself.
    let typed: Vec<char> = query.chars().collect();
    for length in [3, 6] {
        if let Some(prefix) = typed.get(..length) {
            let uri =
                format!("/api/suggest?q={}", encode(&prefix.iter().collect::<String>(), Space::Percent));
            let headers = fetch(visit, "/search");
            visit.push(350, "GET", uri, headers, "");
        }
    }
    let uri = format!("/api/search?q={}&page={}", encode(&query, Space::Plus), visit.rng.u32(1..3));
    let headers = fetch(visit, "/search");
    visit.push(1_200, "GET", uri, headers, "");
    images(visit, "/search");
}

fn product(visit: &mut Visit) {
    let id = visit.product();
    let referer = format!("/products/{id}");
    let headers = navigation(visit, "/");
    visit.push(4_000, "GET", format!("/products/{id}"), headers, "");
    let headers = fetch(visit, &referer);
    visit.push(60, "GET", format!("/api/products/{id}"), headers, "");
    let headers = fetch(visit, &referer);
    visit.push(10, "GET", format!("/api/products/{id}/reviews?page=1"), headers, "");
    asset_of(visit, &format!("/static/img/{id}.jpg"), &referer);
}

fn cart(visit: &mut Visit) {
    let items: Vec<_> = (0..visit.rng.usize(1..4))
        .map(|_| json!({"sku": shop::sku(visit.product()), "quantity": visit.rng.u8(1..5)}))
        .collect();
    let mut body = json!({"items": items, "gift": visit.rng.bool()});
    if visit.rng.u8(..4) == 0 {
        let note = text::opinion(&mut visit.rng);
        add(&mut body, "note", note);
    }
    if visit.rng.u8(..5) == 0 {
        add(&mut body, "coupon", format!("SAVE{}", visit.rng.u8(5..31)));
    }
    let headers = json_post(visit, "/cart");
    visit.push(2_000, "POST", "/api/cart", headers, body.to_string());
    let headers = fetch(visit, "/cart");
    visit.push(80, "GET", "/api/cart", headers, "");
}

/// Adds a member to a JSON object.
fn add(object: &mut Value, name: &str, text: String) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), json!(text));
    }
}

fn login(visit: &mut Visit) {
    let account = visit.identity.account;
    let (user, password) = (shop::user_name(account), shop::password(account));
    if visit.rng.u8(..8) == 0 {
        // A slip of the finger.
        let mut wrong = password.clone();
        wrong.pop();
        attempt(visit, &user, &wrong);
    }
    attempt(visit, &user, &password);
    visit.logged_in = true;
}

fn attempt(visit: &mut Visit, user: &str, password: &str) {
    let headers = headers::posting(navigation(visit, "/login"), "application/x-www-form-urlencoded");
    let body = form(&[("username", user), ("password", password), ("remember", "on")], Space::Plus);
    visit.push(5_000, "POST", "/login", headers, body);
}

fn orders(visit: &mut Visit) {
    if !visit.logged_in {
        return login(visit);
    }
    let headers = fetch(visit, "/account");
    visit.push(1_500, "GET", "/api/orders?limit=20", headers, "");
    let order = shop::order(visit.identity.account, visit.rng.u32(..shop::ORDERS_TAKEN));
    let headers = fetch(visit, "/account");
    visit.push(1_800, "GET", format!("/api/orders/{order}"), headers, "");
}

fn profile(visit: &mut Visit) {
    if !visit.logged_in {
        return login(visit);
    }
    let headers = fetch(visit, "/account");
    visit.push(1_500, "GET", "/api/profile", headers, "");
    if visit.rng.bool() {
        let rng = &mut visit.rng;
        let body = json!({
            "name": text::name(rng),
            "email": format!("{}@mail.example", shop::user_name(visit.identity.account)),
            "phone": text::phone(rng),
            "address": {"street": text::address(rng), "zip": format!("{:05}", rng.u32(1_000..99_999))},
            "newsletter": rng.bool(),
            "bio": text::opinion(rng),
        });
        let headers = json_post(visit, "/account");
        visit.push(9_000, "PUT", "/api/profile", headers, body.to_string());
    }
}

fn review(visit: &mut Visit) {
    if !visit.logged_in {
        return login(visit);
    }
    let id = visit.product();
    let body = json!({"rating": visit.rng.u8(1..6), "title": text::search(&mut visit.rng), "text": text::opinion(&mut visit.rng)});
    let headers = json_post(visit, &format!("/products/{id}"));
    visit.push(12_000, "POST", format!("/api/products/{id}/reviews"), headers, body.to_string());
}

fn upload(visit: &mut Visit) {
    if !visit.logged_in {
        return login(visit);
    }
    let boundary = format!("----WebKitFormBoundary{:016x}", visit.rng.u64(..));
    let image: Vec<u8> = b"\x89PNG\r\n\x1a\n"
        .iter()
        .copied()
        .chain((0..visit.rng.usize(400..3_000)).map(|_| visit.rng.u8(..)))
        .collect();
    let file = format!("IMG_{:04} ({}).png", visit.rng.u32(..9_999), visit.rng.u8(1..4));
    let caption = text::opinion(&mut visit.rng);
    let parts = [
        ("caption", None, None, caption.as_bytes()),
        ("photo", Some(file.as_str()), Some("image/png"), image.as_slice()),
    ];
    let body = multipart(&boundary, &parts);
    let headers =
        headers::posting(fetch(visit, "/account"), &format!("multipart/form-data; boundary={boundary}"));
    visit.push(8_000, "POST", "/api/uploads", headers, body);
}

fn mistyped_link(visit: &mut Visit) {
    let uri = *["/product/12", "/about-us", "/sale/2025", "/static/img/logo-old.png"]
        .get(visit.rng.usize(..4))
        .unwrap_or(&"/about-us");
    page(visit, uri);
}

fn images(visit: &mut Visit, referer: &str) {
    for _ in 0..visit.rng.usize(1..4) {
        let id = visit.product();
        asset_of(visit, &format!("/static/img/{id}.jpg"), referer);
    }
}

fn asset_of(visit: &mut Visit, uri: &str, referer: &str) {
    let headers = headers::asset(&visit.identity, referer, visit.logged_in);
    visit.push(15, "GET", uri, headers, "");
}

/// Headers of a page load.
fn navigation(visit: &Visit, referer: &str) -> Headers {
    headers::navigation(&visit.identity, (visit.steps > 0).then_some(referer), visit.logged_in)
}

/// Headers of a call by the page's script.
fn fetch(visit: &Visit, referer: &str) -> Headers {
    headers::script(&visit.identity, referer, visit.logged_in)
}

fn json_post(visit: &Visit, referer: &str) -> Headers {
    headers::posting(fetch(visit, referer), "application/json")
}
