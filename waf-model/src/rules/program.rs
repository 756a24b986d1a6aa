//! The compiled form of all rules: what evaluation walks through.

use std::collections::BTreeMap;

use super::{
    RuleError, Severity,
    action::Disruption,
    literals::Classes,
    operator::Test,
    prefilter::{PatternId, Prefilter},
    template::Template,
    trigger::trigger,
    tx::{Names, Slot, TextId, Tx},
    variable::{Collection, Source, Sources, Store, Variable},
};
use crate::{body::Processor, decode::Transformation};

/// The index of a transformation chain; 0 is the empty one.
pub(super) type ChainId = usize;
/// The index of a [`Group`].
pub(super) type GroupId = usize;
/// The number of a rule, over all phases.
pub(super) type Ordinal = usize;
/// The index of a set of rules in [`Program::choices`].
pub(super) type ChoiceId = usize;

/// All rules, ready to run.
#[derive(Debug)]
pub(super) struct Program {
    /// The rules of each phase, in order.
    pub(super) phases: [Vec<Rule>; 5],
    /// For each rule of each phase what must be there for it to do anything.
    pub(super) gates: [Vec<Gate>; 5],
    /// One over the patterns of phases 1 and 2, one over those of the others.
    pub(super) prefilters: [Prefilter; 2],
    /// For each pattern of each prefilter the texts it is for.
    pub(super) watches: [Vec<Watch>; 2],
    /// For each chain of each prefilter a bit for each group that some pattern is looked for in; last, those of all
    /// chains.
    pub(super) watched: [Vec<Vec<u64>>; 2],
    /// Chains as a tree, so that a common beginning is computed once; a parent comes before its children.
    pub(super) chains: Vec<Chain>,
    pub(super) groups: Vec<Group>,
    /// For each source, by its number, the groups that it is a part of.
    pub(super) memberships: Vec<Membership>,
    pub(super) names: Names,
    /// How many rules of phase 1 are done before any request; see [`super::settle`].
    pub(super) settled: usize,
    /// What `TX` holds after them.
    pub(super) initial: Tx,
    /// Rules that `ctl` takes out, a bit for each ordinal.
    pub(super) choices: Vec<Vec<u64>>,
    pub(super) rules: usize,
    /// Everything that rules of phases 1 and 2 read, and everything that those of the others read.
    pub(super) used: [Sources; 2],
    /// Whether some rule looks at deeper decodings.
    pub(super) layered: bool,
    pub(super) engine: Engine,
    pub(super) settings: Settings,
    pub(super) warnings: Vec<RuleError>,
}

impl Program {
    /// What the phases of the request must collect: also what later phases read of it.
    pub(super) fn sources(&self, stage: usize) -> Sources {
        let [mut request, response] = self.used;
        if stage != 0 {
            return response;
        }
        request.insert(response);
        request
    }

    /// Whether a control means this rule.
    pub(super) fn chosen(&self, choice: ChoiceId, rule: &Rule) -> bool {
        let word = self.choices.get(choice).and_then(|bits| bits.get(rule.ordinal / 64));
        word.is_some_and(|word| word & (1 << (rule.ordinal % 64)) != 0)
    }

    pub(super) fn reads_response_body(&self) -> bool {
        self.used_late().contains(Source::ResponseBody)
    }

    /// What the phases of the response read.
    pub(super) fn used_late(&self) -> Sources {
        self.sources(1)
    }
}

/// Settings that directives make.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Whether rules see the body of requests.
    pub(super) request_body: bool,
    pub(super) response_body: bool,
    pub(super) response_limit: usize,
    pub(super) response_types: Vec<String>,
    /// Seconds that a record of a collection lives after its last change.
    pub(super) collection_timeout: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_body: true,
            response_body: true,
            response_limit: 512 << 10,
            response_types: ["text/plain", "text/html", "text/xml"].map(str::to_owned).to_vec(),
            collection_timeout: 3600,
        }
    }
}

/// `SecRuleEngine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    On,
    Off,
    /// Matches are reported but give no points.
    DetectionOnly,
}

impl Engine {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            "detectiononly" => Ok(Self::DetectionOnly),
            _ => Err(format!("`{text}` is not a state of the engine; write On, Off or DetectionOnly")),
        }
    }
}

/// One more transformation on top of another chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) parent: ChainId,
    pub(super) step: Transformation,
    /// The byte classes of which a text must have one for the chain to change anything about it.
    pub(super) trigger: u64,
}

impl Chain {
    /// `step` on top of `parent`, which is the chain called `parent_id`.
    pub(super) fn new(parent_id: ChainId, parent: Option<&Self>, step: Transformation) -> Self {
        let before = parent.map_or(0, |parent| parent.trigger);
        Self { parent: parent_id, step, trigger: before | trigger(step) }
    }
}

/// A set of texts that rules have in common.
#[derive(Debug)]
pub(super) struct Group {
    /// Sources whose texts all belong to it.
    pub(super) whole: Sources,
    /// All sources that it may take something of.
    pub(super) touched: Sources,
    /// Variables that select some texts of a source.
    pub(super) partial: Vec<Variable>,
    pub(super) excluded: Vec<Variable>,
    /// Whether deeper decodings belong to it.
    pub(super) layered: bool,
}

