//! The list of tests that do not pass, each with the reason.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// Ids and reasons.
#[derive(Debug, Default)]
pub(crate) struct Exceptions {
    reasons: BTreeMap<String, String>,
}

impl Exceptions {
    /// Reads the list at `path`.
    ///
    /// # Errors
    /// No such file, or a line that is not an id and a reason.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// One test a line: its id, a space, the reason. Empty lines and those that begin with `#` have no meaning.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut reasons = BTreeMap::new();
        for (line, number) in text.lines().zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (id, reason) = line.split_once(' ').unwrap_or((line, ""));
            ensure!(!reason.trim().is_empty(), "line {number}: {id} needs a reason");
            let earlier = reasons.insert(id.to_owned(), reason.trim().to_owned());
            ensure!(earlier.is_none(), "line {number}: {id} is listed twice");
        }
        Ok(Self { reasons })
    }

    /// Why the test `id` does not pass.
    pub(crate) fn reason(&self, id: &str) -> Option<&str> {
        self.reasons.get(id).map(String::as_str)
    }

    /// Every listed id.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.reasons.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_has_a_reason() {
        let list = Exceptions::parse("# why\n\n1-2 it is so\n").unwrap();
        assert_eq!(list.reason("1-2"), Some("it is so"));
        assert_eq!(list.reason("1-3"), None);
        assert_eq!(list.ids().collect::<Vec<_>>(), ["1-2"]);
        assert!(Exceptions::parse("1-2").unwrap_err().to_string().contains("reason"));
        assert!(Exceptions::parse("1-2 a\n1-2 b").unwrap_err().to_string().contains("twice"));
    }
}
