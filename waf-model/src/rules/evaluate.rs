//! Walks through a [`Program`] for one exchange.

use std::cell::OnceCell;

use super::{
    Context, Denial, Evaluation, Manner, RuleMatches,
    action::{Disruption, Reach},
    forms::{Candidate, Forms},
    operator::{Operator, Test},
    program::{Command, Computed, Effect, Engine, Gate, Link, Place, Program, Put, Rule},
    report::{self, Hit},
    state::{Carry, Facts, Kept, State},
    subject::Subject,
    template::Template,
    tx::{Datum, number},
    variable::{Collection, Role, Source, Sources, Store, Variable},
};
use crate::{
    body, extract,
    request::{BodyExtent, RequestView, ResponseView},
    values::{Limits, Values},
};

/// As many texts as ModSecurity captures.
const MOST_CAPTURES: usize = 10;
/// Most matches that a link remembers for `MATCHED_VARS`.
const MOST_MATCHED: usize = 1000;

/// Evaluates the rules of phases 1 and 2.
pub(super) fn request(
    program: &Program,
    context: &Context<'_>,
    request: &RequestView<'_>,
    values: &Values<'_>,
) -> Evaluation {
    let forced = OnceCell::new();
    let subject = Subject::new(program.sources(0), program.layered);
    let mut run =
        Run::new(program, context, State::new(program, context.now_ms), Forms::new(program, 0, subject));
    run.state.processor = body::processor(request);
    run.state.facts = Facts::of(request, values);
    let natural = run.state.processor;
    run.forms.subject.push_head(request, values, context);
    run.phase(0);
    if run.state.body_access {
        let processor = run.state.processor;
        let values = if processor == natural {
            values
        } else {
            forced.get_or_init(|| {
                processor.map_or_else(Values::default, |processor| {
                    extract::forced_body(request, processor, &Limits::default())
                })
            })
        };
        run.forms.subject.push_body(request, values, processor);
    }
    run.phase(1);
    run.state.keep(program.used_late(), &run.forms.subject);
    let Run { found, state, forms, .. } = run;
    forms.finish();
    Evaluation { matches: found, carry: Carry(Some(Box::new(state))) }
}

/// Evaluates the rules of phases 3 to 5.
pub(super) fn response(
    program: &Program,
    context: &Context<'_>,
    carry: Carry,
    response: &ResponseView<'_>,
) -> RuleMatches {
    let Some(mut state) = carry.0 else { return RuleMatches::default() };
    let kept = std::mem::take(&mut state.kept);
    let mut subject = Subject::new(program.used_late(), program.layered);
    for Kept { source, name, location, text } in &kept {
        subject.push_kept(*source, name.as_slice().into(), *location, text.as_slice().into());
    }
    let mut run = Run::new(program, context, *state, Forms::new(program, 1, subject));
    run.state.facts.response_length = response.body.bytes.len();
    run.state.facts.response_cut = response.body.extent == BodyExtent::Truncated;
    run.forms.subject.push_response(response);
    run.phase(2);
    if program.settings.response_body {
        run.forms.subject.push_response_body(response);
    }
    run.phase(3);
    run.phase(4);
    let Run { found, forms, .. } = run;
    forms.finish();
    found
}

/// A name and a text that a link matched.
pub(super) struct Matched {
    pub(super) name: Vec<u8>,
    pub(super) text: Vec<u8>,
}

/// One walk through some phases.
pub(super) struct Run<'p, 'c, 'a> {
    pub(super) program: &'p Program,
    pub(super) context: &'c Context<'c>,
    pub(super) state: State,
    pub(super) forms: Forms<'p, 'a>,
    found: RuleMatches,
    /// What the link before matched, then what this one did.
    pub(super) before: Vec<Matched>,
    pub(super) matched: Vec<Matched>,
    scratch: Vec<Candidate>,
}

