//! Drafts of rules to a [`Program`]: names to places, chains and groups shared, patterns to the prefilters.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    RuleError, Severity,
    action::{Actions, Assignment, Change, Disruption, Skip, Target},
    control::{Choice, Control},
    draft::{Draft, Item, Step},
    literals::Classes,
    operator::{Operand, Operator, Parsed, Test},
    prefilter::{PatternId, Prefilter},
    program::{
        Chain, ChainId, ChoiceId, Command, Computed, Effect, Engine, Gate, Group, GroupId, Link, Membership,
        Place, Program, Put, Rule, Settings, Watch,
    },
    template::{Macro, Template},
    tx::{Datum, Names, Tx, number},
    variable::{Collection, Role, Scalar, Selector, Source, Sources, Variable},
};
use crate::decode::Transformation;

/// Compiles what is left after all directives.
pub(super) fn lower(
    items: Vec<Item>,
    engine: Engine,
    settings: Settings,
    variables: &[(String, String)],
) -> Result<Program, Vec<RuleError>> {
    let mut lowering = Lowering::default();
    // Captures take the first places of `TX`.
    for digit in b'0'..=b'9' {
        lowering.names.slot(&[digit]);
    }
    lowering.place(items);
    let mut initial = Tx::default();
    for (name, value) in variables {
        let value = Datum::Fixed(lowering.names.text(value.as_bytes()));
        initial.set(lowering.names.slot(name.as_bytes()), Some(value));
    }
    initial.reserve(lowering.names.len());
    lowering.finish(engine, settings, initial)
}

#[derive(Default)]
struct Lowering {
    errors: Vec<RuleError>,
    warnings: Vec<RuleError>,
    phases: [Vec<Rule>; 5],
    chains: Vec<Chain>,
    groups: Vec<Group>,
    group_ids: BTreeMap<(String, bool), GroupId>,
    watches: [Vec<Watch>; 2],
    needs: [Vec<Vec<Vec<u8>>>; 2],
    names: Names,
    used: [Sources; 2],
    chosen: Vec<Choice>,
}

/// What the rule as a whole tells its links.
struct Frame<'d> {
    phase: usize,
    default: &'d Actions,
    layered: bool,
    /// Whether what a link matched is read by a later link or by the report, for each link.
    keeps: Vec<bool>,
}

impl Lowering {
    /// Puts every rule into its phase and resolves where it may jump to.
    fn place(&mut self, items: Vec<Item>) {
        let mut jumps = Vec::new();
        let mut markers: BTreeMap<String, Vec<[usize; 5]>> = BTreeMap::new();
        let mut ordinal = 0;
        for item in items {
            let here = [0, 1, 2, 3, 4].map(|phase: usize| self.phases.get(phase).map_or(0, Vec::len));
            match item {
                Item::Marker(name) => markers.entry(name).or_default().push(here),
                Item::Rule(draft) => {
                    let phase = draft.phase;
                    let skip = draft.steps.first().and_then(|step| step.actions.skip.clone());
                    let place = here.get(phase).copied().unwrap_or(0);
                    jumps.extend(skip.map(|skip| (phase, place, skip)));
                    let rule = self.rule(*draft, ordinal);
                    ordinal += 1;
                    if let Some(rules) = self.phases.get_mut(phase) {
                        rules.push(rule);
                    }
                }
            }
        }
        for (phase, place, skip) in jumps {
            let target = match &skip {
                Skip::Count(count) => Some(place + 1 + count),
                Skip::To(name) => {
                    let places = markers.get(name).into_iter().flatten();
                    let mut below =
                        places.filter_map(|places| places.get(phase)).filter(|there| **there > place);
                    below.next().copied()
                }
            };
            let Some(rule) = self.phases.get_mut(phase).and_then(|rules| rules.get_mut(place)) else {
                continue;
            };
            rule.skip_to = target;
            if let (None, Skip::To(name)) = (target, skip) {
                let message = format!("skipAfter:{name}: no SecMarker of that name below; add it");
                self.errors.push(RuleError { file: rule.file.clone(), line: rule.line, message });
            }
        }
    }

