//! Texts with macros: `%{tx.score}`, `%{matched_var}`, `%{rule.id}`.

use super::{
    tx::Slot,
    variable::{self, Variable},
};

/// A text in which macros are replaced at evaluation.
#[derive(Debug, Clone, Default)]
pub(super) struct Template {
    parts: Vec<Part>,
    written: String,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Vec<u8>),
    Macro(Macro),
}

/// What a macro stands for.
#[derive(Debug, Clone)]
pub(super) enum Macro {
    /// The value that matched last.
    MatchedVar,
    /// The variable that it belongs to.
    MatchedVarName,
    RuleId,
    RuleMessage,
    /// The number that SecLang gives the severity: 2 is critical.
    RuleSeverity,
    /// The first value of a variable.
    Variable(Variable),
    /// The variable of `TX` in this slot.
    Tx(Slot),
}

impl Template {
    /// Parses `text`; names are checked here, so that a misspelled macro never expands to nothing unnoticed.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("%{") {
            let Some((name, after)) = after.split_once('}') else { break };
            if !before.is_empty() {
                parts.push(Part::Text(before.as_bytes().to_vec()));
            }
            parts.push(Part::Macro(parse_macro(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.as_bytes().to_vec()));
        }
        Ok(Self { parts, written: text.to_owned() })
    }

    /// The text, if there is no macro in it.
    pub(super) fn fixed(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text as the rule has it.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// The macros, to be changed in place.
    pub(super) fn macros_mut(&mut self) -> impl Iterator<Item = &mut Macro> {
        self.parts.iter_mut().filter_map(|part| match part {
            Part::Macro(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The macros.
    pub(super) fn macros(&self) -> impl Iterator<Item = &Macro> {
        self.parts.iter().filter_map(|part| match part {
            Part::Macro(name) => Some(name),
            Part::Text(_) => None,
        })
    }

    /// The text with every macro replaced; `value` appends what a macro stands for.
    pub(super) fn expand(&self, mut value: impl FnMut(&Macro, &mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Macro(name) => value(name, &mut out),
            }
        }
        out
    }
}

fn parse_macro(name: &str) -> Result<Macro, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "matched_var" => Macro::MatchedVar,
        "matched_var_name" => Macro::MatchedVarName,
        "rule.id" => Macro::RuleId,
        "rule.msg" => Macro::RuleMessage,
        "rule.severity" => Macro::RuleSeverity,
        other => {
            let variable = variable::parse_one(&other.replacen('.', ":", 1));
            Macro::Variable(variable.map_err(|error| format!("macro %{{{name}}}: {error}"))?)
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn expands_in_place() {
        let template = Template::parse("a-%{rule.id}-%{matched_var}b").unwrap();
        assert!(template.fixed().is_none());
        let text = template.expand(|name, out| {
            out.extend_from_slice(if matches!(name, Macro::RuleId) { b"7" } else { b"x" });
        });
        assert_eq!(text, b"a-7-xb");
        assert_eq!(Template::parse("50%{").unwrap().fixed(), Some(b"50%{".as_slice()));
        assert!(Template::parse("%{tpyo.x}").unwrap_err().contains("tpyo"));
    }
}
