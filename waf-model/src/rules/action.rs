//! The `ACTIONS` part of a rule.

use super::{
    Severity,
    control::{self, Control},
    lexer::excerpt,
    template::Template,
    variable::Store,
};
use crate::decode::Transformation;

/// What a match means for the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disruption {
    /// Only its other actions happen.
    Pass,
    /// Whatever `SecDefaultAction` says; counts by severity if that says nothing.
    Block,
    Deny,
    Drop,
    Redirect(String),
    /// Nothing more is looked at.
    Allow(Reach),
}

/// How far `allow` reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All phases but the last.
    All,
    /// The phases of the request.
    Request,
    Phase,
}

/// All actions of one directive.
#[derive(Debug, Clone, Default)]
pub(super) struct Actions {
    pub(super) id: Option<u32>,
    pub(super) phase: Option<u8>,
    pub(super) message: Option<Template>,
    pub(super) data: Option<Template>,
    pub(super) severity: Option<Severity>,
    pub(super) status: Option<u16>,
    pub(super) tags: Vec<String>,
    /// `log` or `nolog`, whichever came last.
    pub(super) log: Option<bool>,
    pub(super) disruption: Option<Disruption>,
    pub(super) transformations: Vec<Transformation>,
    /// `t:none` was given: transformations of `SecDefaultAction` do not apply.
    pub(super) own_transformations: bool,
    pub(super) capture: bool,
    pub(super) multi_match: bool,
    pub(super) chain: bool,
    pub(super) skip: Option<Skip>,
    pub(super) assignments: Vec<Assignment>,
    pub(super) controls: Vec<Control>,
}

/// Which rules a match leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Skip {
    /// So many of the rules below.
    Count(usize),
    /// Those above this marker.
    To(String),
}

/// A collection that rules write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Tx,
    Store(Store),
}

/// One `setvar`, `initcol` or `expirevar`.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    pub(super) target: Target,
    /// The name within the collection.
    pub(super) name: Template,
    pub(super) change: Change,
}

/// What an assignment does.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Set(Template),
    Add(Template),
    Subtract(Template),
    Unset,
    /// Binds the collection to the record of this key.
    Open(Template),
    /// Unset in so many seconds.
    Expire(Template),
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
            "msg" => self.message = Some(Template::parse(needed()?)?),
            "logdata" => self.data = Some(Template::parse(value.unwrap_or_default())?),
            "tag" => self.tags.push(needed()?.to_owned()),
            "severity" => self.severity = severity(needed()?)?,
            "status" => {
                let text = needed()?;
                let code = text.parse().ok().filter(|code| (100..=599).contains(code));
                self.status =
                    Some(code.ok_or_else(|| format!("status `{text}` is not a number from 100 to 599"))?);
            }
            "t" => self.transformation(needed()?)?,
            "pass" => self.disruption = Some(Disruption::Pass),
            "block" => self.disruption = Some(Disruption::Block),
            "deny" => self.disruption = Some(Disruption::Deny),
            "drop" => self.disruption = Some(Disruption::Drop),
            "redirect" => self.disruption = Some(Disruption::Redirect(needed()?.to_owned())),
            "allow" => {
                self.disruption =
                    Some(Disruption::Allow(match value.map(str::to_ascii_lowercase).as_deref() {
                        None | Some("") => Reach::All,
                        Some("phase") => Reach::Phase,
                        Some("request") => Reach::Request,
                        Some(other) => {
                            return Err(format!(
                                "allow:{other} is unknown; write allow, allow:phase or allow:request"
                            ));
                        }
                    }));
            }
            "capture" => self.capture = true,
            "multimatch" => self.multi_match = true,
            "chain" => self.chain = true,
            "skipafter" => self.skip = Some(Skip::To(needed()?.to_owned())),
            "skip" => {
                let text = needed()?;
                let count = text.parse().map_err(|_| format!("skip:{text} is not a number; write skip:1"))?;
                self.skip = Some(Skip::Count(count));
            }
            "setvar" => self.assignments.push(assignment(needed()?)?),
            "initcol" => self.assignments.push(open(needed()?)?),
            "expirevar" => self.assignments.push(expire(needed()?)?),
            "setsid" => self.assignments.push(open(&format!("session={}", needed()?))?),
            "setuid" => self.assignments.push(open(&format!("user={}", needed()?))?),
            "ctl" => self.controls.push(control::parse(needed()?)?),
            "log" => self.log = Some(true),
            "nolog" => self.log = Some(false),
            // The gateway writes one kind of log, in which every value is masked anyway.
            "auditlog" | "noauditlog" => {}
            "rev"
            | "ver"
            | "maturity"
            | "accuracy"
            | "sanitisematched"
            | "sanitisematchedbytes"
            | "sanitisearg"
            | "sanitiserequestheader"
            | "sanitiseresponseheader" => {}
            _ => return Err(format!("action `{name}` is not supported; remove it")),
        }
        Ok(())
    }

    fn transformation(&mut self, text: &str) -> Result<(), String> {
        let found = Transformation::from_name(text).ok_or_else(|| {
            format!("transformation `{text}` is unknown; check the spelling or remove t:{text}")
        })?;
        if found == Transformation::None {
            self.own_transformations = true;
            self.transformations.clear();
        } else {
            self.transformations.push(found);
        }
        Ok(())
    }

    /// Takes over what `update` says (`SecRuleUpdateActionById`).
    pub(super) fn update(&mut self, update: Self) {
        self.message = update.message.or(self.message.take());
        self.data = update.data.or(self.data.take());
        self.severity = update.severity.or(self.severity);
        self.status = update.status.or(self.status);
        self.log = update.log.or(self.log);
        self.disruption = update.disruption.or(self.disruption.take());
        self.skip = update.skip.or(self.skip.take());
        if update.own_transformations {
            self.own_transformations = true;
            self.transformations.clear();
        }
        self.transformations.extend(update.transformations);
        self.tags.extend(update.tags);
        self.assignments.extend(update.assignments);
        self.controls.extend(update.controls);
        self.capture |= update.capture;
        self.multi_match |= update.multi_match;
    }
}

