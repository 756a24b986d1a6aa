//! Counts, failures, and the summary.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use anyhow::Result;

use crate::{exceptions::Exceptions, judge::Verdict};

/// What came of all tests so far.
#[derive(Debug)]
pub(crate) struct Report {
    exceptions: Exceptions,
    details: bool,
    files: usize,
    tests: usize,
    passed: usize,
    /// Listed tests that were run, passed or not.
    met: BTreeSet<String>,
    /// Listed tests that passed.
    stale: Vec<String>,
    /// Failures that are not listed, and how many tests there were, by directory.
    groups: BTreeMap<String, (usize, Vec<String>)>,
}

impl Report {
    /// Nothing so far.
    pub(crate) fn new(exceptions: Exceptions, details: bool) -> Self {
        Self {
            exceptions,
            details,
            files: 0,
            tests: 0,
            passed: 0,
            met: BTreeSet::new(),
            stale: Vec::new(),
            groups: BTreeMap::new(),
        }
    }

    /// Counts a file.
    pub(crate) fn file(&mut self) {
        self.files += 1;
    }

    /// Counts the test `id` of `group`, and says what failed.
    ///
    /// # Errors
    /// Standard output is gone.
    pub(crate) fn test(&mut self, group: &str, id: &str, verdict: Verdict) -> Result<()> {
        self.tests += 1;
        let (tests, failures) = self.groups.entry(group.to_owned()).or_default();
        *tests += 1;
        let is_listed = self.exceptions.reason(id).is_some();
        if is_listed {
            self.met.insert(id.to_owned());
        }
        match verdict {
            Verdict::Passed if is_listed => self.stale.push(id.to_owned()),
            Verdict::Passed => self.passed += 1,
            Verdict::Failed { missing, matched } => {
                if !is_listed {
                    failures.push(id.to_owned());
                }
                if self.details {
                    let mark = if is_listed { "listed" } else { "FAILED" };
                    writeln!(io::stdout(), "{mark} {id}: expected {missing}; matched: {matched}")?;
                }
            }
        }
        Ok(())
    }

    /// Writes the summary. Returns whether every test passed or is listed, and the list is right.
    ///
    /// # Errors
    /// `out` is gone.
    pub(crate) fn summary(&self, out: &mut impl Write, loaded: &str, complete: bool) -> Result<bool> {
        let failures: usize = self.groups.values().map(|(_, failures)| failures.len()).sum();
        for (group, (tests, failures)) in self.groups.iter().filter(|(_, (_, failures))| !failures.is_empty())
        {
            writeln!(out, "{group}: {} of {tests} failed: {}", failures.len(), failures.join(" "))?;
        }
        for id in &self.stale {
            writeln!(out, "{id} is listed as an exception but passes; strike it from the list")?;
        }
        let unknown: Vec<&str> =
            self.exceptions.ids().filter(|id| complete && !self.met.contains(*id)).collect();
        for id in &unknown {
            writeln!(
                out,
                "{id} is listed as an exception but there is no such test; strike it from the list"
            )?;
        }
        let listed = self.met.len() - self.stale.len();
        writeln!(
            out,
            "{loaded}\n{} files, {} tests: {} passed ({}), {failures} failed, {listed} listed with a reason",
            self.files,
            self.tests,
            self.passed,
            percentage(self.passed, self.tests),
        )?;
        Ok(failures == 0 && self.stale.is_empty() && unknown.is_empty())
    }
}

/// Rounded down to two places, so that 100 % means all.
fn percentage(part: usize, whole: usize) -> String {
    let hundredths = part * 10_000 / whole.max(1);
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Verdict {
        Verdict::Failed { missing: "rule 1".to_owned(), matched: String::new() }
    }

    fn summary(list: &str, verdicts: &[(&str, Verdict)]) -> (bool, String) {
        let mut report = Report::new(Exceptions::parse(list).unwrap(), false);
        report.file();
        for (id, verdict) in verdicts {
            report.test("G", id, verdict.clone()).unwrap();
        }
        let mut out = Vec::new();
        let is_good = report.summary(&mut out, "3 rules loaded", true).unwrap();
        (is_good, String::from_utf8(out).unwrap())
    }

    #[test]
    fn listed_failures_do_not_count_as_passed() {
        let (is_good, text) = summary("1-2 why", &[("1-1", Verdict::Passed), ("1-2", failed())]);
        assert!(is_good);
        assert!(text.contains("1 files, 2 tests: 1 passed (50.00 %), 0 failed, 1 listed"), "{text}");
    }

    #[test]
    fn other_failures_and_a_wrong_list_are_errors() {
        let (is_good, text) = summary("", &[("1-1", failed())]);
        assert!(!is_good && text.contains("G: 1 of 1 failed: 1-1"), "{text}");
        let (is_good, text) = summary("1-1 why", &[("1-1", Verdict::Passed)]);
        assert!(!is_good && text.contains("1-1 is listed as an exception but passes"), "{text}");
        let (is_good, text) = summary("9-9 why", &[("1-1", Verdict::Passed)]);
        assert!(!is_good && text.contains("no such test"), "{text}");
    }
}