    fn rule(&mut self, draft: Draft, ordinal: usize) -> Rule {
        let empty = Actions::default();
        let actions = draft.steps.first().map_or(&empty, |step| &step.actions);
        let default = &draft.default;
        let disruption = match (&actions.disruption, &default.disruption) {
            (Some(Disruption::Block) | None, Some(default)) => default.clone(),
            (Some(own), _) => own.clone(),
            (None, None) => Disruption::Pass,
        };
        let denies = matches!(disruption, Disruption::Deny | Disruption::Drop | Disruption::Redirect(_));
        let first =
            |get: fn(&Actions) -> Option<&Template>| draft.steps.iter().find_map(|step| get(&step.actions));
        let mut message = first(|actions| actions.message.as_ref()).cloned().unwrap_or_default();
        let mut data = first(|actions| actions.data.as_ref()).cloned();
        let severity = draft.steps.iter().find_map(|step| step.actions.severity);
        let logged = actions.log.or(default.log).unwrap_or(true);
        for template in std::iter::once(&mut message).chain(&mut data) {
            self.bind(template, draft.phase);
        }
        let reads = |template: &Template| template.macros().any(reads_match);
        let reported = reads(&message) || data.as_ref().is_some_and(reads);
        let mut keeps = vec![reported; draft.steps.len()];
        let mut later = reported;
        for (keep, step) in keeps.iter_mut().zip(&draft.steps).rev() {
            *keep |= later || step.actions.assignments.iter().any(assignment_reads);
            later |= step_reads(step);
        }
        let frame = Frame { phase: draft.phase, default, layered: draft.layered, keeps };
        let mut tags = actions.tags.clone();
        tags.extend(default.tags.iter().cloned());
        let (status, file, line, id) =
            (actions.status.or(default.status).unwrap_or(403), draft.file.clone(), draft.line, draft.id);
        let description = draft.comment.clone();
        let mut links = Vec::with_capacity(draft.steps.len());
        for (index, step) in draft.steps.into_iter().enumerate() {
            let link = self.link(&frame, index, step, &file, line);
            links.push(link);
        }
        Rule {
            id,
            ordinal,
            message,
            data,
            severity: severity.or(denies.then_some(Severity::Critical)),
            tags,
            reported: logged && (severity.is_some() || denies),
            disruption,
            status,
            links,
            skip_to: None,
            file,
            line,
            description,
        }
    }

    fn link(&mut self, frame: &Frame<'_>, index: usize, step: Step, file: &str, line: usize) -> Link {
        let actions = step.actions;
        let mut transformations = Vec::new();
        if !actions.own_transformations {
            transformations.clone_from(&frame.default.transformations);
        }
        transformations.extend(actions.transformations);
        let chain = self.chain(&transformations);
        let keeps = frame.keeps.get(index).copied().unwrap_or(false);
        let last = index + 1 == frame.keeps.len();
        let repeats =
            |put: &Assignment| !matches!(&put.change, Change::Set(value) if value.fixed().is_some());
        let every = actions.capture || actions.assignments.iter().any(repeats) || (keeps && !last);
        let mut link = Link {
            group: None,
            probes: Vec::new(),
            computed: Vec::new(),
            chain,
            test: None,
            classes: Classes::default(),
            capture: actions.capture,
            puts: actions.assignments.into_iter().map(|put| self.put(put, frame.phase)).collect(),
            controls: Vec::new(),
            every,
            keeps,
        };
        for control in actions.controls {
            if let Some(command) = self.command(control, frame.phase, file, line) {
                link.controls.push(command);
            }
        }
        if let (Some(variables), Some(parsed)) = (step.variables, step.parsed) {
            self.look(frame, &mut link, variables, parsed, actions.multi_match);
        }
        link
    }

