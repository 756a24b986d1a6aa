//! What a route matches beside prefixes, and what becomes of its requests.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    Toggle, UpstreamGroup,
    compile::Compiler,
    parse::{parse_host, parse_prefix},
    raw::{
        RawRoute, RawToggle,
        routing::{RawMirror, RawRedirect, RawSplit},
    },
};

/// What a route matches beside prefixes, and what becomes of its requests.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// Whole paths.
    pub exact: Vec<String>,
    /// Paths with variable segments.
    pub templates: Vec<Template>,
    /// Header fields, all of which a request has.
    pub headers: Vec<HeaderMatch>,
    /// The path that goes upstream, instead of the client's.
    pub rewrite: Option<Rewrite>,
    /// Where clients are sent, instead of an upstream.
    pub redirect: Option<Redirect>,
    /// Whether the admin API is published here, instead of an upstream.
    pub is_admin: bool,
    /// Parts of the requests that go elsewhere; weights are shares of clients.
    pub split: Vec<Split>,
    /// Where copies go.
    pub mirror: Option<Mirror>,
    /// Protocols that a client may switch to, in lower case.
    pub upgrades: Vec<String>,
    /// Whether bodies of gRPC requests stream, without inspection.
    pub grpc: Option<Toggle>,
}

/// A path with variable segments: `/users/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Variable(String),
}

/// A header field that a request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    name: HeaderName,
    /// Its value; any without.
    value: Option<HeaderValue>,
}

/// The path that goes upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// In place of the prefix that matched.
    Prefix(String),
    /// With the variables of the template that matched.
    Template(Template),
}

/// Where clients are sent. What is `None` stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<&'static str>,
    /// Host name.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<String>,
    /// Status.
    pub status: StatusCode,
}

/// A part of a route's requests.
#[derive(Debug, Clone)]
pub struct Split {
    /// Where it goes.
    pub upstream: Arc<UpstreamGroup>,
    /// Its share of clients.
    pub weight: u32,
    /// Header fields by which a request belongs to it whatever its share; none if empty.
    pub headers: Vec<HeaderMatch>,
}

/// Copies of requests.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where they go.
    pub upstream: Arc<UpstreamGroup>,
    /// How many requests are copied.
    pub percent: u32,
}

impl Template {
    /// Reads `/users/{id}`.
    ///
    /// # Errors
    /// It is no plain path with variables that are whole segments.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a path with variables; write it as /users/{{id}}");
        let mut segments = Vec::new();
        for segment in text.strip_prefix('/').ok_or_else(wrong)?.split('/') {
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name)
                    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
                {
                    segments.push(Segment::Variable(name.to_owned()));
                }
                None if !segment.contains(['{', '}']) && parse_prefix(&format!("/{segment}")).is_ok() => {
                    segments.push(Segment::Literal(segment.to_owned()));
                }
                _ => return Err(wrong()),
            }
        }
        Ok(Self(segments))
    }

    /// Whether `path` has these segments.
    pub fn matches(&self, path: &str) -> bool {
        self.variables(path).is_some()
    }

    /// The variables and what stands in their place, if `path` matches.
    pub fn variables<'a>(&'a self, path: &'a str) -> Option<Vec<(&'a str, &'a str)>> {
        let mut found = Vec::new();
        let mut segments = path.strip_prefix('/')?.split('/');
        for expected in &self.0 {
            let segment = segments.next()?;
            match expected {
                Segment::Literal(literal) if literal == segment => {}
                Segment::Variable(name) if !segment.is_empty() => found.push((name.as_str(), segment)),
                _ => return None,
            }
        }
        segments.next().is_none().then_some(found)
    }

    /// The path with variables filled in.
    pub fn fill(&self, variables: &[(&str, &str)]) -> String {
        let mut path = String::new();
        for segment in &self.0 {
            path.push('/');
            path.push_str(match segment {
                Segment::Literal(literal) => literal,
                Segment::Variable(name) => {
                    variables.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
                }
            });
        }
        path
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Variable(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }
}

