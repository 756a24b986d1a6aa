//! Limits on how often: what is counted, apart by what, and up to which number.

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    compile::{Compiler, DAY},
    raw::rate::{RawRateLimit, RawWhenAway},
};

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// Its name; no two limits share one.
    pub name: Arc<str>,
    /// What is counted apart; empty for everything together.
    pub key: Vec<KeyPart>,
    /// What is limited.
    pub kind: Kind,
    /// What counts while Redis is away.
    pub when_away: WhenAway,
}

/// One thing by which requests are counted apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address (IPv6: its /64).
    Address,
    /// The client's network (IPv4 /24, IPv6 /48).
    Network,
    /// Who the caller proved to be; its address where it proved nothing.
    Consumer,
    /// The country that the client's address lies in.
    Country,
    /// The autonomous system that the client's address lies in.
    System,
    /// The route.
    Route,
    /// A header as the client sent it.
    Header(HeaderName),
    /// What the caller's token says.
    Claim(String),
}

/// What is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// How often.
    Rate {
        /// Time that one request uses up.
        every: Duration,
        /// How many may come at once.
        burst: NonZeroU32,
        /// Longest wait for a turn.
        delay: Duration,
    },
    /// How many in a calendar period.
    Quota {
        /// So many.
        most: u64,
        /// The period.
        period: Period,
    },
    /// How many at once, on this gateway.
    Concurrent(u32),
}

/// A calendar period in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first to the last of a month.
    Month,
}

/// What counts while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenAway {
    /// Each gateway counts for itself.
    Local,
    /// Nothing is limited.
    Open,
    /// Everything is refused with 503.
    Closed,
}

impl Compiler {
    /// The limits at `path`; `names` are taken, and `prefix` makes names for those without.
    pub(super) fn rate_limits(
        &mut self,
        raw: &[RawRateLimit],
        path: &str,
        prefix: &str,
        names: &mut BTreeSet<String>,
    ) -> Vec<Arc<RateLimit>> {
        let mut limits = Vec::new();
        for (index, raw) in raw.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let name = raw.name.clone().unwrap_or_else(|| format!("{prefix}-{}", index + 1));
            self.name(&format!("{path}.name"), &name);
            if !names.insert(name.clone()) {
                let message = format!("{name:?} is taken; give each limit a name");
                self.mistakes.add(&format!("{path}.name"), message);
            }
            let key = raw.key.as_deref().map_or_else(
                || vec![KeyPart::Address],
                |parts| self.each(&format!("{path}.key"), parts, key_part),
            );
            for (part, known, file) in [
                (KeyPart::Country, self.geo.knows_countries(), "geo.database"),
                (KeyPart::System, self.geo.knows_systems(), "geo.asn"),
            ] {
                if key.contains(&part) && !known {
                    self.mistakes.add(&format!("{path}.key"), format!("needs {file}, an MMDB file"));
                }
            }
            let Some(kind) = self.rate_kind(raw, &path) else { continue };
            let when_away = match raw.when_away {
                None | Some(RawWhenAway::Local) => WhenAway::Local,
                Some(RawWhenAway::Open) => WhenAway::Open,
                Some(RawWhenAway::Closed) => WhenAway::Closed,
            };
            limits.push(Arc::new(RateLimit { name: name.into(), key, kind, when_away }));
        }
        limits
    }

    fn rate_kind(&mut self, raw: &RawRateLimit, path: &str) -> Option<Kind> {
        if raw.rate.is_none() && (raw.burst.is_some() || raw.delay.is_some()) {
            self.mistakes.add(path, "\"burst\" and \"delay\" go with \"rate\"");
        }
        match (&raw.rate, &raw.quota, raw.concurrent) {
            (Some(rate), None, None) => {
                let (count, per) = self.parsed(&format!("{path}.rate"), parse_rate(rate))?;
                let every = per.div_f64(count as f64).max(Duration::from_nanos(1));
                let in_a_second = (count / per.as_secs().max(1)).max(1);
                let burst = self.at_least_one(&format!("{path}.burst"), raw.burst, 1);
                let burst =
                    if raw.burst.is_some() { burst } else { u32::try_from(in_a_second).unwrap_or(u32::MAX) };
                let delay = self.duration(&format!("{path}.delay"), raw.delay.as_deref(), Duration::ZERO);
                Some(Kind::Rate { every, burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN), delay })
            }
            (None, Some(quota), None) => {
                let (most, period) = self.parsed(&format!("{path}.quota"), parse_quota(quota))?;
                Some(Kind::Quota { most, period })
            }
            (None, None, Some(most)) => {
                Some(Kind::Concurrent(self.at_least_one(&format!("{path}.concurrent"), Some(most), 1)))
            }
            _ => {
                self.mistakes.add(path, "write exactly one of \"rate\", \"quota\" and \"concurrent\"");
                None
            }
        }
    }

    fn parsed<T>(&mut self, path: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.mistakes.add(path, message)).ok()
    }
}

