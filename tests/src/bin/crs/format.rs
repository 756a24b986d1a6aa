//! The two formats of test files, checked; whatever is not understood is an error.

use anyhow::{Context as _, Result, bail, ensure};
use regex::Regex;
use serde_saphyr::options;

use crate::request::Writer;

mod raw;

use raw::{RawFile, RawOutput, RawStage, RawStatus, RawTest};
pub(crate) use raw::{RawHeaders, RawInput, RawText};

/// One file of tests.
#[derive(Debug)]
pub(crate) struct TestFile {
    /// The directory that it lies in, which is named after a file of rules.
    pub(crate) group: String,
    /// The tests in it; none if all of it is commented out.
    pub(crate) tests: Vec<Test>,
}

/// One test: it passes if all of its stages do.
#[derive(Debug)]
pub(crate) struct Test {
    /// The rule's number and the test's, as in `920100-4`.
    pub(crate) id: String,
    /// Requests, in order, with what is expected of each.
    pub(crate) stages: Vec<Stage>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Stage {
    /// What is sent.
    pub(crate) bytes: Vec<u8>,
    /// What has to come of it.
    pub(crate) expected: Expected,
}

/// What has to come of a request; all of it has to hold.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// The request is refused as no request at all, and nothing else matters.
    pub(crate) error: bool,
    /// One of these is the status of the answer; empty for any.
    pub(crate) status: Vec<u16>,
    /// These rules match.
    pub(crate) rules: Vec<u32>,
    /// These do not.
    pub(crate) no_rules: Vec<u32>,
    /// A line of the log looks like this.
    pub(crate) log: Option<Regex>,
    /// None looks like this.
    pub(crate) no_log: Option<Regex>,
}

/// Reads the file `name` in directory `group`.
///
/// # Errors
/// What is not understood.
pub(crate) fn parse(group: &str, name: &str, text: &str, writer: Writer) -> Result<TestFile> {
    let group = group.to_owned();
    if text.lines().all(|line| line.trim_start().is_empty() || line.starts_with('#')) {
        return Ok(TestFile { group, tests: Vec::new() });
    }
    // Payloads are long and many; these files are not hostile.
    let options = options! { budget: None };
    let file: RawFile = serde_saphyr::from_str_with_options(text, options)?;
    let rule = file.rule_id.map_or_else(|| name.to_owned(), |id| id.to_string());
    let tests = file.tests.into_iter().map(|test| check_test(&rule, test, writer)).collect::<Result<_>>()?;
    Ok(TestFile { group, tests })
}

fn check_test(rule: &str, test: RawTest, writer: Writer) -> Result<Test> {
    let id = match (test.test_title, test.test_id) {
        (Some(title), None) => title,
        (None, Some(number)) => format!("{rule}-{number}"),
        _ => bail!("a test of {rule} needs either `test_title` or `test_id`"),
    };
    let stages = test.stages.into_iter().map(|stage| check_stage(stage, writer)).collect::<Result<Vec<_>>>();
    let stages = stages.with_context(|| format!("test {id}"))?;
    ensure!(!stages.is_empty(), "test {id} has no stage");
    Ok(Test { id, stages })
}

fn check_stage(stage: RawStage, writer: Writer) -> Result<Stage> {
    let (input, output) = match stage {
        RawStage { stage: Some(inner), input: None, output: None } => (inner.input, inner.output),
        RawStage { stage: None, input: Some(input), output: Some(output) } => (input, output),
        _ => bail!("a stage needs `input` and `output`, or `stage` with the two in it"),
    };
    Ok(Stage { bytes: writer.write(input)?, expected: check_output(output)? })
}

fn check_output(output: RawOutput) -> Result<Expected> {
    let log = output.log.unwrap_or_default();
    let pattern = |old: Option<String>, new: Option<String>| -> Result<Option<Regex>> {
        ensure!(old.is_none() || new.is_none(), "the log is described in the old and in the new way");
        old.or(new).map(|pattern| Regex::new(&pattern).context("a pattern for the log")).transpose()
    };
    let expected = Expected {
        error: output.expect_error.unwrap_or_default(),
        status: match output.status {
            None => Vec::new(),
            Some(RawStatus::One(status)) => vec![status],
            Some(RawStatus::AnyOf(list)) => list,
        },
        rules: log.expect_ids,
        no_rules: log.no_expect_ids,
        log: pattern(output.log_contains, log.match_regex)?,
        no_log: pattern(output.no_log_contains, log.no_match_regex)?,
    };
    let Expected { error, status, rules, no_rules, log, no_log } = &expected;
    let empty = status.is_empty() && rules.is_empty() && no_rules.is_empty();
    ensure!(*error || !empty || log.is_some() || no_log.is_some(), "nothing is expected");
    Ok(expected)
}

#[cfg(test)]
mod tests;
