//! What lasts from the first phase of an exchange to the last one.

use super::{
    action::Reach,
    program::{ChoiceId, Engine, Program},
    subject::Subject,
    tx::Tx,
    variable::{Source, Sources, Store, Variable},
};
use crate::{
    body::Processor,
    request::RequestView,
    values::{Departures, Finding, Location, Values},
};

/// What the rules of phases 3 to 5 need of a request.
#[derive(Debug, Default)]
pub struct Carry(pub(super) Option<Box<State>>);

/// What lasts for the whole exchange.
#[derive(Debug)]
pub(super) struct State {
    pub(super) tx: Tx,
    /// A bit for each rule that a control took out; empty if none was.
    pub(super) removed: Vec<u64>,
    /// Controls that took out a variable: the rule and the place of the control in it.
    pub(super) untargeted: Vec<(ChoiceId, Variable)>,
    pub(super) engine: Engine,
    pub(super) allowed: Option<Reach>,
    pub(super) denied: bool,
    pub(super) body_access: bool,
    pub(super) processor: Option<Processor>,
    /// The key of each collection that `initcol` opened.
    pub(super) keys: [Option<Vec<u8>>; Store::COUNT],
    pub(super) facts: Facts,
    pub(super) started_ms: u64,
    /// As SecLang counts severities: 0 is the highest; 255 none.
    pub(super) highest_severity: u8,
    pub(super) kept: Vec<Kept>,
}

/// A text of the request that rules of later phases read.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) source: Source,
    pub(super) name: Vec<u8>,
    pub(super) location: Option<Location>,
    pub(super) text: Vec<u8>,
}

/// What is known of the exchange beside its texts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Facts {
    pub(super) body_length: usize,
    pub(super) head_length: usize,
    pub(super) body_error: bool,
    pub(super) multipart_doubtful: bool,
    pub(super) departures: Departures,
    pub(super) body_cut: bool,
    pub(super) response_length: usize,
    pub(super) response_cut: bool,
}

impl Facts {
    /// Takes them from a request.
    pub(super) fn of(request: &RequestView<'_>, values: &Values<'_>) -> Self {
        let has = |finding| values.findings.contains(&finding);
        let fields = request.headers.iter().map(|header| header.name.len() + header.value.len() + 4);
        let line =
            request.method.len() + request.path.len() + request.query.map_or(0, |query| query.len() + 1);
        Self {
            body_length: request.body.bytes.len(),
            head_length: fields.sum::<usize>() + line + request.protocol.len() + 4,
            body_error: has(Finding::MalformedBody),
            multipart_doubtful: has(Finding::AmbiguousMultipart),
            departures: values.departures,
            body_cut: has(Finding::TruncatedBody),
            response_length: 0,
            response_cut: false,
        }
    }
}

impl State {
    /// How an exchange starts.
    pub(super) fn new(program: &Program, now_ms: u64) -> Self {
        Self {
            tx: program.initial.clone(),
            removed: Vec::new(),
            untargeted: Vec::new(),
            engine: program.engine,
            allowed: None,
            denied: false,
            body_access: program.settings.request_body,
            processor: None,
            keys: Default::default(),
            facts: Facts::default(),
            started_ms: now_ms,
            highest_severity: 255,
            kept: Vec::new(),
        }
    }

    /// Copies the texts of the sources in `used`.
    pub(super) fn keep(&mut self, used: Sources, subject: &Subject<'_>) {
        for entry in subject.entries.iter().filter(|entry| used.contains(entry.source)) {
            if let Some(text) = subject.texts.get(entry.layers.start) {
                self.kept.push(Kept {
                    source: entry.source,
                    name: entry.name.to_vec(),
                    location: entry.location,
                    text: text.bytes.to_vec(),
                });
            }
        }
    }
}