impl HeaderMatch {
    /// Whether one of the fields of this name has the value.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

impl Compiler {
    /// What the route at `path` matches beside prefixes, and what becomes of its requests.
    pub(super) fn routing(&mut self, raw: &RawRoute, path: &str, groups: &[Arc<UpstreamGroup>]) -> Routing {
        let exact = self.each(&format!("{path}.match.exact"), &raw.matches.exact, parse_prefix);
        let templates =
            self.each(&format!("{path}.match.templates"), &raw.matches.templates, Template::parse);
        let mut upgrades = Vec::new();
        for (index, protocol) in raw.upgrades.iter().enumerate() {
            let protocol = protocol.to_ascii_lowercase();
            if protocol == "h2c" || HeaderName::try_from(&protocol).is_err() {
                let message = format!("{protocol:?} is no protocol to switch to; write websocket");
                self.mistakes.add(&format!("{path}.upgrades[{index}]"), message);
            }
            upgrades.push(protocol);
        }
        Routing {
            headers: self.header_matches(&raw.matches.headers, &format!("{path}.match.headers")),
            rewrite: self.rewrite(raw, &templates, &format!("{path}.rewrite")),
            redirect: raw.redirect.as_ref().map(|raw| self.redirect(raw, &format!("{path}.redirect"))),
            is_admin: raw.admin == Some(RawToggle::On),
            split: self.split(&raw.split, &format!("{path}.split"), groups),
            mirror: raw.mirror.as_ref().map(|raw| self.mirror(raw, &format!("{path}.mirror"), groups)),
            upgrades,
            grpc: Some(if raw.grpc == Some(RawToggle::On) { Toggle::On } else { Toggle::Off }),
            exact,
            templates,
        }
    }

    fn header_matches(&mut self, raw: &BTreeMap<String, String>, path: &str) -> Vec<HeaderMatch> {
        let mut matches = Vec::new();
        for (name, value) in raw {
            let value = match value.as_str() {
                "*" => Ok(None),
                value => HeaderValue::from_str(value).map(Some),
            };
            match (HeaderName::try_from(name), value) {
                (Ok(name), Ok(value)) => matches.push(HeaderMatch { name, value }),
                _ => self.mistakes.add(path, format!("{name:?} is not a header name, or its value none")),
            }
        }
        matches
    }

    fn rewrite(&mut self, raw: &RawRoute, templates: &[Template], path: &str) -> Option<Rewrite> {
        let text = raw.rewrite.as_deref()?;
        if raw.strip_prefix == Some(RawToggle::On) {
            self.mistakes.add(path, "give strip_prefix or rewrite, not both");
        }
        if templates.is_empty() {
            if raw.matches.paths.is_empty() || !raw.matches.exact.is_empty() {
                self.mistakes.add(path, "needs match.paths or match.templates to know what it replaces");
            }
            return match parse_prefix(text) {
                Ok(prefix) => Some(Rewrite::Prefix(prefix)),
                Err(message) => {
                    self.mistakes.add(path, message);
                    None
                }
            };
        }
        if !raw.matches.paths.is_empty() || !raw.matches.exact.is_empty() {
            self.mistakes.add(path, "with match.templates it cannot stand beside match.paths or match.exact");
        }
        let rewrite = match Template::parse(text) {
            Ok(rewrite) => rewrite,
            Err(message) => {
                self.mistakes.add(path, message);
                return None;
            }
        };
        for name in rewrite.names() {
            if !templates.iter().all(|template| template.names().any(|other| other == name)) {
                self.mistakes.add(path, format!("{{{name}}} does not stand in every one of match.templates"));
            }
        }
        Some(Rewrite::Template(rewrite))
    }

