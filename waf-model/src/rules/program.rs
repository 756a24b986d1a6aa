//! The compiled form of all rules: what evaluation walks through.

use super::{
    RuleError, Severity,
    action::{Assignment, Control},
    operator::Test,
    prefilter::{PatternId, Prefilter},
    variable::{Source, Sources, Variable},
};
use crate::decode::Transformation;

/// The index of a transformation chain; 0 is the empty one.
pub(super) type ChainId = usize;
/// The index of a [`Group`].
pub(super) type GroupId = usize;
/// The index of a [`Probe`].
pub(super) type ProbeId = usize;

/// All rules, ready to run.
#[derive(Debug)]
pub(super) struct Program {
    /// The rules of phases 1 and 2, each in order.
    pub(super) phases: [Vec<Rule>; 2],
    pub(super) prefilter: Prefilter,
    /// Chains as a tree, so that a common beginning is computed once; a parent comes before its children.
    pub(super) chains: Vec<Chain>,
    pub(super) groups: Vec<Group>,
    pub(super) probes: Vec<Probe>,
    /// Everything that some rule reads.
    pub(super) used: Sources,
    /// Whether some rule looks at deeper decodings.
    pub(super) layered: bool,
    pub(super) engine: Engine,
    pub(super) warnings: Vec<RuleError>,
}

/// `SecRuleEngine`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    On,
    Off,
    /// Matches are reported but give no points.
    DetectionOnly,
}

/// One more transformation on top of another chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) parent: ChainId,
    pub(super) step: Transformation,
    /// Whether enough probes use the chain that looking at all texts together first pays off.
    pub(super) shared: bool,
}

impl Group {
    /// Whether the text called `name` from `source` belongs to it.
    pub(super) fn selects(&self, source: Source, name: &[u8]) -> bool {
        (self.whole.contains(source) || self.partial.iter().any(|variable| variable.selects(source, name)))
            && !self.excluded.iter().any(|variable| variable.selects(source, name))
    }
}

/// A set of texts that rules have in common.
#[derive(Debug)]
pub(super) struct Group {
    /// Sources whose texts all belong to it.
    pub(super) whole: Sources,
    /// Variables that select some texts of a source.
    pub(super) partial: Vec<Variable>,
    pub(super) excluded: Vec<Variable>,
    /// Whether deeper decodings belong to it.
    pub(super) layered: bool,
}

/// The texts of a group after a transformation chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) group: GroupId,
    pub(super) chain: ChainId,
}

/// One rule with the rules chained to it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: u32,
    pub(super) message: String,
    pub(super) severity: Option<Severity>,
    pub(super) tags: Vec<String>,
    /// What a match counts; `None` if the rule is not one that blocks.
    pub(super) counts: Option<Severity>,
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
    /// One for each transformation chain to look through.
    pub(super) probes: Vec<ProbeId>,
    /// Counts and `TX`, which are computed on the spot.
    pub(super) computed: Vec<Variable>,
    /// The chain for them.
    pub(super) chain: ChainId,
    /// `None` matches always.
    pub(super) test: Option<Test>,
    /// For the prefilter, if the operator has a pattern that is not negated.
    pub(super) pattern: Option<PatternId>,
    /// Byte classes that a text must have.
    pub(super) masks: Vec<u64>,
    pub(super) capture: bool,
    pub(super) assignments: Vec<Assignment>,
    pub(super) controls: Vec<Control>,
    /// Whether what was matched is of use to someone, so that every match is looked for, not just the first one.
    pub(super) every: bool,
}
