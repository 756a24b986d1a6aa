//! Groups of origins: `upstreams`, and the origins that a route names itself.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{
    Toggle,
    compile::{Compiler, SECOND},
    parse::parse_upstream,
    raw::{
        RawRoute, RawToggle,
        upstreams::{
            RawBalance, RawEjection, RawHealth, RawOrigin, RawProtocol, RawUpstreamGroup, RawUpstreamTls,
        },
    },
};
use crate::tls;

/// Origins that serve the same thing.
#[derive(Debug, Clone)]
pub struct UpstreamGroup {
    /// Its name; that of the route for a group that a route names itself.
    pub name: String,
    /// Its origins, at least one.
    pub origins: Vec<Member>,
    /// Whose turn it is.
    pub balance: Balance,
    /// Most requests sent again, in percent of all.
    pub retry_share: u32,
    /// When an origin is left out; `None` for never.
    pub ejection: Option<Ejection>,
    /// Files that its settings name.
    pub files: Vec<PathBuf>,
}

/// An origin in a group.
#[derive(Debug, Clone)]
pub struct Member {
    /// How it is reached.
    pub reach: Reach,
    /// Its share of requests; at least one of a group is not 0.
    pub weight: u32,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// The less busy one of two taken at random.
    LeastRequests,
    /// The one that a key belongs to.
    Hash(HashKey),
}

/// What decides about the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Address,
    /// A header field, or the address without it.
    Header(HeaderName),
    /// A cookie, or the address without it.
    Cookie(String),
}

/// When an origin is left out for what requests to it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// Whether server errors and missed times count.
    pub server_errors: Toggle,
    /// How long at first.
    pub time: Duration,
    /// Most origins that are out, in percent of the group.
    pub most: u32,
}

/// How an origin is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Target of a GET.
    pub path: PathAndQuery,
    /// From one question to the next.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
    /// Good answers in a row that make it well again.
    pub healthy: u32,
    /// Bad ones in a row that take it out.
    pub unhealthy: u32,
}

/// How one origin is reached. Equal ones share connections, also across a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// Scheme and authority only.
    pub url: Uri,
    /// HTTP version spoken.
    pub protocol: Protocol,
    /// Time to open a connection.
    pub connect_timeout: Duration,
    /// How long a connection is kept without a request.
    pub idle_time: Duration,
    /// Most connections kept without a request.
    pub idle_connections: usize,
    /// Most requests at once.
    pub max_requests: usize,
    /// How it is asked whether it is well, if it is.
    pub check: Option<Check>,
    /// TLS; `None` for plain HTTP.
    pub tls: Option<UpstreamTls>,
}

/// HTTP version spoken to an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// What TLS agrees on; HTTP/1.1 without TLS.
    Auto,
    /// HTTP/1.1.
    H1,
    /// HTTP/2; without TLS by prior knowledge.
    H2,
}

/// TLS towards an origin.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// Name that its certificate must hold.
    pub server_name: ServerName<'static>,
    /// Whom to trust and what to show.
    pub client: Arc<ClientConfig>,
    /// Stands for the settings and the content of the files that `client` was made from.
    digest: u64,
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.server_name, self.digest) == (&other.server_name, other.digest)
    }
}

impl Eq for UpstreamTls {}

impl UpstreamGroup {
    /// A group that nothing goes to.
    fn none(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            origins: Vec::new(),
            balance: Balance::RoundRobin,
            retry_share: 0,
            ejection: None,
            files: Vec::new(),
        }
    }
}

impl Member {
    /// An origin of weight 1 that is [reached plainly](Reach::plain).
    ///
    /// # Errors
    /// As there.
    pub fn plain(url: &str) -> Result<Self, String> {
        Ok(Self { reach: Reach::plain(url)?, weight: 1 })
    }
}

impl Reach {
    /// How `url` is reached where nothing is said about it: plain HTTP/1.1 for http://.
    ///
    /// # Errors
    /// It is no URL of a plain HTTP origin.
    pub fn plain(url: &str) -> Result<Self, String> {
        let url = parse_upstream(url)?;
        Ok(Self {
            url,
            protocol: Protocol::Auto,
            connect_timeout: CONNECT,
            idle_time: IDLE,
            idle_connections: IDLE_CONNECTIONS as usize,
            max_requests: usize::MAX,
            check: None,
            tls: None,
        })
    }

    /// Host name or address, in brackets if it is IPv6.
    pub fn host(&self) -> &str {
        self.url.host().unwrap_or_default()
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// What `Host` says of it: without a port that goes without saying.
    pub fn host_header(&self) -> HeaderValue {
        let usual = self.port() == if self.is_https() { 443 } else { 80 };
        let text = if usual { self.host().to_owned() } else { format!("{}:{}", self.host(), self.port()) };
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }

    fn is_https(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }
}

const CONNECT: Duration = Duration::from_secs(5);
/// Less than the 60 s that common servers keep theirs.
const IDLE: Duration = Duration::from_secs(50);
const IDLE_CONNECTIONS: u32 = 256;

impl Compiler {
    /// The groups that have a name of their own.
    pub(super) fn groups(&mut self, raw: &BTreeMap<String, RawUpstreamGroup>) -> Vec<Arc<UpstreamGroup>> {
        let mut groups = Vec::new();
        for (name, group) in raw {
            let path = format!("upstreams.{name}");
            self.name(&path, name);
            groups.push(Arc::new(self.group(name, group, &path, &format!("{path}.origins"))));
        }
        groups
    }

