//! Which rules are in force on which route: sets by name, paranoia, thresholds and exclusions, compiled once for
//! each distinct combination.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use waf_model::rules::{Options, RuleError, RuleSet, RuleSource, initial_variables};

use super::{
    compile::Compiler,
    mistakes::Collector,
    raw::{RawExclusion, RawId, RawIds, RawRouteWaf, RawRules, RawToggle, RawWaf},
};
use crate::rules::{
    BUILT_IN, BUILT_IN_NAME, Rules,
    files::{self, DiskFiles},
};

/// The name of the files of `waf.rules.files`.
const FILES: &str = "files";

/// Points at which rules withhold a response, unless the configuration says otherwise: what the Core Rule Set does.
const OUTBOUND_THRESHOLD: u32 = 4;

/// Everything that makes the rules of one route differ from those of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Plan {
    /// Names of the rule sets, in order.
    pub(super) sets: Vec<String>,
    /// Paranoia level, 1 to 4.
    pub(super) paranoia: u8,
    /// Points at which rules reject a request.
    pub(super) inbound_threshold: u32,
    /// Points at which rules withhold a response.
    pub(super) outbound_threshold: u32,
    /// What is excluded.
    exclusions: Vec<Exclusion>,
}

/// One exclusion: where the configuration has it, and the SecLang directive that says the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Exclusion {
    path: String,
    directive: String,
}

/// What was read and compiled so far.
#[derive(Debug, Default)]
pub(super) struct Plans {
    /// Name and text of the files of each set; the built-in one is not among them.
    sets: BTreeMap<String, Vec<(String, String)>>,
    /// Sets in force on routes that name none.
    default: Vec<String>,
    compiled: BTreeMap<Plan, Arc<Rules>>,
    /// Where rule files are read from.
    pub(super) files: DiskFiles,
}

impl Plans {
    /// What is surely not meant: of `file`, or of the rule files. A top-level exclusion is worth a warning if it
    /// matches nothing on any route.
    pub(super) fn warnings(&self, mistakes: &Collector, file: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut idle: BTreeSet<&str> = BTreeSet::new();
        let mut busy: BTreeSet<&str> = BTreeSet::new();
        for (plan, rules) in &self.compiled {
            let warned: BTreeSet<&str> =
                rules.set.warnings().iter().map(|warning| warning.file.as_str()).collect();
            for exclusion in &plan.exclusions {
                let kind = if warned.contains(exclusion.path.as_str()) { &mut idle } else { &mut busy };
                kind.insert(&exclusion.path);
            }
            let own: BTreeSet<&str> = plan.exclusions.iter().map(|one| one.path.as_str()).collect();
            for warning in rules.set.warnings().iter().filter(|warning| !own.contains(warning.file.as_str()))
            {
                let line = warning.to_string();
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        let idle = idle.difference(&busy).map(|path| {
            let line = mistakes.line(path);
            format!("{file}:{line}: {path}: excludes nothing: no rule in force is meant, or none looks there; correct or remove it")
        });
        let unused =
            self.sets.keys().filter(|name| !self.compiled.keys().any(|plan| plan.sets.contains(name)));
        let unused = unused.map(|name| {
            let path = format!("waf.rule_sets.{name}");
            format!("{file}:{}: {path}: no route uses it, so it was not checked", mistakes.line(&path))
        });
        idle.chain(unused).chain(lines).collect()
    }
}

impl Compiler {
    /// Reads the files of every rule set.
    pub(super) fn find_rule_sets(&mut self, raw: &RawWaf) {
        for (name, patterns) in &raw.rule_sets {
            let path = format!("waf.rule_sets.{name}");
            self.name(&path, name);
            if name == BUILT_IN_NAME {
                self.mistakes
                    .add(&path, "\"builtin\" is the set that comes with the gateway; choose another name");
                continue;
            }
            if patterns.is_empty() {
                self.mistakes.add(&path, "names no file; write [FILE, ...]");
            }
            self.read_set(name, &path, patterns);
        }
        self.plans.default = match &raw.rules {
            RawRules::Names(names) => self.set_names("waf.rules", names),
            RawRules::Parts(parts) => {
                let mut names = Vec::new();
                if parts.builtin != Some(RawToggle::Off) {
                    names.push(BUILT_IN_NAME.to_owned());
                }
                if !parts.files.is_empty() {
                    self.read_set(FILES, "waf.rules.files", &parts.files);
                    names.push(FILES.to_owned());
                }
                names
            }
        };
    }

    fn read_set(&mut self, name: &str, path: &str, patterns: &[String]) {
        let mut texts = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let read = |file: &PathBuf| {
                let file = self.plans.files.open(file)?;
                match String::from_utf8(file.bytes) {
                    Ok(text) => Ok((file.name, text)),
                    Err(_) => Err(format!("`{}` is not text in UTF-8", file.name)),
                }
            };
            let found = files::matching(Path::new(pattern));
            match found.and_then(|files| files.iter().map(read).collect::<Result<Vec<_>, _>>()) {
                Ok(read) => texts.extend(read),
                Err(message) => self.mistakes.add(&format!("{path}[{index}]"), message),
            }
        }
        if self.plans.sets.insert(name.to_owned(), texts).is_some() {
            self.mistakes.add(path, format!("a rule set {name:?} is there already; give this one a name"));
        }
    }

    /// The names that are known; the others are mistakes.
    fn set_names(&mut self, path: &str, names: &[String]) -> Vec<String> {
        let mut good: Vec<String> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let at = format!("{path}[{index}]");
            if name != BUILT_IN_NAME && !self.plans.sets.contains_key(name) {
                let known: Vec<&str> =
                    [BUILT_IN_NAME].into_iter().chain(self.plans.sets.keys().map(String::as_str)).collect();
                let message = format!(
                    "there is no rule set {name:?}; there are: {}; name files in waf.rule_sets",
                    known.join(", ")
                );
                self.mistakes.add(&at, message);
            } else if good.contains(name) {
                self.mistakes.add(&at, format!("{name:?} is in the list already; remove it"));
            } else {
                good.push(name.clone());
            }
        }
        good
    }

