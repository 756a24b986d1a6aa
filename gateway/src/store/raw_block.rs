//! The readable form of a block, as stored or typed by hand, and the checks that make a [`Block`] of it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use waf_model::{keys::ClientKey, score::Explanation};

use crate::{
    clock,
    store::{Block, BlockExplanation, BlockOrigin, ClientKeyText},
};

/// A block as stored: every field but the client may be missing, because people write them by hand.
#[derive(Debug, Default, Deserialize)]
pub struct RawBlock {
    /// `<kind>:<key>`.
    #[serde(default)]
    pub client: String,
    /// Route name, or `all`.
    pub scope: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Evidence level.
    pub score: Option<f32>,
    /// Budget of the certificate.
    pub budget: Option<String>,
    /// Sequence number of the model.
    pub model: Option<u64>,
    /// Milliseconds since 1970.
    pub first_seen_ms: Option<u64>,
    /// Milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Offences.
    pub count: Option<u32>,
    /// Milliseconds since 1970; missing means until it is deleted.
    pub expires_ms: Option<u64>,
    /// `gateway` or `operator`.
    pub origin: Option<String>,
    /// The request that tipped it.
    pub request_id: Option<String>,
    /// What stands behind it.
    pub explanation: Option<RawExplanation>,
}

/// [`BlockExplanation`] as stored.
#[derive(Debug, Default, Deserialize)]
pub struct RawExplanation {
    /// Rules that matched.
    #[serde(default)]
    pub rules: Vec<String>,
    /// What the model found.
    #[serde(default)]
    pub model: Option<Explanation>,
    /// Requests that added evidence.
    #[serde(default)]
    pub timeline: Vec<(u64, String, f32)>,
}

impl RawBlock {
    /// Checks the fields; `now_ms` stands in for moments that are missing.
    ///
    /// # Errors
    /// What is wrong, in words, naming the field.
    pub fn check(self, now_ms: u64) -> Result<Block, String> {
        let Some(client) = ClientKey::parse(&self.client).and_then(|client| canonical(&client)) else {
            return Err(format!(
                "client `{}` is not `ip:<address or network>`, `key:<hash>` or `session:<hash>`",
                self.client
            ));
        };
        let scope = self.scope.unwrap_or_else(|| "all".to_owned());
        if scope.is_empty() || scope.contains(':') {
            return Err(format!("scope `{scope}` is neither `all` nor the name of a route"));
        }
        let origin = match self.origin.as_deref() {
            Some("gateway") => BlockOrigin::Gateway,
            None | Some("operator") => BlockOrigin::Operator,
            Some(other) => return Err(format!("origin `{other}` is neither `gateway` nor `operator`")),
        };
        let explanation = self.explanation.unwrap_or_default();
        Ok(Block {
            client: ClientKeyText(client),
            scope,
            reason: self.reason.unwrap_or_else(|| "no reason given".to_owned()),
            score: self.score.filter(|score| score.is_finite()).unwrap_or(0.0),
            budget: self.budget.unwrap_or_default(),
            model: self.model.unwrap_or(0),
            first_seen_ms: self.first_seen_ms.unwrap_or(now_ms),
            last_seen_ms: self.last_seen_ms.unwrap_or(now_ms),
            count: self.count.unwrap_or(1).max(1),
            expires_ms: self.expires_ms.unwrap_or(u64::MAX),
            origin,
            request_id: self.request_id.filter(|id| !id.is_empty()),
            explanation: BlockExplanation {
                rules: explanation.rules,
                model: explanation.model,
                timeline: explanation.timeline,
            },
        })
    }

    /// Reads the fields of a Redis hash. Unknown fields are ignored: people leave notes.
    ///
    /// # Errors
    /// The first field that cannot be read, with what was expected.
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>, String> {
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| format!("field `{name}`: `{text}` is not a number"))
        }
        fn moment(name: &str, text: &str) -> Result<Option<u64>, String> {
            if text.is_empty() {
                return Ok(None);
            }
            clock::parse(text).map(Some).ok_or_else(|| {
                format!("field `{name}`: `{text}` is not a moment such as 2026-01-31T12:00:00Z")
            })
        }
        let mut raw = Self::default();
        for (name, text) in fields {
            match name {
                "reason" => raw.reason = Some(text.to_owned()),
                "score" => raw.score = number(name, text)?,
                "budget" => raw.budget = Some(text.to_owned()),
                "model" => raw.model = number(name, text)?,
                "first_seen" => raw.first_seen_ms = moment(name, text)?,
                "last_seen" => raw.last_seen_ms = moment(name, text)?,
                "count" => raw.count = number(name, text)?,
                "origin" => raw.origin = Some(text.to_owned()),
                "request_id" => raw.request_id = Some(text.to_owned()),
                "explanation" => {
                    raw.explanation =
                        Some(serde_json::from_str(text).map_err(|error| format!("field `{name}`: {error}"))?);
                }
                _ => {}
            }
        }
        Ok(raw)
    }
}

