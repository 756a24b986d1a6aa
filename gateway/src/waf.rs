//! Inspection of one request: values, rules, observation, score, decision.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use waf_model::{
    base,
    client::{ClientVector, Suspicion},
    event::Verdict,
    features::{self, Attack, FeatureVector},
    keys::{self, ClientKey},
    model::{
        Model,
        calibration::{Certificate, Standing},
    },
    observation::{Observation, ValueKey},
    request::RequestView,
    rules::{Carry, Collections, Connection, Context, Evaluation, RuleMatches},
    score::{Explanation, Reason, Score},
    shape,
    values::{Finding, Limits, Location, Values},
};

use crate::{
    config::{self, Mode, Route, Toggle},
    identity::Identity,
    rules::Responses,
    waf::{evidence::Clients, model_slot::InForce},
};

pub mod challenger;
pub mod client_block;
pub mod decision;
pub mod evidence;
pub mod live;
pub mod model_slot;
pub mod model_watch;
pub mod promise;

pub use waf_model::client::RULES_EVIDENCE;

/// How many times the evidence for one client an address needs whose clients have keys or sessions of their own.
const ADDRESS_FACTOR: f32 = 3.0;

/// What one inspection works with: one snapshot for the whole request.
#[derive(Clone, Copy)]
pub struct Inspector<'a> {
    /// Detection settings.
    pub settings: &'a config::Waf,
    /// The route: its rules and how many points they may find.
    pub route: &'a Route,
    /// What rules remember across requests.
    pub collections: &'a Collections,
    /// How the request came.
    pub connection: Connection,
    /// The model in force, if any.
    pub in_force: Option<&'a Arc<InForce>>,
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
    /// The request as the model sees it.
    pub vector: Option<FeatureVector>,
    /// The model that scored.
    pub in_force: Option<Arc<InForce>>,
    /// Whether the model flags the request by itself.
    pub flagged: bool,
    /// Whether neither rules nor base knowledge speak against the request, and its client is known well enough.
    pub unsuspected: bool,
    /// Whether the model flags it although it is unsuspected and its client has a clean history.
    pub disputed: bool,
    /// Names the key of the observation.
    pub key_id: u64,
    /// Why the score is what it is; for flagged requests only.
    pub explanation: Option<Explanation>,
    /// Evidence against the client after this request, and the threshold.
    pub evidence: (f32, f32),
    /// Why a part of the request was not inspected, if one was not.
    pub blind_spot: Option<Finding>,
    /// Whom the evidence is against: the client's narrowest key, or its address.
    pub offender: ClientKey,
    /// What the model may do about a single request.
    pub model_mode: Mode,
    /// What the base knowledge may do about a single request.
    pub base_mode: Mode,
    /// What the base knowledge makes of it.
    pub attack: Attack,
    /// What was found. The route's mode has no part in it.
    pub verdict: Verdict,
    /// What the rules need to look at the response.
    pub carry: Option<Carry>,
    /// Time it took.
    pub took: Duration,
}