    /// What the route at `path` asks for, or else the whole file.
    pub(super) fn rule_plan(&mut self, raw: &RawRouteWaf, path: &str, waf: &RawWaf) -> Plan {
        let path = format!("{path}.waf");
        let sets = match &raw.rules {
            Some(names) => self.set_names(&format!("{path}.rules"), names),
            None => self.plans.default.clone(),
        };
        let inbound = self.at_least_one("waf.inbound_threshold", waf.inbound_threshold, 5);
        let outbound =
            self.at_least_one("waf.outbound_threshold", waf.outbound_threshold, OUTBOUND_THRESHOLD);
        let paranoia = self.paranoia("waf.paranoia", waf.paranoia, 1);
        let mut exclusions = self.exclusions("waf.exclude", &waf.exclude);
        exclusions.extend(self.exclusions(&format!("{path}.exclude"), &raw.exclude));
        Plan {
            sets,
            paranoia: self.paranoia(&format!("{path}.paranoia"), raw.paranoia, paranoia),
            inbound_threshold: self.at_least_one(
                &format!("{path}.inbound_threshold"),
                raw.inbound_threshold,
                inbound,
            ),
            outbound_threshold: self.at_least_one(
                &format!("{path}.outbound_threshold"),
                raw.outbound_threshold,
                outbound,
            ),
            exclusions,
        }
    }

    fn paranoia(&mut self, path: &str, value: Option<u64>, default: u8) -> u8 {
        match value.map(u8::try_from) {
            None => default,
            Some(Ok(level @ 1..=4)) => level,
            Some(_) => {
                self.mistakes.add(path, "is not a paranoia level; write 1, 2, 3 or 4");
                default
            }
        }
    }