    /// The group that the route at `path` goes to. Origins that a route names itself become one.
    pub(super) fn route_group(
        &mut self,
        raw: &RawRoute,
        name: &str,
        path: &str,
        groups: &[Arc<UpstreamGroup>],
    ) -> Arc<UpstreamGroup> {
        let at = format!("{path}.upstreams");
        let given = [
            raw.upstream.is_some(),
            !raw.upstreams.is_empty(),
            !raw.split.is_empty(),
            raw.redirect.is_some(),
            raw.admin == Some(RawToggle::On),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            let message = "give one of \"upstream\" (a name), \"upstreams\" (origins), \"split\", \"redirect\" and \"admin\"";
            self.mistakes.add(&at, message);
        }
        match (&raw.upstream, raw.split.first()) {
            (Some(wanted), _) => self.named_group(wanted, &format!("{path}.upstream"), groups),
            // What is wrong with the name is told there.
            (None, Some(part)) => {
                self.named_group(&part.upstream, &format!("{path}.split[0].upstream"), groups)
            }
            // Nothing of such a route goes upstream.
            (None, None) if raw.redirect.is_some() || raw.admin == Some(RawToggle::On) => {
                Arc::new(UpstreamGroup::none(name))
            }
            (None, None) => {
                let origin = |raw: &RawOrigin| RawOrigin { url: raw.url.clone(), weight: raw.weight };
                let own = RawUpstreamGroup {
                    origins: raw.upstreams.iter().map(origin).collect(),
                    ..RawUpstreamGroup::default()
                };
                Arc::new(self.group(name, &own, &at, &at))
            }
        }
    }

    /// The group of this name at the top level.
    pub(super) fn named_group(
        &mut self,
        wanted: &str,
        path: &str,
        groups: &[Arc<UpstreamGroup>],
    ) -> Arc<UpstreamGroup> {
        if let Some(group) = groups.iter().find(|group| group.name == *wanted) {
            return Arc::clone(group);
        }
        let known = groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ");
        let known =
            if known.is_empty() { "there are none".to_owned() } else { format!("there are: {known}") };
        self.mistakes.add(path, format!("there is no upstream {wanted:?} at the top level; {known}"));
        Arc::new(UpstreamGroup::none(wanted))
    }

    fn group(&mut self, name: &str, raw: &RawUpstreamGroup, path: &str, origins_at: &str) -> UpstreamGroup {
        if raw.origins.is_empty() {
            let key = origins_at.rsplit('.').next().unwrap_or_default();
            self.mistakes.add(origins_at, format!("missing; write \"{key}: [{{url: http://host:port}}]\""));
        }
        let protocol = match raw.protocol {
            Some(RawProtocol::H1) => Protocol::H1,
            Some(RawProtocol::H2) => Protocol::H2,
            Some(RawProtocol::Auto) | None => Protocol::Auto,
        };
        let connect_timeout =
            self.duration(&format!("{path}.connect_timeout"), raw.connect_timeout.as_deref(), CONNECT);
        let idle_time = self.duration(&format!("{path}.idle"), raw.idle.as_deref(), IDLE);
        let at = format!("{path}.idle_connections");
        let idle_connections = self.at_least_one(&at, raw.idle_connections, IDLE_CONNECTIONS) as usize;
        let max_requests = match raw.max_requests {
            None => usize::MAX,
            some => self.at_least_one(&format!("{path}.max_requests"), some, 1) as usize,
        };
        let check = raw.health.as_ref().map(|health| self.check(health, &format!("{path}.health")));
        let mut origins = Vec::new();
        for (index, origin) in raw.origins.iter().enumerate() {
            let at = format!("{origins_at}[{index}]");
            let weight = self.within(&format!("{at}.weight"), origin.weight, 1, 0..=100);
            let url = match parse_upstream(origin.url.as_deref().unwrap_or_default()) {
                Ok(url) => url,
                Err(message) => {
                    self.mistakes.add(&format!("{at}.url"), message);
                    continue;
                }
            };
            let mut reach = Reach {
                url,
                protocol,
                connect_timeout,
                idle_time,
                idle_connections,
                max_requests,
                check: check.clone(),
                tls: None,
            };
            if reach.is_https() {
                reach.tls = self.upstream_tls(&raw.tls, &reach, &format!("{path}.tls"));
            } else if protocol == Protocol::Auto {
                reach.protocol = Protocol::H1;
            }
            origins.push(Member { reach, weight });
        }
        if !origins.is_empty() && origins.iter().all(|member| member.weight == 0) {
            self.mistakes.add(origins_at, "every weight is 0: nobody would get a request");
        }
        let tls = &raw.tls;
        UpstreamGroup {
            name: name.to_owned(),
            origins,
            balance: self.balance(raw.balance.as_ref(), &format!("{path}.balance")),
            retry_share: self.within(&format!("{path}.retry_budget"), raw.retry_budget, 20, 0..=100),
            ejection: self.ejection(&raw.ejection, &format!("{path}.ejection")),
            files: [&tls.ca, &tls.certificate, &tls.key].into_iter().flatten().map(PathBuf::from).collect(),
        }
    }

