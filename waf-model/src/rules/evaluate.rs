//! Runs a [`Program`] on one request.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    Context, Evaluation, RuleMatch, RuleMatches, Severity,
    action::{Assignment, Change, Control, IdRange},
    operator::{Operator, parse_number},
    prefilter::Sight,
    program::{ChainId, Engine, Link, ProbeId, Program, Rule},
    subject::{Entry, Subject},
    template::{Macro, Template},
    variable::{Collection, Role, Source, Variable},
};
use crate::{
    mask::mask,
    request::RequestView,
    shape,
    values::{Location, Values},
};

/// Evaluates every rule of `program`.
pub(super) fn evaluate(
    program: &Program,
    _context: &Context<'_>,
    request: &RequestView<'_>,
    values: &Values<'_>,
) -> Evaluation {
    Evaluation { matches: matches(program, request, values), carry: Carry::default() }
}

/// What the rules of phases 3 to 5 need of a request.
#[derive(Debug, Default)]
pub struct Carry {}

fn matches(program: &Program, request: &RequestView<'_>, values: &Values<'_>) -> RuleMatches {
    let mut found = RuleMatches::default();
    if program.engine == Engine::Off {
        return found;
    }
    let subject = Subject::new(request, values, program.used, program.layered);
    let mut run = Run::new(program, &subject);
    for rules in &program.phases {
        let mut next = 0;
        while let Some(rule) = rules.get(next) {
            next += 1;
            let Some(hit) = run.rule(rule) else { continue };
            next = rule.skip_to.unwrap_or(next).max(next);
            if let Some(severity) = rule.counts {
                found.matches.push(RuleMatch {
                    id: rule.id,
                    message: rule.message.clone(),
                    severity,
                    tags: rule.tags.clone(),
                    location: hit.location,
                    variable: hit.variable,
                    fragment: mask(&hit.fragment),
                });
            }
        }
    }
    if program.engine == Engine::On {
        found.points = found.matches.iter().map(|found| found.severity.points()).sum();
    }
    found
}

/// Where and what a rule matched.
#[derive(Debug, Default)]
struct Hit {
    location: Option<Location>,
    variable: String,
    fragment: Vec<u8>,
}

/// A text after some transformation chain; texts that the chain does not change share one.
struct Form<'s> {
    bytes: Cow<'s, [u8]>,
    sight: Sight,
}

/// The texts of one probe.
struct Prepared {
    /// Indices of the entry and of the form.
    candidates: Vec<(usize, usize)>,
    /// What the texts allow together.
    sight: Sight,
}

struct Run<'p, 's, 'a> {
    program: &'p Program,
    subject: &'s Subject<'a>,
    forms: Vec<Form<'s>>,
    /// The form of text t after chain c is at c × texts + t, plus one; 0 is not known yet.
    form_of: Vec<u32>,
    prepared: Vec<Option<Prepared>>,
    /// For shared chains what all texts allow together.
    overall: Vec<Option<Sight>>,
    tx: BTreeMap<Vec<u8>, Vec<u8>>,
    removed: Vec<IdRange>,
    removed_targets: Vec<(IdRange, &'p Variable)>,
    /// Names and texts that the link before matched, then those of this one.
    before: Vec<(String, Vec<u8>)>,
    matched: Vec<(String, Vec<u8>)>,
}

impl<'p, 's, 'a> Run<'p, 's, 'a> {
    fn new(program: &'p Program, subject: &'s Subject<'a>) -> Self {
        Self {
            program,
            subject,
            forms: Vec::with_capacity(subject.texts.len()),
            form_of: vec![0; subject.texts.len() * program.chains.len()],
            prepared: program.probes.iter().map(|_| None).collect(),
            overall: program.chains.iter().map(|_| None).collect(),
            tx: BTreeMap::new(),
            removed: Vec::new(),
            removed_targets: Vec::new(),
            before: Vec::new(),
            matched: Vec::new(),
        }
    }

    /// The first hit of the rule's first link, if all its links match.
    fn rule(&mut self, rule: &'p Rule) -> Option<Hit> {
        if self.removed.iter().any(|range| range.contains(rule.id)) {
            return None;
        }
        self.matched.clear();
        let mut links = rule.links.iter();
        let hit = self.link(rule, links.next()?)?;
        for link in links {
            self.link(rule, link)?;
        }
        Some(hit)
    }

