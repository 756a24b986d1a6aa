//! Where an address lies: its country and its autonomous system, by MMDB files that the operator gives.

use std::{fmt, net::IpAddr, path::Path};

use maxminddb::{Reader, path};

/// The databases that are given, in memory.
#[derive(Debug, Default)]
pub struct Geo {
    countries: Option<Reader<Vec<u8>>>,
    systems: Option<Reader<Vec<u8>>>,
}

/// What is known of where an address lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Its country.
    pub country: Option<Country>,
    /// Number of its autonomous system.
    pub system: Option<u32>,
}

/// A country by its code, ISO 3166-1 alpha-2, in upper case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Country([u8; 2]);

impl Country {
    /// Reads a code; lower case is accepted.
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 2] = text.as_bytes().try_into().ok()?;
        let code = code.map(|letter| letter.to_ascii_uppercase());
        code.iter().all(u8::is_ascii_uppercase).then_some(Self(code))
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Geo {
    /// Databases from checked readers.
    pub fn new(countries: Option<Reader<Vec<u8>>>, systems: Option<Reader<Vec<u8>>>) -> Self {
        Self { countries, systems }
    }

    /// Whether there is a database of countries.
    pub fn knows_countries(&self) -> bool {
        self.countries.is_some()
    }

    /// Whether there is a database of autonomous systems.
    pub fn knows_systems(&self) -> bool {
        self.systems.is_some()
    }

    /// Where `address` lies; what a database does not know, or cannot tell for being broken there, is `None`.
    pub fn place(&self, address: IpAddr) -> Place {
        let country = self.countries.as_ref().and_then(|reader| {
            let code = reader.lookup(address).ok()?.decode_path::<&str>(&path!["country", "iso_code"]);
            Country::parse(code.ok()??)
        });
        let system = self.systems.as_ref().and_then(|reader| {
            let number = reader.lookup(address).ok()?.decode_path(&path!["autonomous_system_number"]);
            number.ok()?
        });
        Place { country, system }
    }
}

/// Reads a database.
///
/// # Errors
/// The file cannot be read or is no MMDB file: what is wrong, with its name.
pub fn open(file: &Path) -> Result<Reader<Vec<u8>>, String> {
    Reader::open_readfile(file).map_err(|error| format!("{}: {error}", file.display()))
}
