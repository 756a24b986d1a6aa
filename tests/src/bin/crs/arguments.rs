//! What the command line says.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Shown for a command line that is not understood.
const USAGE: &str = "usage: crs (--debian DIR | --checkout DIR) [-v] [--only ID]
  --debian DIR    DIR/binary and DIR/source hold Debian's packages of the Core Rule Set 3, unpacked
  --checkout DIR  a checkout of the Core Rule Set 4
  -v              also says what each failed test expected and which rules matched
  --only ID       only the tests whose id starts so, such as 920100 or 920100-4";

/// Where the rule set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Debian's binary and source package, unpacked.
    Debian(PathBuf),
    /// A checkout of version 4.
    Checkout(PathBuf),
}

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// Where the rule set is.
    pub(crate) place: Place,
    /// Whether failures are explained.
    pub(crate) details: bool,
    /// The beginning of the ids of the tests to run; `None` for all.
    pub(crate) only: Option<String>,
}

impl Arguments {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// The usage.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let (mut place, mut details, mut only) = (None, false, None);
        while let Some(word) = words.next() {
            match (word.as_str(), &place) {
                ("-v", _) => details = true,
                ("--debian", None) => place = words.next().map(|path| Place::Debian(path.into())),
                ("--checkout", None) => place = words.next().map(|path| Place::Checkout(path.into())),
                ("--only", _) => only = words.next(),
                _ => bail!("{word:?} is not understood\n{USAGE}"),
            }
        }
        match place {
            Some(place) => Ok(Self { place, details, only }),
            None => bail!("no rule set is named\n{USAGE}"),
        }
    }

    /// Whether the test `id` is to be run.
    pub(crate) fn wants(&self, id: &str) -> bool {
        self.only.as_ref().is_none_or(|start| id.starts_with(start.as_str()))
    }
}
