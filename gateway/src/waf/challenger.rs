//! A challenger: a newly published model that scores beside the champion, after each response and without any say,
//! until enough was seen to tell whether it may take over.
//!
//! What it flags of clients that nothing else speaks against must be within its budget; attacks that come during
//! its trial do not count against it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use waf_model::{event::ReviewVerdict, model::Model};

use crate::{
    clock, config,
    waf::live::{accused::Accused, poisson},
};

/// Flagged requests that are kept for reviews.
const KEPT: usize = 1024;

/// So many disputed clients are never held against a challenger: one or two clients, or a single network, must not
/// get a model refused.
const FORGIVEN: u64 = 4;

/// A model on trial.
#[derive(Debug)]
pub struct Challenger {
    /// The model.
    pub model: Arc<Model>,
    terms: config::Challenger,
    started_ms: u64,
    seen: AtomicU64,
    flagged: AtomicU64,
    champion_flagged: AtomicU64,
    agreed: AtomicU64,
    /// Taken for requests that one of the two flags.
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    accused: Accused,
    /// Request id, whether the champion flags it, whether the challenger does.
    flagged: VecDeque<([u8; 16], bool, bool)>,
    wronged: u64,
    lost: u64,
}

/// One request that both models scored.
#[derive(Debug, Clone, Copy)]
pub struct Compared<'a> {
    /// Request id.
    pub id: [u8; 16],
    /// Keyed hash of the client.
    pub client: u64,
    /// Keyed hash of its network.
    pub network: u64,
    /// Path template.
    pub path: &'a str,
    /// Whether the champion flags it.
    pub champion: bool,
    /// Whether the challenger flags it.
    pub challenger: bool,
    /// Whether the challenger flags it and nothing else speaks against it.
    pub disputed: bool,
}

/// How a trial stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// Sequence number of the challenger.
    pub seq: u64,
    /// Requests that both models scored.
    pub seen: u64,
    /// After how many it is judged.
    pub of: u64,
    /// Requests that the challenger flags; attacks among them.
    pub flagged: u64,
    /// Requests that the champion flags.
    pub champion_flagged: u64,
    /// Share of the requests about which they agree.
    pub agreement: f64,
    /// Clients that the challenger flags and nothing else speaks against.
    pub disputed: u64,
    /// Requests that the challenger's budget allows it to flag wrongly.
    pub allowed: f64,
    /// Requests that it flags and people judged harmless.
    pub wronged: u64,
    /// Requests that the champion flags, people confirmed as attacks, and it does not flag.
    pub lost: u64,
}

impl Challenger {
    /// A trial that begins now, on these terms.
    pub fn new(model: Arc<Model>, terms: config::Challenger, now_ms: u64) -> Self {
        Self {
            model,
            terms,
            started_ms: now_ms,
            seen: AtomicU64::new(0),
            flagged: AtomicU64::new(0),
            champion_flagged: AtomicU64::new(0),
            agreed: AtomicU64::new(0),
            notes: Mutex::default(),
        }
    }

    /// Counts one request.
    pub fn note(&self, compared: &Compared<'_>, now_ms: u64) {
        let count = |counter: &AtomicU64, when: bool| counter.fetch_add(u64::from(when), Ordering::Relaxed);
        count(&self.flagged, compared.challenger);
        count(&self.champion_flagged, compared.champion);
        count(&self.agreed, compared.challenger == compared.champion);
        if compared.challenger || compared.champion {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.flagged.len() >= KEPT {
                notes.flagged.pop_front();
            }
            notes.flagged.push_back((compared.id, compared.champion, compared.challenger));
            if compared.disputed {
                notes.accused.note(compared.client, compared.network, compared.path, now_ms);
            }
        }
        // Last, so that whoever judges sees what belongs to it.
        count(&self.seen, true);
    }

    /// Takes a person's judgment of a request into account, if one of the two models flagged it during the trial.
    pub fn review(&self, id: [u8; 16], verdict: ReviewVerdict) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = notes.flagged.iter().position(|(noted, ..)| *noted == id) else { return };
        // Judged once; a second opinion about the same request adds nothing.
        match (verdict, notes.flagged.remove(at)) {
            (ReviewVerdict::FalsePositive, Some((_, _, true))) => notes.wronged += 1,
            (ReviewVerdict::Confirmed, Some((_, true, false))) => notes.lost += 1,
            _ => {}
        }
    }

    /// How the trial stands.
    pub fn trial(&self, now_ms: u64) -> Trial {
        let seen = self.seen.load(Ordering::Relaxed);
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        Trial {
            seq: self.model.seq(),
            seen,
            of: self.terms.requests,
            flagged: self.flagged.load(Ordering::Relaxed),
            champion_flagged: self.champion_flagged.load(Ordering::Relaxed),
            agreement: self.agreed.load(Ordering::Relaxed) as f64 / seen.max(1) as f64,
            disputed: notes.accused.count(now_ms).day,
            allowed: self.model.request_certificate().budget * seen as f64,
            wronged: notes.wronged,
            lost: notes.lost,
        }
    }

    /// Whether it may take over: `None` until enough was seen or the time is up.
    pub fn judge(&self, now_ms: u64) -> Option<Result<Trial, String>> {
        let elapsed = now_ms.saturating_sub(self.started_ms);
        if self.seen.load(Ordering::Relaxed) < self.terms.requests
            && elapsed < clock::millis(self.terms.within)
        {
            return None;
        }
        let trial = self.trial(now_ms);
        Some(match objection(&trial) {
            None => Ok(trial),
            Some(reason) => Err(reason),
        })
    }
}

/// Why a challenger may not take over, if it may not.
fn objection(trial: &Trial) -> Option<String> {
    let Trial { seen, disputed, allowed, wronged, lost, .. } = trial;
    let bound = poisson::bound(*allowed).max(FORGIVEN);
    if *disputed > bound {
        return Some(format!(
            "in {seen} requests it flags {disputed} clients that nothing else speaks against; its budget allows \
             {allowed:.1} requests, by luck up to {bound}"
        ));
    }
    if *wronged > 0 {
        return Some(format!("it flags {wronged} requests that people judged harmless"));
    }
    (*lost > 0).then(|| format!("it lets {lost} attacks pass that the champion flags and people confirmed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial() -> Trial {
        Trial {
            seq: 2,
            seen: 1_000,
            of: 1_000,
            flagged: 90,
            champion_flagged: 5,
            agreement: 0.9,
            disputed: 5,
            allowed: 1.0,
            wronged: 0,
            lost: 0,
        }
    }

    #[test]
    fn what_speaks_against_a_challenger_is_said() {
        assert_eq!(objection(&trial()), None, "attacks do not count, and five clients may be luck");
        let cases: [(Trial, &str); 4] = [
            (Trial { disputed: 6, ..trial() }, "6 clients that nothing else speaks against"),
            (Trial { disputed: 5, allowed: 0.0, ..trial() }, "by luck up to 4"),
            (Trial { wronged: 1, ..trial() }, "1 requests that people judged harmless"),
            (Trial { lost: 2, ..trial() }, "lets 2 attacks pass"),
        ];
        for (trial, reason) in cases {
            let found = objection(&trial).unwrap();
            assert!(found.contains(reason), "{found}");
        }
        assert_eq!(
            objection(&Trial { disputed: 4, allowed: 0.0, ..trial() }),
            None,
            "a handful refuses no model"
        );
    }
}