/// The fields of a block in a Redis hash, readable in `redis-cli`.
pub fn fields(block: &Block) -> Vec<(&'static str, String)> {
    vec![
        ("reason", block.reason.clone()),
        ("score", block.score.to_string()),
        ("budget", block.budget.clone()),
        ("model", block.model.to_string()),
        ("first_seen", clock::text(block.first_seen_ms)),
        ("last_seen", clock::text(block.last_seen_ms)),
        ("count", block.count.to_string()),
        ("origin", origin_name(block.origin).to_owned()),
        ("request_id", block.request_id.clone().unwrap_or_default()),
        ("explanation", serde_json::to_string(&block.explanation).unwrap_or_default()),
    ]
}

/// The text form of an origin.
pub fn origin_name(origin: BlockOrigin) -> &'static str {
    match origin {
        BlockOrigin::Gateway => "gateway",
        BlockOrigin::Operator => "operator",
    }
}

/// The one spelling of a client key: IPv6 addresses become their /64, networks lose their host bits, a network
/// of one address becomes that address. `None` if an address cannot be read.
pub fn canonical(client: &ClientKey) -> Option<ClientKey> {
    let ClientKey::Address(text) = client else { return Some(client.clone()) };
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address_key(address)),
        Err(_) => {
            let network = text.parse::<IpNet>().ok()?.trunc();
            let single = match network {
                IpNet::V4(v4) => v4.prefix_len() == 32,
                IpNet::V6(v6) => v6.prefix_len() >= 64,
            };
            if single {
                Some(address_key(network.addr()))
            } else {
                Some(ClientKey::Address(network.to_string()))
            }
        }
    }
}

/// The key of a client known by its address only: the address itself, for IPv6 its /64, because one subscriber
/// holds at least that much.
pub fn address_key(address: IpAddr) -> ClientKey {
    ClientKey::Address(match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_canonical(text: &str, expected: Option<&str>) {
        let found = ClientKey::parse(text).and_then(|key| canonical(&key)).map(|key| key.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn every_spelling_of_a_client_has_one_key() {
        check_canonical("ip:1.2.3.4", Some("ip:1.2.3.4"));
        check_canonical("ip:1.2.3.4/32", Some("ip:1.2.3.4"));
        check_canonical("ip:::ffff:1.2.3.4", Some("ip:1.2.3.4"));
        check_canonical("ip:10.1.2.3/8", Some("ip:10.0.0.0/8"));
        check_canonical("ip:2001:db8:0:7:1::9", Some("ip:2001:db8:0:7::/64"));
        check_canonical("ip:2001:db8:0:7:1::9/128", Some("ip:2001:db8:0:7::/64"));
        check_canonical("ip:2001:db8::/32", Some("ip:2001:db8::/32"));
        check_canonical("key:ab12", Some("key:ab12"));
        check_canonical("ip:example.org", None);
        check_canonical("host:1.2.3.4", None);
    }

    #[test]
    fn a_hash_with_one_field_is_a_block_until_deleted() {
        let raw = RawBlock::from_fields([("reason", "by hand"), ("note", "ask Ann")]).unwrap();
        let block = RawBlock { client: "ip:9.9.9.9".to_owned(), ..raw }.check(7).unwrap();
        assert_eq!(block.reason, "by hand");
        assert_eq!((block.expires_ms, block.first_seen_ms, block.count), (u64::MAX, 7, 1));
        assert_eq!((block.scope.as_str(), block.origin), ("all", BlockOrigin::Operator));
    }

    #[test]
    fn fields_read_back_as_the_same_block() {
        let block = RawBlock {
            client: "session:ff".to_owned(),
            scope: Some("api".to_owned()),
            score: Some(7.5),
            model: Some(3),
            first_seen_ms: Some(1_700_000_000_001),
            last_seen_ms: Some(1_700_000_000_002),
            expires_ms: Some(1_700_000_600_000),
            count: Some(2),
            origin: Some("gateway".to_owned()),
            request_id: Some("r".to_owned()),
            explanation: Some(RawExplanation {
                rules: vec!["1 x".to_owned()],
                model: None,
                timeline: vec![(1, "r".to_owned(), 2.0)],
            }),
            ..RawBlock::default()
        }
        .check(0)
        .unwrap();
        let kept = fields(&block);
        let mut raw = RawBlock::from_fields(kept.iter().map(|(name, text)| (*name, text.as_str()))).unwrap();
        raw.client = "session:ff".to_owned();
        raw.scope = Some("api".to_owned());
        raw.expires_ms = Some(1_700_000_600_000);
        assert_eq!(raw.check(0).unwrap(), block);
        let json = serde_json::to_string(&block).unwrap();
        assert_eq!(serde_json::from_str::<RawBlock>(&json).unwrap().check(0).unwrap(), block);
    }

    #[test]
    fn nonsense_is_named() {
        for (name, text) in [("score", "high"), ("last_seen", "yesterday"), ("explanation", "{")] {
            let error = RawBlock::from_fields([(name, text)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        assert!(RawBlock { client: "ip:x".to_owned(), ..RawBlock::default() }.check(0).is_err());
        let raw = RawBlock {
            client: "ip:1.1.1.1".to_owned(),
            origin: Some("me".to_owned()),
            ..RawBlock::default()
        };
        assert!(raw.check(0).unwrap_err().contains("origin"));
    }
}
