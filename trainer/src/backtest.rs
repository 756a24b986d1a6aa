//! What another model, or other rules, would have done to the traffic in the lake.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use anyhow::{Result, bail};
use serde::Serialize;
use waf_model::{
    client::{Evidence, Suspicion},
    event::{Event, ReviewVerdict, Verdict},
    keys,
    model::{
        Model,
        calibration::{Certificate, Standing},
    },
};

use crate::{
    lake::{Lake, columns::Head, columns::request_id},
    sanitize::Sanitizer,
};

pub mod rules;

/// Examples given of each change.
const EXAMPLES: usize = 10;

/// Routes and clients listed.
const LISTED: usize = 20;

/// What another model, or other rules, would have done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backtest {
    /// What was tried.
    pub tried: Tried,
    /// What it was compared with: a model, or what was decided at the time.
    pub against: Against,
    /// Requests judged.
    pub requests: u64,
    /// Requests that cannot be judged: observed or sealed under another key, let through uninspected, or ingested
    /// twice.
    pub skipped: u64,
    /// Requests that each would have rejected or blocked, before and now.
    pub stopped: (u64, u64),
    /// What would change.
    pub changes: BTreeMap<Change, Changed>,
}

/// What is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tried {
    /// A model, by its number.
    Model(u64),
    /// Rules, by their files.
    Rules(Vec<String>),
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(seq) => write!(f, "model {seq}"),
            Self::Rules(names) => write!(f, "rules {}", names.join(", ")),
        }
    }
}

/// What it is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// A model, by its number.
    Model(u64),
    /// Rules, by their files.
    Rules(Vec<String>),
    /// What was decided at the time.
    Recorded,
}

/// How the answer to a request would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It passed, and would be rejected.
    Rejected,
    /// It passed, and its client would be blocked.
    Blocked,
    /// It was stopped, and would pass.
    Passed,
}

/// Requests whose answer would change in one way.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Changed {
    /// How many.
    pub requests: u64,
    /// Of them, judged harmless by a person.
    pub harmless: u64,
    /// Of them, confirmed as attacks by a person.
    pub confirmed: u64,
    /// How many of each route; the most first.
    pub routes: Vec<(String, u64)>,
    /// How many of each client; the most first. The others are in the count of clients only.
    pub clients: Vec<(String, u64)>,
    /// Clients concerned.
    pub client_count: usize,
    /// Some of them.
    pub examples: Vec<Example>,
    #[serde(skip)]
    by_route: HashMap<String, u64>,
    #[serde(skip)]
    by_client: HashMap<u64, u64>,
}

/// One request whose answer would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// Its id, for `gateway explain`.
    pub request: String,
    /// Its route.
    pub route: String,
    /// Method and path template.
    pub what: String,
    /// Distance by the model that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance: Option<f32>,
    /// The strongest reason; of what a rule matched only the structure is shown.
    pub reason: String,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Passes,
    Rejected,
    Blocked,
}

impl Backtest {
    /// Whether anything would change.
    pub fn differs(&self) -> bool {
        !self.changes.is_empty()
    }
}

/// Replays the lake's events through `model` and through `current`; without one, against what was decided.
///
/// # Errors
/// The models hash under different keys, or the lake cannot be read.
pub fn backtest(lake: &Lake, model: &Model, current: Option<&Model>) -> Result<Backtest> {
    if let Some(current) = current.filter(|current| current.value_key() != model.value_key()) {
        bail!(
            "models {} and {} were learned under different site keys and cannot be compared; train again",
            model.seq(),
            current.seq()
        );
    }
    let key_id = keys::key_id(model.value_key());
    let mut judged = Sanitizer::new(key_id, &lake.reviews()?);
    let mut found = Backtest {
        tried: Tried::Model(model.seq()),
        against: current.map_or(Against::Recorded, |current| Against::Model(current.seq())),
        requests: 0,
        skipped: 0,
        stopped: (0, 0),
        changes: BTreeMap::new(),
    };
    let mut clients: HashMap<u64, [Evidence; 2]> = HashMap::new();
    lake.scan_events(|event| {
        let usable =
            judged.is_new(&Head::of(&event)) && event.key_id == key_id && event.verdict != Verdict::Allowed;
        if !usable {
            found.skipped += 1;
            return Ok(());
        }
        found.requests += 1;
        let [evidence, evidence_before] = clients.entry(event.client).or_default();
        let now = answer(model, evidence, &event);
        let before = match current {
            Some(current) => answer(current, evidence_before, &event),
            None => recorded(event.verdict),
        };
        found.stopped.0 += u64::from(before != Answer::Passes);
        found.stopped.1 += u64::from(now != Answer::Passes);
        let Some(change) = Change::between(before, now) else { return Ok(()) };
        found.changes.entry(change).or_default().add(&Head::of(&event), &event.route, &judged, || {
            let explanation = model.explain(&event.observation, &event.client_vector);
            let score = model.score(&event.observation, &event.client_vector);
            Example {
                request: request_id(&event.id),
                route: event.route.clone(),
                what: format!("{} {}", event.observation.method, event.observation.path),
                distance: Some(score.request_distance),
                reason: explanation.reasons.first().map_or_else(String::new, |reason| reason.text.clone()),
            }
        });
        Ok(())
    })?;
    found.changes.values_mut().for_each(Changed::sum_up);
    Ok(found)
}