impl Group {
    /// Whether the text called `name` from `source` belongs to it.
    pub(super) fn selects(&self, source: Source, name: &[u8]) -> bool {
        self.touched.contains(source)
            && (self.whole.contains(source)
                || self.partial.iter().any(|variable| variable.selects(source, name)))
            && !self.excluded.iter().any(|variable| variable.selects(source, name))
    }
}

/// The groups that texts of one source belong to.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// A bit for each group that every text of the source belongs to.
    pub(super) all: Vec<u64>,
    /// Groups that take only some texts of the source: one of those that take the same ones, and a bit for each.
    pub(super) some: Vec<(GroupId, Vec<u64>)>,
}

/// What a group takes of a source: all of it, what is added and what is left out, as it is written.
type Taken<'g> = (bool, Vec<&'g str>, Vec<&'g str>);

impl Membership {
    /// Sorts `groups` by what they take of `source`.
    pub(super) fn of(source: Source, groups: &[Group]) -> Self {
        let none = || vec![0u64; groups.len().div_ceil(64)];
        let mut all = none();
        let mut some: BTreeMap<Taken<'_>, (GroupId, Vec<u64>)> = BTreeMap::new();
        for (id, group) in groups.iter().enumerate().filter(|(_, group)| group.touched.contains(source)) {
            let touches = |variable: &&Variable| matches!(variable.collection, Collection::Texts(of) if of.contains(source));
            let (partial, excluded) = (group.partial.iter(), group.excluded.iter());
            let partial: Vec<_> = partial.filter(touches).map(|variable| variable.text.as_str()).collect();
            let excluded: Vec<_> = excluded.filter(touches).map(|variable| variable.text.as_str()).collect();
            let whole = group.whole.contains(source);
            let bits = if whole && excluded.is_empty() {
                &mut all
            } else {
                &mut some.entry((whole, partial, excluded)).or_insert_with(|| (id, none())).1
            };
            if let Some(word) = bits.get_mut(id / 64) {
                *word |= 1 << (id % 64);
            }
        }
        Self { all, some: some.into_values().collect() }
    }
}

/// Which texts a pattern is looked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) group: GroupId,
    pub(super) chain: ChainId,
}

/// What must be there for a rule to do anything, in a few bytes that a walk over all rules can afford.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gate {
    /// Some text of these sources; none of them: anything will do.
    pub(super) sources: Sources,
    /// A text that this pattern may match.
    pub(super) pattern: Option<(u32, u32)>,
}

/// One rule with the rules chained to it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: u32,
    pub(super) ordinal: Ordinal,
    pub(super) message: Template,
    /// `logdata`.
    pub(super) data: Option<Template>,
    pub(super) severity: Option<Severity>,
    pub(super) tags: Vec<String>,
    /// Whether a match is reported.
    pub(super) reported: bool,
    /// With `Block` nothing else decides, so that a match gives points.
    pub(super) disruption: Disruption,
    pub(super) status: u16,
    /// The rule itself, then the chained ones; all must match.
    pub(super) links: Vec<Link>,
    /// Where to go on in the phase after a match.
    pub(super) skip_to: Option<usize>,
    pub(super) file: String,
    pub(super) line: usize,
    /// The comment above it.
    pub(super) description: String,
}

/// One `SecRule` or `SecAction`.
#[derive(Debug)]
pub(super) struct Link {
    /// The texts it looks at.
    pub(super) group: Option<GroupId>,
    /// One for each transformation chain to look through, with its pattern if the prefilter knows one.
    pub(super) probes: Vec<(ChainId, Option<PatternId>)>,
    /// Numbers and `TX`, which are computed on the spot.
    pub(super) computed: Vec<Computed>,
    /// The chain for them.
    pub(super) chain: ChainId,
    /// `None` matches always.
    pub(super) test: Option<Test>,
    /// Byte classes that a text must have.
    pub(super) classes: Classes,
    pub(super) capture: bool,
    pub(super) puts: Vec<Put>,
    pub(super) controls: Vec<Command>,
    /// Whether every match is looked for, not just the first one.
    pub(super) every: bool,
    /// Whether names and texts of matches are of use to someone.
    pub(super) keeps: bool,
}

/// A variable whose value is not a text of the exchange.
#[derive(Debug)]
pub(super) enum Computed {
    Tx(Slot, Variable),
    TxCount(Slot, Variable),
    Other(Variable),
}

/// A place that rules write to.
#[derive(Debug)]
pub(super) enum Place {
    Tx(Slot),
    TxNamed(Template),
    Store(Store, Template),
}

/// A compiled assignment.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) place: Place,
    pub(super) effect: Effect,
}

/// What it does.
#[derive(Debug)]
pub(super) enum Effect {
    SetFixed(TextId),
    Set(Template),
    AddFixed(i64),
    Add(Template),
    Subtract(Template),
    Unset,
    Open(Template),
    Expire(Template),
}

/// A compiled control.
#[derive(Debug)]
pub(super) enum Command {
    RemoveRules(ChoiceId),
    RemoveTarget(ChoiceId, Variable),
    Engine(Engine),
    Processor(Processor),
    BodyAccess(bool),
}