impl<'p, 'c, 'a> Run<'p, 'c, 'a> {
    pub(super) fn new(
        program: &'p Program,
        context: &'c Context<'c>,
        state: State,
        forms: Forms<'p, 'a>,
    ) -> Self {
        Self {
            program,
            context,
            state,
            forms,
            found: RuleMatches::default(),
            before: Vec::new(),
            matched: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Runs the rules of one phase, from 0.
    fn phase(&mut self, phase: usize) {
        let program = self.program;
        let last = phase == 4;
        let skipped = match self.state.allowed {
            Some(Reach::All) => true,
            Some(Reach::Request) => phase < 2,
            Some(Reach::Phase) | None => false,
        };
        if !last && (skipped || self.state.denied) {
            return;
        }
        let (Some(rules), Some(gates)) = (program.phases.get(phase), program.gates.get(phase)) else {
            return;
        };
        self.forms.take_in();
        let mut next = if phase == 0 { program.settled } else { 0 };
        while let Some(gate) = gates.get(next) {
            let current = next;
            next += 1;
            if self.state.engine == Engine::Off {
                return;
            }
            if !self.opens(gate) {
                continue;
            }
            let Some(rule) = rules.get(current) else { return };
            let Some(hit) = self.rule(rule) else { continue };
            next = rule.skip_to.unwrap_or(next).max(next);
            if self.conclude(rule, phase, hit) {
                return;
            }
        }
    }

    /// Whether there is anything that the rule behind the gate could match.
    fn opens(&mut self, gate: &Gate) -> bool {
        if gate.sources != Sources::default() && !self.forms.subject.present.meets(gate.sources) {
            return false;
        }
        match gate.pattern {
            Some((chain, pattern)) => self.forms.may_match(chain as usize, pattern as usize),
            None => true,
        }
    }

    /// Reports a match and does what the rule says about the request; whether the phase ends.
    fn conclude(&mut self, rule: &'p Rule, phase: usize, hit: Hit) -> bool {
        if rule.reported
            && let Some(severity) = rule.severity
        {
            self.state.highest_severity = self.state.highest_severity.min(report::severity_number(severity));
            let found = report::describe(self, rule, severity, hit);
            self.found.matches.push(found);
        }
        let on = self.state.engine == Engine::On;
        let manner = match &rule.disruption {
            Disruption::Pass => return false,
            Disruption::Block => {
                if on {
                    self.found.points += rule.severity.map_or(0, super::Severity::points);
                }
                return false;
            }
            Disruption::Allow(reach) => {
                self.state.allowed = Some(*reach);
                return on;
            }
            Disruption::Deny => Manner::Deny,
            Disruption::Drop => Manner::Drop,
            Disruption::Redirect(address) => Manner::Redirect(address.clone()),
        };
        if !on {
            return false;
        }
        self.state.denied = true;
        let phase = u8::try_from(phase + 1).unwrap_or(0);
        self.found.denied.get_or_insert(Denial { rule: rule.id, phase, status: rule.status, manner });
        true
    }

    /// The first hit of the rule's first link, if all its links match.
    pub(super) fn rule(&mut self, rule: &'p Rule) -> Option<Hit> {
        let word = self.state.removed.get(rule.ordinal / 64).copied().unwrap_or(0);
        if word & (1 << (rule.ordinal % 64)) != 0 {
            return None;
        }
        self.matched.clear();
        self.before.clear();
        let mut hit = None;
        for link in &rule.links {
            let found = self.link(rule, link)?;
            hit.get_or_insert(found);
        }
        for command in rule.links.iter().flat_map(|link| &link.controls) {
            self.command(command);
        }
        hit
    }

    fn link(&mut self, rule: &'p Rule, link: &'p Link) -> Option<Hit> {
        let Some(test) = &link.test else {
            self.assign(rule, link);
            return Some(Hit::default());
        };
        if !self.matched.is_empty() {
            std::mem::swap(&mut self.before, &mut self.matched);
            self.matched.clear();
        }
        let mut first = None;
        if let Some(group) = link.group {
            for (index, (chain, pattern)) in link.probes.iter().enumerate() {
                let mut candidates = std::mem::take(&mut self.scratch);
                match pattern {
                    Some(pattern) => self.forms.candidates(*chain, *pattern, &mut candidates),
                    None => self.forms.members(group, *chain, &link.classes, &mut candidates),
                }
                for candidate in &candidates {
                    self.text(rule, link, test, (index, *candidate), &mut first);
                    if first.is_some() && !link.every {
                        break;
                    }
                }
                self.scratch = candidates;
                if first.is_some() && !link.every {
                    return first;
                }
            }
        }
        for variable in &link.computed {
            self.computed(rule, link, test, variable, &mut first);
        }
        first
    }

    /// Tests one text of the exchange.
    fn text(
        &mut self,
        rule: &'p Rule,
        link: &'p Link,
        test: &'p Test,
        (probe, candidate): (usize, Candidate),
        first: &mut Option<Hit>,
    ) -> Option<()> {
        let mask = self.forms.mask(candidate.form);
        if !link.classes.hold(mask) {
            return None;
        }
        // Under `multiMatch` a step that changed nothing was seen before.
        for (chain, _) in link.probes.get(..probe)? {
            if self.forms.form(*chain, candidate.text) == Some(candidate.form) {
                return None;
            }
        }
        let index = self.forms.subject.texts.get(candidate.text)?.entry;
        let entry = self.forms.subject.entries.get(index)?;
        if !self.state.untargeted.is_empty() && self.is_untargeted(rule, entry.source, &entry.name) {
            return None;
        }
        let question = test.id.and_then(|id| Some((self.forms.tag(candidate.form)?, id)));
        if question.is_some_and(|(tag, id)| self.forms.denials().hold(tag, id)) {
            return None;
        }
        let entry = self.forms.subject.entries.get(index)?;
        let bytes = self.forms.bytes(candidate.form);
        let Some(range) = test.find(bytes, |template| self.expand(template, rule)) else {
            let (tag, id) = question?;
            self.forms.denials().note(tag, id);
            return None;
        };
        let fragment = bytes.get(range).unwrap_or_default();
        let captured = match link.capture {
            true => test.operator.captures(bytes, fragment, MOST_CAPTURES),
            false => Vec::new(),
        };
        let matched = link
            .keeps
            .then(|| Matched { name: report::raw_name(entry.source, &entry.name), text: bytes.to_vec() });
        if first.is_none() {
            *first = Some(match rule.reported {
                true => Hit {
                    location: entry.location,
                    variable: report::shown_name(entry.source, &entry.name),
                    fragment: fragment.to_vec(),
                },
                false => Hit::default(),
            });
        }
        self.note(rule, link, matched, captured);
        Some(())
    }

    fn is_untargeted(&self, rule: &Rule, source: Source, name: &[u8]) -> bool {
        self.state
            .untargeted
            .iter()
            .any(|(choice, variable)| self.program.chosen(*choice, rule) && variable.selects(source, name))
    }

    /// Whether a control took out a variable that is no text of the exchange.
    fn is_left_out(&self, rule: &Rule, variable: &Computed) -> bool {
        let (Computed::Tx(_, variable) | Computed::TxCount(_, variable) | Computed::Other(variable)) =
            variable;
        self.state.untargeted.iter().any(|(choice, other)| {
            self.program.chosen(*choice, rule)
                && other.collection == variable.collection
                && other.covers(variable)
        })
    }

    /// Tests a number or what rules set.
    fn computed(
        &mut self,
        rule: &'p Rule,
        link: &'p Link,
        test: &'p Test,
        variable: &'p Computed,
        first: &mut Option<Hit>,
    ) {
        let program = self.program;
        if !self.state.untargeted.is_empty() && self.is_left_out(rule, variable) {
            return;
        }
        match variable {
            // Nearly all of them are a number in a known place.
            Computed::Tx(slot, written) => {
                let Some(datum) = self.state.tx.get(*slot) else { return };
                if let (Operator::Number(compare, operand), 0) = (&test.operator, link.chain) {
                    let value = datum.number(&program.names);
                    let right = operand.value(|template| self.expand(template, rule));
                    if compare.holds(value, right) == test.negated {
                        return;
                    }
                    if is_bare(rule, link) {
                        first.get_or_insert_default();
                        return self.assign(rule, link);
                    }
                }
                let value = datum.bytes(&program.names).into_owned();
                self.value(rule, link, test, || written.text.clone().into_bytes(), value, first);
            }
            Computed::TxCount(slot, written) => {
                let count = usize::from(self.state.tx.get(*slot).is_some());
                self.count(rule, link, test, written, count, first);
            }
            Computed::Other(variable) if variable.role == Role::Count => {
                let count = self.count_of(variable);
                self.count(rule, link, test, variable, count, first);
            }
            Computed::Other(variable) if variable.role == Role::Exclusion => {}
            Computed::Other(variable) => {
                let excluded = |name: &[u8]| {
                    link.computed.iter().any(|other| match other {
                        Computed::Other(other) if other.role == Role::Exclusion => {
                            let start =
                                name.iter().position(|byte| *byte == b':').map_or(0, |colon| colon + 1);
                            other.collection == variable.collection
                                && other.selector.selects(name.get(start..).unwrap_or_default())
                        }
                        _ => false,
                    })
                };
                for Matched { name, text } in self.values_of(variable) {
                    if !excluded(&name) {
                        self.value(rule, link, test, || name, text, first);
                    }
                }
            }
        }
    }

    fn count(
        &mut self,
        rule: &'p Rule,
        link: &'p Link,
        test: &'p Test,
        variable: &Variable,
        count: usize,
        first: &mut Option<Hit>,
    ) {
        if let (Operator::Number(compare, operand), 0) = (&test.operator, link.chain) {
            let right = operand.value(|template| self.expand(template, rule));
            let left = i64::try_from(count).unwrap_or(i64::MAX);
            if compare.holds(left, right) == test.negated {
                return;
            }
            if is_bare(rule, link) {
                first.get_or_insert_default();
                return self.assign(rule, link);
            }
        }
        let value = count.to_string().into_bytes();
        self.value(rule, link, test, || variable.text.clone().into_bytes(), value, first);
    }

    /// Tests one value that is no text of the exchange.
    fn value(
        &mut self,
        rule: &'p Rule,
        link: &'p Link,
        test: &'p Test,
        name: impl FnOnce() -> Vec<u8>,
        value: Vec<u8>,
        first: &mut Option<Hit>,
    ) {
        let bytes = self.transformed(link.chain, value);
        let Some(range) = test.find(&bytes, |template| self.expand(template, rule)) else { return };
        let fragment = bytes.get(range).unwrap_or_default();
        let captured = match link.capture {
            true => test.operator.captures(&bytes, fragment, MOST_CAPTURES),
            false => Vec::new(),
        };
        let wanted = link.keeps || (first.is_none() && rule.reported);
        let name = if wanted { name() } else { Vec::new() };
        if first.is_none() {
            let variable = report::shown(&name);
            *first = Some(Hit { location: None, variable, fragment: fragment.to_vec() });
        }
        let matched = link.keeps.then_some(Matched { name, text: bytes });
        self.note(rule, link, matched, captured);
    }

    fn transformed(&self, chain: usize, value: Vec<u8>) -> Vec<u8> {
        match self.program.chains.get(chain) {
            Some(step) if chain != 0 => {
                let before = self.transformed(step.parent, value);
                step.step.apply(&before).into_owned()
            }
            _ => value,
        }
    }

    /// Remembers a match and does what the rule says for each.
    fn note(&mut self, rule: &'p Rule, link: &'p Link, matched: Option<Matched>, captured: Vec<Vec<u8>>) {
        if let Some(matched) = matched.filter(|_| self.matched.len() < MOST_MATCHED) {
            self.matched.push(matched);
        }
        for (slot, text) in captured.into_iter().enumerate() {
            self.state.tx.set(slot, Some(Datum::Text(text)));
        }
        self.assign(rule, link);
    }

    fn assign(&mut self, rule: &'p Rule, link: &'p Link) {
        for put in &link.puts {
            match &put.place {
                Place::Tx(slot) => {
                    let old = self.state.tx.get(*slot).map_or(0, |old| old.number(&self.program.names));
                    let value = self.datum(rule, put, old);
                    self.state.tx.set(*slot, value);
                }
                Place::TxNamed(name) => {
                    let name = self.expand(name, rule);
                    let names = &self.program.names;
                    let old = self.state.tx.named(names, &name).map_or(0, |old| old.number(names));
                    let value = self.datum(rule, put, old);
                    self.state.tx.set_named(names, &name, value);
                }
                Place::Store(store, name) => {
                    self.remember(rule, *store, name, put);
                }
            }
        }
    }

    /// The new value of a variable whose number is `old`.
    fn datum(&self, rule: &Rule, put: &Put, old: i64) -> Option<Datum> {
        let amount = |template| number(&self.expand(template, rule));
        Some(match &put.effect {
            Effect::SetFixed(text) => Datum::Fixed(*text),
            Effect::Set(value) => Datum::Text(self.expand(value, rule)),
            Effect::AddFixed(more) => Datum::Number(old.saturating_add(*more)),
            Effect::Add(more) => Datum::Number(old.saturating_add(amount(more))),
            Effect::Subtract(less) => Datum::Number(old.saturating_sub(amount(less))),
            Effect::Unset | Effect::Open(_) | Effect::Expire(_) => return None,
        })
    }

    /// Changes a collection that outlives the request.
    fn remember(&mut self, rule: &Rule, store: Store, name: &Template, put: &Put) -> Option<()> {
        if let Effect::Open(key) = &put.effect {
            let key = self.expand(key, rule);
            *self.state.keys.get_mut(store as usize)? = Some(key);
            return None;
        }
        let key = self.state.keys.get(store as usize)?.as_deref()?;
        let name = self.expand(name, rule);
        let (now_ms, collections) = (self.context.now_ms, self.context.collections);
        if let Effect::Expire(seconds) = &put.effect {
            let seconds = u64::try_from(number(&self.expand(seconds, rule))).unwrap_or(0);
            collections.expire((store, key, &name), now_ms.saturating_add(seconds.saturating_mul(1000)));
            return None;
        }
        let timeout_ms = self.program.settings.collection_timeout.saturating_mul(1000);
        collections.change((store, key, &name), now_ms, timeout_ms, |old| {
            let value = self.datum(rule, put, old.map_or(0, number))?;
            Some(value.bytes(&self.program.names).into_owned())
        });
        None
    }

    fn command(&mut self, command: &'p Command) {
        match command {
            Command::RemoveRules(choice) => {
                self.state.removed.resize(self.program.rules.div_ceil(64), 0);
                let bits = self.program.choices.get(*choice).into_iter().flatten();
                for (word, more) in self.state.removed.iter_mut().zip(bits) {
                    *word |= more;
                }
            }
            Command::RemoveTarget(choice, variable) => {
                self.state.untargeted.push((*choice, variable.clone()));
            }
            Command::Engine(engine) => self.state.engine = *engine,
            Command::Processor(processor) => self.state.processor = Some(*processor),
            Command::BodyAccess(access) => self.state.body_access = *access,
        }
    }

    /// The number of values of a variable.
    fn count_of(&self, variable: &Variable) -> usize {
        match variable.collection {
            Collection::Texts(sources) => {
                let subject = &self.forms.subject;
                let runs = subject.runs.iter().filter(|(source, _)| sources.contains(*source));
                let entries =
                    runs.flat_map(|(_, range)| subject.entries.get(range.clone()).unwrap_or_default());
                entries.filter(|entry| variable.selector.selects(&entry.name)).count()
            }
            _ => self.values_of(variable).len(),
        }
    }
}

/// Whether nobody wants to know what a link matched, only that it did.
fn is_bare(rule: &Rule, link: &Link) -> bool {
    !rule.reported && !link.keeps && !link.capture
}
