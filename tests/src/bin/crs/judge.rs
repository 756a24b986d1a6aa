//! Runs one test through the engine and compares what comes of it with what is expected.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, ensure};
use regex::Regex;
use waf_model::{
    request::{BodyExtent, BodyView, Header, ResponseView},
    rules::{Collections, Connection, Context, Denial, Options, RuleMatch, RuleSet, RuleSource},
    values::{Limits, Values},
};

use crate::{
    backend::Reply,
    format::{Expected, Stage, Test},
    material::{Disk, Material},
    strict::{Answer, Strict},
    wire::Message,
};

/// Any moment will do.
const NOW_MS: u64 = 1_700_000_000_000;

/// The engine with the rule set loaded.
#[derive(Debug)]
pub(crate) struct Judge {
    rules: RuleSet,
    /// The same, for tests that expect a rejection.
    blocking: RuleSet,
    strict: Strict,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything was as expected.
    Passed,
    /// What was not, and what the rules found.
    Failed {
        /// What was expected and did not happen.
        missing: String,
        /// The rules that matched.
        matched: String,
    },
}

/// What came of one request.
#[derive(Debug)]
struct Outcome {
    answer: Answer,
    status: u16,
    matches: Vec<RuleMatch>,
}

impl Judge {
    /// Loads every rule.
    ///
    /// # Errors
    /// Every rule that could not be loaded.
    pub(crate) fn new(material: &Material) -> Result<Self> {
        let mut sources: Vec<_> =
            material.sources.iter().map(|(name, text)| RuleSource { name, text }).collect();
        let rules = compile(&sources)?;
        let written = ids(&sources)?;
        let loaded: BTreeSet<u32> = rules.rules().map(|rule| rule.id).collect();
        let lost: Vec<&u32> = written.difference(&loaded).collect();
        ensure!(lost.is_empty(), "rules that were not loaded: {lost:?}");
        sources.push(RuleSource { name: "blocking", text: "SecRuleEngine On" });
        Ok(Self { rules, blocking: compile(&sources)?, strict: Strict::new()? })
    }

    /// What was loaded.
    pub(crate) fn description(&self) -> String {
        format!("{} rules loaded, which is every one", self.rules.rules().count())
    }

    /// Runs the requests of `test` in order.
    ///
    /// # Errors
    /// A defect of the runner.
    pub(crate) fn judge(&self, test: &Test) -> Result<Verdict> {
        let collections = Collections::new(1000);
        for stage in &test.stages {
            let outcome = self.run(stage, &collections, &test.id)?;
            if let Some(missing) = missing(&stage.expected, &outcome) {
                let ids: Vec<String> = outcome.matches.iter().map(|found| found.id.to_string()).collect();
                return Ok(Verdict::Failed { missing, matched: ids.join(" ") });
            }
        }
        Ok(Verdict::Passed)
    }

    fn run(&self, stage: &Stage, collections: &Collections, id: &str) -> Result<Outcome> {
        let message = Message::parse(&stage.bytes);
        let answer = self.strict.answer(&stage.bytes, &message)?;
        let headers = message.fields();
        let view = message.view(&headers);
        let context =
            Context { now_ms: NOW_MS, request_id: id, collections, connection: Connection::default() };
        let values = Values::extract(&view, &Limits::default());
        let rules = if stage.expected.status.contains(&403) { &self.blocking } else { &self.rules };
        let evaluation = rules.evaluate(&context, &view, &values);
        let reply = Reply::to(&message);
        let fields: Vec<Header<'_>> =
            reply.headers.iter().map(|(name, value)| Header { name, value }).collect();
        let response = ResponseView {
            status: reply.status,
            protocol: "HTTP/1.1",
            headers: &fields,
            body: BodyView { bytes: &reply.body, extent: BodyExtent::Complete },
        };
        let after = rules.evaluate_response(&context, evaluation.carry, &response);
        let denied = evaluation.matches.denied.or(after.denied).map(|Denial { status, .. }| status);
        let status = match answer {
            Answer::Refused(status) => status,
            Answer::Accepted | Answer::None => denied.unwrap_or(reply.status),
        };
        let mut matches = evaluation.matches.matches;
        matches.extend(after.matches);
        Ok(Outcome { answer, status, matches })
    }
}

