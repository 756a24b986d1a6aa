//! What may leave: headers, errors, cookies; and what a route says of its own end.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::{
    Toggle,
    compile::{Compiler, DAY, KIB, toggle},
    raw::responses::{RawCookies, RawErrors, RawLifecycle, RawResponses, RawSameSite, RawSecurityHeaders},
};
use crate::{clock, transform::mask::Mask};

/// What may leave on a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Responses {
    /// Headers taken off.
    pub strip: Names,
    /// The only headers that leave, if there are such.
    pub only: Option<Names>,
    /// Headers set.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// What becomes of the bodies of an upstream's errors.
    pub errors: Errors,
    /// Headers that make browsers careful.
    pub security: Security,
    /// The value of `Strict-Transport-Security` on TLS listeners.
    pub hsts: Option<HeaderValue>,
    /// Size from which on text is compressed, if it is.
    pub compression: Option<u64>,
    /// What is masked in bodies.
    pub mask: Option<Mask>,
    /// Attributes added to cookies.
    pub cookies: Cookies,
    /// Headers about the route's own end.
    pub lifecycle: Vec<(HeaderName, HeaderValue)>,
    /// Whether the route is gone.
    pub retired: Toggle,
}

/// Header names and beginnings of header names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    whole: Vec<String>,
    beginnings: Vec<String>,
}

impl Names {
    /// Whether `name` is one of them.
    pub fn contain(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.whole.iter().any(|whole| whole == name)
            || self.beginnings.iter().any(|beginning| name.starts_with(beginning.as_str()))
    }
}

/// What becomes of the bodies of an upstream's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errors {
    /// Replaced.
    Hide,
    /// Left.
    Pass,
}

/// Headers that make browsers careful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// None.
    Off,
    /// No guessing of types, no paths in referrers.
    Basic,
    /// Also no framing and no content.
    Api,
}

/// Attributes added to cookies that lack them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookies {
    /// `Secure`, on TLS listeners.
    pub secure: Toggle,
    /// `HttpOnly`.
    pub http_only: Toggle,
    /// `SameSite=...`, if it is added.
    pub same_site: Option<&'static str>,
}

/// What gives away what an upstream runs; always taken off.
const TELLING: [&str; 16] = [
    "server",
    "x-powered-by",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-runtime",
    "x-version",
    "x-generator",
    "x-backend*",
    "x-debug*",
    "x-php-*",
    "x-drupal-*",
    "x-varnish*",
    "x-envoy-*",
    "x-kong-*",
    "x-served-by",
    "x-sourcemap",
];

impl Compiler {
    /// What may leave on the route at `path`: what it says itself, then the top level, then the defaults.
    pub(super) fn responses(
        &mut self,
        raw: &RawResponses,
        lifecycle: &RawLifecycle,
        path: &str,
        top: &RawResponses,
    ) -> Responses {
        // A mistake of the top level is told where it stands.
        let at = |own: bool| if own { format!("{path}.responses") } else { "responses".to_owned() };
        let own_strip = at(raw.strip.is_some());
        let strip = raw.strip.as_deref().or(top.strip.as_deref()).unwrap_or_default();
        let mut strip = self.header_names(&format!("{own_strip}.strip"), strip);
        let telling = self.header_names("", &TELLING.map(str::to_owned));
        strip.whole.extend(telling.whole);
        strip.beginnings.extend(telling.beginnings);
        let own_only = at(raw.only.is_some());
        let only = raw.only.as_deref().or(top.only.as_deref());
        let only = only.map(|names| self.header_names(&format!("{own_only}.only"), names));
        let own_set = at(raw.set.is_some());
        let set = raw.set.iter().chain(top.set.iter().filter(|_| raw.set.is_none())).flatten();
        let set = set.filter_map(|(name, value)| self.header(&format!("{own_set}.set.{name}"), name, value));
        let set = set.collect();
        let own_hsts = at(raw.hsts.is_some());
        let hsts = match raw.hsts.as_deref().or(top.hsts.as_deref()) {
            Some("off") => None,
            text => {
                let time = self.duration(&format!("{own_hsts}.hsts"), text, 365 * DAY);
                hsts(time)
            }
        };
        let own_least = at(raw.compression_min.is_some());
        let least = raw.compression_min.as_deref().or(top.compression_min.as_deref());
        let least = self.size(&format!("{own_least}.compression_min"), least, KIB);
        let compression = toggle(raw.compression.or(top.compression), Toggle::Off);
        let own_mask = at(raw.mask.is_some());
        let mask = raw.mask.as_ref().or(top.mask.as_ref());
        let mask = mask.and_then(|mask| self.mask(mask, &format!("{own_mask}.mask")));
        let cookies = raw.cookies.clone().or_else(|| top.cookies.clone()).unwrap_or_default();
        Responses {
            strip,
            only,
            set,
            errors: match raw.errors.or(top.errors) {
                Some(RawErrors::Pass) => Errors::Pass,
                Some(RawErrors::Hide) | None => Errors::Hide,
            },
            security: match raw.security_headers.or(top.security_headers) {
                Some(RawSecurityHeaders::Off) => Security::Off,
                Some(RawSecurityHeaders::Api) => Security::Api,
                Some(RawSecurityHeaders::Basic) | None => Security::Basic,
            },
            hsts,
            compression: (compression == Toggle::On).then_some(least),
            mask,
            cookies: cookie_attributes(&cookies),
            lifecycle: self.lifecycle(lifecycle, &format!("{path}.lifecycle")),
            retired: toggle(lifecycle.retired, Toggle::Off),
        }
    }