fn key_part(text: &str) -> Result<KeyPart, String> {
    match text.split_once(':') {
        None => match text {
            "address" => Ok(KeyPart::Address),
            "network" => Ok(KeyPart::Network),
            "consumer" => Ok(KeyPart::Consumer),
            "country" => Ok(KeyPart::Country),
            "asn" => Ok(KeyPart::System),
            "route" => Ok(KeyPart::Route),
            _ => Err(format!(
                "{text:?} is none of address, network, country, asn, consumer, route, header:NAME and claim:NAME"
            )),
        },
        Some(("header", name)) => match name.parse() {
            Ok(name) => Ok(KeyPart::Header(name)),
            Err(_) => Err(format!("{name:?} is not a header name")),
        },
        Some(("claim", name)) if !name.is_empty() => Ok(KeyPart::Claim(name.to_owned())),
        Some(_) => Err(format!("{text:?} is neither header:NAME nor claim:NAME")),
    }
}

/// `100/s`: a number, and how long it is for.
fn parse_rate(text: &str) -> Result<(u64, Duration), String> {
    let wrong = || format!("{text:?} is not a rate; write 100/s, 30/m, 1000/h or 5000/d");
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        "d" => DAY,
        _ => return Err(wrong()),
    };
    match count.trim().parse() {
        Ok(count) if (1..=1_000_000_000).contains(&count) => Ok((count, per)),
        _ => Err(wrong()),
    }
}

fn parse_quota(text: &str) -> Result<(u64, Period), String> {
    let wrong = || format!("{text:?} is not a quota; write 10000/day or 200000/month");
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let period = match unit.trim() {
        "day" => Period::Day,
        "month" => Period::Month,
        _ => return Err(wrong()),
    };
    match count.trim().parse() {
        Ok(count) if count > 0 => Ok((count, period)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn load(limits: &str) -> Result<Vec<Arc<RateLimit>>, String> {
        let text = format!(
            "version: 1\nroutes:\n  - upstreams: [{{url: \"http://127.0.0.1:1\"}}]\n    rate_limits:\n{limits}"
        );
        Config::load(&text, "p.yaml")
            .map(|config| config.routes[0].rate_limits.clone())
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn each_kind_is_read() {
        let limits = load(
            "      - {rate: 100/s}\n      - {name: slow, key: [consumer, \"header:X-Device\"], rate: 30/m, burst: 5, \
             delay: 2s}\n      - {quota: 10/month, key: []}\n      - {concurrent: 3, when_away: closed}\n",
        )
        .unwrap();
        let rate = |every, burst, delay| Kind::Rate {
            every: Duration::from_millis(every),
            burst: NonZeroU32::new(burst).unwrap(),
            delay: Duration::from_secs(delay),
        };
        assert_eq!(limits[0].kind, rate(10, 100, 0));
        assert_eq!((&*limits[0].name, limits[0].key.as_slice()), ("route-1-1", &[KeyPart::Address][..]));
        assert_eq!(limits[1].kind, rate(2_000, 5, 2));
        assert_eq!(limits[1].key[1], KeyPart::Header(HeaderName::from_static("x-device")));
        assert_eq!(limits[2].kind, Kind::Quota { most: 10, period: Period::Month });
        assert!(limits[2].key.is_empty());
        assert_eq!((&limits[3].kind, limits[3].when_away), (&Kind::Concurrent(3), WhenAway::Closed));
    }

    #[test]
    fn mistakes_name_the_place_and_the_fix() {
        for (limit, expected) in [
            ("{rate: 100 s}", "rate_limits[0].rate: \"100 s\" is not a rate; write 100/s"),
            ("{rate: 0/s}", "is not a rate"),
            ("{quota: 5/week}", "is not a quota; write 10000/day"),
            ("{rate: 1/s, quota: 1/day}", "exactly one of"),
            ("{}", "exactly one of"),
            ("{quota: 1/day, burst: 2}", "go with \"rate\""),
            ("{rate: 1/s, key: [cookie]}", "none of address, network"),
            ("{rate: 1/s, key: [\"header:a b\"]}", "not a header name"),
            ("{concurrent: 0}", "at least 1"),
        ] {
            let text = load(&format!("      - {limit}\n")).unwrap_err();
            assert!(text.contains(expected), "{limit}: {text}");
        }
        let twice = "      - {name: a, rate: 1/s}\n      - {name: a, rate: 2/s}\n";
        assert!(load(twice).unwrap_err().contains("\"a\" is taken"));
    }
}
