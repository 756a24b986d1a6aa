//! A rule between its text and its compiled form, where directives can still change it.

use super::{action::Actions, control::Choice, operator::Parsed, variable::Variable};

/// What stands in the rule list while compiling.
#[derive(Debug)]
pub(super) enum Item {
    Rule(Box<Draft>),
    Marker(String),
}

/// A rule with those chained to it.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: u32,
    /// From 0.
    pub(super) phase: usize,
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) comment: String,
    /// `SecInspectLayers`.
    pub(super) layered: bool,
    /// `SecDefaultAction` where the rule stands.
    pub(super) default: Actions,
    /// One for each `SecRule` of the chain.
    pub(super) steps: Vec<Step>,
}

/// One `SecRule` or `SecAction`.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// `None` for `SecAction`.
    pub(super) variables: Option<Vec<Variable>>,
    pub(super) parsed: Option<Parsed>,
    pub(super) actions: Actions,
}

impl Draft {
    /// Whether a directive or control means this rule.
    pub(super) fn is_chosen(&self, choice: &Choice) -> bool {
        let actions = self.steps.first().map(|step| &step.actions);
        let message = actions.and_then(|actions| actions.message.as_ref());
        choice.chooses(self.id, actions.map_or(&[], |actions| &actions.tags), message)
    }
}

impl Item {
    /// The rule, if there is one and `choice` means it.
    pub(super) fn chosen(&mut self, choice: &Choice) -> Option<&mut Draft> {
        match self {
            Self::Rule(rule) if rule.is_chosen(choice) => Some(rule),
            _ => None,
        }
    }
}