    /// Compiles what the link looks at and for.
    fn look(
        &mut self,
        frame: &Frame<'_>,
        link: &mut Link,
        variables: Vec<Variable>,
        parsed: Parsed,
        multi_match: bool,
    ) {
        let Parsed { mut test, needs, .. } = parsed;
        self.bind_test(&mut test, frame.phase);
        variables.iter().for_each(|variable| self.note(variable, frame.phase));
        let (direct, computed) = variables.into_iter().partition::<Vec<_>, _>(|variable| {
            matches!(variable.collection, Collection::Texts(_)) && variable.role != Role::Count
        });
        link.computed = computed.into_iter().map(|variable| self.computed(variable)).collect();
        link.classes = needs.classes;
        if direct.iter().any(|variable| variable.role == Role::Values) {
            let group = self.group(direct, frame.layered);
            let mut steps = vec![link.chain];
            while multi_match && steps.last().is_some_and(|last| *last != 0) {
                let parent =
                    steps.last().and_then(|last| self.chains.get(*last)).map_or(0, |chain| chain.parent);
                steps.push(parent);
            }
            link.group = Some(group);
            link.probes = steps
                .into_iter()
                .map(|chain| (chain, self.watch(frame.phase, &needs.any_of, Watch { group, chain })))
                .collect();
        }
        link.test = Some(test);
    }

    /// Registers a pattern that needs one of `strings`.
    fn watch(&mut self, phase: usize, strings: &[Vec<u8>], watch: Watch) -> Option<PatternId> {
        let stage = stage(phase);
        if strings.is_empty() {
            return None;
        }
        self.watches.get_mut(stage)?.push(watch);
        let needs = self.needs.get_mut(stage)?;
        needs.push(strings.to_vec());
        Some(needs.len() - 1)
    }

    fn computed(&mut self, variable: Variable) -> Computed {
        match (variable.collection, &variable.selector, variable.role) {
            (Collection::Tx, Selector::Name(name), Role::Values) => {
                Computed::Tx(self.names.slot(name.as_bytes()), variable)
            }
            (Collection::Tx, Selector::Name(name), Role::Count) => {
                Computed::TxCount(self.names.slot(name.as_bytes()), variable)
            }
            _ => Computed::Other(variable),
        }
    }

    fn put(&mut self, put: Assignment, phase: usize) -> Put {
        let Assignment { target, mut name, change } = put;
        self.bind(&mut name, phase);
        let place = match (target, name.fixed()) {
            (Target::Tx, Some(name)) => Place::Tx(self.names.slot(name)),
            (Target::Tx, None) => Place::TxNamed(name),
            (Target::Store(store), _) => Place::Store(store, name),
        };
        let mut bound = |mut value: Template| {
            self.bind(&mut value, phase);
            value
        };
        let effect = match change {
            Change::Set(value) => match value.fixed() {
                Some(text) => Effect::SetFixed(self.names.text(text)),
                None => Effect::Set(bound(value)),
            },
            Change::Add(value) => match value.fixed() {
                Some(text) => Effect::AddFixed(number(text)),
                None => Effect::Add(bound(value)),
            },
            Change::Subtract(value) => match value.fixed() {
                Some(text) => Effect::AddFixed(-number(text)),
                None => Effect::Subtract(bound(value)),
            },
            Change::Unset => Effect::Unset,
            Change::Open(key) => Effect::Open(bound(key)),
            Change::Expire(seconds) => Effect::Expire(bound(seconds)),
        };
        Put { place, effect }
    }

    fn command(&mut self, control: Control, phase: usize, file: &str, line: usize) -> Option<Command> {
        let mut choose = |choice: Choice| -> ChoiceId {
            self.chosen.push(choice);
            self.chosen.len() - 1
        };
        let _ = (file, line);
        Some(match control {
            Control::RemoveRules(choice) => Command::RemoveRules(choose(choice)),
            Control::RemoveTarget(choice, variable) => {
                let id = choose(choice);
                self.note(&variable, phase);
                Command::RemoveTarget(id, variable)
            }
            Control::Engine(engine) => Command::Engine(engine),
            Control::Processor(processor) => Command::Processor(processor),
            Control::BodyAccess(access) => Command::BodyAccess(access),
            Control::Nothing => return None,
        })
    }

