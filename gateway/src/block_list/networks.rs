//! Values by IP network.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;

/// Values by network: a trie for each family of addresses.
#[derive(Debug, Clone)]
pub struct Networks<T>(JointPrefixMap<IpNet, T>);

impl<T> Default for Networks<T> {
    fn default() -> Self {
        Self(JointPrefixMap::new())
    }
}

impl<T> Networks<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The values of all networks that contain all of `inner`, the widest first.
    pub fn covering(&self, inner: IpNet) -> impl Iterator<Item = &T> {
        self.0.cover_values(&inner.trunc())
    }

    /// The value of exactly `network`.
    pub fn get(&self, network: IpNet) -> Option<&T> {
        self.0.get(&network.trunc())
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }

    /// Takes out the value of exactly `network`.
    pub fn remove(&mut self, network: IpNet) -> Option<T> {
        self.0.remove(&network.trunc())
    }
}

impl<T: Default> Networks<T> {
    /// The value of exactly `network`, made if there is none.
    pub fn entry(&mut self, network: IpNet) -> &mut T {
        self.0.entry(network.trunc()).or_default()
    }
}

/// Reads an address or a network in CIDR form.
pub fn parse(text: &str) -> Option<IpNet> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address.to_canonical())),
        Err(_) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_network_comes_first_and_families_do_not_mix() {
        let mut networks = Networks::<u8>::default();
        for (text, value) in [("0.0.0.0/0", 0), ("10.0.0.0/8", 8), ("10.1.0.0/16", 16), ("::/0", 66)] {
            *networks.entry(parse(text).unwrap()) = value;
        }
        let covering = |text: &str| networks.covering(parse(text).unwrap()).copied().collect::<Vec<_>>();
        assert_eq!(covering("10.1.2.3"), [0, 8, 16]);
        assert_eq!(covering("10.0.0.0/12"), [0, 8]);
        assert_eq!(covering("192.0.2.1"), [0]);
        assert_eq!(covering("2001:db8::/64"), [66]);
    }
}
