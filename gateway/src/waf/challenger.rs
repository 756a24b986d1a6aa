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

/// Parts that one request is counted in where a budget is added up.
const BILLIONTHS: f64 = 1e9;

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
    /// Budgets of the requests seen, in [`BILLIONTHS`]: routes may have different ones.
    allowed: AtomicU64,
    /// Taken for requests that one of the two flags.
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    accused: Accused,
    champion_accused: Accused,
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
    /// Rate of false positives that the challenger promises where it was sent.
    pub budget: f64,
    /// Whether the champion flags it.
    pub champion: bool,
    /// Whether the challenger flags it.
    pub challenger: bool,
    /// Whether nothing else speaks against it.
    pub harmless: bool,
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
    /// Clients that the champion flags and nothing else speaks against.
    pub champion_disputed: u64,
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
            allowed: AtomicU64::new(0),
            notes: Mutex::default(),
        }
    }

    /// Counts one request.
    pub fn note(&self, compared: &Compared<'_>, now_ms: u64) {
        let count = |counter: &AtomicU64, when: bool| counter.fetch_add(u64::from(when), Ordering::Relaxed);
        count(&self.flagged, compared.challenger);
        count(&self.champion_flagged, compared.champion);
        count(&self.agreed, compared.challenger == compared.champion);
        self.allowed.fetch_add((compared.budget * BILLIONTHS) as u64, Ordering::Relaxed);
        if compared.challenger || compared.champion {
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.flagged.len() >= KEPT {
                notes.flagged.pop_front();
            }
            notes.flagged.push_back((compared.id, compared.champion, compared.challenger));
            let Compared { client, network, path, .. } = compared;
            if compared.harmless && compared.challenger {
                notes.accused.note(*client, *network, path, now_ms);
            }
            if compared.harmless && compared.champion {
                notes.champion_accused.note(*client, *network, path, now_ms);
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
            champion_disputed: notes.champion_accused.count(now_ms).day,
            allowed: self.allowed.load(Ordering::Relaxed) as f64 / BILLIONTHS,
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
    let Trial { seen, disputed, champion_disputed, allowed, wronged, lost, .. } = trial;
    let bound = poisson::bound(*allowed).max(FORGIVEN);
    // After a change of the site the champion may be far worse; then a challenger that is better takes over, and the
    // breaker watches it.
    if *disputed > bound && disputed * 2 > *champion_disputed {
        return Some(format!(
            "in {seen} requests it flags {disputed} clients that nothing else speaks against (the champion {champion_disputed}); its \
             budget allows {allowed:.1} requests, by luck up to {bound}"
        ));
    }
    if *wronged > 0 {
        return Some(format!("it flags {wronged} requests that people judged harmless"));
    }
    (*lost > 0).then(|| format!("it lets {lost} attacks pass that the champion flags and people confirmed"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use waf_model::{
        features::FEATURES,
        model::{
            RawModel, RawProvenance,
            calibration::{Certificate, RawCalibration, Standing},
            clusters::RawClusters,
            groups::RawGroups,
        },
        observation::Observation,
        profile::builder::ProfileBuilder,
    };

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
            champion_disputed: 0,
            allowed: 1.0,
            wronged: 0,
            lost: 0,
        }
    }

    #[test]
    fn what_speaks_against_a_challenger_is_said() {
        assert_eq!(objection(&trial()), None, "attacks do not count, and five clients may be luck");
        let cases: [(Trial, &str); 5] = [
            (Trial { disputed: 6, ..trial() }, "6 clients that nothing else speaks against"),
            (Trial { allowed: 0.0, ..trial() }, "by luck up to 4"),
            (Trial { disputed: 90, champion_disputed: 179, ..trial() }, "(the champion 179)"),
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
        let better = Trial { disputed: 90, champion_disputed: 180, ..trial() };
        assert_eq!(objection(&better), None, "half of the champion's is progress");
    }

    /// A model that knows one request; what it promises is all that counts here.
    fn model() -> Model {
        let mut builder = ProfileBuilder::default();
        builder
            .learn(&Observation { method: "GET".into(), path: "/".to_owned(), ..Observation::default() }, 1);
        let certificate = Certificate {
            budget: 0.01,
            confidence: 0.95,
            n: 1,
            threshold: 8.0,
            standing: Standing::Certified,
        };
        let raw = RawModel {
            seq: 2,
            value_key: [0; 16],
            provenance: RawProvenance::default(),
            profiles: (&builder.finish().unwrap()).into(),
            requests: RawClusters {
                dimensions: FEATURES,
                centers: vec![0.0; FEATURES],
                scales: vec![1.0; FEATURES],
                usual: vec![(-1.0, 1.0); FEATURES],
                mass: vec![1.0],
            },
            clients: None,
            request_calibration: RawCalibration::from_distances(vec![1.0]),
            client_calibration: None,
            request_certificate: certificate,
            request_groups: RawGroups::default(),
            client_certificate: certificate,
            baseline: Vec::new(),
        };
        Model::try_from(raw).unwrap()
    }

    fn compared(id: u8, champion: bool, challenger: bool, harmless: bool) -> Compared<'static> {
        let client = u64::from(id);
        let path = "/";
        Compared { id: [id; 16], client, network: client, path, budget: 0.01, champion, challenger, harmless }
    }

    #[test]
    fn a_trial_counts_and_is_judged_when_enough_was_seen_or_the_time_is_up() {
        let terms = config::Challenger { requests: 100, within: Duration::from_millis(500) };
        let new = || Challenger::new(Arc::new(model()), terms, 1_000);
        let challenger = new();
        for id in 0..99 {
            challenger.note(&compared(id, id < 10, id < 8, id < 3), 1_100);
        }
        assert_eq!(challenger.judge(1_499), None);
        challenger.note(&compared(99, false, true, false), 1_100);
        let trial = challenger.judge(1_499).unwrap().unwrap();
        assert_eq!((trial.seen, trial.flagged, trial.champion_flagged), (100, 9, 10));
        assert_eq!((trial.disputed, trial.champion_disputed), (3, 3));
        assert!((trial.agreement - 0.97).abs() < 1e-9 && (trial.allowed - 1.0).abs() < 1e-9, "{trial:?}");
        assert!(
            new().judge(1_500).unwrap().is_ok(),
            "nothing was seen in time, and nothing speaks against it"
        );
    }

    #[test]
    fn one_review_against_it_refuses_a_challenger() {
        let terms = config::Challenger { requests: 3, within: Duration::from_secs(60) };
        for (id, verdict, reason) in [
            (0, ReviewVerdict::FalsePositive, Some("1 requests that people judged harmless")),
            (0, ReviewVerdict::Confirmed, None),
            (1, ReviewVerdict::FalsePositive, None),
            (1, ReviewVerdict::Confirmed, Some("lets 1 attacks pass")),
            (2, ReviewVerdict::FalsePositive, None),
        ] {
            let challenger = Challenger::new(Arc::new(model()), terms, 0);
            challenger.note(&compared(0, true, true, false), 1);
            challenger.note(&compared(1, true, false, false), 1);
            challenger.note(&compared(2, false, false, true), 1);
            challenger.review([id; 16], verdict);
            challenger.review([id; 16], verdict);
            match (challenger.judge(1).unwrap(), reason) {
                (Ok(_), None) => {}
                (Err(found), Some(reason)) => assert!(found.contains(reason), "{found}"),
                (found, _) => panic!("request {id}, {verdict:?}: {found:?}"),
            }
        }
    }
}
