//! Does at load what the first rules do the same way with every request.
//!
//! Rule sets begin with dozens of rules that give variables their defaults. As long as such rules read nothing but
//! variables, what they do is known before the first request comes.

use super::{
    Collections, Connection, Context,
    action::Disruption,
    evaluate::Run,
    forms::Forms,
    operator::{Operand, Operator},
    program::{Computed, Effect, Engine, Link, Place, Program, Put, Rule},
    state::State,
    subject::Subject,
    template::{Macro, Template},
    variable::Sources,
};

/// Carries out the first rules of phase 1, up to one whose outcome is not known yet.
pub(super) fn settle(program: &mut Program) {
    if program.engine == Engine::Off {
        return;
    }
    let collections = Collections::default();
    let connection = Connection::default();
    let context = Context { now_ms: 0, request_id: "", collections: &collections, connection };
    let subject = Subject::new(Sources::default(), false);
    let mut run = Run::new(program, &context, State::new(program, 0), Forms::new(program, 0, subject));
    let [rules, ..] = &program.phases;
    let mut settled = 0;
    for rule in rules {
        if !reads_variables_only(rule) {
            break;
        }
        let before = run.state.tx.clone();
        if run.rule(rule).is_some() && !only_sets(rule) {
            run.state.tx = before;
            break;
        }
        settled += 1;
    }
    let tx = run.state.tx;
    run.forms.finish();
    (program.settled, program.initial) = (settled, tx);
}

/// Whether a rule comes to the same with every request.
fn reads_variables_only(rule: &Rule) -> bool {
    rule.links.iter().all(|link| {
        let fixed = |test: &super::operator::Test| match &test.operator {
            Operator::Number(_, Operand::Fixed(_)) => true,
            Operator::Number(_, Operand::Template(operand)) => of_variables(operand),
            _ => false,
        };
        link.group.is_none()
            && link.chain == 0
            && link.test.as_ref().is_none_or(fixed)
            && link.computed.iter().all(|read| matches!(read, Computed::Tx(..) | Computed::TxCount(..)))
            && link.puts.iter().all(is_settled)
    })
}

fn is_settled(put: &Put) -> bool {
    matches!(put.place, Place::Tx(_))
        && match &put.effect {
            Effect::SetFixed(_) | Effect::AddFixed(_) | Effect::Unset => true,
            Effect::Set(text) | Effect::Add(text) | Effect::Subtract(text) => of_variables(text),
            Effect::Open(_) | Effect::Expire(_) => false,
        }
}

fn of_variables(text: &Template) -> bool {
    text.macros().all(|name| matches!(name, Macro::Tx(_)))
}

/// Whether a match of the rule does nothing but set variables.
fn only_sets(rule: &Rule) -> bool {
    let quiet = |link: &Link| link.controls.is_empty() && !link.capture;
    !rule.reported
        && rule.skip_to.is_none()
        && matches!(rule.disruption, Disruption::Pass)
        && rule.links.iter().all(quiet)
}