/// What the model decides, as a gateway in mode `block` would.
fn answer(model: &Model, evidence: &mut Evidence, event: &Event) -> Answer {
    let score = model.score(&event.observation, &event.client_vector);
    let Certificate { standing, threshold, .. } = *model.client_certificate();
    let certified = standing == Standing::Certified;
    let suspicion =
        Suspicion { rule_points: event.observation.rule_points, score: Some(score).filter(|_| certified) };
    let level = evidence.add(event.at_ms, &suspicion);
    match () {
        // Rules and base knowledge reject it whatever the model says.
        () if matches!(event.verdict, Verdict::Rules | Verdict::Base) => Answer::Rejected,
        () if model.flags_request(&score, &event.route) => Answer::Rejected,
        () if certified && level >= threshold => Answer::Blocked,
        () => Answer::Passes,
    }
}

fn recorded(verdict: Verdict) -> Answer {
    match verdict {
        Verdict::Rules | Verdict::Model | Verdict::Base => Answer::Rejected,
        Verdict::Blocked => Answer::Blocked,
        Verdict::Pass | Verdict::Allowed | Verdict::Fault | Verdict::Response => Answer::Passes,
    }
}

impl Change {
    fn between(before: Answer, now: Answer) -> Option<Self> {
        match (before, now) {
            (Answer::Passes, Answer::Rejected) => Some(Self::Rejected),
            (Answer::Passes, Answer::Blocked) => Some(Self::Blocked),
            (Answer::Rejected | Answer::Blocked, Answer::Passes) => Some(Self::Passed),
            _ => None,
        }
    }
}

impl Changed {
    fn add(&mut self, head: &Head, route: &str, judged: &Sanitizer, example: impl FnOnce() -> Example) {
        self.requests += 1;
        self.harmless += u64::from(judged.is_judged(head, ReviewVerdict::FalsePositive));
        self.confirmed += u64::from(judged.is_judged(head, ReviewVerdict::Confirmed));
        *self.by_route.entry(route.to_owned()).or_default() += 1;
        *self.by_client.entry(head.client).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }

    fn sum_up(&mut self) {
        self.client_count = self.by_client.len();
        let clients = std::mem::take(&mut self.by_client);
        self.clients =
            most(clients.into_iter().map(|(client, count)| (format!("{client:016x}"), count)).collect());
        self.routes = most(std::mem::take(&mut self.by_route).into_iter().collect());
    }
}

fn most(mut counts: Vec<(String, u64)>) -> Vec<(String, u64)> {
    counts.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    counts.truncate(LISTED);
    counts
}

impl fmt::Display for Backtest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let against = match &self.against {
            Against::Model(seq) => format!("model {seq}"),
            Against::Rules(names) => format!("rules {}", names.join(", ")),
            Against::Recorded => "what was decided at the time".to_owned(),
        };
        writeln!(
            f,
            "{} against {against}: {} requests, {} skipped",
            self.tried, self.requests, self.skipped
        )?;
        writeln!(f, "stopped: {} before, {} now", self.stopped.0, self.stopped.1)?;
        if !self.differs() {
            return writeln!(f, "nothing would change");
        }
        for (change, changed) in &self.changes {
            let title = match change {
                Change::Rejected => "newly rejected",
                Change::Blocked => "newly blocked, with their client",
                Change::Passed => "newly let through",
            };
            write!(f, "\n{title}: {} requests of {} clients", changed.requests, changed.client_count)?;
            writeln!(f, " ({} judged harmless, {} confirmed)", changed.harmless, changed.confirmed)?;
            for (name, counts) in [("route", &changed.routes), ("client", &changed.clients)] {
                for (key, count) in counts.iter().take(5) {
                    writeln!(f, "  {name:<7} {key:<24} {count:>8}")?;
                }
            }
            for example in &changed.examples {
                let Example { request, what, distance, reason, .. } = example;
                let distance =
                    distance.map_or_else(String::new, |distance| format!("distance {distance:.2}  "));
                writeln!(f, "  {request}  {what}  {distance}{reason}")?;
            }
        }
        Ok(())
    }
}
