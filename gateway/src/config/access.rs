//! Which clients a listener or a route is there for: by network, autonomous system and country.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    compile::Compiler,
    raw::exposure::{RawCountries, RawGeo, RawNetworks},
};
use crate::{
    block_list::networks::{self, Networks},
    geo::{self, Country, Geo, Place},
};

/// Most mistakes of one file that are told at once.
const TOLD: usize = 5;

/// Which clients are served: those that no list denies and that, of each kind of list that allows something, one
/// allows.
#[derive(Debug, Clone, Default)]
pub struct Access {
    networks: Lists<Arc<Networks<()>>>,
    systems: Lists<u32>,
    /// `None` stands for addresses of which no country is known.
    countries: Lists<Option<Country>>,
}

#[derive(Debug, Clone)]
struct Lists<T> {
    allow: Vec<T>,
    deny: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new() }
    }
}

impl<T> Lists<T> {
    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    fn refuse(&self, is_meant: impl Fn(&T) -> bool) -> bool {
        self.deny.iter().any(&is_meant) || !(self.allow.is_empty() || self.allow.iter().any(&is_meant))
    }
}

impl Access {
    /// Why a client at `address`, which lies at `place`, is not served: by its name in the log.
    pub fn refusal(&self, address: IpAddr, place: Place) -> Option<&'static str> {
        let address = IpNet::from(address);
        if self.networks.refuse(|networks| networks.covering(address).next().is_some()) {
            return Some("network_refused");
        }
        if self.systems.refuse(|system| place.system == Some(*system)) {
            return Some("asn_refused");
        }
        self.countries.refuse(|country| place.country == *country).then_some("country_refused")
    }
}

/// Files with networks, each read once for a configuration.
#[derive(Debug, Default)]
pub(super) struct NetworkFiles(BTreeMap<PathBuf, Result<Arc<Networks<()>>, String>>);

impl NetworkFiles {
    /// Their names.
    pub(super) fn opened(&self) -> impl Iterator<Item = PathBuf> {
        self.0.keys().cloned()
    }

    fn open(&mut self, file: &str) -> Result<Arc<Networks<()>>, String> {
        self.0.entry(PathBuf::from(file)).or_insert_with_key(|file| read(file).map(Arc::new)).clone()
    }
}

/// Reads a file with one network a line.
fn read(file: &Path) -> Result<Networks<()>, String> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let mut networks = Networks::default();
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split('#').next().unwrap_or_default().trim();
        match networks::parse(entry) {
            Some(network) => *networks.entry(network) = (),
            None if entry.is_empty() => {}
            None => {
                wrong.push(format!("{name}:{}: {entry:?} is not an address or a network", index + 1));
            }
        }
    }
    match wrong.len() {
        0 => Ok(networks),
        more if more > TOLD => {
            wrong.truncate(TOLD);
            Err(format!("{}; and {} more", wrong.join("; "), more - TOLD))
        }
        _ => Err(wrong.join("; ")),
    }
}

impl Compiler {
    /// The databases; what is wrong with one is told, and the rest checked as if it were there.
    pub(super) fn geo(&mut self, raw: &RawGeo) -> Geo {
        let mut opened = |path: &str, file: &Option<String>| {
            let reader = geo::open(Path::new(file.as_deref()?));
            reader.map_err(|message| self.mistakes.add(path, message)).ok()
        };
        Geo::new(opened("geo.database", &raw.database), opened("geo.asn", &raw.asn))
    }

    /// Which clients the listener or route at `path` is there for.
    pub(super) fn access(&mut self, networks: &RawNetworks, countries: &RawCountries, path: &str) -> Access {
        let asn = &networks.asn;
        let system = |number: &u64| u32::try_from(*number).unwrap_or(u32::MAX);
        let access = Access {
            networks: Lists {
                allow: self.network_lists(&format!("{path}.networks.allow"), &networks.allow),
                deny: self.network_lists(&format!("{path}.networks.deny"), &networks.deny),
            },
            systems: Lists {
                allow: asn.allow.iter().map(system).collect(),
                deny: asn.deny.iter().map(system).collect(),
            },
            countries: Lists {
                allow: self.each(&format!("{path}.countries.allow"), &countries.allow, country),
                deny: self.each(&format!("{path}.countries.deny"), &countries.deny, country),
            },
        };
        if !access.systems.is_empty() && !self.geo.knows_systems() {
            self.mistakes.add(&format!("{path}.networks.asn"), "needs geo.asn, an MMDB file");
        }
        if !access.countries.is_empty() && !self.geo.knows_countries() {
            self.mistakes.add(&format!("{path}.countries"), "needs geo.database, an MMDB file");
        }
        access
    }

