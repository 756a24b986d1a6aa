//! Which pages of other sites may call a route from a browser: what is wrong with it, and the headers that say it.

use http::{HeaderName, HeaderValue, Method, Uri};

use super::{
    Toggle,
    compile::{Compiler, MINUTE, toggle},
    parse::parse_method,
    raw::cors::RawCors,
};

/// Longest time that browsers need not ask again: none keeps an answer for longer than a day.
const LONGEST: u64 = 24 * 60 * 60;

/// Which pages may call, and the answers that say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins of the pages; `None` for all.
    origins: Option<Vec<Pattern>>,
    /// `Access-Control-Allow-Methods`.
    pub methods: HeaderValue,
    /// `Access-Control-Allow-Headers`, if any may be set.
    pub headers: Option<HeaderValue>,
    /// `Access-Control-Expose-Headers`, if more than usual may be read.
    pub expose: Option<HeaderValue>,
    /// Whether browsers send cookies along.
    pub credentials: Toggle,
    /// `Access-Control-Max-Age`.
    pub max_age: HeaderValue,
}

/// An origin, or all below one: what stands before the name that varies, and behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Whole(String),
    Below(String, String),
}

impl Pattern {
    /// `https://app.example:8443` or `https://*.example`, without path, in the form that browsers send.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not an origin; write https://app.example or https://*.example.com");
        let lower = text.to_ascii_lowercase();
        let (scheme, host) = lower.split_once("://").ok_or_else(wrong)?;
        let (host, is_below) = host.strip_prefix("*.").map_or((host, false), |host| (host, true));
        let uri: Uri = format!("{scheme}://{host}").parse().map_err(|_| wrong())?;
        let default_port = matches!((scheme, uri.port_u16()), ("https", Some(443)) | ("http", Some(80)));
        if !matches!(scheme, "http" | "https") || host.contains(['/', '@', '*', '?', '#']) || default_port {
            return Err(wrong());
        }
        Ok(if is_below {
            Self::Below(format!("{scheme}://"), format!(".{host}"))
        } else {
            Self::Whole(lower)
        })
    }

    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Whole(whole) => whole == origin,
            Self::Below(scheme, domain) => {
                let name =
                    origin.strip_prefix(scheme.as_str()).and_then(|rest| rest.strip_suffix(domain.as_str()));
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                name.is_some_and(|name| !name.is_empty() && name.bytes().all(plain))
            }
        }
    }
}

impl Cors {
    /// The value of `Access-Control-Allow-Origin` for a page of `origin`, if it may call.
    pub fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        let Some(origins) = &self.origins else { return Some(HeaderValue::from_static("*")) };
        let text = origin.to_str().ok()?;
        origins.iter().any(|pattern| pattern.is(text)).then(|| origin.clone())
    }

    /// Whether answers differ by the page that asks.
    pub fn varies(&self) -> bool {
        self.origins.is_some()
    }
}

impl Compiler {
    /// Which pages may call the route at `path`, which matches `route_methods`.
    pub(super) fn cors(&mut self, raw: &RawCors, path: &str, route_methods: &[Method]) -> Cors {
        let path = format!("{path}.cors");
        let is_any = |names: &[String]| names.iter().any(|name| name == "*");
        let methods = raw.methods.as_deref().unwrap_or_default();
        let credentials = toggle(raw.credentials, Toggle::Off);
        if raw.origins.is_empty() {
            self.mistakes.add(&format!("{path}.origins"), "missing; name the origins of pages that may call");
        }
        for (key, names) in [
            ("origins", &raw.origins[..]),
            ("methods", methods),
            ("headers", &raw.headers),
            ("expose", &raw.expose),
        ] {
            let at = format!("{path}.{key}");
            if is_any(names) && names.len() > 1 {
                self.mistakes.add(&at, "\"*\" stands for all; leave out the others");
            }
            if is_any(names) && credentials == Toggle::On {
                let message =
                    "with credentials \"*\" would let every page act for whoever visits it; name them";
                self.mistakes.add(&at, message);
            }
        }
        let origins = if is_any(&raw.origins) {
            None
        } else {
            Some(self.each(&format!("{path}.origins"), &raw.origins, Pattern::parse))
        };
        let methods = match raw.methods.as_deref() {
            Some(names) if is_any(names) => "*".to_owned(),
            Some(names) => joined(&self.each(&format!("{path}.methods"), names, parse_method)),
            None if route_methods.is_empty() => joined(&[Method::GET, Method::HEAD, Method::POST]),
            None => joined(route_methods),
        };
        let headers = self.field_names(&format!("{path}.headers"), &raw.headers);
        let expose = self.field_names(&format!("{path}.expose"), &raw.expose);
        let max_age =
            self.duration(&format!("{path}.max_age"), raw.max_age.as_deref(), 10 * MINUTE).as_secs();
        Cors {
            origins,
            methods: HeaderValue::try_from(methods).unwrap_or(HeaderValue::from_static("GET")),
            headers,
            expose,
            credentials,
            max_age: HeaderValue::from(max_age.min(LONGEST)),
        }
    }

