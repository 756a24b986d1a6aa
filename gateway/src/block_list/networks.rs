//! Values by IP network, looked up by longest prefix.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

/// Values by network. A lookup costs one hash per prefix length in use.
#[derive(Debug, Clone)]
pub struct Networks<T> {
    /// By prefix length, longest first.
    lengths: BTreeMap<Reverse<u8>, HashMap<IpNet, T>>,
}

impl<T> Default for Networks<T> {
    fn default() -> Self {
        Self { lengths: BTreeMap::new() }
    }
}

impl<T> Networks<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The values of all networks that contain all of `inner`, longest prefix first.
    pub fn covering(&self, inner: IpNet) -> impl Iterator<Item = &T> {
        self.lengths.iter().filter(move |(Reverse(length), _)| *length <= inner.prefix_len()).filter_map(
            move |(Reverse(length), networks)| networks.get(&IpNet::new(inner.addr(), *length).ok()?.trunc()),
        )
    }

    /// The value of exactly `network`.
    pub fn get(&self, network: IpNet) -> Option<&T> {
        self.lengths.get(&Reverse(network.prefix_len()))?.get(&network.trunc())
    }

    /// All networks and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&IpNet, &T)> {
        self.lengths.values().flatten()
    }

    /// Keeps the values for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        self.lengths.retain(|_, networks| {
            networks.retain(|_, value| keep(value));
            !networks.is_empty()
        });
    }
}

impl<T: Default> Networks<T> {
    /// The value of exactly `network`, made if there is none.
    pub fn entry(&mut self, network: IpNet) -> &mut T {
        self.lengths.entry(Reverse(network.prefix_len())).or_default().entry(network.trunc()).or_default()
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
    fn the_longest_prefix_comes_first_and_families_do_not_mix() {
        let mut networks = Networks::<u8>::default();
        for (text, value) in [("0.0.0.0/0", 0), ("10.0.0.0/8", 8), ("10.1.0.0/16", 16), ("::/0", 66)] {
            *networks.entry(parse(text).unwrap()) = value;
        }
        let covering = |text: &str| networks.covering(parse(text).unwrap()).copied().collect::<Vec<_>>();
        assert_eq!(covering("10.1.2.3"), [16, 8, 0]);
        assert_eq!(covering("10.0.0.0/12"), [8, 0]);
        assert_eq!(covering("192.0.2.1"), [0]);
        assert_eq!(covering("2001:db8::/64"), [66]);
    }
}
