//! Who a simulated client is: its address, program and habits of speech.

use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;

/// What stays the same for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Address, unique to the client.
    pub address: IpAddr,
    /// `User-Agent`.
    pub user_agent: String,
    /// `Accept-Language`.
    pub language: &'static str,
    /// The account it logs in to.
    pub account: u32,
    /// Value of its analytics cookie.
    pub visitor: String,
}

const LANGUAGES: [&str; 6] = [
    "en-US,en;q=0.9",
    "en-GB,en;q=0.8",
    "de-DE,de;q=0.9,en;q=0.7",
    "fr-FR,fr;q=0.9",
    "es-ES,es;q=0.8,en;q=0.5",
    "pl,en;q=0.7",
];

impl Identity {
    /// Client number `index` of a population. Addresses of different indexes differ, and neighbors lie in
    /// different networks.
    pub fn new(rng: &mut Rng, index: u32, user_agent: String) -> Self {
        let language = LANGUAGES.get(rng.usize(..LANGUAGES.len())).copied().unwrap_or("en");
        let visitor =
            format!("GS1.{}.{}", rng.u32(100_000_000..999_999_999), rng.u32(1_700_000_000..1_790_000_000));
        let account = index % crate::shop::ACCOUNTS;
        Self { address: address(index), user_agent, language, account, visitor }
    }
}

/// The address of client number `index`: below 100.64.0.0/10, which nobody owns.
fn address(index: u32) -> IpAddr {
    // Multiplying by an odd number permutes the 22 host bits, so that neighbors do not share a /24.
    let host = index.wrapping_mul(0x0009_e375) & 0x003f_ffff;
    IpAddr::V4(Ipv4Addr::from(0x6440_0000 | host))
}

/// The `User-Agent` of a desktop or mobile browser.
pub fn browser(rng: &mut Rng) -> String {
    let chrome = rng.u32(128..142);
    let firefox = rng.u32(126..144);
    match rng.u8(..6) {
        0 | 1 => format!(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome}.0.0.0 Safari/537.36"
        ),
        2 => format!(
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome}.0.0.0 Safari/537.36"
        ),
        3 => format!("Mozilla/5.0 (X11; Linux x86_64; rv:{firefox}.0) Gecko/20100101 Firefox/{firefox}.0"),
        4 => format!(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_{} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.{} Mobile/15E148 Safari/604.1",
            rng.u8(..6),
            rng.u8(..6)
        ),
        _ => format!(
            "Mozilla/5.0 (Linux; Android 1{}; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome}.0.0.0 Mobile Safari/537.36",
            rng.u8(3..6)
        ),
    }
}

/// The `User-Agent` of the shop's app.
pub fn app(rng: &mut Rng) -> String {
    let version = format!("4.{}.{}", rng.u8(..9), rng.u8(..4));
    if rng.bool() {
        format!("ShopApp/{version} (Android 1{}; Pixel {})", rng.u8(3..6), rng.u8(6..10))
    } else {
        format!("ShopApp/{version} CFNetwork/1568.200.51 Darwin/24.{}.0", rng.u8(..6))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_client_has_an_address_of_its_own_and_few_share_a_network() {
        let addresses: BTreeSet<IpAddr> = (0..5_000).map(address).collect();
        assert_eq!(addresses.len(), 5_000);
        let networks: BTreeSet<String> =
            addresses.iter().filter_map(|a| Some(a.to_string().rsplit_once('.')?.0.to_owned())).collect();
        assert!(networks.len() > 2_000, "{} networks", networks.len());
    }
}