    fn redirect(&mut self, raw: &RawRedirect, path: &str) -> Redirect {
        let scheme = match raw.scheme.as_deref() {
            None => None,
            Some("http") => Some("http"),
            Some("https") => Some("https"),
            Some(other) => {
                self.mistakes.add(&format!("{path}.scheme"), format!("{other:?} is neither http nor https"));
                None
            }
        };
        let host = raw.host.as_deref().and_then(|host| match parse_host(host) {
            Ok(host) if !host.starts_with('*') => Some(host),
            _ => {
                self.mistakes.add(&format!("{path}.host"), format!("{host:?} is not a host name"));
                None
            }
        });
        let target = raw.path.as_deref().and_then(|text| match parse_prefix(text) {
            Ok(text) => Some(text),
            Err(message) => {
                self.mistakes.add(&format!("{path}.path"), message);
                None
            }
        });
        let port = raw.port.map(|_| self.within(&format!("{path}.port"), raw.port, 443, 1..=65_535));
        if (scheme, &host, port, &target) == (None, &None, None, &None) {
            self.mistakes.add(path, "names nothing that differs: clients would come back for ever");
        }
        let status = match raw.status {
            None => StatusCode::FOUND,
            Some(301) => StatusCode::MOVED_PERMANENTLY,
            Some(302) => StatusCode::FOUND,
            Some(303) => StatusCode::SEE_OTHER,
            Some(307) => StatusCode::TEMPORARY_REDIRECT,
            Some(308) => StatusCode::PERMANENT_REDIRECT,
            Some(other) => {
                let message = format!("{other} is not one of 301, 302, 303, 307, 308");
                self.mistakes.add(&format!("{path}.status"), message);
                StatusCode::FOUND
            }
        };
        Redirect { scheme, host, port: port.and_then(|port| u16::try_from(port).ok()), path: target, status }
    }

    fn split(&mut self, raw: &[RawSplit], path: &str, groups: &[Arc<UpstreamGroup>]) -> Vec<Split> {
        let mut split = Vec::new();
        for (index, part) in raw.iter().enumerate() {
            let at = format!("{path}[{index}]");
            split.push(Split {
                upstream: self.named_group(&part.upstream, &format!("{at}.upstream"), groups),
                weight: self.within(&format!("{at}.weight"), part.weight, 0, 0..=1000),
                headers: self.header_matches(&part.headers, &format!("{at}.headers")),
            });
        }
        if !raw.is_empty() && split.iter().all(|part| part.weight == 0) {
            self.mistakes
                .add(path, "one part at least needs a weight, for requests that no header sends elsewhere");
        }
        split
    }

    fn mirror(&mut self, raw: &RawMirror, path: &str, groups: &[Arc<UpstreamGroup>]) -> Mirror {
        Mirror {
            upstream: self.named_group(&raw.upstream, &format!("{path}.upstream"), groups),
            percent: self.within(&format!("{path}.percent"), raw.percent, 100, 0..=100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_template_matches_whole_segments() {
        let template = Template::parse("/users/{id}/orders").unwrap();
        assert_eq!(template.variables("/users/7/orders"), Some(vec![("id", "7")]));
        for path in ["/users//orders", "/users/7", "/users/7/orders/", "/users/7/8/orders", "/Users/7/orders"]
        {
            assert!(!template.matches(path), "{path}");
        }
        assert_eq!(Template::parse("/v2/{id}/{none}").unwrap().fill(&[("id", "a%2fb")]), "/v2/a%2fb/");
        for text in ["users/{id}", "/users/{id", "/a{id}", "/{}", "/../{id}", "/{a-b}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mistakes_in_routes_name_the_place() {
        let text = "version: 1\nupstreams: {a: {origins: [{url: 'http://10.0.0.1'}]}}\nroutes:\n\
                    - {name: a, match: {templates: ['/x/{id}']}, rewrite: '/y/{other}', upstream: a}\n\
                    - {name: b, redirect: {status: 200}}\n\
                    - {name: c, split: [{upstream: b, weight: 1}, {upstream: a}]}\n\
                    - {name: d, upstream: a, rewrite: /x, mirror: {upstream: c}, upgrades: [h2c]}\n";
        let mistakes = Config::load(text, "f").unwrap_err();
        let places: Vec<&str> = mistakes.list.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(
            places,
            [
                "routes[0].rewrite",
                "routes[1].redirect",
                "routes[2].split[0].upstream",
                "routes[3].mirror.upstream",
                "routes[3].rewrite",
                "routes[3].upgrades[0]"
            ]
        );
    }
}