    fn balance(&mut self, raw: Option<&RawBalance>, path: &str) -> Balance {
        match raw {
            Some(RawBalance::RoundRobin) | None => Balance::RoundRobin,
            Some(RawBalance::LeastRequests) => Balance::LeastRequests,
            Some(RawBalance::Hash(key)) => {
                let found = match key.split_once(':') {
                    None if key == "address" => Some(HashKey::Address),
                    Some(("header", name)) => HeaderName::try_from(name).ok().map(HashKey::Header),
                    Some(("cookie", name)) if !name.is_empty() => Some(HashKey::Cookie(name.to_owned())),
                    _ => None,
                };
                if found.is_none() {
                    let message = format!("{key:?} is no key; write address, header:NAME or cookie:NAME");
                    self.mistakes.add(&format!("{path}.hash"), message);
                }
                found.map_or(Balance::RoundRobin, Balance::Hash)
            }
        }
    }

    fn check(&mut self, raw: &RawHealth, path: &str) -> Check {
        let target = raw.path.as_deref().unwrap_or("/");
        let parsed = target.starts_with('/').then(|| PathAndQuery::try_from(target).ok()).flatten();
        if parsed.is_none() {
            self.mistakes
                .add(&format!("{path}.path"), format!("{target:?} is not a path; write it as /healthz"));
        }
        Check {
            path: parsed.unwrap_or_else(|| PathAndQuery::from_static("/")),
            interval: self.duration(&format!("{path}.interval"), raw.interval.as_deref(), 5 * SECOND),
            timeout: self.duration(&format!("{path}.timeout"), raw.timeout.as_deref(), 2 * SECOND),
            healthy: self.at_least_one(&format!("{path}.healthy"), raw.healthy, 2),
            unhealthy: self.at_least_one(&format!("{path}.unhealthy"), raw.unhealthy, 3),
        }
    }

    fn ejection(&mut self, raw: &RawEjection, path: &str) -> Option<Ejection> {
        let ejection = Ejection {
            failures: self.within(&format!("{path}.failures"), raw.failures, 5, 0..=1000),
            server_errors: if raw.server_errors == Some(RawToggle::On) { Toggle::On } else { Toggle::Off },
            time: self.duration(&format!("{path}.time"), raw.time.as_deref(), 30 * SECOND),
            most: self.within(&format!("{path}.most"), raw.most, 50, 0..=100),
        };
        (ejection.failures > 0).then_some(ejection)
    }

    pub(super) fn within(
        &mut self,
        path: &str,
        value: Option<u64>,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> u32 {
        let Some(value) = value else { return default };
        match u32::try_from(value).ok().filter(|value| range.contains(value)) {
            Some(value) => value,
            None => {
                self.mistakes.add(path, format!("is not from {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    /// `None` after a mistake.
    fn upstream_tls(&mut self, raw: &RawUpstreamTls, reach: &Reach, path: &str) -> Option<UpstreamTls> {
        let name = raw.server_name.as_deref().unwrap_or(reach.host());
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let Ok(server_name) = ServerName::try_from(name.clone()) else {
            let message = format!("{name:?} is not a name that a certificate can hold");
            self.mistakes.add(&format!("{path}.server_name"), message);
            return None;
        };
        let identity = match (&raw.certificate, &raw.key) {
            (Some(certificate), Some(key)) => Some((Path::new(certificate), Path::new(key))),
            (None, None) => None,
            _ => {
                self.mistakes.add(path, "needs \"certificate\" and \"key\", or neither");
                None
            }
        };
        let verify = match (raw.verify, &raw.ca) {
            (Some(RawToggle::Off), Some(_)) => {
                self.mistakes.add(path, "\"ca\" says whom to trust, \"verify: off\" to trust everybody");
                return None;
            }
            (Some(RawToggle::Off), None) => tls::Trust::Anybody,
            (_, Some(ca)) => tls::Trust::Authorities(Path::new(ca)),
            (_, None) => tls::Trust::System,
        };
        let alpn = match reach.protocol {
            Protocol::Auto => tls::Alpn::Both,
            Protocol::H1 => tls::Alpn::H1,
            Protocol::H2 => tls::Alpn::H2,
        };
        match tls::client(verify, identity, alpn) {
            Ok((client, digest)) => Some(UpstreamTls { server_name, client, digest }),
            Err(error) => {
                self.mistakes.add(path, error.to_string());
                None
            }
        }
    }
}
