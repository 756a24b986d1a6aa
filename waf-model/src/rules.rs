//! SecLang: parse, compile, evaluate.
//!
//! Supported are the directives, variables, operators and actions that the modules below name; anything else is a
//! [`RuleError`], never a silent no-op. One directive and one variable are our own:
//!
//! - `SecInspectLayers On` makes the rules below it in its file look at every decoding layer of a value
//!   ([`Value::layers`](crate::values::Value::layers); the path and the query are decoded step by step), where
//!   SecLang looks at the value alone.
//! - `PATH_SEGMENTS` holds each segment of the path, decoded.
//!
//! A match is reported if its rule has a severity or denies, unless it says `nolog`. It counts the points of its
//! severity if its rule says `block` and no `SecDefaultAction` says what that means; `deny`, `drop` and `redirect`
//! decide by themselves.

use serde::{Deserialize, Serialize};

use crate::{
    request::{RequestView, ResponseView},
    values::{Location, Values},
};

mod action;
mod collections;
mod compare;
mod compile;
mod connection;
mod control;
mod dialect;
mod draft;
mod evaluate;
mod forms;
mod lexer;
mod literals;
mod lookup;
mod lower;
mod network;
mod operator;
mod pattern;
mod prefilter;
mod program;
mod report;
mod settle;
mod state;
mod subject;
mod template;
mod trigger;
mod tx;
mod variable;

pub use collections::Collections;
pub use connection::Connection;
pub use state::Carry;

/// A compiled rule set, ready to evaluate; cheap to share, immutable.
#[derive(Debug)]
pub struct RuleSet {
    program: program::Program,
}

/// One source file of rules.
#[derive(Debug, Clone, Copy)]
pub struct RuleSource<'a> {
    /// The name used in errors.
    pub name: &'a str,
    /// SecLang text.
    pub text: &'a str,
}

/// A mistake in a rule file. Displays as `file:line: what; how to mend it`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct RuleError {
    /// Name of the [`RuleSource`].
    pub file: String,
    /// Line of the directive's first line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

/// How bad a match is; the numbers are the points that CRS gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// 2 points.
    Notice,
    /// 3 points.
    Warning,
    /// 4 points.
    Error,
    /// 5 points: enough to block alone at the default threshold.
    Critical,
}

impl Severity {
    /// Points towards the anomaly threshold.
    pub fn points(self) -> u32 {
        match self {
            Self::Notice => 2,
            Self::Warning => 3,
            Self::Error => 4,
            Self::Critical => 5,
        }
    }
}

/// One rule that matched, with what an operator needs to judge it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleMatch {
    /// The rule's `id`.
    pub id: u32,
    /// The rule's `msg`.
    pub message: String,
    /// The rule's `severity`.
    pub severity: Severity,
    /// The rule's `tag`s.
    pub tags: Vec<String>,
    /// Where it matched; `None` for request-wide variables such as the method or a count.
    pub location: Option<Location>,
    /// The variable that matched as SecLang writes it, its name collapsed by [`crate::shape`]: `ARGS:id`.
    pub variable: String,
    /// What it matched, masked.
    pub fragment: String,
    /// The rule's `logdata`, what it takes from the exchange masked; may be empty.
    pub data: String,
}

/// All rules that matched one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleMatches {
    /// The matches in rule order; one per rule (its first).
    pub matches: Vec<RuleMatch>,
    /// Sum of the points of the matches that count: those whose `block` nothing else decides about.
    pub points: u32,
    /// Set by a rule that denies the request whatever its points are.
    pub denied: Option<Denial>,
}

impl RuleMatches {
    /// Most that [`Self::weight`] gives.
    pub const MOST_WEIGHT: u32 = 100;

    /// How much speaks against the request: its points, or, where nothing but a denial counts (as with anomaly
    /// scoring, whose rules all pass), the severities of what was reported; at most [`Self::MOST_WEIGHT`].
    ///
    /// A rule that denies because of others says nothing of its own.
    pub fn weight(&self) -> u32 {
        let denying = self.denied.as_ref().map(|denial| denial.rule);
        let (own, others): (Vec<_>, Vec<_>) =
            self.matches.iter().partition(|found| Some(found.id) == denying);
        let sum = |found: Vec<&RuleMatch>| found.iter().map(|found| found.severity.points()).sum::<u32>();
        let others = sum(others);
        let reported = if others > 0 { others } else { sum(own) };
        self.points.max(reported).min(Self::MOST_WEIGHT)
    }
}

/// What a rule that says `deny`, `drop` or `redirect` demands; it stops the phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// The `id` of the rule.
    pub rule: u32,
    /// The phase that it ended, 1 to 5.
    pub phase: u8,
    /// The rule's `status`, 403 unless it says otherwise.
    pub status: u16,
    /// What becomes of the request.
    pub manner: Manner,
}

/// How a request is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// It is answered with the status.
    Deny,
    /// The connection is closed.
    Drop,
    /// It is sent to this address.
    Redirect(String),
}

/// One rule, for lists of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleInfo<'a> {
    /// The rule's `id`.
    pub id: u32,
    /// The rule's `msg`; may be empty.
    pub message: &'a str,
    /// The rule's `severity`.
    pub severity: Option<Severity>,
    /// The rule's `tag`s.
    pub tags: &'a [String],
    /// 1 and 2: request; 3 and 4: response; 5: logging.
    pub phase: u8,
    /// Name of its source.
    pub file: &'a str,
    /// Line of its first line, from 1.
    pub line: usize,
    /// The paranoia level that it belongs to, from its tags; 1 without one.
    pub paranoia: u8,
    /// The comment directly above it, its lines joined; may be empty.
    pub description: &'a str,
}

