//! Which route a request takes, and that every reading of its path leads to the same one.

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::{config::Route, error::Fault};

/// What the router looks at.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Name of the listener the request came in by.
    pub listener: &'a str,
    /// Host name in lower case, without port.
    pub host: &'a str,
    /// Path as on the wire.
    pub path: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Header fields, as they came.
    pub headers: &'a HeaderMap,
}

/// The first route that matches.
///
/// An upstream may or may not resolve `..`, decode `%2e` and `%2f`, or merge slashes. The path is forwarded as it
/// came; it is refused when two such readings would lead to different routes, or out of the root.
///
/// # Errors
/// [`Fault::NoRoute`], [`Fault::MethodNotAllowed`], or [`Fault::Malformed`] for an ambiguous path.
pub fn find(routes: &[Arc<Route>], target: &Target<'_>) -> Result<Arc<Route>, Fault> {
    let plain = first(routes, target, target.path);
    if !is_ambiguous(target.path) {
        return plain.cloned().ok_or_else(|| refusal(routes, target));
    }
    for slashes in [Slashes::Literal, Slashes::Decoded] {
        let Some(normal) = normalize(target.path, slashes) else {
            // Where no route looks at paths every reading leads to the same one, and the rules judge the path.
            if !routes.iter().any(|route| looks_at_path(route)) {
                continue;
            }
            return Err(Fault::Malformed("path_leaves_root"));
        };
        let other = first(routes, target, &normal);
        if other.map(Arc::as_ptr) != plain.map(Arc::as_ptr) {
            return Err(Fault::Malformed("ambiguous_path"));
        }
    }
    plain.cloned().ok_or_else(|| refusal(routes, target))
}

/// The path without the prefix by which `route` matched; always starts with a slash.
pub fn without_prefix<'a>(route: &Route, path: &'a str) -> &'a str {
    let matched = route.paths.iter().find(|prefix| has_prefix(path, prefix));
    let prefix = matched.map_or("", |prefix| prefix.trim_end_matches('/'));
    match path.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => "/",
    }
}

fn first<'a>(routes: &'a [Arc<Route>], target: &Target<'_>, path: &str) -> Option<&'a Arc<Route>> {
    routes.iter().find(|route| {
        matches_place(route, target, path)
            && (route.methods.is_empty() || route.methods.contains(target.method))
    })
}

fn matches_place(route: &Route, target: &Target<'_>, path: &str) -> bool {
    (route.listeners.is_empty() || route.listeners.iter().any(|name| name == target.listener))
        && (route.hosts.is_empty() || route.hosts.iter().any(|pattern| matches_host(pattern, target.host)))
        && (!looks_at_path(route) || matches_path(route, path))
        && route.routing.headers.iter().all(|field| field.matches(target.headers))
}

fn looks_at_path(route: &Route) -> bool {
    !(route.paths.is_empty() && route.routing.exact.is_empty() && route.routing.templates.is_empty())
}

fn matches_path(route: &Route, path: &str) -> bool {
    route.paths.iter().any(|prefix| has_prefix(path, prefix))
        || route.routing.exact.iter().any(|exact| exact == path)
        || route.routing.templates.iter().any(|template| template.matches(path))
}

fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => pattern == host,
    }
}

/// Whether `path` lies below `prefix`: `/api` holds `/api` and `/api/x`, not `/apix`.
fn has_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn refusal(routes: &[Arc<Route>], target: &Target<'_>) -> Fault {
    let mut allowed: Vec<Method> = Vec::new();
    for route in routes.iter().filter(|route| matches_place(route, target, target.path)) {
        for method in &route.methods {
            if !allowed.contains(method) {
                allowed.push(method.clone());
            }
        }
    }
    if allowed.is_empty() { Fault::NoRoute } else { Fault::MethodNotAllowed(allowed) }
}

/// Whether servers differ about what this path names.
fn is_ambiguous(path: &str) -> bool {
    path.contains("//") || path.contains("/.") || path.contains(['%', '\\', ';'])
}

/// Whether an encoded slash or a backslash parts segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slashes {
    Literal,
    Decoded,
}

