//! Directives to a [`Program`]; collects every mistake on the way.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Options, RuleError, RuleSource, Severity,
    action::{self, Actions, Assignment, Change, Control, Disruption, IdRange},
    lexer::{self, Directive},
    operator::{self, Operator, Test},
    pattern::Needs,
    prefilter::Prefilter,
    program::{Chain, ChainId, Engine, Group, Link, Probe, ProbeId, Program, Rule},
    template::{Macro, Template},
    variable::{self, Collection, Role, Selector, Sources, Variable},
};
use crate::decode::Transformation;

/// Parses and compiles `sources` in order.
pub(super) fn compile(sources: &[RuleSource<'_>], _options: &Options<'_>) -> Result<Program, Vec<RuleError>> {
    let mut compiler = Compiler::default();
    for source in sources {
        compiler.file = source.name.to_owned();
        compiler.layered = false;
        for directive in lexer::lex(source.text) {
            match directive {
                Ok(directive) => compiler.directive(&directive),
                Err((line, message)) => compiler.fail(line, message),
            }
        }
        compiler.close_chain();
    }
    compiler.finish().map_err(|mut errors| {
        // Some mistakes only show at the end.
        let file = |error: &RuleError| sources.iter().position(|source| source.name == error.file);
        errors.sort_by_key(|error| (file(error), error.line));
        errors
    })
}

/// What stands in the rule list while compiling.
enum Item {
    Rule { rule: Rule, phase: usize, skip_after: Option<String>, file: String, line: usize },
    Marker(String),
}

/// A chain whose last rule is still to come.
enum Open {
    /// The rule so far is the last item.
    Good,
    /// Its first rule had a mistake; the others are only checked.
    Broken,
}

#[derive(Default)]
struct Compiler {
    file: String,
    /// `SecInspectLayers` of this file.
    layered: bool,
    errors: Vec<RuleError>,
    items: Vec<Item>,
    ids: BTreeSet<u32>,
    open: Option<Open>,
    /// `SecDefaultAction` of each phase.
    defaults: [Actions; 2],
    engine: Option<Engine>,
    chains: Vec<Chain>,
    groups: Vec<Group>,
    group_ids: BTreeMap<(String, bool), usize>,
    probes: Vec<Probe>,
    needs: Vec<Needs>,
    used: Sources,
}

impl Compiler {
    fn fail(&mut self, line: usize, message: impl Into<String>) {
        self.errors.push(RuleError { file: self.file.clone(), line, message: message.into() });
    }

    fn close_chain(&mut self) {
        if let (Some(Open::Good), Some(Item::Rule { rule, line, .. })) = (self.open.take(), self.items.last())
        {
            let (line, id) = (*line, rule.id);
            self.fail(line, format!("rule {id} ends with `chain` but no rule follows; remove `chain`"));
        }
    }

    fn directive(&mut self, directive: &Directive) {
        let name = directive.name.to_ascii_lowercase();
        if self.open.is_some() && name != "secrule" {
            self.close_chain();
        }
        let first = directive.arguments.first().map_or("", String::as_str);
        let expected = match name.as_str() {
            "secrule" => 2..=3,
            _ => 1..=1,
        };
        let known = [
            "secrule",
            "secaction",
            "secmarker",
            "secdefaultaction",
            "secruleengine",
            "seccomponentsignature",
            "secruleremovebyid",
            "secruleremovebytag",
            "secinspectlayers",
        ];
        if !known.contains(&name.as_str()) {
            let message = format!("directive `{}` is not supported yet; remove it", directive.name);
            return self.fail(directive.line, message);
        }
        // A list of ids may be given as several words.
        if !expected.contains(&directive.arguments.len()) && name != "secruleremovebyid" {
            let message = format!(
                "{} takes {} arguments, found {}; quote an argument that holds spaces",
                directive.name,
                if name == "secrule" { "2 or 3".to_owned() } else { "1".to_owned() },
                directive.arguments.len()
            );
            return self.fail(directive.line, message);
        }
        let outcome = match name.as_str() {
            "secrule" | "secaction" => return self.rule(directive, name == "secaction"),
            "secmarker" => {
                self.items.push(Item::Marker(first.to_owned()));
                Ok(())
            }
            "secdefaultaction" => return self.default_action(directive.line, first),
            "secruleengine" => self.rule_engine(first),
            "secruleremovebyid" => self.remove_by_id(&directive.arguments),
            "secruleremovebytag" => self.remove_by_tag(first),
            "secinspectlayers" => self.inspect_layers(first),
            // `SecComponentSignature` is a comment for people.
            _ => Ok(()),
        };
        if let Err(message) = outcome {
            self.fail(directive.line, message);
        }
    }

    fn rule_engine(&mut self, argument: &str) -> Result<(), String> {
        self.engine = Some(match argument.to_ascii_lowercase().as_str() {
            "on" => Engine::On,
            "off" => Engine::Off,
            "detectiononly" => Engine::DetectionOnly,
            _ => return Err(format!("SecRuleEngine `{argument}`; write On, Off or DetectionOnly")),
        });
        Ok(())
    }

    fn inspect_layers(&mut self, argument: &str) -> Result<(), String> {
        self.layered = match argument.to_ascii_lowercase().as_str() {
            "on" => true,
            "off" => false,
            _ => return Err(format!("SecInspectLayers `{argument}`; write On or Off")),
        };
        Ok(())
    }

    fn default_action(&mut self, line: usize, text: &str) {
        let actions = match action::parse(text) {
            Ok(actions) => actions,
            Err(mistakes) => return mistakes.into_iter().for_each(|mistake| self.fail(line, mistake)),
        };
        match (actions.phase, actions.id) {
            (None, _) => self.fail(line, "SecDefaultAction names no phase; add phase:1 or phase:2"),
            (_, Some(_)) => self.fail(line, "SecDefaultAction takes no id; remove it"),
            (Some(phase), None) => {
                if let Some(default) = self.defaults.get_mut(phase_index(phase)) {
                    *default = actions;
                }
            }
        }
    }

    fn remove_by_id(&mut self, arguments: &[String]) -> Result<(), String> {
        let words =
            arguments.iter().flat_map(|argument| argument.split([' ', ','])).filter(|w| !w.is_empty());
        let ranges = words.map(IdRange::parse).collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() {
            return Err("SecRuleRemoveById names no rule; write at least one id".to_owned());
        }
        for range in ranges {
            self.remove(|rule| range.contains(rule.id)).map_err(|()| {
                format!(
                    "SecRuleRemoveById {}: no rule above has such an id; correct or remove it",
                    arguments.join(" ")
                )
            })?;
        }
        Ok(())
    }

    fn remove_by_tag(&mut self, text: &str) -> Result<(), String> {
        let pattern = super::pattern::compile(text)?.0;
        self.remove(|rule| rule.tags.iter().any(|tag| pattern.is_match(tag.as_bytes()))).map_err(|()| {
            format!("SecRuleRemoveByTag {text}: no rule above has such a tag; correct or remove it")
        })
    }

    fn remove(&mut self, chosen: impl Fn(&Rule) -> bool) -> Result<(), ()> {
        let before = self.items.len();
        self.items.retain(|item| !matches!(item, Item::Rule { rule, .. } if chosen(rule)));
        if self.items.len() == before { Err(()) } else { Ok(()) }
    }

    fn rule(&mut self, directive: &Directive, unconditional: bool) {
        let line = directive.line;
        let mut arguments = directive.arguments.iter();
        let mut mistakes = Vec::new();
        let mut parsed = None;
        if !unconditional {
            let variables = variable::parse(arguments.next().map_or("", String::as_str));
            let test = operator::parse(arguments.next().map_or("", String::as_str));
            match (variables, test) {
                (Ok(variables), Ok((test, needs))) => parsed = Some((variables, test, needs)),
                (variables, test) => mistakes.extend(variables.err().into_iter().chain(test.err())),
            }
        }
        let text = arguments.next();
        let continued = self.open.take();
        let actions = match action::parse_argument(&directive.name, text) {
            Ok(actions) => actions,
            // A chained rule needs no actions of its own.
            Err(_) if text.is_none() && continued.is_some() => Actions::default(),
            Err(more) => {
                mistakes.extend(more);
                Actions {
                    chain: text.is_some_and(|text| text.split(',').any(|word| word.trim() == "chain")),
                    ..Actions::default()
                }
            }
        };
        let chain = actions.chain;
        let good = mistakes.is_empty();
        mistakes.into_iter().for_each(|mistake| self.fail(line, mistake));
        let good = good
            && match continued {
                Some(open) => self.chained(line, actions, parsed) && matches!(open, Open::Good),
                None => self.starter(line, actions, parsed),
            };
        if chain {
            self.open = Some(if good { Open::Good } else { Open::Broken });
        }
    }

    fn starter(&mut self, line: usize, actions: Actions, parsed: Option<Parsed>) -> bool {
        let Some(id) = actions.id else {
            self.fail(line, "the rule has no id; add id:N with a number of its own");
            return false;
        };
        if !self.ids.insert(id) {
            self.fail(line, format!("rule id {id} is used twice; give one of the rules another id"));
            return false;
        }
        let phase = phase_index(actions.phase.unwrap_or(2));
        let default = self.defaults.get(phase);
        let disruption = match (actions.disruption, default.and_then(|default| default.disruption)) {
            (Some(Disruption::Block) | None, Some(Disruption::Deny)) => Disruption::Deny,
            (Some(own), _) => own,
            (None, Some(default)) => default,
            (None, None) => Disruption::Pass,
        };
        let rule = Rule {
            id,
            message: actions.message.clone().unwrap_or_default(),
            severity: actions.severity,
            tags: actions.tags.clone(),
            counts: match disruption {
                Disruption::Pass => None,
                Disruption::Block => actions.severity,
                Disruption::Deny => Some(actions.severity.unwrap_or(Severity::Critical)),
            },
            skip_to: None,
            links: Vec::new(),
            file: self.file.clone(),
            line,
            description: String::new(),
        };
        let skip_after = actions.skip_after.clone();
        let file = self.file.clone();
        self.items.push(Item::Rule { rule, phase, skip_after, file, line });
        self.link(phase, actions, parsed);
        true
    }

    /// Adds a rule to the chain that is open; whether it is without mistakes.
    fn chained(&mut self, line: usize, actions: Actions, parsed: Option<Parsed>) -> bool {
        let misplaced = [
            ("id", actions.id.is_some()),
            ("phase", actions.phase.is_some()),
            ("pass, block or deny", actions.disruption.is_some()),
            ("skipAfter", actions.skip_after.is_some()),
        ];
        let mut good = true;
        for (name, present) in misplaced {
            if present {
                good = false;
                self.fail(
                    line,
                    format!("a chained rule cannot have {name}; move it to the first rule of the chain"),
                );
            }
        }
        if good {
            let phase = match self.items.last() {
                Some(Item::Rule { phase, .. }) => *phase,
                _ => 1,
            };
            self.link(phase, actions, parsed);
        }
        good
    }

    /// Compiles one rule and adds it to the last item.
    fn link(&mut self, phase: usize, actions: Actions, parsed: Option<Parsed>) {
        let mut transformations = match self.defaults.get(phase) {
            Some(default) if !actions.own_transformations => default.transformations.clone(),
            _ => Vec::new(),
        };
        transformations.extend(actions.transformations);
        let chain = self.chain(&transformations);
        let mut link = Link {
            probes: Vec::new(),
            computed: Vec::new(),
            chain,
            test: None,
            pattern: None,
            masks: Vec::new(),
            capture: actions.capture,
            every: actions.chain || !actions.assignments.is_empty() || actions.capture,
            assignments: actions.assignments,
            controls: actions.controls,
        };
        self.note_templates(&link.assignments);
        for control in &link.controls {
            if let Control::RemoveTarget(_, variable) = control {
                self.note(variable);
            }
        }
        if let Some((variables, test, needs)) = parsed {
            let mut steps = vec![chain];
            while actions.multi_match && steps.last().is_some_and(|last| *last != 0) {
                let parent =
                    steps.last().and_then(|last| self.chains.get(*last)).map_or(0, |chain| chain.parent);
                steps.push(parent);
            }
            variables.iter().for_each(|variable| self.note(variable));
            if let Operator::Text(_, template) | Operator::Number(_, template) = &test.operator {
                self.note_macros(template);
            }
            let (direct, computed) = variables.into_iter().partition::<Vec<_>, _>(|variable| {
                matches!(variable.collection, Collection::Request(_)) && variable.role != Role::Count
            });
            if direct.iter().any(|variable| variable.role == Role::Values) {
                let group = self.group(direct);
                link.probes = steps.into_iter().map(|chain| self.probe(Probe { group, chain })).collect();
            }
            link.computed = computed;
            if !test.negated && matches!(test.operator, Operator::Pattern(_) | Operator::Phrases(_)) {
                link.masks.clone_from(&needs.masks);
                link.pattern = Some(self.needs.len());
                self.needs.push(needs);
            }
            link.test = Some(test);
        }
        if let Some(Item::Rule { rule, .. }) = self.items.last_mut() {
            rule.links.push(link);
        }
    }

    fn note(&mut self, variable: &Variable) {
        if let Collection::Request(sources) = variable.collection {
            self.used.insert(sources);
        }
    }

    fn note_macros(&mut self, template: &Template) {
        for name in template.macros() {
            if let Macro::Variable(variable) = name {
                self.note(variable);
            }
        }
    }

    fn note_templates(&mut self, assignments: &[Assignment]) {
        for assignment in assignments {
            self.note_macros(&assignment.name);
            if let Change::Set(value) | Change::Add(value) | Change::Subtract(value) = &assignment.change {
                self.note_macros(value);
            }
        }
    }

    fn chain(&mut self, steps: &[Transformation]) -> ChainId {
        if self.chains.is_empty() {
            self.chains.push(Chain { parent: 0, step: Transformation::None, shared: false });
        }
        steps.iter().fold(0, |parent, step| {
            let chain = Chain { parent, step: *step, shared: false };
            let known = self.chains.iter().skip(1).position(|known| *known == chain).map(|index| index + 1);
            known.unwrap_or_else(|| {
                self.chains.push(chain);
                self.chains.len() - 1
            })
        })
    }

    fn group(&mut self, mut variables: Vec<Variable>) -> usize {
        variables.sort_by(|a, b| a.text.cmp(&b.text));
        let key = variables.iter().map(|variable| variable.text.as_str()).collect::<Vec<_>>().join("|");
        let (layered, groups) = (self.layered, &mut self.groups);
        *self.group_ids.entry((key, layered)).or_insert_with(|| {
            let (excluded, included): (Vec<_>, Vec<_>) =
                variables.into_iter().partition(|variable| variable.role == Role::Exclusion);
            let (all, partial) = included
                .into_iter()
                .partition::<Vec<Variable>, _>(|variable| matches!(variable.selector, Selector::All));
            let mut whole = Sources::default();
            for variable in all {
                if let Collection::Request(sources) = variable.collection {
                    whole.insert(sources);
                }
            }
            groups.push(Group { whole, partial, excluded, layered });
            groups.len() - 1
        })
    }

    fn probe(&mut self, probe: Probe) -> ProbeId {
        self.probes.iter().position(|known| *known == probe).unwrap_or_else(|| {
            self.probes.push(probe);
            self.probes.len() - 1
        })
    }

    fn finish(mut self) -> Result<Program, Vec<RuleError>> {
        /// From so many probes on, looking at all texts first is cheaper than collecting those of each probe.
        const SHARED: usize = 4;
        self.chain(&[]);
        for (id, chain) in self.chains.iter_mut().enumerate() {
            chain.shared = self.probes.iter().filter(|probe| probe.chain == id).count() >= SHARED;
        }
        let mut phases = [Vec::new(), Vec::new()];
        // From the end, so that the place of every marker below a rule is known, counted from the end.
        let mut markers: BTreeMap<String, [usize; 2]> = BTreeMap::new();
        for item in std::mem::take(&mut self.items).into_iter().rev() {
            match item {
                Item::Marker(name) => {
                    markers.insert(name, [0, 1].map(|phase: usize| phases.get(phase).map_or(0, Vec::len)));
                }
                Item::Rule { mut rule, phase, skip_after, file, line } => {
                    if let Some(name) = skip_after {
                        rule.skip_to = markers.get(&name).and_then(|place| place.get(phase)).copied();
                        if rule.skip_to.is_none() {
                            let message =
                                format!("skipAfter:{name}: no SecMarker of that name below; add it");
                            self.errors.push(RuleError { file, line, message });
                        }
                    }
                    if let Some(rules) = phases.get_mut(phase) {
                        rules.push(rule);
                    }
                }
            }
        }
        for rules in &mut phases {
            rules.reverse();
            let count = rules.len();
            for rule in rules {
                rule.skip_to = rule.skip_to.map(|from_end| count - from_end);
            }
        }
        let prefilter = Prefilter::new(&self.needs).map_err(|message| self.fail(1, message));
        match prefilter {
            Ok(prefilter) if self.errors.is_empty() => Ok(Program {
                phases,
                prefilter,
                chains: self.chains,
                layered: self.groups.iter().any(|group| group.layered),
                groups: self.groups,
                probes: self.probes,
                used: self.used,
                engine: self.engine.unwrap_or(Engine::On),
                warnings: Vec::new(),
            }),
            _ => Err(self.errors),
        }
    }
}

/// Variables, operator and what the operator needs.
type Parsed = (Vec<Variable>, Test, Needs);

fn phase_index(phase: u8) -> usize {
    usize::from(phase != 1)
}
