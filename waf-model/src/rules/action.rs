//! The `ACTIONS` part of a rule.

use super::{
    Severity,
    lexer::excerpt,
    template::Template,
    variable::{self, Collection, Variable},
};
use crate::decode::Transformation;

/// What a match means for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disruption {
    /// Only its other actions happen.
    Pass,
    /// Whatever `SecDefaultAction` says; counts by severity.
    Block,
    /// Counts by severity, or as critical if it has none.
    Deny,
}

/// All actions of one directive.
#[derive(Debug, Clone, Default)]
pub(super) struct Actions {
    pub(super) id: Option<u32>,
    pub(super) phase: Option<u8>,
    pub(super) message: Option<String>,
    pub(super) severity: Option<Severity>,
    pub(super) tags: Vec<String>,
    pub(super) disruption: Option<Disruption>,
    pub(super) transformations: Vec<Transformation>,
    /// `t:none` was given: transformations of `SecDefaultAction` do not apply.
    pub(super) own_transformations: bool,
    pub(super) capture: bool,
    pub(super) multi_match: bool,
    pub(super) chain: bool,
    pub(super) skip_after: Option<String>,
    pub(super) assignments: Vec<Assignment>,
    pub(super) controls: Vec<Control>,
}

/// One `setvar`.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    /// The name within `TX`.
    pub(super) name: Template,
    pub(super) change: Change,
}

/// What a `setvar` does.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Set(Template),
    Add(Template),
    Subtract(Template),
    Unset,
}

/// One `ctl`.
#[derive(Debug, Clone)]
pub(super) enum Control {
    /// Rules with an id in this range do nothing for the rest of the request.
    RemoveRules(IdRange),
    /// They do not look at this variable.
    RemoveTarget(IdRange, Variable),
}

/// An inclusive range of rule ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    first: u32,
    last: u32,
}

impl IdRange {
    /// Parses `942100` or `942100-942199`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is not a rule id; write 942100 or 942100-942199")),
        }
    }

    pub(super) fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

/// Parses an action list; every mistake in it is reported.
pub(super) fn parse(text: &str) -> Result<Actions, Vec<String>> {
    let mut actions = Actions::default();
    let mut mistakes = Vec::new();
    for (name, value) in split(text) {
        if let Err(mistake) = actions.take(&name, value.as_deref()) {
            mistakes.push(mistake);
        }
    }
    if mistakes.is_empty() { Ok(actions) } else { Err(mistakes) }
}

impl Actions {
    fn take(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let needed = || {
            let missing = || format!("action `{name}` needs a value; write {name}:…");
            value.filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        match name.to_ascii_lowercase().as_str() {
            "id" => {
                let text = needed()?;
                let id = text.parse().ok().filter(|id| *id > 0);
                self.id =
                    Some(id.ok_or_else(|| format!("id `{text}` is not a number from 1 to 4294967295"))?);
            }
            "phase" => self.phase = Some(phase(needed()?)?),
            "msg" => self.message = Some(needed()?.to_owned()),
            "tag" => self.tags.push(needed()?.to_owned()),
            "severity" => self.severity = Some(severity(needed()?)?),
            "t" => {
                let text = needed()?;
                let found = Transformation::from_name(text).ok_or_else(|| {
                    format!("transformation `{text}` is unknown; check the spelling or remove t:{text}")
                })?;
                if text.eq_ignore_ascii_case("none") {
                    self.own_transformations = true;
                    self.transformations.clear();
                } else {
                    self.transformations.push(found);
                }
            }
            "pass" => self.disruption = Some(Disruption::Pass),
            "block" => self.disruption = Some(Disruption::Block),
            "deny" => self.disruption = Some(Disruption::Deny),
            "capture" => self.capture = true,
            "multimatch" => self.multi_match = true,
            "chain" => self.chain = true,
            "skipafter" => self.skip_after = Some(needed()?.to_owned()),
            "setvar" => self.assignments.push(assignment(needed()?)?),
            "ctl" => self.controls.push(control(needed()?)?),
            // The gateway logs every match with its masked fragment and answers with its own problem document.
            "log" | "nolog" | "auditlog" | "noauditlog" => {}
            "rev" | "ver" | "logdata" | "status" => drop(needed()?),
            _ => return Err(format!("action `{name}` is not supported yet; remove it")),
        }
        Ok(())
    }
}

fn phase(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" => Ok(1),
        "2" | "request" => Ok(2),
        "3" | "4" | "5" | "response" | "logging" => {
            Err(format!("phase {text} is not supported yet; remove the rule (phases 1 and 2 are)"))
        }
        _ => Err(format!("`{text}` is not a phase; write 1 or 2")),
    }
}