/// Inspection broke down: a defect of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectionFault(pub &'static str);

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
            // A formatted message may hold a part of the request, which must not get into a log.
            let text = panic.downcast_ref::<&'static str>().copied();
            InspectionFault(text.unwrap_or("panic; its message may hold request data and is withheld"))
        })
    }

    fn run(&self, request: &RequestView<'_>, identity: &Identity, now_ms: u64) -> Inspection {
        let started = Instant::now();
        let values = Values::extract(request, &Limits::default());
        let request_id = identity.request_id.as_str();
        let Self { collections, connection, .. } = *self;
        let context = Context { now_ms, request_id, collections, connection };
        let Evaluation { matches: rules, carry } = self.route.rules.set.evaluate(&context, request, &values);
        let model = self.model();
        let key = model.map_or(self.site_key, |model| model.value_key());
        let observation = Observation::of(request, &values, &rules, key);
        let client_vector = self.clients.observe(&identity.client, now_ms, &observation);
        let measured = model.map(|model| model.measure(&observation, &client_vector));
        let (score, vector) = measured.unzip();
        let group = model.map(|model| model.group(&self.route.name));
        let model_mode = group.map_or(Mode::Off, |group| self.reach(group.certificate()));

        let attack = features::attack(&observation, model.map(|model| model.profiles()));
        let base_mode = base_reach(self.settings);
        let by_base = base::shipped().flags(attack.log_odds);
        let flagged = group.zip(score).is_some_and(|(group, score)| group.flags(&score));
        // Before this request adds to the evidence.
        let unsuspected = !by_base && rules.weight() == 0 && client_vector.is_mature();
        let disputed = flagged && unsuspected && self.clients.has_clean_history(&identity.client, now_ms);

        // A model without a certificate for clients reports, but adds no evidence that could block one.
        let certificate = model.map(|model| model.client_certificate());
        let certificate = certificate.filter(|certificate| self.reach(certificate) == Mode::Block);
        let suspicion = Suspicion {
            rule_points: accusing_points(&rules),
            score: score.filter(|_| certificate.is_some()),
        };
        let threshold = certificate.map_or(RULES_EVIDENCE, |certificate| certificate.threshold);
        let (offender, level, threshold) = self.accuse(identity, now_ms, &suspicion, threshold);
        let blind_spot = blind_spot(request, &observation.findings);
        let by_base = (base_mode != Mode::Off && by_base).then_some(base_mode);
        let verdict = match self.verdict(&rules, flagged, by_base, level >= threshold) {
            Verdict::Pass if blind_spot.is_some() => Verdict::Fault,
            verdict => verdict,
        };
        let explanation = match (model, verdict) {
            (_, Verdict::Pass) | (None, Verdict::Fault) => None,
            (Some(model), _) => Some(model.explain(&observation, &client_vector)),
            (None, _) => by_base.map(|_| Explanation::default()),
        };
        let explanation = explanation.map(|mut explanation| {
            if by_base.is_some() {
                explanation.reasons.splice(0..0, base_reason(&values, attack));
            }
            explanation
        });
        Inspection {
            key_id: keys::key_id(key),
            observation,
            rules,
            client_vector,
            score,
            vector,
            in_force: self.in_force.cloned(),
            flagged,
            unsuspected,
            disputed,
            explanation,
            evidence: (level, threshold),
            blind_spot,
            offender,
            model_mode,
            base_mode,
            attack,
            verdict,
            carry: (self.route.rules.responses != Responses::Unseen).then_some(carry),
            took: started.elapsed(),
        }
    }

    /// Adds evidence against the client's narrowest key. Keys and sessions are the client's own words, and a new
    /// one with every request would gather no evidence; so its address gathers it too, and counts when it has
    /// several times what a single client is blocked for.
    fn accuse(
        &self,
        identity: &Identity,
        now_ms: u64,
        suspicion: &Suspicion,
        threshold: f32,
    ) -> (ClientKey, f32, f32) {
        let request_id = &identity.request_id;
        let level = self.clients.suspect(&identity.client, now_ms, request_id, suspicion);
        if level < threshold
            && let Some(address) = identity.keys.last().filter(|key| **key != identity.client)
        {
            let at_address = self.clients.suspect(address, now_ms, request_id, suspicion);
            if at_address >= threshold * ADDRESS_FACTOR {
                return (address.clone(), at_address, threshold * ADDRESS_FACTOR);
            }
        }
        (identity.client.clone(), level, threshold)
    }

    fn model(&self) -> Option<&Model> {
        self.in_force.map(|in_force| &*in_force.model)
    }

    fn reach(&self, certificate: &Certificate) -> Mode {
        let ceiling = self.in_force.map_or(Mode::Off, |in_force| in_force.live.ceiling(&self.route.name));
        model_reach(self.settings, certificate).min(ceiling)
    }

    fn verdict(
        &self,
        rules: &RuleMatches,
        flagged: bool,
        by_base: Option<Mode>,
        evidence_reached: bool,
    ) -> Verdict {
        if decision::rules_reject(rules, self.route.inbound_threshold) {
            return Verdict::Rules;
        }
        // What may act comes before what may only report.
        if by_base == Some(Mode::Block) {
            return Verdict::Base;
        }
        if flagged {
            return Verdict::Model;
        }
        if by_base.is_some() {
            return Verdict::Base;
        }
        match (evidence_reached, self.settings.block_clients) {
            (true, Toggle::On) => Verdict::Blocked,
            _ => Verdict::Pass,
        }
    }
}

/// The points that speak against the client. What anomaly scoring reports counts once it denies: single reports of
/// such rules are frequent in clean traffic, and must not add up.
fn accusing_points(rules: &RuleMatches) -> u32 {
    if rules.denied.is_some() { rules.weight() } else { rules.points }
}

/// The model acts as far as its certificate reaches.
pub fn model_reach(settings: &config::Waf, certificate: &Certificate) -> Mode {
    match certificate.standing {
        Standing::Certified => Mode::Block,
        Standing::Provisional => settings.provisional,
    }
}

/// How far the promise of the base knowledge lets it go.
pub fn base_reach(settings: &config::Waf) -> Mode {
    match (settings.base, base::shipped().promise().certified) {
        (Mode::Block, false) => settings.provisional,
        (mode, _) => mode,
    }
}

/// Why the base knowledge finds a request suspicious: its strongest value, what it looks like, and by what.
fn base_reason(values: &Values<'_>, attack: Attack) -> Option<Reason> {
    let base = base::shipped();
    match attack.culprit {
        None => {
            let path = base::path_text(values);
            base.reason(Location::Path, "", std::iter::once(path.as_slice()))
        }
        Some(index) => {
            let value = values.items.iter().filter(|value| base::is_judged(value)).nth(index)?;
            base.reason(value.location, &shape::name(&value.name), base::value_texts(value))
        }
    }
}

/// The finding by which a part of the request escaped inspection. A body beyond the window is not among them: the
/// route's `oversize` decided about it.
pub fn blind_spot(request: &RequestView<'_>, findings: &[Finding]) -> Option<Finding> {
    findings.iter().copied().find(|finding| match finding {
        Finding::TooManyValues | Finding::TooDeep | Finding::TooLarge | Finding::TooManyLayers => true,
        Finding::EncodedBody => !request.body.bytes.is_empty(),
        _ => false,
    })
}
