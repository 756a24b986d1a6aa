//! What other rules would have done to the requests that routes with `record: full` recorded.
//!
//! The recorded requests are without their secrets: what a rule found there alone, it does not find again. So two rule
//! sets compare exactly, and one with what was decided at the time all but exactly.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use waf_model::{
    client::{Evidence, RULES_EVIDENCE, Suspicion},
    event::{Origin, Verdict},
    full_record::{FullRecord, RecordKey},
    rules::{Collections, Connection, Context, RuleMatch, RuleMatches, RuleSet},
    values::{Limits, Values},
};

use super::{Against, Answer, Backtest, Change, Example, Tried, recorded};
use crate::{
    ingest::now_ms,
    lake::{
        Lake,
        columns::{Head, request_id},
        day::Day,
    },
    rules::Rules,
    sanitize::Sanitizer,
};

/// Replays the recorded requests through `tried` and through `against`; without it, against what was decided.
///
/// # Errors
/// The rules have mistakes, or the lake cannot be read.
pub fn backtest(lake: &Lake, key: &RecordKey, tried: &Rules, against: Option<&Rules>) -> Result<Backtest> {
    // Reviews name requests by their id, which no key changes.
    let judged = Sanitizer::new(0, &lake.reviews()?);
    let mut found = Backtest {
        tried: Tried::Rules(tried.names.clone()),
        against: against.map_or(Against::Recorded, |rules| Against::Rules(rules.names.clone())),
        requests: 0,
        skipped: 0,
        stopped: (0, 0),
        changes: BTreeMap::new(),
    };
    let mut now_side = Side::new(tried);
    let mut before_side = against.map(Side::new);
    let mut seen: HashSet<[u8; 16]> = HashSet::new();
    lake.scan_full(Day::of(now_ms()), |sealed| {
        let record = match FullRecord::open(sealed, key) {
            Ok(record) if record.verdict != Verdict::Allowed && seen.insert(record.id) => record,
            _ => {
                found.skipped += 1;
                return Ok(());
            }
        };
        found.requests += 1;
        let (mut now, now_matches) = now_side.answer(&record)?;
        let (before, before_matches) = match &mut before_side {
            None if record.acts => (recorded(record.verdict), RuleMatches::default()),
            None => (Answer::Passes, RuleMatches::default()),
            Some(side) => side.answer(&record)?,
        };
        let mut before = before;
        // What model, base knowledge or block list stopped stays stopped, whatever rules say.
        let elsewhere = match record.verdict {
            Verdict::Model | Verdict::Base => record.acts,
            Verdict::Blocked => against.is_none() || before == Answer::Passes,
            _ => false,
        };
        if elsewhere {
            for answer in [&mut before, &mut now].into_iter().filter(|answer| **answer == Answer::Passes) {
                *answer = recorded(record.verdict);
            }
        }
        found.stopped.0 += u64::from(before != Answer::Passes);
        found.stopped.1 += u64::from(now != Answer::Passes);
        let Some(change) = Change::between(before, now) else { return Ok(()) };
        let matches = if change == Change::Passed { before_matches } else { now_matches };
        found.changes.entry(change).or_default().add(&head(&record), &record.route, &judged, || Example {
            request: request_id(&record.id),
            route: record.route.clone(),
            what: record.what.clone(),
            distance: None,
            reason: reason(&record, &matches),
        });
        Ok(())
    })?;
    found.changes.values_mut().for_each(super::Changed::sum_up);
    Ok(found)
}

/// One rule set at work: compiled for each way in which routes set it up, with what it remembers of clients.
struct Side<'a> {
    rules: &'a Rules,
    compiled: HashMap<(u8, (u32, u32)), RuleSet>,
    collections: Collections,
    clients: HashMap<u64, Evidence>,
}

impl<'a> Side<'a> {
    fn new(rules: &'a Rules) -> Self {
        Self { rules, compiled: HashMap::new(), collections: Collections::default(), clients: HashMap::new() }
    }

    /// What a gateway in mode `block` with these rules alone decides, and what matched.
    fn answer(&mut self, record: &FullRecord) -> Result<(Answer, RuleMatches)> {
        let setting = (record.paranoia, record.thresholds);
        if !self.compiled.contains_key(&setting) {
            let set = self.rules.compile(record.paranoia, record.thresholds)?;
            self.compiled.insert(setting, set);
        }
        let Some(set) = self.compiled.get(&setting) else {
            return Ok((Answer::Passes, RuleMatches::default()));
        };
        let fields = record.fields();
        let view = record.view(&fields);
        let values = Values::extract(&view, &Limits::default());
        let context = Context {
            now_ms: record.at_ms,
            request_id: "",
            collections: &self.collections,
            connection: Connection::default(),
        };
        let found = set.evaluate(&context, &view, &values).matches;
        let rejects = found.denied.is_some() || found.points >= record.thresholds.0;
        let rule_points = if found.denied.is_some() { found.weight() } else { found.points };
        let evidence = self.clients.entry(record.client).or_default();
        let level = evidence.add(record.at_ms, &Suspicion { rule_points, score: None });
        let answer = match () {
            () if rejects => Answer::Rejected,
            () if level >= RULES_EVIDENCE => Answer::Blocked,
            () => Answer::Passes,
        };
        Ok((answer, found))
    }
}

/// What stands for the record in reviews and counts.
fn head(record: &FullRecord) -> Head {
    Head {
        id: record.id,
        at_ms: record.at_ms,
        client: record.client,
        network: 0,
        route: 0,
        status: 0,
        verdict: record.verdict,
        origin: Origin::Gateway,
        ruled: !record.hits.is_empty(),
        key_id: 0,
    }
}

/// The heaviest rule that matched, or else the first that did at the time.
fn reason(record: &FullRecord, matches: &RuleMatches) -> String {
    let heaviest = |found: &&RuleMatch| found.severity.points();
    let found = matches.matches.iter().rev().max_by_key(heaviest);
    match (found, record.hits.first()) {
        (Some(RuleMatch { id, message, variable, fragment, .. }), _) => {
            format!("rule {id} {message} in {variable}: {fragment}")
        }
        (None, Some(hit)) => format!("rule {} in {}: {}", hit.rule, hit.variable, hit.fragment),
        (None, None) => "the client's earlier requests".to_owned(),
    }
}
