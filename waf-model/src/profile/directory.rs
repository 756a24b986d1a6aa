//! Directory: how surprising an endpoint is that was never asked for, judged by what lies beside it.
//!
//! A directory of pictures of which most were asked for once is not surprised by one more picture; a directory of
//! eight pages that everybody asks for is surprised by a ninth, and by an extension that nothing in it has.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ProfileError, finite, tally::novelty};

/// The directories of a site, by path template.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Directories {
    known: BTreeMap<String, RawDirectory>,
    /// -log10 of the probability that a clean request goes to a directory never seen.
    new_directory: f32,
}

/// What is known of the endpoints right below one path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RawDirectory {
    /// -log10 of the probability that a clean request goes to an endpoint in it that was never seen.
    new_endpoint: f32,
    /// The same for one with an extension that nothing in it has.
    new_extension: f32,
    /// Extensions seen, ascending; the empty one stands for none.
    extensions: Vec<String>,
}

/// Stored form of [`Directories`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RawDirectories {
    known: Vec<(String, RawDirectory)>,
    new_directory: f32,
}

impl Directories {
    /// Learns from every endpoint's path template and weight (client changes seen).
    pub(super) fn of<'a>(endpoints: impl Iterator<Item = (&'a str, u32)>) -> Self {
        #[derive(Default)]
        struct Count {
            requests: u32,
            weights: Vec<u32>,
            extensions: BTreeMap<String, u32>,
        }
        let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
        for (path, weight) in endpoints {
            let (directory, extension) = split(path);
            let count = counts.entry(directory).or_default();
            count.requests = count.requests.saturating_add(weight);
            count.weights.push(weight);
            *count.extensions.entry(extension.to_owned()).or_default() += weight;
        }
        let total = counts.values().fold(0u32, |sum, count| sum.saturating_add(count.requests));
        let new_directory = novelty(counts.values().map(|count| count.requests), total);
        let known = counts.into_iter().map(|(directory, count)| {
            let known = RawDirectory {
                new_endpoint: novelty(count.weights.into_iter(), count.requests),
                new_extension: novelty(count.extensions.values().copied(), count.requests),
                extensions: count.extensions.into_keys().collect(),
            };
            (directory.to_owned(), known)
        });
        Self { known: known.collect(), new_directory }
    }

    /// -log10 of the probability that a clean request goes to `path` (a template), which no profile knows.
    pub(super) fn surprise(&self, path: &str) -> f32 {
        let (directory, extension) = split(path);
        match self.known.get(directory) {
            None => self.new_directory,
            Some(known) if known.extensions.iter().any(|seen| seen == extension) => known.new_endpoint,
            Some(known) => known.new_endpoint.max(known.new_extension),
        }
    }
}

/// The directory of a path and the extension of its last segment.
fn split(path: &str) -> (&str, &str) {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    (directory, name.rsplit_once('.').map_or("", |(_, extension)| extension))
}

impl TryFrom<RawDirectories> for Directories {
    type Error = ProfileError;

    fn try_from(raw: RawDirectories) -> Result<Self, ProfileError> {
        let names: BTreeSet<&String> = raw.known.iter().map(|(name, _)| name).collect();
        if names.len() != raw.known.len() {
            return Err(ProfileError("a directory stands twice".to_owned()));
        }
        for (_, known) in &raw.known {
            finite("surprise of an endpoint", known.new_endpoint)?;
            finite("surprise of an extension", known.new_extension)?;
        }
        let new_directory = finite("surprise of a directory", raw.new_directory)?;
        Ok(Self { known: raw.known.into_iter().collect(), new_directory })
    }
}

impl From<&Directories> for RawDirectories {
    fn from(directories: &Directories) -> Self {
        let known = directories.known.iter().map(|(name, known)| (name.clone(), known.clone())).collect();
        Self { known, new_directory: directories.new_directory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_a_new_endpoint_says_how_surprising_it_is() {
        let pictures: Vec<String> = (0..50).map(|number| format!("/pictures/p{number}.jpg")).collect();
        let pages = ["/shop/cart.jsp", "/shop/search.jsp", "/shop/login.jsp"].map(|page| (page, 300));
        let site = pictures.iter().map(|picture| (picture.as_str(), 1)).chain(pages);
        let directories = Directories::of(site);
        let surprise = |path| directories.surprise(path);
        assert!(surprise("/pictures/new.jpg") < 0.1);
        assert!(surprise("/pictures/new.php") > 1.9, "{}", surprise("/pictures/new.php"));
        assert!(surprise("/shop/admin.jsp") > 3.0, "{}", surprise("/shop/admin.jsp"));
        assert!(surprise("/shop/cart.jsp/") > 3.0 && surprise("/cgi-bin/test") > 3.0);
        let stored: Directories = RawDirectories::from(&directories).try_into().unwrap();
        assert_eq!(stored, directories);
    }
}