    fn link(&mut self, rule: &'p Rule, link: &'p Link) -> Option<Hit> {
        if link.test.is_none() {
            self.act(rule, link);
            return Some(Hit::default());
        }
        std::mem::swap(&mut self.before, &mut self.matched);
        self.matched.clear();
        let mut first = None;
        for (index, probe) in link.probes.iter().enumerate() {
            if self.ruled_out(link, *probe) {
                continue;
            }
            self.prepare(*probe);
            self.direct(rule, link, index, &mut first);
            if first.is_some() && !link.every {
                return first;
            }
        }
        for variable in &link.computed {
            self.computed(rule, link, variable, &mut first);
        }
        first
    }

    /// Whether no text of the request can match the link, seen without collecting those of the probe.
    fn ruled_out(&mut self, link: &Link, probe: ProbeId) -> bool {
        let Some(probe) = self.program.probes.get(probe) else { return true };
        if link.pattern.is_none() || !self.program.chains.get(probe.chain).is_some_and(|chain| chain.shared) {
            return false;
        }
        if self.overall.get(probe.chain).is_some_and(Option::is_none) {
            let mut all = Sight::default();
            for text in 0..self.subject.texts.len() {
                if let Some(form) = self.form(probe.chain, text).and_then(|form| self.forms.get(form)) {
                    all.merge(&form.sight);
                }
            }
            if let Some(overall) = self.overall.get_mut(probe.chain) {
                *overall = Some(all);
            }
        }
        let overall = self.overall.get(probe.chain).and_then(Option::as_ref);
        overall.is_some_and(|overall| !possible(link, overall))
    }

    /// Tests the texts of one probe of the link.
    fn direct(
        &mut self,
        rule: &'p Rule,
        link: &'p Link,
        index: usize,
        first: &mut Option<Hit>,
    ) -> Option<()> {
        let (earlier, rest) = link.probes.split_at_checked(index)?;
        let probe = *rest.first()?;
        let test = link.test.as_ref()?;
        let prepared = self.prepared.get(probe)?.as_ref()?;
        if !possible(link, &prepared.sight) {
            return None;
        }
        for index in 0..prepared.candidates.len() {
            let (entry_index, form_index) = *self.prepared.get(probe)?.as_ref()?.candidates.get(index)?;
            let form = self.forms.get(form_index)?;
            if !possible(link, &form.sight) {
                continue;
            }
            // Under `multiMatch` a step that changed nothing was seen before.
            let seen = |probe: &ProbeId| {
                let prepared = self.prepared.get(*probe).and_then(Option::as_ref);
                prepared.is_some_and(|other| other.candidates.contains(&(entry_index, form_index)))
            };
            if earlier.iter().any(seen) {
                continue;
            }
            let entry = self.subject.entries.get(entry_index)?;
            let untargeted = |(range, variable): &(IdRange, &Variable)| {
                range.contains(rule.id) && variable.selects(entry.source, entry.name)
            };
            if self.removed_targets.iter().any(untargeted) {
                continue;
            }
            let found = test.operator.find(&form.bytes, |template| self.expand(template, rule));
            let range = match (found, test.negated) {
                (Some(range), false) => range,
                (None, true) => 0..form.bytes.len(),
                _ => continue,
            };
            let fragment = form.bytes.get(range).unwrap_or_default();
            let captured = captures(link, &test.operator, &form.bytes, fragment);
            first.get_or_insert_with(|| Hit {
                location: entry.location,
                variable: name_of(entry),
                fragment: fragment.to_vec(),
            });
            if !link.every {
                self.act(rule, link);
                return Some(());
            }
            let (name, bytes) = (name_of(entry), form.bytes.to_vec());
            self.matched(rule, link, name, bytes, captured);
        }
        Some(())
    }

    /// Tests a count or variables that rules set.
    fn computed(
        &mut self,
        rule: &'p Rule,
        link: &'p Link,
        variable: &'p Variable,
        first: &mut Option<Hit>,
    ) -> Option<()> {
        let test = link.test.as_ref()?;
        for (name, value) in self.compute(variable) {
            let bytes = self.transformed(link.chain, value);
            let found = test.operator.find(&bytes, |template| self.expand(template, rule));
            let range = match (found, test.negated) {
                (Some(range), false) => range,
                (None, true) => 0..bytes.len(),
                _ => continue,
            };
            let fragment = bytes.get(range).unwrap_or_default();
            let captured = captures(link, &test.operator, &bytes, fragment);
            first.get_or_insert_with(|| Hit {
                location: None,
                variable: name.clone(),
                fragment: fragment.to_vec(),
            });
            self.matched(rule, link, name, bytes, captured);
        }
        Some(())
    }