fn phase(text: &str) -> Result<u8, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" => Ok(1),
        "2" | "request" => Ok(2),
        "3" => Ok(3),
        "4" | "response" => Ok(4),
        "5" | "logging" => Ok(5),
        _ => Err(format!("`{text}` is not a phase; write a number from 1 to 5")),
    }
}

/// `None` for what is worth a line in a log but no points.
fn severity(text: &str) -> Result<Option<Severity>, String> {
    match text.to_ascii_lowercase().as_str() {
        "emergency" | "alert" | "critical" | "0" | "1" | "2" => Ok(Some(Severity::Critical)),
        "error" | "3" => Ok(Some(Severity::Error)),
        "warning" | "4" => Ok(Some(Severity::Warning)),
        "notice" | "5" => Ok(Some(Severity::Notice)),
        "info" | "debug" | "6" | "7" => Ok(None),
        _ => Err(format!("severity `{text}` is unknown; write CRITICAL, ERROR, WARNING or NOTICE")),
    }
}

/// The collection and the name of `tx.score`.
fn target<'a>(action: &str, text: &'a str) -> Result<(Target, &'a str), String> {
    let (collection, name) = text.split_once('.').unwrap_or((text, ""));
    let target = match collection.trim() {
        tx if tx.eq_ignore_ascii_case("tx") => Some(Target::Tx),
        other => Store::named(other).map(Target::Store),
    };
    target.filter(|_| !name.is_empty()).map(|target| (target, name)).ok_or_else(|| {
        format!("{action}:{text}: only tx, global, ip, resource, session and user can be set; write {action}:tx.name=value")
    })
}

fn assignment(text: &str) -> Result<Assignment, String> {
    let (unset, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
    let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
    let (target, name) = target("setvar", name)?;
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
    Ok(Assignment { target, name: template(name)?, change })
}

fn open(text: &str) -> Result<Assignment, String> {
    let (name, key) = text.split_once('=').unwrap_or((text, ""));
    let store = Store::named(name).filter(|_| !key.is_empty()).ok_or_else(|| {
        format!("initcol:{text} is not understood; write initcol:ip=%{{remote_addr}} (or global, resource, session, user)")
    })?;
    let change = Change::Open(Template::parse(key.trim())?);
    Ok(Assignment { target: Target::Store(store), name: Template::parse("")?, change })
}

fn expire(text: &str) -> Result<Assignment, String> {
    let (name, seconds) = text.split_once('=').unwrap_or((text, "0"));
    let (target, name) = target("expirevar", name)?;
    if target == Target::Tx {
        return Err(format!("expirevar:{text}: TX ends with the request anyway; remove it"));
    }
    Ok(Assignment {
        target,
        name: Template::parse(name)?,
        change: Change::Expire(Template::parse(seconds.trim())?),
    })
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
        assert_eq!(actions.message.as_ref().and_then(Template::fixed), Some(b"it's, bad".as_slice()));
        assert_eq!(actions.tags, ["a/b", "c"]);
        assert_eq!(actions.transformations, [Transformation::UrlDecodeUni, Transformation::Lowercase]);
        assert!(actions.capture && actions.own_transformations && !actions.chain);
        assert!(matches!(
            actions.assignments.as_slice(),
            [Assignment { change: Change::Add(_), .. }, Assignment { change: Change::Unset, .. }]
        ));
        assert!(matches!(actions.controls.as_slice(), [Control::RemoveTarget(_, _)]));
    }

    #[test]
    fn every_mistake_is_reported() {
        let mistakes =
            parse("id:x,phase:6,t:rot13,severity:MEH,exec:/bin/x,ctl:hashEngine=On,setvar:env.x=1")
                .unwrap_err();
        assert_eq!(mistakes.len(), 7, "{mistakes:#?}");
    }
}
