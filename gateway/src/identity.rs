//! Who sends a request: the client's address, its keys narrowest first, its request id, and the headers that say so.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, HeaderValue, header, uri::Authority};
use ipnet::IpNet;
use uuid::Uuid;
use waf_model::{
    keys::{self, ClientKey},
    observation::ValueKey,
};

use crate::{
    config::{Config, Waf},
    geo::Place,
    store::raw_block::address_key,
};

mod fields;

pub use fields::{announce_switch, fold, is_reserved, sanitize, strip_hop_by_hop};

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Address and port of the other end: a client, or a proxy in front of us.
    pub address: SocketAddr,
    /// Name of the listener.
    pub listener: std::sync::Arc<str>,
    /// Address and port at which it reached us.
    pub local: SocketAddr,
    /// TLS version as `1.2` or `1.3`; `None` for plain HTTP.
    pub tls: Option<&'static str>,
    /// Names in the client's certificate, in lower case, if it showed one that is good.
    pub certificate: Option<std::sync::Arc<[String]>>,
}

/// Who sends one request.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The client's address: the peer's, or what a trusted proxy says.
    pub address: IpAddr,
    /// Where that lies, as far as it is known.
    pub place: Place,
    /// Whether the peer is a trusted proxy.
    pub via: Via,
    /// The narrowest key: what evidence is kept under, and what is blocked.
    pub client: ClientKey,
    /// Every key of the client, narrowest first.
    pub keys: Vec<ClientKey>,
    /// Keyed hash of the client's network (IPv4 /24, IPv6 /48).
    pub network: u64,
    /// Request id as text: sent to the client and upstream.
    pub request_id: String,
    /// The same as 16 bytes.
    pub id: [u8; 16],
}

/// Whether the peer is the client itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The peer is not trusted: it is the client.
    Direct,
    /// The peer is a trusted proxy.
    TrustedProxy,
}

/// Finds out who sends a request, whose id is `fresh` unless a trusted proxy gave it one.
pub fn identify(
    config: &Config,
    site_key: &ValueKey,
    peer: &Peer,
    headers: &HeaderMap,
    fresh: (String, [u8; 16]),
) -> Identity {
    let peer_address = peer.address.ip().to_canonical();
    let via = if contains(&config.trusted_proxies, peer_address) { Via::TrustedProxy } else { Via::Direct };
    let address = match via {
        Via::Direct => peer_address,
        Via::TrustedProxy => forwarded_client(&config.trusted_proxies, headers).unwrap_or(peer_address),
    };
    let keys = client_keys(&config.waf, site_key, address, headers);
    let client = keys.first().cloned().unwrap_or_else(|| address_key(address));
    let (request_id, id) = match via {
        Via::TrustedProxy => given_request_id(headers),
        Via::Direct => None,
    }
    .unwrap_or(fresh);
    let network = keys::keyed_hash(site_key, &network_of(address));
    let place = config.geo.place(address);
    Identity { address, place, via, client, keys, network, request_id, id }
}

impl Identity {
    /// The same sender, now that it has proved who it is: nothing names it more narrowly.
    #[must_use]
    pub fn of(&self, proved: &ClientKey) -> Self {
        let mut keys = vec![proved.clone()];
        keys.extend_from_slice(&self.keys);
        Self { client: proved.clone(), keys, ..self.clone() }
    }
}

/// A new request id, as text and as bytes.
pub fn fresh_request_id() -> (String, [u8; 16]) {
    let id = Uuid::now_v7();
    (id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).to_owned(), *id.as_bytes())
}

/// Whether `address` lies in one of `networks`.
pub fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// What we verified about the sender, for the headers that go upstream.
#[derive(Debug)]
pub struct Forwarding {
    chain: String,
    scheme: &'static str,
    port: u16,
    host: Option<HeaderValue>,
}