/// Decodes once, merges slashes, drops path parameters and resolves dot segments; `None` if it leaves the root.
fn normalize(path: &str, slashes: Slashes) -> Option<String> {
    let decoded = decode_once(path, slashes);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        let bare = segment.split(';').next().unwrap_or_default();
        match bare {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            _ => segments.push(bare),
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    Some(normal)
}

fn decode_once(path: &str, slashes: Slashes) -> String {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    let value = high << 4 | low;
                    if matches!(value, b'/' | b'\\') && slashes == Slashes::Literal {
                        // Stays one segment: a byte that no configured prefix holds.
                        decoded.push(0);
                    } else {
                        decoded.push(if value == b'\\' { b'/' } else { value });
                    }
                    rest = after;
                }
                _ => decoded.push(byte),
            },
            (b'\\', _) if slashes == Slashes::Decoded => decoded.push(b'/'),
            _ => decoded.push(byte),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn route(name: &str, hosts: &[&str], paths: &[&str], methods: &[Method]) -> Arc<Route> {
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        let mut route = Route::clone(&config.routes[0]);
        route.name = name.to_owned();
        route.hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        route.paths = paths.iter().map(|path| (*path).to_owned()).collect();
        route.methods = methods.to_vec();
        Arc::new(route)
    }

    fn routes() -> Vec<Arc<Route>> {
        vec![
            route("admin", &[], &["/admin"], &[Method::GET]),
            route("sub", &["*.shop.example"], &[], &[]),
            route("api", &["shop.example"], &["/api/", "/v2"], &[Method::GET, Method::POST]),
            route("rest", &["shop.example"], &[], &[]),
        ]
    }

    #[track_caller]
    fn check(expected: &str, method: &str, host: &str, path: &str) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let target = Target { listener: "http", host, path, method: &method, headers: &HeaderMap::new() };
        let found = match find(&routes(), &target) {
            Ok(route) => route.name.clone(),
            Err(fault) => fault.name().to_owned(),
        };
        assert_eq!(found, expected, "{method} {host}{path}");
    }

    #[test]
    fn routes_match_by_host_path_and_method() {
        check("admin", "GET", "any.example", "/admin/users");
        check("method_not_allowed", "POST", "any.example", "/admin");
        check("no_route", "GET", "any.example", "/administrator");
        check("sub", "GET", "a.b.shop.example", "/");
        check("no_route", "GET", "xshop.example", "/");
        check("api", "POST", "shop.example", "/api");
        check("api", "POST", "shop.example", "/v2/x");
        check("rest", "PUT", "shop.example", "/v2/x");
        check("rest", "GET", "shop.example", "/apis");
    }

    #[test]
    fn a_path_that_could_reach_another_route_is_refused() {
        for path in [
            "/x/../admin",
            "/x/%2e%2e/admin",
            "/x/.%2E/admin",
            "//admin",
            "/./admin",
            "/%61dmin",
            "/x/..%2fadmin",
            "/x%2f..%2f..%2fadmin/../admin",
            "/x/..\\admin",
            "/x/..%5cadmin",
            "/admin/../x",
            "/admin/..%2fx",
            "/admin;a=b",
            "/x/..;/admin",
            "/.;/admin",
        ] {
            let found = find(
                &routes(),
                &Target {
                    listener: "http",
                    host: "shop.example",
                    path,
                    method: &Method::GET,
                    headers: &HeaderMap::new(),
                },
            );
            assert!(matches!(found, Err(Fault::Malformed(_))), "{path}: {found:?}");
        }
        check("path_leaves_root", "GET", "shop.example", "/../x");
        check("path_leaves_root", "GET", "shop.example", "/a/%2e%2e/%2e%2e/x");
        check("rest", "GET", "shop.example", "/files/100%25/a%2fb");
        check("rest", "GET", "shop.example", "/a/../b");
        check("admin", "GET", "shop.example", "/admin/a%20b");
        check("rest", "GET", "shop.example", "/%zz/%");
    }

    #[test]
    fn the_prefix_is_cut_at_a_segment_bound() {
        let route = route("r", &[], &["/api/"], &[]);
        assert_eq!(without_prefix(&route, "/api/x"), "/x");
        assert_eq!(without_prefix(&route, "/api"), "/");
    }

    #[test]
    fn a_site_without_path_routes_leaves_odd_paths_to_the_rules() {
        let catch_all: Vec<_> = routes().into_iter().filter(|route| route.paths.is_empty()).collect();
        assert!(!catch_all.is_empty());
        for path in ["/../x", "/%2e%2e/%2e%2e/etc/passwd", "/..%2fx"] {
            let target = Target {
                listener: "http",
                host: "shop.example",
                path,
                method: &Method::GET,
                headers: &HeaderMap::new(),
            };
            assert!(find(&catch_all, &target).is_ok(), "{path}");
        }
    }

    #[test]
    fn exact_paths_templates_and_headers_are_matched_in_every_reading() {
        let text = "version: 1\nupstreams: {u: {origins: [{url: 'http://10.0.0.1'}]}}\nroutes:\n\
                    - {name: beta, match: {paths: [/], headers: {X-Beta: '*', X-Version: '2'}}, upstream: u}\n\
                    - {name: exact, match: {exact: [/a/b]}, upstream: u}\n\
                    - {name: user, match: {templates: ['/users/{id}']}, upstream: u}\n\
                    - {name: rest, upstream: u}\n";
        let routes = Config::load(text, "f").unwrap_or_else(|mistakes| panic!("{mistakes}")).routes;
        let found = |path: &str, headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| {
                    (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
                })
                .collect();
            let target =
                Target { listener: "http", host: "h", path, method: &Method::GET, headers: &headers };
            match find(&routes, &target) {
                Ok(route) => route.name.clone(),
                Err(fault) => fault.name().to_owned(),
            }
        };
        assert_eq!(found("/a/b", &[]), "exact");
        assert_eq!(found("/a/b/c", &[]), "rest");
        assert_eq!(found("/users/7", &[]), "user");
        assert_eq!(found("/users/7/x", &[]), "rest");
        assert_eq!(found("/users/a%20b", &[]), "user");
        // As one segment and as two, and where dots are resolved, it is another route's.
        for path in ["/users/a%2fb", "/a/%62/", "/users/..", "/users/7/../8/x/..", "/a//b"] {
            assert_eq!(found(path, &[]), "ambiguous_path", "{path}");
        }
        assert_eq!(found("/a/b", &[("x-beta", "1"), ("x-version", "2")]), "beta");
        assert_eq!(found("/a/b", &[("x-beta", "1"), ("x-version", "3")]), "exact");
    }
}