    /// What is written itself in one trie, and one for each file.
    fn network_lists(&mut self, path: &str, entries: &[String]) -> Vec<Arc<Networks<()>>> {
        let mut written = Networks::default();
        let mut lists = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match entry.strip_prefix("file:") {
                Some(file) => match self.network_files.open(file.trim()) {
                    Ok(networks) => lists.push(networks),
                    Err(message) => self.mistakes.add(&path, message),
                },
                None => match networks::parse(entry) {
                    Some(network) => *written.entry(network) = (),
                    None => self.mistakes.add(
                        &path,
                        format!(
                            "{entry:?} is neither an address, nor a network such as 10.0.0.0/8, nor file:PATH"
                        ),
                    ),
                },
            }
        }
        if !written.is_empty() {
            lists.push(Arc::new(written));
        }
        lists
    }
}

fn country(text: &str) -> Result<Option<Country>, String> {
    if text == "unknown" {
        return Ok(None);
    }
    let wrong = || format!("{text:?} is not a country's code of two letters, nor \"unknown\"");
    Country::parse(text).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn load(more: &str) -> Result<Config, String> {
        let text = format!("version: 1\nroutes:\n  - upstreams: [{{url: \"http://127.0.0.1:1\"}}]\n{more}");
        Config::load(&text, "p.yaml").map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn what_is_denied_is_refused_and_of_what_is_allowed_one_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("partners.txt");
        fs::write(&file, "# partners\n198.51.100.0/24 # one\n\n2001:db8::/32\n").unwrap();
        let networks = format!(
            "    networks: {{allow: [10.0.0.0/8, \"file:{}\"], deny: [10.9.0.0/16, 198.51.100.7]}}\n",
            file.display()
        );
        let config = load(&networks).unwrap();
        assert_eq!(config.files, [file]);
        let refused = |address: &str| {
            config.routes[0].access.refusal(address.parse().unwrap(), Place::default()).is_some()
        };
        for address in ["10.1.2.3", "198.51.100.8", "2001:db8:1::1"] {
            assert!(!refused(address), "{address}");
        }
        for address in ["10.9.1.1", "198.51.100.7", "192.0.2.1", "2001:db9::1"] {
            assert!(refused(address), "{address}");
        }
    }

    #[test]
    fn an_unknown_country_is_none_that_is_allowed_unless_that_is_said() {
        let place = |code: &str, system: u32| Place { country: Country::parse(code), system: Some(system) };
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut access = Access::default();
        access.countries.allow = vec![Country::parse("de")];
        access.systems.deny = vec![64_500];
        assert_eq!(access.refusal(address, place("DE", 1)), None);
        assert_eq!(access.refusal(address, place("FR", 1)), Some("country_refused"));
        assert_eq!(access.refusal(address, place("DE", 64_500)), Some("asn_refused"));
        assert_eq!(access.refusal(address, Place::default()), Some("country_refused"));
        access.countries.allow.push(None);
        assert_eq!(access.refusal(address, Place::default()), None);
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("n.txt");
        fs::write(&file, "10.0.0.0/8\n10.0.0.0/99\nhost.example\n").unwrap();
        let text =
            load(&format!("    networks: {{deny: [\"file:{}\", nowhere]}}\n", file.display())).unwrap_err();
        let name = file.display();
        assert!(text.contains(&format!("{name}:2: \"10.0.0.0/99\" is not")), "{text}");
        assert!(text.contains(&format!("{name}:3: \"host.example\"")), "{text}");
        assert!(text.contains("routes[0].networks.deny[1]: \"nowhere\" is neither"), "{text}");
        let text = load("    countries: {allow: [DE]}\n    networks: {asn: {deny: [1]}}\n").unwrap_err();
        assert!(text.contains("needs geo.database") && text.contains("needs geo.asn"), "{text}");
        assert!(load("geo: {database: /nowhere.mmdb}\n").unwrap_err().contains("/nowhere.mmdb"));
    }
}
