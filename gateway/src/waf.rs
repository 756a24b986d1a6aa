//! Inspection of one request: values, rules, observation, score, decision.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use waf_model::{
    client::{ClientVector, Suspicion},
    event::Verdict,
    keys,
    model::{
        Model,
        calibration::{Certificate, Standing},
    },
    observation::{Observation, ValueKey},
    request::RequestView,
    rules::{RuleMatches, RuleSet},
    score::{Explanation, Score},
    values::{Limits, Values},
};

use crate::{
    config::{self, Mode, Toggle},
    identity::Identity,
    waf::evidence::Clients,
};

pub mod client_block;
pub mod decision;
pub mod evidence;
pub mod model_slot;
pub mod model_watch;

/// Evidence level at which a client is blocked while only rules count.
pub const RULES_EVIDENCE: f32 = 10.0;

/// What one inspection works with: one snapshot for the whole request.
#[derive(Clone, Copy)]
pub struct Inspector<'a> {
    /// Detection settings.
    pub settings: &'a config::Waf,
    /// The rules in force.
    pub rules: &'a RuleSet,
    /// The model in force, if any.
    pub model: Option<&'a Arc<Model>>,
    /// Windows and evidence of all clients.
    pub clients: &'a Clients,
    /// The key for observations while there is no model.
    pub site_key: &'a ValueKey,
}

/// What was found out about one request.
#[derive(Debug)]
pub struct Inspection {
    /// What was observed.
    pub observation: Observation,
    /// Rules that matched.
    pub rules: RuleMatches,
    /// The client's window at this request.
    pub client_vector: ClientVector,
    /// The model's score, if there is a model.
    pub score: Option<Score>,
    /// The model that scored.
    pub model: Option<Arc<Model>>,
    /// Names the key of the observation.
    pub key_id: u64,
    /// Why the score is what it is; for flagged requests only.
    pub explanation: Option<Explanation>,
    /// Evidence against the client after this request, and the threshold.
    pub evidence: (f32, f32),
    /// What the model may do about a single request.
    pub model_mode: Mode,
    /// What was found. The route's mode has no part in it.
    pub verdict: Verdict,
    /// Time it took.
    pub took: Duration,
}

/// Inspection broke down: a defect of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectionFault(pub String);

impl Inspector<'_> {
    /// Inspects one request at `now_ms` (milliseconds since 1970).
    ///
    /// # Errors
    /// A panic inside, caught; the route says what becomes of the request.
    pub fn inspect(
        &self,
        request: &RequestView<'_>,
        identity: &Identity,
        now_ms: u64,
    ) -> Result<Inspection, InspectionFault> {
        // Everything inside is either dropped with the panic or guarded by locks that recover from poisoning.
        catch_unwind(AssertUnwindSafe(|| self.run(request, identity, now_ms))).map_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            InspectionFault(text.unwrap_or_else(|| "panic without a message".to_owned()))
        })
    }

    fn run(&self, request: &RequestView<'_>, identity: &Identity, now_ms: u64) -> Inspection {
        let started = Instant::now();
        let values = Values::extract(request, &Limits::default());
        let rules = self.rules.evaluate(request, &values);
        let key = self.model.map_or(self.site_key, |model| model.value_key());
        let observation = Observation::of(request, &values, &rules, key);
        let client_vector = self.clients.observe(&identity.client, now_ms, &observation);
        let score = self.model.map(|model| model.score(&observation, &client_vector));
        let model_mode = self.model.map_or(Mode::Off, |model| self.reach(model.request_certificate()));

        // A model without a certificate for clients reports, but adds no evidence that could block one.
        let certificate = self.model.map(|model| model.client_certificate());
        let certificate = certificate.filter(|certificate| self.reach(certificate) == Mode::Block);
        let suspicion =
            Suspicion { rule_points: rules.points, score: score.filter(|_| certificate.is_some()) };
        let level = self.clients.suspect(&identity.client, now_ms, &identity.request_id, &suspicion);
        let threshold = certificate.map_or(RULES_EVIDENCE, |certificate| certificate.threshold);
        let verdict = self.verdict(&rules, score.as_ref(), level >= threshold);
        let explanation = match (self.model, verdict) {
            (None, _) | (_, Verdict::Pass) => None,
            (Some(model), _) => Some(model.explain(&observation, &client_vector)),
        };
        Inspection {
            key_id: keys::key_id(key),
            observation,
            rules,
            client_vector,
            score,
            model: self.model.cloned(),
            explanation,
            evidence: (level, threshold),
            model_mode,
            verdict,
            took: started.elapsed(),
        }
    }

    /// The model acts as far as its certificate reaches.
    fn reach(&self, certificate: &Certificate) -> Mode {
        match certificate.standing {
            Standing::Certified => Mode::Block,
            Standing::Provisional => self.settings.provisional,
        }
    }

    fn verdict(&self, rules: &RuleMatches, score: Option<&Score>, evidence_reached: bool) -> Verdict {
        if rules.points >= self.settings.inbound_threshold && rules.points > 0 {
            return Verdict::Rules;
        }
        if let (Some(model), Some(score)) = (self.model, score)
            && score.request.surprise() >= model.request_certificate().threshold
        {
            return Verdict::Model;
        }
        match (evidence_reached, self.settings.block_clients) {
            (true, Toggle::On) => Verdict::Blocked,
            _ => Verdict::Pass,
        }
    }
}
