//! Groups of origins: `upstreams`, and the origins that a route names itself.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use http::{HeaderValue, Uri};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::{
    compile::Compiler,
    parse::parse_upstream,
    raw::{
        RawRoute, RawToggle,
        upstreams::{RawOrigin, RawProtocol, RawUpstreamGroup, RawUpstreamTls},
    },
};
use crate::tls;

/// Origins that serve the same thing.
#[derive(Debug, Clone)]
pub struct UpstreamGroup {
    /// Its name; that of the route for a group that a route names itself.
    pub name: String,
    /// Its origins, at least one.
    pub origins: Vec<Reach>,
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
        let Some(wanted) = &raw.upstream else {
            let own = RawUpstreamGroup {
                origins: raw.upstreams.iter().map(|origin| RawOrigin { url: origin.url.clone() }).collect(),
                ..RawUpstreamGroup::default()
            };
            return Arc::new(self.group(name, &own, &at, &at));
        };
        if !raw.upstreams.is_empty() {
            self.mistakes.add(&at, "give \"upstream\" (a name) or \"upstreams\" (origins), not both");
        }
        groups.iter().find(|group| group.name == *wanted).cloned().unwrap_or_else(|| {
            let known = groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>().join(", ");
            let message = format!("there is no upstream {wanted:?} at the top level; there are: {known}");
            self.mistakes.add(&format!("{path}.upstream"), message);
            Arc::new(UpstreamGroup { name: wanted.clone(), origins: Vec::new() })
        })
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
        let mut origins = Vec::new();
        for (index, origin) in raw.origins.iter().enumerate() {
            let at = format!("{origins_at}[{index}].url");
            let url = match parse_upstream(origin.url.as_deref().unwrap_or_default()) {
                Ok(url) => url,
                Err(message) => {
                    self.mistakes.add(&at, message);
                    continue;
                }
            };
            let mut reach = Reach { url, protocol, connect_timeout, idle_time, idle_connections, tls: None };
            if reach.is_https() {
                reach.tls = self.upstream_tls(&raw.tls, &reach, &format!("{path}.tls"));
            } else if protocol == Protocol::Auto {
                reach.protocol = Protocol::H1;
            }
            origins.push(reach);
        }
        UpstreamGroup { name: name.to_owned(), origins }
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