    fn note(&mut self, variable: &Variable, phase: usize) {
        let sources = match variable.collection {
            Collection::Texts(sources) => sources,
            Collection::Scalar(scalar) => scalar.reads(),
            _ => return,
        };
        if let Some(used) = self.used.get_mut(stage(phase)) {
            used.insert(sources);
        }
    }

    /// Gives the macros of a template their places.
    fn bind(&mut self, template: &mut Template, phase: usize) {
        for name in template.macros() {
            if let Macro::Variable(variable) = name {
                self.note(&variable.clone(), phase);
            }
        }
        for name in template.macros_mut() {
            if let Macro::Variable(Variable {
                collection: Collection::Tx,
                selector: Selector::Name(tx),
                ..
            }) = name
            {
                *name = Macro::Tx(self.names.slot(tx.as_bytes()));
            }
        }
    }

    fn bind_test(&mut self, test: &mut Test, phase: usize) {
        if let Operator::Text(_, template)
        | Operator::Composed(template, _)
        | Operator::Number(_, Operand::Template(template)) = &mut test.operator
        {
            self.bind(template, phase);
        }
    }

    fn chain(&mut self, steps: &[Transformation]) -> ChainId {
        if self.chains.is_empty() {
            self.chains.push(Chain::new(0, None, Transformation::None));
        }
        steps.iter().fold(0, |parent, step| {
            let chain = Chain::new(parent, self.chains.get(parent), *step);
            let known = self.chains.iter().skip(1).position(|known| *known == chain).map(|index| index + 1);
            known.unwrap_or_else(|| {
                self.chains.push(chain);
                self.chains.len() - 1
            })
        })
    }

    fn group(&mut self, mut variables: Vec<Variable>, layered: bool) -> GroupId {
        variables.sort_by(|a, b| a.text.cmp(&b.text));
        variables.dedup_by(|a, b| a.text == b.text);
        let key = variables.iter().map(|variable| variable.text.as_str()).collect::<Vec<_>>().join("|");
        let groups = &mut self.groups;
        *self.group_ids.entry((key, layered)).or_insert_with(|| {
            let (excluded, included): (Vec<_>, Vec<_>) =
                variables.into_iter().partition(|variable| variable.role == Role::Exclusion);
            let sources = |variables: &[Variable]| {
                let mut all = Sources::default();
                for variable in variables {
                    if let Collection::Texts(sources) = variable.collection {
                        all.insert(sources);
                    }
                }
                all
            };
            let touched = sources(&included);
            let (all, partial) = included
                .into_iter()
                .partition::<Vec<Variable>, _>(|variable| matches!(variable.selector, Selector::All));
            groups.push(Group { whole: sources(&all), touched, partial, excluded, layered });
            groups.len() - 1
        })
    }

    /// The rules that each control means; controls that mean none are reported.
    fn choices(&mut self, count: usize) -> Vec<Vec<u64>> {
        let mut silent = BTreeSet::new();
        let mut out = Vec::with_capacity(self.chosen.len());
        for (id, choice) in self.chosen.iter().enumerate() {
            let mut bits = vec![0u64; count.div_ceil(64)];
            for rule in self.phases.iter().flatten() {
                if choice.chooses(rule.id, &rule.tags, Some(&rule.message))
                    && let Some(word) = bits.get_mut(rule.ordinal / 64)
                {
                    *word |= 1 << (rule.ordinal % 64);
                }
            }
            if bits.iter().all(|word| *word == 0) {
                silent.insert(id);
            }
            out.push(bits);
        }
        for rule in self.phases.iter().flatten() {
            for command in rule.links.iter().flat_map(|link| &link.controls) {
                if let Command::RemoveRules(id) | Command::RemoveTarget(id, _) = command
                    && silent.contains(id)
                {
                    let message =
                        format!("rule {}: a ctl of it matches no rule; correct or remove it", rule.id);
                    self.warnings.push(RuleError { file: rule.file.clone(), line: rule.line, message });
                }
            }
        }
        out
    }

