//! The `ctl` action, and how directives and controls choose rules.

use regex::bytes::Regex;

use super::{
    pattern,
    program::Engine,
    template::Template,
    variable::{self, Variable},
};
use crate::body::Processor;

/// One `ctl`.
#[derive(Debug, Clone)]
pub(super) enum Control {
    /// These rules do nothing for the rest of the exchange.
    RemoveRules(Choice),
    /// They do not look at this variable.
    RemoveTarget(Choice, Variable),
    Engine(Engine),
    /// The body is read this way, whatever its type says.
    Processor(Processor),
    /// Whether the body is looked at.
    BodyAccess(bool),
    /// Only about the logs of ModSecurity.
    Nothing,
}

/// Which rules are meant.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    Ids(Vec<IdRange>),
    /// Some tag matches.
    Tag(Regex),
    /// The message matches.
    Message(Regex),
}

impl Choice {
    /// Parses one or more of `942100` and `942100-942199`.
    pub(super) fn ids(text: &str) -> Result<Self, String> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let ranges = words.map(IdRange::parse).collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() {
            return Err("no rule is named; write at least one id".to_owned());
        }
        Ok(Self::Ids(ranges))
    }

    pub(super) fn tag(text: &str) -> Result<Self, String> {
        Ok(Self::Tag(whole_or_pattern(text)?))
    }

    pub(super) fn message(text: &str) -> Result<Self, String> {
        Ok(Self::Message(whole_or_pattern(text)?))
    }

    /// Whether a rule is meant.
    pub(super) fn chooses(&self, id: u32, tags: &[String], message: Option<&Template>) -> bool {
        match self {
            Self::Ids(ranges) => ranges.iter().any(|range| range.contains(id)),
            Self::Tag(pattern) => tags.iter().any(|tag| pattern.is_match(tag.as_bytes())),
            Self::Message(pattern) => {
                message.is_some_and(|message| pattern.is_match(message.written().as_bytes()))
            }
        }
    }
}

fn whole_or_pattern(text: &str) -> Result<Regex, String> {
    pattern::selector(text.trim_matches(['"', '\'']))
}

/// An inclusive range of rule ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    first: u32,
    last: u32,
}

impl IdRange {
    /// Parses `942100` or `942100-942199`.
    fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is not a rule id; write 942100 or 942100-942199")),
        }
    }

    fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

/// Parses the value of a `ctl` action.
pub(super) fn parse(text: &str) -> Result<Control, String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let value = value.trim();
    let name = name.trim().to_ascii_lowercase();
    Ok(match name.as_str() {
        "ruleremovebyid" => Control::RemoveRules(Choice::ids(value)?),
        "ruleremovebytag" => Control::RemoveRules(Choice::tag(value)?),
        "ruleremovebymsg" => Control::RemoveRules(Choice::message(value)?),
        "ruleremovetargetbyid" | "ruleremovetargetbytag" | "ruleremovetargetbymsg" => {
            let (rules, target) = value
                .split_once(';')
                .ok_or_else(|| format!("ctl:{text} names no target; write {name}=942100;ARGS:name"))?;
            let target = variable::parse_one(target.trim())?;
            let choice = match name.as_str() {
                "ruleremovetargetbyid" => Choice::ids(rules)?,
                "ruleremovetargetbytag" => Choice::tag(rules)?,
                _ => Choice::message(rules)?,
            };
            Control::RemoveTarget(choice, target)
        }
        "ruleengine" => Control::Engine(Engine::parse(value)?),
        "requestbodyprocessor" => Control::Processor(match value.to_ascii_lowercase().as_str() {
            "urlencoded" => Processor::Form,
            "multipart" => Processor::Multipart,
            "json" => Processor::Json,
            "xml" => Processor::Xml,
            _ => return Err(format!("ctl:{text}: write URLENCODED, MULTIPART, JSON or XML")),
        }),
        "requestbodyaccess" => Control::BodyAccess(switch(value)?),
        // `REQUEST_BODY` always holds the body.
        "forcerequestbodyvariable" => {
            switch(value)?;
            Control::Nothing
        }
        "auditengine" | "auditlogparts" | "debugloglevel" => Control::Nothing,
        _ => return Err(format!("ctl:{name} is not supported; remove it")),
    })
}

/// `On` or `Off`.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is not a switch; write On or Off")),
    }
}