    /// Names and values of a count or of variables that rules set.
    fn compute(&self, variable: &Variable) -> Vec<(String, Vec<u8>)> {
        match (variable.collection, variable.role) {
            (_, Role::Exclusion) => Vec::new(),
            (Collection::Request(_), _) => {
                let selected = |entry: &&Entry<'_>| variable.selects(entry.source, entry.name);
                let count = self.subject.entries.iter().filter(selected).count();
                vec![(variable.text.clone(), count.to_string().into_bytes())]
            }
            (Collection::Matched { .. }, Role::Count) => {
                vec![(variable.text.clone(), self.before.len().to_string().into_bytes())]
            }
            (Collection::Matched { all: true }, Role::Values) => self.before.clone(),
            (Collection::Matched { all: false }, Role::Values) => {
                self.before.last().into_iter().cloned().collect()
            }
            (Collection::Tx, Role::Count) => {
                let count = self.tx.keys().filter(|name| variable.selector.selects(name)).count();
                vec![(variable.text.clone(), count.to_string().into_bytes())]
            }
            (Collection::Tx, Role::Values) => {
                let selected = self.tx.iter().filter(|(name, _)| variable.selector.selects(name));
                selected.map(|(name, value)| (tx_name(name), value.clone())).collect()
            }
        }
    }

    fn transformed(&self, chain: ChainId, value: Vec<u8>) -> Vec<u8> {
        match self.program.chains.get(chain) {
            Some(step) if chain != 0 => {
                let before = self.transformed(step.parent, value);
                step.step.apply(&before).into_owned()
            }
            _ => value,
        }
    }

    /// Remembers a match for macros and does what the rule says.
    fn matched(
        &mut self,
        rule: &'p Rule,
        link: &'p Link,
        name: String,
        bytes: Vec<u8>,
        captured: Vec<Vec<u8>>,
    ) {
        self.matched.push((name, bytes));
        for (index, text) in captured.into_iter().enumerate() {
            self.tx.insert(index.to_string().into_bytes(), text);
        }
        self.act(rule, link);
    }

    fn act(&mut self, rule: &'p Rule, link: &'p Link) {
        for assignment in &link.assignments {
            self.assign(rule, assignment);
        }
        for control in &link.controls {
            match control {
                Control::RemoveRules(range) => self.removed.push(*range),
                Control::RemoveTarget(range, variable) => self.removed_targets.push((*range, variable)),
            }
        }
    }

    fn assign(&mut self, rule: &Rule, assignment: &Assignment) {
        let name = self.expand(&assignment.name, rule).to_ascii_lowercase();
        let number = |text: &[u8]| parse_number(text).unwrap_or(0);
        let old = self.tx.get(&name).map_or(0, |text| number(text));
        let value = match &assignment.change {
            Change::Set(value) => self.expand(value, rule),
            Change::Add(value) => {
                old.saturating_add(number(&self.expand(value, rule))).to_string().into_bytes()
            }
            Change::Subtract(value) => {
                old.saturating_sub(number(&self.expand(value, rule))).to_string().into_bytes()
            }
            Change::Unset => {
                self.tx.remove(&name);
                return;
            }
        };
        self.tx.insert(name, value);
    }

    fn expand(&self, template: &Template, rule: &Rule) -> Vec<u8> {
        template.expand(|name, out| match name {
            Macro::MatchedVar => out.extend(self.last_matched().into_iter().flat_map(|(_, text)| text)),
            Macro::MatchedVarName => {
                out.extend(self.last_matched().into_iter().flat_map(|(name, _)| name.as_bytes()));
            }
            Macro::RuleId => out.extend_from_slice(rule.id.to_string().as_bytes()),
            Macro::RuleMessage => out.extend_from_slice(rule.message.as_bytes()),
            Macro::RuleSeverity => out.extend_from_slice(match rule.severity {
                Some(Severity::Critical) => b"2",
                Some(Severity::Error) => b"3",
                Some(Severity::Warning) => b"4",
                Some(Severity::Notice) => b"5",
                None => b"",
            }),
            Macro::Variable(variable) => self.first_of(variable, out),
        })
    }

    fn last_matched(&self) -> Option<&(String, Vec<u8>)> {
        self.matched.last().or(self.before.last())
    }

    fn first_of(&self, variable: &Variable, out: &mut Vec<u8>) {
        match variable.collection {
            Collection::Tx => {
                let value = self.tx.iter().find(|(name, _)| variable.selector.selects(name));
                out.extend(value.into_iter().flat_map(|(_, value)| value));
            }
            Collection::Matched { .. } => {
                out.extend(self.last_matched().into_iter().flat_map(|(_, text)| text));
            }
            Collection::Request(_) => {
                let selected = |entry: &&Entry<'_>| variable.selects(entry.source, entry.name);
                let entry = self.subject.entries.iter().find(selected);
                let text = entry.and_then(|entry| self.subject.texts.get(entry.layers.start));
                out.extend(text.into_iter().flat_map(|text| text.iter()));
            }
        }
    }