    fn gate(&self, rule: &Rule) -> Gate {
        let Some(link) = rule.links.first() else { return Gate::default() };
        let (true, Some(group)) =
            (link.computed.is_empty(), link.group.and_then(|group| self.groups.get(group)))
        else {
            return Gate::default();
        };
        let pattern = match link.probes.as_slice() {
            [(chain, Some(pattern))] => u32::try_from(*chain).ok().zip(u32::try_from(*pattern).ok()),
            _ => None,
        };
        Gate { sources: group.touched, pattern }
    }

    fn finish(mut self, engine: Engine, settings: Settings, initial: Tx) -> Result<Program, Vec<RuleError>> {
        self.chain(&[]);
        let count = self.phases.iter().map(Vec::len).sum();
        let choices = self.choices(count);
        let gates = [0, 1, 2, 3, 4].map(|phase: usize| {
            self.phases
                .get(phase)
                .map_or_else(Vec::new, |rules| rules.iter().map(|rule| self.gate(rule)).collect())
        });
        let watched = [0, 1].map(|stage: usize| {
            let mut watched = vec![vec![0u64; self.groups.len().div_ceil(64)]; self.chains.len() + 1];
            for watch in self.watches.get(stage).into_iter().flatten() {
                for chain in [watch.chain, self.chains.len()] {
                    if let Some(word) = watched.get_mut(chain).and_then(|bits| bits.get_mut(watch.group / 64))
                    {
                        *word |= 1 << (watch.group % 64);
                    }
                }
            }
            watched
        });
        let memberships = Source::ALL.iter().map(|source| Membership::of(*source, &self.groups)).collect();
        let [request, response] = &self.needs;
        match (Prefilter::new(request), Prefilter::new(response)) {
            (Ok(request), Ok(response)) if self.errors.is_empty() => Ok(Program {
                gates,
                phases: self.phases,
                prefilters: [request, response],
                watches: self.watches,
                watched,
                chains: self.chains,
                layered: self.groups.iter().any(|group| group.layered),
                groups: self.groups,
                memberships,
                names: self.names,
                settled: 0,
                initial,
                choices,
                rules: count,
                used: self.used,
                engine,
                settings,
                warnings: self.warnings,
            }),
            (request, response) => {
                let messages = request.err().into_iter().chain(response.err());
                let error = |message| RuleError { file: String::new(), line: 1, message };
                self.errors.extend(messages.map(error));
                Err(self.errors)
            }
        }
    }
}

/// 0 for the phases of the request, 1 for the others.
fn stage(phase: usize) -> usize {
    usize::from(phase > 1)
}

fn reads_match(name: &Macro) -> bool {
    match name {
        Macro::MatchedVar | Macro::MatchedVarName => true,
        Macro::Variable(variable) => variable_reads(variable),
        _ => false,
    }
}

fn variable_reads(variable: &Variable) -> bool {
    matches!(variable.collection, Collection::Matched { .. } | Collection::Scalar(Scalar::MatchedName))
}

fn assignment_reads(put: &Assignment) -> bool {
    let value = match &put.change {
        Change::Set(value) | Change::Add(value) | Change::Subtract(value) => Some(value),
        Change::Open(value) | Change::Expire(value) => Some(value),
        Change::Unset => None,
    };
    std::iter::once(&put.name).chain(value).any(|template| template.macros().any(reads_match))
}

/// Whether the step looks at what the steps before it matched.
fn step_reads(step: &Step) -> bool {
    let test = step.parsed.as_ref().map(|parsed| &parsed.test.operator);
    let argument = match test {
        Some(
            Operator::Text(_, template)
            | Operator::Composed(template, _)
            | Operator::Number(_, Operand::Template(template)),
        ) => Some(template),
        _ => None,
    };
    step.variables.iter().flatten().any(variable_reads)
        || argument.is_some_and(|template| template.macros().any(reads_match))
        || step.actions.assignments.iter().any(assignment_reads)
}