impl Forwarding {
    /// Reads what a trusted proxy says in the client's headers, before they are [sanitized](sanitize).
    pub fn new(peer: &Peer, identity: &Identity, inbound: &HeaderMap) -> Self {
        let trusted = |name: &str| match identity.via {
            Via::TrustedProxy => inbound.get(name).and_then(|value| value.to_str().ok()),
            Via::Direct => None,
        };
        let mut chain = String::new();
        if identity.via == Via::TrustedProxy {
            // Only addresses: nobody has inspected what else a client may have written there.
            let addresses: Vec<IpAddr> = forwarded(inbound).collect();
            for address in addresses.iter().rev() {
                // Writing to a string cannot fail.
                let _ = write!(chain, "{address}, ");
            }
        }
        let _ = write!(chain, "{}", peer.address.ip().to_canonical());
        let scheme = if peer.tls.is_some() { "https" } else { "http" };
        Self {
            chain,
            scheme: match trusted("x-forwarded-proto") {
                Some("http") => "http",
                Some("https") => "https",
                _ => scheme,
            },
            port: trusted("x-forwarded-port")
                .and_then(|value| value.parse().ok())
                .unwrap_or(peer.local.port()),
            host: trusted("x-forwarded-host")
                .filter(|value| Authority::try_from(*value).is_ok_and(|host| !host.as_str().contains('@')))
                .and_then(|_| inbound.get("x-forwarded-host").cloned()),
        }
    }