    /// Collects the texts of a probe, once per request.
    fn prepare(&mut self, id: ProbeId) -> Option<()> {
        if self.prepared.get(id)?.is_some() {
            return None;
        }
        let probe = self.program.probes.get(id)?;
        let group = self.program.groups.get(probe.group)?;
        let mut prepared = Prepared { candidates: Vec::new(), sight: Sight::default() };
        for (index, entry) in self.subject.entries.iter().enumerate() {
            if !group.selects(entry.source, entry.name) {
                continue;
            }
            let layers =
                if group.layered { entry.layers.clone() } else { entry.layers.start..entry.layers.start + 1 };
            for text in layers {
                let form = self.form(probe.chain, text)?;
                // Two layers can have the same form.
                if prepared.candidates.last() != Some(&(index, form)) {
                    prepared.candidates.push((index, form));
                    prepared.sight.merge(&self.forms.get(form)?.sight);
                }
            }
        }
        *self.prepared.get_mut(id)? = Some(prepared);
        Some(())
    }

    /// The form of a text after a chain, computed at most once per request.
    fn form(&mut self, chain: ChainId, text: usize) -> Option<usize> {
        let place = chain * self.subject.texts.len() + text;
        if let Some(known) = self.form_of.get(place).and_then(|known| known.checked_sub(1)) {
            return usize::try_from(known).ok();
        }
        let (index, bytes) = if chain == 0 {
            (self.forms.len(), Some(Cow::Borrowed(&**self.subject.texts.get(text)?)))
        } else {
            let step = self.program.chains.get(chain)?;
            let parent = self.form(step.parent, text)?;
            match step.step.apply(&self.forms.get(parent)?.bytes) {
                Cow::Borrowed(_) => (parent, None),
                Cow::Owned(bytes) => (self.forms.len(), Some(Cow::Owned(bytes))),
            }
        };
        if let Some(bytes) = bytes {
            let sight = self.program.prefilter.look(&bytes);
            self.forms.push(Form { bytes, sight });
        }
        *self.form_of.get_mut(place)? = u32::try_from(index + 1).ok()?;
        Some(index)
    }
}

/// Whether a text with this sight can match the link.
fn possible(link: &Link, sight: &Sight) -> bool {
    link.pattern.is_none_or(|pattern| sight.allows(pattern))
        && link.masks.iter().all(|mask| mask & sight.mask != 0)
}

/// What `capture` puts into `TX:0` and the following ones.
fn captures(link: &Link, operator: &Operator, text: &[u8], fragment: &[u8]) -> Vec<Vec<u8>> {
    /// As many as ModSecurity keeps.
    const MOST: usize = 10;
    match operator {
        _ if !link.capture => Vec::new(),
        Operator::Pattern(regex) => regex
            .captures(text)
            .map(|found| {
                found
                    .iter()
                    .take(MOST)
                    .map(|group| group.map_or_else(Vec::new, |g| g.as_bytes().to_vec()))
                    .collect()
            })
            .unwrap_or_default(),
        _ => vec![fragment.to_vec()],
    }
}

fn tx_name(name: &[u8]) -> String {
    format!("TX:{}", String::from_utf8_lossy(name))
}

/// The variable as SecLang writes it, its name shaped: what does not look like a name is a value in disguise.
fn name_of(entry: &Entry<'_>) -> String {
    let variable = match entry.source {
        Source::Query | Source::Body => "ARGS",
        Source::QueryName | Source::BodyName => "ARGS_NAMES",
        Source::Xml => "XML",
        Source::Header => "REQUEST_HEADERS",
        Source::HeaderName => "REQUEST_HEADERS_NAMES",
        Source::Cookie => "REQUEST_COOKIES",
        Source::CookieName => "REQUEST_COOKIES_NAMES",
        Source::FileName => "FILES",
        Source::FileField => "FILES_NAMES",
        Source::Segment => "PATH_SEGMENTS",
        Source::Uri => "REQUEST_URI",
        Source::UriRaw => "REQUEST_URI_RAW",
        Source::Path => "REQUEST_FILENAME",
        Source::Basename => "REQUEST_BASENAME",
        Source::QueryString => "QUERY_STRING",
        Source::Method => "REQUEST_METHOD",
        Source::Protocol => "REQUEST_PROTOCOL",
        Source::Line => "REQUEST_LINE",
        Source::RawBody => "REQUEST_BODY",
        Source::Address => "REMOTE_ADDR",
        Source::Finding => "FINDINGS",
    };
    if entry.name.is_empty() {
        return variable.to_owned();
    }
    format!("{variable}:{}", shape::name(entry.name))
}