    fn exclusions(&mut self, path: &str, raw: &[RawExclusion]) -> Vec<Exclusion> {
        let mut exclusions = Vec::new();
        for (index, raw) in raw.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match directive(raw) {
                Ok(directive) => exclusions.push(Exclusion { path, directive }),
                Err((key, message)) => self.mistakes.add(&format!("{path}{key}"), message),
            }
        }
        exclusions
    }

    /// The rules of `plan`, if they are without mistakes; those of a plan that was compiled before are shared.
    pub(super) fn compile_rules(&mut self, plan: &Plan) -> Option<Arc<Rules>> {
        if let Some(rules) = self.plans.compiled.get(plan) {
            return Some(Arc::clone(rules));
        }
        let mut sources: Vec<RuleSource<'_>> = Vec::new();
        for name in &plan.sets {
            match self.plans.sets.get(name) {
                Some(files) => {
                    sources.extend(files.iter().map(|(name, text)| RuleSource { name, text }));
                }
                None => sources.extend_from_slice(BUILT_IN),
            }
        }
        let exclusions = plan.exclusions.iter();
        sources.extend(exclusions.map(|one| RuleSource { name: &one.path, text: &one.directive }));
        let variables = initial_variables(plan.paranoia, plan.inbound_threshold, plan.outbound_threshold);
        let options = Options { files: &self.plans.files, variables: &variables };
        let set = match RuleSet::compile(&sources, &options) {
            Ok(set) => set,
            Err(mistakes) => {
                for mistake in mistakes {
                    self.add_rule_mistake(plan, mistake);
                }
                return None;
            }
        };
        let rules = Arc::new(Rules::new(set, plan.sets.clone(), plan.paranoia));
        self.plans.compiled.insert(plan.clone(), Arc::clone(&rules));
        Some(rules)
    }

    fn add_rule_mistake(&mut self, plan: &Plan, mistake: RuleError) {
        if plan.exclusions.iter().any(|exclusion| exclusion.path == mistake.file) {
            self.mistakes.add(&mistake.file, mistake.message);
        } else {
            self.mistakes.add_rule(mistake);
        }
    }
}

/// The directive that says what an exclusion says; the error names the key that is wrong.
fn directive(raw: &RawExclusion) -> Result<String, (&'static str, String)> {
    let parameter =
        raw.parameter.as_deref().map(parameter).transpose().map_err(|error| (".parameter", error))?;
    match (&raw.rules, &raw.tag) {
        (Some(ids), None) => {
            let ids = id_list(ids).map_err(|error| (".rules", error))?;
            Ok(match parameter {
                None => format!("SecRuleRemoveById {}", ids.join(" ")),
                // One directive takes one id or range.
                Some(parameter) => ids.iter().fold(String::new(), |mut text, ids| {
                    let _ = writeln!(text, "SecRuleUpdateTargetById {ids} \"!{parameter}\"");
                    text
                }),
            })
        }
        (None, Some(tag)) => {
            let tag = whole_tag(tag).map_err(|error| (".tag", error))?;
            Ok(match parameter {
                None => format!("SecRuleRemoveByTag \"{tag}\""),
                Some(parameter) => format!("SecRuleUpdateTargetByTag \"{tag}\" \"!{parameter}\""),
            })
        }
        _ => Err(("", "names rules by \"rules\" or by \"tag\": write one of them".to_owned())),
    }
}

fn id_list(raw: &RawIds) -> Result<Vec<String>, String> {
    let texts: Vec<String> = match raw {
        RawIds::Id(id) => vec![id.to_string()],
        RawIds::Text(text) => text.split(',').map(|text| text.trim().to_owned()).collect(),
        RawIds::List(list) => list
            .iter()
            .map(|id| match id {
                RawId::Id(id) => id.to_string(),
                RawId::Text(text) => text.trim().to_owned(),
            })
            .collect(),
    };
    if texts.is_empty() {
        return Err("is an empty list; write ids such as 942100 or 942100-942199".to_owned());
    }
    for text in &texts {
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let good = match text.split_once('-') {
            None => number(text).is_some(),
            Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
        };
        if !good {
            return Err(format!("{text:?} is no rule id and no range; write 942100 or 942100-942199"));
        }
    }
    Ok(texts)
}

/// A tag as the pattern that matches it alone.
fn whole_tag(tag: &str) -> Result<String, String> {
    if tag.is_empty() || tag.contains(['"', '\\', '\n', '\r']) {
        return Err(format!("{tag:?} is not a tag; write it as the rules do, such as attack-sqli"));
    }
    let mut pattern = "^".to_owned();
    for c in tag.chars() {
        if !c.is_ascii_alphanumeric() && !matches!(c, '/' | '-' | '_' | ' ' | ':') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('$');
    Ok(pattern)
}

/// One variable as SecLang writes it.
fn parameter(text: &str) -> Result<&str, String> {
    let name = text.split(':').next().unwrap_or_default();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name || text.contains(['"', '|', ',', '\n', '\r']) {
        return Err(format!(
            "{text:?} is not a variable; write ARGS:name, REQUEST_COOKIES:name, REQUEST_HEADERS:name or ARGS"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