fn severity(text: &str) -> Result<Severity, String> {
    match text.to_ascii_lowercase().as_str() {
        "emergency" | "alert" | "critical" | "0" | "1" | "2" => Ok(Severity::Critical),
        "error" | "3" => Ok(Severity::Error),
        "warning" | "4" => Ok(Severity::Warning),
        "notice" | "5" => Ok(Severity::Notice),
        _ => Err(format!("severity `{text}` is not supported; write CRITICAL, ERROR, WARNING or NOTICE")),
    }
}

fn assignment(text: &str) -> Result<Assignment, String> {
    let (unset, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
    let (collection, name) = name.split_once('.').unwrap_or((name, ""));
    if !collection.trim().eq_ignore_ascii_case("tx") || name.is_empty() {
        return Err(format!("setvar:{text}: only tx.* can be set; write setvar:tx.name=value"));
    }
    let template = |text: &str| Template::parse(text.trim());
    let change = match value.map(str::trim) {
        _ if unset => Change::Unset,
        None => Change::Set(template("1")?),
        Some(value) => match value.split_at_checked(1) {
            Some(("+", rest)) => Change::Add(template(rest)?),
            Some(("-", rest)) => Change::Subtract(template(rest)?),
            _ => Change::Set(template(value)?),
        },
    };
    Ok(Assignment { name: template(name)?, change })
}

fn control(text: &str) -> Result<Control, String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name.trim().to_ascii_lowercase().as_str() {
        "ruleremovebyid" => Ok(Control::RemoveRules(IdRange::parse(value)?)),
        "ruleremovetargetbyid" => {
            let (ids, target) = value
                .split_once(';')
                .ok_or_else(|| format!("ctl:{text} names no target; write {name}=942100;ARGS:name"))?;
            let target = variable::parse_one(target.trim())?;
            match target.collection {
                Collection::Request(_) => Ok(Control::RemoveTarget(IdRange::parse(ids)?, target)),
                _ => Err(format!("ctl:{text}: only a part of the request can be removed; name one")),
            }
        }
        _ => Err(format!("ctl:{name} is not supported yet; remove it")),
    }
}

/// Splits `a,b:c,d:'e,f'` into names and values.
fn split(text: &str) -> Vec<(String, Option<String>)> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while chars.peek().is_some() {
        let (mut name, mut value, mut quoted) = (String::new(), None::<String>, false);
        while let Some(c) = chars.next() {
            match (c, &mut value) {
                ('\\', _) if quoted && chars.peek() == Some(&'\'') => {
                    chars.next();
                    value.get_or_insert_default().push('\'');
                }
                ('\'', value) => {
                    quoted = !quoted;
                    value.get_or_insert_default();
                }
                (',', _) if !quoted => break,
                (':', value @ None) => *value = Some(String::new()),
                (c, None) => name.push(c),
                (c, Some(value)) => value.push(c),
            }
        }
        let name = name.trim().to_owned();
        if !name.is_empty() || value.is_some() {
            out.push((name, value.map(|value| value.trim().to_owned())));
        }
    }
    out
}

/// The actions of a directive that must have them, with all mistakes in one text each.
pub(super) fn parse_argument(directive: &str, argument: Option<&String>) -> Result<Actions, Vec<String>> {
    match argument {
        Some(text) => parse(text),
        None => Err(vec![format!("{} has no actions; give at least an id", excerpt(directive))]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_list() {
        let actions = parse(
            "id:7, phase:2,block,t:none,t:urlDecodeUni,t:lowercase,msg:'it\\'s, bad',tag:'a/b',tag:c,\
             severity:'CRITICAL',capture,setvar:'tx.score=+%{tx.critical}',setvar:!tx.old,skipAfter:END,\
             ctl:ruleRemoveTargetById=1-5;ARGS:x,nolog,ver:'x/1'",
        )
        .unwrap();
        assert_eq!((actions.id, actions.phase), (Some(7), Some(2)));
        assert_eq!(actions.message.as_deref(), Some("it's, bad"));
        assert_eq!(actions.tags, ["a/b", "c"]);
        assert_eq!(actions.transformations, [Transformation::UrlDecodeUni, Transformation::Lowercase]);
        assert!(actions.capture && actions.own_transformations && !actions.chain);
        assert!(matches!(
            actions.assignments.as_slice(),
            [Assignment { change: Change::Add(_), .. }, Assignment { change: Change::Unset, .. }]
        ));
        assert!(
            matches!(actions.controls.as_slice(), [Control::RemoveTarget(range, _)] if range.contains(5))
        );
    }

    #[test]
    fn every_mistake_is_reported() {
        let mistakes = parse(
            "id:x,phase:4,t:rot13,severity:MEH,exec:/bin/x,ctl:forceRequestBodyVariable=On,setvar:ip.x=1",
        )
        .unwrap_err();
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
    }
}