    fn lifecycle(&mut self, raw: &RawLifecycle, path: &str) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        // RFC 9745: a structured date; RFC 8594: an HTTP date.
        if let Some(at_ms) = self.date(&format!("{path}.deprecated"), raw.deprecated.as_deref()) {
            headers.extend(self.header(path, "deprecation", &format!("@{}", at_ms / 1000)));
        }
        if let Some(at_ms) = self.date(&format!("{path}.sunset"), raw.sunset.as_deref()) {
            headers.extend(self.header(path, "sunset", &clock::http_date(at_ms)));
        }
        if let Some(link) = &raw.link {
            let at = format!("{path}.link");
            match link.parse::<http::Uri>() {
                Ok(uri) if uri.scheme().is_some() && !link.contains(['<', '>']) => {
                    let kind = if raw.deprecated.is_some() { "deprecation" } else { "sunset" };
                    headers.extend(self.header(&at, "link", &format!("<{link}>; rel=\"{kind}\"")));
                }
                _ => self.mistakes.add(&at, format!("{link:?} is not an address such as https://host/path")),
            }
        }
        headers
    }

    fn date(&mut self, path: &str, text: Option<&str>) -> Option<u64> {
        let text = text?;
        let at_ms = clock::parse(&format!("{text}T00:00:00Z"));
        if at_ms.is_none() {
            self.mistakes.add(path, format!("{text:?} is not a date; write 2026-12-31"));
        }
        at_ms
    }

    fn header_names(&mut self, path: &str, texts: &[String]) -> Names {
        let mut names = Names::default();
        for (index, text) in texts.iter().enumerate() {
            let text = text.to_ascii_lowercase();
            let (name, kind) = match text.strip_suffix('*') {
                Some(beginning) => (beginning, &mut names.beginnings),
                None => (text.as_str(), &mut names.whole),
            };
            match HeaderName::try_from(name) {
                Ok(name) => kind.push(name.as_str().to_owned()),
                Err(_) => {
                    self.mistakes.add(&format!("{path}[{index}]"), format!("{text:?} is not a header name"))
                }
            }
        }
        names
    }

    /// A header, if name and value are such.
    pub(super) fn header(
        &mut self,
        path: &str,
        name: &str,
        value: &str,
    ) -> Option<(HeaderName, HeaderValue)> {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => Some((name, value)),
            (Err(_), _) => {
                self.mistakes.add(path, format!("{name:?} is not a header name"));
                None
            }
            (_, Err(_)) => {
                self.mistakes.add(path, format!("{value:?} cannot be the value of a header"));
                None
            }
        }
    }
}

fn hsts(time: Duration) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("max-age={}", time.as_secs())).ok()
}

fn cookie_attributes(raw: &RawCookies) -> Cookies {
    Cookies {
        secure: toggle(raw.secure, Toggle::Off),
        http_only: toggle(raw.http_only, Toggle::Off),
        same_site: raw.same_site.map(|same_site| match same_site {
            RawSameSite::Lax => "SameSite=Lax",
            RawSameSite::Strict => "SameSite=Strict",
        }),
    }
}
