//! All mistakes of a configuration, each with its place.

use std::{collections::BTreeMap, fmt};

use waf_model::rules::RuleError;

/// Every mistake of a configuration file; displays one a line, `file:line: path: what; how to mend it`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes {
    /// The file's name.
    pub file: String,
    /// The mistakes in order of lines.
    pub list: Vec<Mistake>,
    /// The mistakes in rule files, in order.
    pub rules: Vec<RuleError>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line from 1; 0 if there is none.
    pub line: u64,
    /// Where, as `routes[0].waf.mode`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file)?;
            if mistake.line > 0 {
                write!(f, ":{}", mistake.line)?;
            }
            if !mistake.path.is_empty() {
                write!(f, ": {}", mistake.path)?;
            }
            write!(f, ": {}", mistake.message)?;
        }
        for (index, mistake) in self.rules.iter().enumerate() {
            if index > 0 || !self.list.is_empty() {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Collects mistakes; knows the line of every path. One mistake for a path is enough.
#[derive(Debug, Default)]
pub(super) struct Collector {
    lines: BTreeMap<String, u64>,
    list: Vec<Mistake>,
    rules: Vec<RuleError>,
}

impl Collector {
    /// Remembers where `path` stands.
    pub(super) fn locate(&mut self, path: &str, line: u64) {
        self.lines.insert(path.to_owned(), line);
    }

    /// Notes a mistake, unless `path` or something around it was found wrong already.
    pub(super) fn add(&mut self, path: &str, message: impl Into<String>) {
        if !self.list.iter().any(|mistake| holds(&mistake.path, path)) {
            let line = self.line(path);
            self.list.push(Mistake { line, path: path.to_owned(), message: message.into() });
        }
    }

    /// Notes a mistake in a rule file, once.
    pub(super) fn add_rule(&mut self, mistake: RuleError) {
        if !self.rules.contains(&mistake) {
            self.rules.push(mistake);
        }
    }

    /// The line of `path`, or of the nearest thing around it.
    pub(super) fn line(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return self.lines.get("").copied().unwrap_or_default(),
            }
        }
    }

    /// What was collected, in order of lines; `None` if nothing was.
    pub(super) fn finish(mut self, file: &str) -> Option<Mistakes> {
        self.list.sort();
        let none = self.list.is_empty() && self.rules.is_empty();
        (!none).then(|| Mistakes { file: file.to_owned(), list: self.list, rules: self.rules })
    }
}

/// Whether `path` is `outer` or inside of it.
fn holds(outer: &str, path: &str) -> bool {
    !outer.is_empty()
        && path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
