//! Header fields as browsers and the shop's app send them; attackers copy them.

use crate::{identity::Identity, shop};

/// Header fields of one request, names in lower case.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// What every request of a browser carries; with the session cookie once logged in.
fn browser(identity: &Identity, accept: &str, logged_in: bool) -> Headers {
    let mut cookie = format!("_visit={}; theme=light", identity.visitor);
    if logged_in {
        cookie += &format!("; sid={}", shop::session(identity.account));
    }
    vec![
        ("user-agent", identity.user_agent.clone()),
        ("accept", accept.to_owned()),
        ("accept-language", identity.language.to_owned()),
        ("accept-encoding", "gzip, deflate, br".to_owned()),
        ("cookie", cookie),
    ]
}

/// A page load by link or typed address; without `referer` the first of a visit.
pub(crate) fn navigation(identity: &Identity, referer: Option<&str>, logged_in: bool) -> Headers {
    let mut headers =
        browser(identity, "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", logged_in);
    headers.push(("upgrade-insecure-requests", "1".to_owned()));
    if let Some(referer) = referer {
        headers.push(("referer", format!("https://shop.example{referer}")));
    }
    let site = if referer.is_some() { "same-origin" } else { "none" };
    fetched(&mut headers, "document", "navigate", site);
    headers
}

/// A call by the page's script.
pub(crate) fn script(identity: &Identity, referer: &str, logged_in: bool) -> Headers {
    let mut headers = browser(identity, "application/json", logged_in);
    headers.push(("referer", format!("https://shop.example{referer}")));
    headers.push(("x-requested-with", "XMLHttpRequest".to_owned()));
    fetched(&mut headers, "empty", "cors", "same-origin");
    headers
}

/// An image, style or script of a page.
pub(crate) fn asset(identity: &Identity, referer: &str, logged_in: bool) -> Headers {
    let mut headers = browser(identity, "*/*", logged_in);
    headers.push(("referer", format!("https://shop.example{referer}")));
    fetched(&mut headers, "image", "no-cors", "same-origin");
    headers
}

/// Adds what a browser adds when it sends a body of type `kind`.
pub(crate) fn posting(mut headers: Headers, kind: &str) -> Headers {
    headers.push(("origin", "https://shop.example".to_owned()));
    headers.push(("content-type", kind.to_owned()));
    headers
}

/// A call by the shop's app; with its token once logged in.
pub(crate) fn app(identity: &Identity, logged_in: bool) -> Headers {
    let mut headers = vec![
        ("user-agent", identity.user_agent.clone()),
        ("accept", "application/json".to_owned()),
        ("accept-language", identity.language.to_owned()),
    ];
    if logged_in {
        headers.push(("authorization", format!("Bearer {}", shop::session(identity.account))));
    }
    headers
}

fn fetched(headers: &mut Headers, destination: &str, mode: &str, site: &str) {
    headers.push(("sec-fetch-dest", destination.to_owned()));
    headers.push(("sec-fetch-mode", mode.to_owned()));
    headers.push(("sec-fetch-site", site.to_owned()));
}