/// The ids in the text of `sources`.
fn ids(sources: &[RuleSource<'_>]) -> Result<BTreeSet<u32>> {
    let action = Regex::new(r#"(?:^|[\s",])id:'?([0-9]+)"#)?;
    let lines = sources.iter().flat_map(|source| source.text.lines());
    let lines = lines.map(str::trim_start).filter(|line| !line.starts_with('#'));
    let ids = lines
        .flat_map(|line| action.captures_iter(line).filter_map(|found| found.get(1)?.as_str().parse().ok()));
    Ok(ids.collect())
}

fn compile(sources: &[RuleSource<'_>]) -> Result<RuleSet> {
    RuleSet::compile(sources, &Options { files: &Disk, variables: &[] }).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow!("{} mistakes in the rules\n{}", lines.len(), lines.join("\n"))
    })
}

/// The first thing that was expected of `outcome` and is not so.
fn missing(expected: &Expected, outcome: &Outcome) -> Option<String> {
    let Outcome { answer, status, matches } = outcome;
    if expected.error {
        return (*answer == Answer::Accepted).then(|| "no answer at all; it was a good request".to_owned());
    }
    if !expected.status.is_empty() && !expected.status.contains(status) {
        return Some(format!("status {:?}; it was {status}", expected.status));
    }
    // Where a refusal is expected, no rule is asked.
    let is_refused = matches!(answer, Answer::Refused(status) if expected.status.contains(status));
    let matches = if is_refused { &[] } else { matches.as_slice() };
    let found = |id: &u32| matches.iter().any(|found| found.id == *id);
    if let Some(id) = expected.rules.iter().find(|id| !found(id)) {
        return Some(format!("rule {id}"));
    }
    if let Some(id) = expected.no_rules.iter().find(|id| found(id)) {
        return Some(format!("not rule {id}"));
    }
    let lines: Vec<String> = matches.iter().map(line).collect();
    if let Some(pattern) =
        expected.log.as_ref().filter(|pattern| !lines.iter().any(|line| pattern.is_match(line)))
    {
        return Some(format!("a match like {pattern}"));
    }
    let pattern =
        expected.no_log.as_ref().filter(|pattern| lines.iter().any(|line| pattern.is_match(line)))?;
    Some(format!("no match like {pattern}"))
}

/// A match in the form of a line of ModSecurity's log, which some tests describe.
fn line(found: &RuleMatch) -> String {
    let RuleMatch { id, message, data, .. } = found;
    format!(r#"[id "{id}"] [msg "{message}"] [data "{data}"]"#)
}

#[cfg(test)]
mod tests {
    use waf_model::rules::Severity;

    use super::*;

    fn outcome(ids: &[u32], status: u16) -> Outcome {
        let matches = ids.iter().map(|id| RuleMatch {
            id: *id,
            message: "Bad".to_owned(),
            severity: Severity::Critical,
            tags: Vec::new(),
            location: None,
            variable: "ARGS:q".to_owned(),
            fragment: "x".to_owned(),
            data: "x found within ARGS:q: x".to_owned(),
        });
        Outcome { answer: Answer::Accepted, status, matches: matches.collect() }
    }

    #[track_caller]
    fn judged(expected: Expected, outcome: &Outcome, says: Option<&str>) {
        let missing = missing(&expected, outcome);
        assert_eq!(missing.is_some(), says.is_some(), "{missing:?}");
        assert!(missing.unwrap_or_default().contains(says.unwrap_or_default()));
    }

    #[test]
    fn every_id_is_counted_once() {
        let text = "# SecAction \"id:1\"\nSecRule ARGS x \"id:2,ctl:ruleRemoveById=3\"\nSecAction \\\n  \"phase:1, id:'4'\"\n id:2";
        let found = ids(&[RuleSource { name: "x", text }]).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn everything_expected_has_to_hold() {
        let found = outcome(&[10, 20], 200);
        judged(Expected { rules: vec![10, 20], no_rules: vec![1], ..Expected::default() }, &found, None);
        judged(Expected { rules: vec![10, 1], ..Expected::default() }, &found, Some("rule 1"));
        judged(Expected { no_rules: vec![20], ..Expected::default() }, &found, Some("not rule 20"));
        judged(Expected { status: vec![400, 200], ..Expected::default() }, &found, None);
        judged(Expected { status: vec![400], ..Expected::default() }, &found, Some("it was 200"));
        let pattern = |text: &str| Some(Regex::new(text).unwrap());
        judged(Expected { log: pattern(r#"id "10""#), ..Expected::default() }, &found, None);
        judged(Expected { log: pattern("found within ARGS:q:"), ..Expected::default() }, &found, None);
        judged(Expected { log: pattern(r#"id "1""#), ..Expected::default() }, &found, Some("a match like"));
        judged(Expected { no_log: pattern("Bad"), ..Expected::default() }, &found, Some("no match like"));
        judged(Expected { error: true, ..Expected::default() }, &found, Some("good request"));
        let refused = Outcome { answer: Answer::Refused(400), ..outcome(&[], 400) };
        judged(Expected { error: true, ..Expected::default() }, &refused, None);
        let refused = Outcome { answer: Answer::Refused(400), ..outcome(&[10], 400) };
        judged(Expected { status: vec![400], no_rules: vec![10], ..Expected::default() }, &refused, None);
        judged(Expected { no_rules: vec![10], ..Expected::default() }, &refused, Some("not rule 10"));
    }
}