/// Reads the files that rules name (`Include`, `@pmFromFile`, `@ipMatchFromFile`); this crate itself does no I/O.
pub trait RuleFiles {
    /// The files that `path` names, in order; a pattern may give several. `from` is the name of the source that
    /// names them, for relative paths.
    ///
    /// # Errors
    /// Why they cannot be read.
    fn read(&self, from: &str, path: &str) -> Result<Vec<RuleFile>, String>;
}

/// One file that a rule names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFile {
    /// The name used in errors, and as `from` for what the file itself names.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Gives no file at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFiles;

impl RuleFiles for NoFiles {
    fn read(&self, _from: &str, path: &str) -> Result<Vec<RuleFile>, String> {
        Err(format!("`{path}` cannot be read: files are not available here; write the text out"))
    }
}

/// What a rule set is compiled with.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Where the files that rules name come from.
    pub files: &'a dyn RuleFiles,
    /// Names and values of `TX` at the start of every request, such as `("paranoia_level", "2")`.
    pub variables: &'a [(String, String)],
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { files: &NoFiles, variables: &[] }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Options").field("variables", &self.variables).finish_non_exhaustive()
    }
}

/// What rules find in `TX` at the start of every request: the names that the Core Rule Set 3 and 4 read. `inbound` and
/// `outbound` are the points at which a request is rejected and a response withheld.
pub fn initial_variables(paranoia: u8, inbound: u32, outbound: u32) -> Vec<(String, String)> {
    let paranoia = u32::from(paranoia);
    [
        ("paranoia_level", paranoia),
        ("executing_paranoia_level", paranoia),
        ("blocking_paranoia_level", paranoia),
        ("detection_paranoia_level", paranoia),
        ("inbound_anomaly_score_threshold", inbound),
        ("outbound_anomaly_score_threshold", outbound),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_string()))
    .to_vec()
}

/// What an evaluation needs that does not come from the request itself.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// `UNIQUE_ID`.
    pub request_id: &'a str,
    /// What rules remember across requests.
    pub collections: &'a Collections,
    /// How the request came.
    pub connection: Connection,
}

/// What the rules of phases 1 and 2 found, and what those of phases 3 to 5 need.
#[derive(Debug)]
pub struct Evaluation {
    /// The matches.
    pub matches: RuleMatches,
    /// For [`RuleSet::evaluate_response`].
    pub carry: Carry,
}

/// What rules want to see of response bodies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseBody {
    /// Most bytes to hand over.
    pub limit: usize,
    /// Media types, lower case, whose bodies are inspected.
    pub media_types: Vec<String>,
}

impl RuleSet {
    /// Parses and compiles `sources`; returns every mistake at once.
    ///
    /// # Errors
    /// All mistakes of all sources, in order.
    pub fn compile(sources: &[RuleSource<'_>], options: &Options<'_>) -> Result<Self, Vec<RuleError>> {
        compile::compile(sources, options).map(|program| Self { program })
    }

    /// What is not wrong but surely not meant, such as an exclusion that matches nothing.
    pub fn warnings(&self) -> &[RuleError] {
        &self.program.warnings
    }

    /// Evaluates the rules of phases 1 and 2 on one request. Total; time is linear in the size of the values. Pure
    /// but for `context.collections`, which only rules with `initcol` use.
    pub fn evaluate(
        &self,
        context: &Context<'_>,
        request: &RequestView<'_>,
        values: &Values<'_>,
    ) -> Evaluation {
        evaluate::request(&self.program, context, request, values)
    }

    /// What the rules want to see of response bodies; `None` if no rule looks at them.
    pub fn response_body(&self) -> Option<ResponseBody> {
        let settings = &self.program.settings;
        (settings.response_body && self.program.reads_response_body()).then(|| ResponseBody {
            limit: settings.response_limit,
            media_types: settings.response_types.clone(),
        })
    }

    /// Evaluates the rules of phases 3 to 5 on the response to the request that `carry` comes from. If the request
    /// was denied, only those of phase 5.
    pub fn evaluate_response(
        &self,
        context: &Context<'_>,
        carry: Carry,
        response: &ResponseView<'_>,
    ) -> RuleMatches {
        evaluate::response(&self.program, context, carry, response)
    }

    /// Every rule in the order of evaluation.
    pub fn rules(&self) -> impl Iterator<Item = RuleInfo<'_>> {
        self.program.phases.iter().zip(1..).flat_map(|(rules, phase)| {
            rules.iter().map(move |rule| RuleInfo {
                id: rule.id,
                message: rule.message.written(),
                severity: rule.severity,
                tags: &rule.tags,
                phase,
                file: &rule.file,
                line: rule.line,
                paranoia: paranoia(&rule.tags),
                description: &rule.description,
            })
        })
    }
}

/// The paranoia level that `tags` name (`paranoia-level/2`).
fn paranoia(tags: &[String]) -> u8 {
    let level = |tag: &String| tag.strip_prefix("paranoia-level/")?.parse().ok();
    tags.iter().find_map(level).unwrap_or(1)
}

#[cfg(test)]
mod tests;
