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
//! A match counts the points of its severity if its rule says `block` or `deny`; `deny` without a severity counts
//! as critical. A rule that says `pass` is not reported.

use serde::{Deserialize, Serialize};

use crate::{
    request::RequestView,
    values::{Location, Values},
};

mod action;
mod compile;
mod evaluate;
mod lexer;
mod network;
mod operator;
mod pattern;
mod prefilter;
mod program;
mod subject;
mod template;
mod variable;

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
}

/// All rules that matched one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleMatches {
    /// The matches in rule order; one per rule (its first).
    pub matches: Vec<RuleMatch>,
    /// Sum of the points of all matches.
    pub points: u32,
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
}

impl RuleSet {
    /// Parses and compiles `sources`; returns every mistake at once.
    ///
    /// # Errors
    /// All mistakes of all sources, in order.
    pub fn compile(sources: &[RuleSource<'_>]) -> Result<Self, Vec<RuleError>> {
        compile::compile(sources).map(|program| Self { program })
    }

    /// Evaluates every rule on one request. Pure and total; time is linear in the size of the values.
    pub fn evaluate(&self, request: &RequestView<'_>, values: &Values<'_>) -> RuleMatches {
        evaluate::evaluate(&self.program, request, values)
    }

    /// Every rule in the order of evaluation.
    pub fn rules(&self) -> impl Iterator<Item = RuleInfo<'_>> {
        self.program.phases.iter().flatten().map(|rule| RuleInfo {
            id: rule.id,
            message: &rule.message,
            severity: rule.severity,
            tags: &rule.tags,
        })
    }
}

#[cfg(test)]
mod tests;