    /// A list of field names as one value; none if it is empty.
    fn field_names(&mut self, path: &str, names: &[String]) -> Option<HeaderValue> {
        let names = self.each(path, names, |name| match name {
            "*" => Ok(name.to_owned()),
            name => HeaderName::try_from(name)
                .map(|name| name.as_str().to_owned())
                .map_err(|_| format!("{name:?} is not a header name")),
        });
        if names.is_empty() { None } else { HeaderValue::try_from(names.join(", ")).ok() }
    }
}

fn joined(methods: &[Method]) -> String {
    methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn load(cors: &str) -> Result<Cors, String> {
        let text = format!(
            "version: 1\nroutes:\n  - upstreams: [{{url: \"http://127.0.0.1:1\"}}]\n    cors: {{{cors}}}\n"
        );
        Config::load(&text, "p.yaml")
            .map(|config| Cors::clone(config.routes[0].cors.as_ref().unwrap()))
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn only_origins_that_are_meant_may_call() {
        let cors =
            load("origins: [\"https://App.example:8443\", \"https://*.shop.example\"], credentials: on")
                .unwrap();
        let allowed = |origin: &'static str| cors.allow(&HeaderValue::from_static(origin)).is_some();
        for origin in ["https://app.example:8443", "https://a.shop.example", "https://a.b.shop.example"] {
            assert!(allowed(origin), "{origin}");
        }
        for origin in [
            "null",
            "https://app.example",
            "http://app.example:8443",
            "https://shop.example",
            "https://.shop.example",
            "https://evil.example/.shop.example",
            "https://evilshop.example",
            "https://a.shop.example.evil.example",
            "https://user@x.shop.example",
        ] {
            assert!(!allowed(origin), "{origin}");
        }
        assert_eq!(load("origins: ['*']").unwrap().allow(&HeaderValue::from_static("null")).unwrap(), "*");
    }

    #[test]
    fn everybody_with_credentials_and_what_is_no_origin_are_mistakes() {
        for (cors, expected) in [
            ("origins: ['*'], credentials: on", "cors.origins: with credentials"),
            (
                "origins: ['https://a.example'], headers: ['*'], credentials: on",
                "cors.headers: with credentials",
            ),
            (
                "origins: ['https://a.example'], expose: ['*'], credentials: on",
                "cors.expose: with credentials",
            ),
            ("origins: ['*', 'https://a.example']", "leave out the others"),
            ("methods: [GET]", "cors.origins: missing"),
            ("origins: ['null']", "not an origin"),
            ("origins: ['https://a.example/']", "not an origin"),
            ("origins: ['https://a.example:443']", "not an origin"),
            ("origins: ['https://a.*.example']", "not an origin"),
            ("origins: ['https://a.example'], headers: ['a b']", "not a header name"),
        ] {
            let text = load(cors).unwrap_err();
            assert!(text.contains(expected), "{cors}: {text}");
        }
    }
}