    /// Writes it into what is left of the client's headers.
    pub fn write(self, identity: &Identity, outbound: &mut HeaderMap) {
        set(outbound, FORWARDED_FOR, self.chain);
        outbound.insert(FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
        outbound.insert(FORWARDED_PORT, HeaderValue::from(self.port));
        if let Some(host) = self.host.or_else(|| outbound.get(header::HOST).cloned()) {
            outbound.insert(FORWARDED_HOST, host);
        }
        set(outbound, REQUEST_ID, identity.request_id.clone());
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

/// The right-most address in `X-Forwarded-For` that is not a trusted proxy: what lies left of it is hearsay.
fn forwarded_client(trusted: &[IpNet], headers: &HeaderMap) -> Option<IpAddr> {
    let mut last = None;
    for address in forwarded(headers) {
        last = Some(address);
        if !contains(trusted, address) {
            break;
        }
    }
    last
}

/// The addresses in `X-Forwarded-For` from right to left, up to the first that cannot be read: nothing left of it can
/// be believed.
fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    lines
        .map(|value| value.to_str().unwrap_or_default())
        .flat_map(|line| line.rsplit(','))
        .map_while(|entry| parse_forwarded(entry.trim()))
}

/// An address with or without port and brackets.
fn parse_forwarded(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(socket) = entry.parse::<SocketAddr>() {
        return Some(socket.ip().to_canonical());
    }
    entry.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn client_keys(waf: &Waf, site_key: &ValueKey, address: IpAddr, headers: &HeaderMap) -> Vec<ClientKey> {
    let hashed = |value: &str| format!("{:016x}", keys::keyed_hash(site_key, value));
    let api_key = waf.api_key_header.as_ref().and_then(|name| headers.get(name)?.to_str().ok());
    let session = waf.session_cookie.as_ref().and_then(|name| cookie(headers, name));
    api_key
        .filter(|value| !value.is_empty())
        .map(|value| ClientKey::ApiKey(hashed(value)))
        .into_iter()
        .chain(session.filter(|value| !value.is_empty()).map(|value| ClientKey::Session(hashed(value))))
        .chain([address_key(address)])
        .collect()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

fn given_request_id(headers: &HeaderMap) -> Option<(String, [u8; 16])> {
    let text = headers.get("x-request-id")?.to_str().ok()?;
    let id = Uuid::parse_str(text).ok()?;
    Some((text.to_owned(), *id.as_bytes()))
}

/// How clients are told apart by their addresses: an address, of IPv6 its /64.
pub fn counted_address(address: IpAddr) -> String {
    truncated(address, if address.is_ipv4() { 32 } else { 64 })
}

/// The network of an address (IPv4 /24, IPv6 /48).
pub fn network_of(address: IpAddr) -> String {
    truncated(address, if address.is_ipv4() { 24 } else { 48 })
}

fn truncated(address: IpAddr, prefix: u8) -> String {
    IpNet::new(address, prefix).map_or_else(|_| address.to_string(), |network| network.trunc().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer {
            address: address.parse().unwrap(),
            listener: "http".into(),
            local: "192.0.2.9:8080".parse().unwrap(),
            tls: None,
            certificate: None,
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn config() -> Config {
        let mut config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        config.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        config.waf.api_key_header = Some(HeaderName::from_static("x-api-key"));
        config.waf.session_cookie = Some("sid".to_owned());
        config
    }

    fn address(from: &str, forwarded: &[&str]) -> String {
        let pairs: Vec<_> = forwarded.iter().map(|value| ("x-forwarded-for", *value)).collect();
        identify(&config(), &ValueKey([1; 16]), &peer(from), &headers(&pairs), fresh_request_id())
            .address
            .to_string()
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        assert_eq!(address("198.51.100.1:1", &["203.0.113.9"]), "198.51.100.1");
        assert_eq!(address("[::ffff:198.51.100.1]:1", &[]), "198.51.100.1");
        assert_eq!(address("10.0.0.1:1", &[]), "10.0.0.1");
        assert_eq!(address("10.0.0.1:1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(address("10.0.0.1:1", &["1.2.3.4, 203.0.113.9, 10.0.0.7"]), "203.0.113.9");
        assert_eq!(address("10.0.0.1:1", &["1.2.3.4", "203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(address("10.0.0.1:1", &["1.2.3.4, unknown, 10.0.0.7"]), "10.0.0.7");
        assert_eq!(address("10.0.0.1:1", &["[2001:db8::1]:80"]), "2001:db8::1");
    }

    #[test]
    fn the_narrowest_key_comes_first_and_is_hashed() {
        let given = headers(&[("x-api-key", "secret"), ("cookie", "a=b; sid=hush")]);
        let identity = identify(
            &config(),
            &ValueKey([1; 16]),
            &peer("[2001:db8:1:2:3::4]:1"),
            &given,
            fresh_request_id(),
        );
        let texts: Vec<String> = identity.keys.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("key:") && texts[1].starts_with("session:"), "{texts:?}");
        assert_eq!(texts[2], "ip:2001:db8:1:2::/64");
        assert!(!texts.concat().contains("secret") && !texts.concat().contains("hush"));
        assert_eq!(identity.client, identity.keys[0]);
    }

    #[test]
    fn request_ids_come_from_trusted_proxies_only() {
        let given = "0190b3a4-1111-7222-8333-444455556666";
        let id = |from: &str, value: &str| {
            identify(
                &config(),
                &ValueKey([1; 16]),
                &peer(from),
                &headers(&[("x-request-id", value)]),
                fresh_request_id(),
            )
            .request_id
        };
        assert_eq!(id("10.0.0.1:1", given), given);
        assert_ne!(id("198.51.100.1:1", given), given);
        assert_ne!(id("10.0.0.1:1", "' or 1=1"), "' or 1=1");
    }

    #[test]
    fn forwarding_headers_are_written_not_believed() {
        let inbound = headers(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("host", "shop.example"),
        ]);
        let written = |from: &str| {
            let peer = peer(from);
            let identity = identify(&config(), &ValueKey([1; 16]), &peer, &inbound, fresh_request_id());
            let mut outbound = inbound.clone();
            let forwarding = Forwarding::new(&peer, &identity, &inbound);
            sanitize(&mut outbound);
            forwarding.write(&identity, &mut outbound);
            ["for", "proto", "host", "port"]
                .map(|name| outbound[format!("x-forwarded-{name}").as_str()].to_str().unwrap().to_owned())
        };
        assert_eq!(written("198.51.100.1:1"), ["198.51.100.1", "http", "shop.example", "8080"]);
        assert_eq!(written("10.0.0.1:1"), ["1.2.3.4, 10.0.0.1", "https", "evil.example", "8080"]);
    }

    #[test]
    fn nothing_that_nobody_inspected_is_forwarded() {
        let mut inbound = headers(&[
            ("x-forwarded-for", "<script>, 192.0.2.1, [::1]:80"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-forwarded-host", "<script>"),
            ("host", "shop.example"),
        ]);
        let peer = peer("10.0.0.1:1");
        let identity = identify(&config(), &ValueKey([1; 16]), &peer, &inbound, fresh_request_id());
        let forwarding = Forwarding::new(&peer, &identity, &inbound);
        sanitize(&mut inbound);
        forwarding.write(&identity, &mut inbound);
        assert_eq!(inbound["x-forwarded-for"], "192.0.2.1, ::1, 10.0.0.7, 10.0.0.1");
        assert_eq!(inbound["x-forwarded-host"], "shop.example");
    }
}
