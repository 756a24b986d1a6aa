//! Blocks of clients against whom enough evidence has come together.

use std::{sync::Arc, time::Duration};

use waf_model::{
    client::{RULES_EVIDENCE, Suspicion},
    event::Verdict,
    model::calibration::Certificate,
    rules::RuleMatch,
};

use crate::{
    block_list::BlockList,
    config::{self, Mode, Route, Toggle},
    identity::Identity,
    store::{Block, BlockExplanation, BlockOrigin, ClientKeyText, raw_block::address_key},
    waf::{Inspection, evidence::Clients, model_slot::InForce},
};

/// Longest block made by the gateway itself.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a block made on evidence is in force for.
const SCOPE: &str = "all";

/// Whether a client was blocked now.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The evidence does not suffice, or nothing may be blocked here.
    Left,
    /// This block is in force.
    Blocked(Arc<Block>),
}

/// Blocks the client under the narrowest key that the evidence is against, if the evidence reached the threshold, client blocking is on and the
/// route's mode is `block`.
pub fn block_on_evidence(
    settings: &config::Waf,
    clients: &Clients,
    blocks: &BlockList,
    route: &Route,
    identity: &Identity,
    inspection: &Inspection,
    now_ms: u64,
) -> Outcome {
    let (level, threshold) = inspection.evidence;
    if level < threshold || settings.block_clients == Toggle::Off || route.mode != Mode::Block {
        return Outcome::Left;
    }
    let offence = clients.offend(&inspection.offender, now_ms, 0);
    let lasts = ttl(settings.block_ttl, offence.count);
    let block = Arc::new(Block {
        client: ClientKeyText(inspection.offender.clone()),
        scope: SCOPE.to_owned(),
        reason: reason(inspection),
        score: level,
        budget: budget(inspection),
        model: inspection.in_force.as_ref().map_or(0, |in_force| in_force.model.seq()),
        first_seen_ms: offence.first_seen_ms,
        last_seen_ms: now_ms,
        count: offence.count,
        expires_ms: now_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)),
        origin: BlockOrigin::Gateway,
        request_id: Some(identity.request_id.clone()),
        explanation: BlockExplanation {
            rules: inspection.rules.matches.iter().map(title).collect(),
            model: inspection.explanation.clone(),
            timeline: offence.timeline,
        },
    });
    blocks.block(Arc::clone(&block));
    Outcome::Blocked(block)
}

/// Takes a login that was refused for guessing as evidence against its address, and blocks that when enough has come
/// together: who is told to wait and goes on has not forgotten a password.
pub fn block_on_guessing(
    settings: &config::Waf,
    clients: &Clients,
    blocks: &BlockList,
    route: &Route,
    identity: &Identity,
    now_ms: u64,
) -> Outcome {
    let address = address_key(identity.address);
    let suspicion = Suspicion { rule_points: 1, score: None };
    let level = clients.suspect(&address, now_ms, &identity.request_id, &suspicion);
    if level < RULES_EVIDENCE || settings.block_clients == Toggle::Off || route.mode != Mode::Block {
        return Outcome::Left;
    }
    let offence = clients.offend(&address, now_ms, 0);
    let lasts = ttl(settings.block_ttl, offence.count);
    let block = Arc::new(Block {
        client: ClientKeyText(address),
        scope: SCOPE.to_owned(),
        reason: format!(
            "evidence {level:.1} of {RULES_EVIDENCE:.1}, last: guessing after too many failed logins"
        ),
        score: level,
        budget: String::new(),
        model: 0,
        first_seen_ms: offence.first_seen_ms,
        last_seen_ms: now_ms,
        count: offence.count,
        expires_ms: now_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)),
        origin: BlockOrigin::Gateway,
        request_id: Some(identity.request_id.clone()),
        explanation: BlockExplanation { rules: Vec::new(), model: None, timeline: offence.timeline },
    });
    blocks.block(Arc::clone(&block));
    Outcome::Blocked(block)
}

/// Four times as long with each repetition.
fn ttl(first: Duration, count: u32) -> Duration {
    let factor = 4_u32.saturating_pow(count.saturating_sub(1).min(12));
    first.saturating_mul(factor).min(LONGEST.max(first))
}

fn reason(inspection: &Inspection) -> String {
    let (level, threshold) = inspection.evidence;
    let strongest = match (inspection.verdict, inspection.rules.matches.first(), &inspection.explanation) {
        (Verdict::Rules, Some(rule), _) => format!("rule {}", title(rule)),
        (_, _, Some(explanation)) if !explanation.reasons.is_empty() => {
            explanation.reasons.iter().take(1).map(|reason| reason.text.as_str()).collect()
        }
        (_, Some(rule), _) => format!("rule {}", title(rule)),
        _ => "accumulated suspicion".to_owned(),
    };
    format!("evidence {level:.1} of {threshold:.1}, last: {strongest}")
}

fn budget(inspection: &Inspection) -> String {
    let Some(in_force) = &inspection.in_force else { return String::new() };
    let certificate = in_force.model.client_certificate();
    if !is_certified(inspection, certificate) {
        return String::new();
    }
    format!(
        "at most {:.2e} false blocks per client-day at {:.0} % confidence ({} client-days)",
        certificate.budget,
        certificate.confidence * 100.0,
        certificate.n
    )
}

/// Whether the evidence against the client is measured by the model's threshold. With rules alone it is not, and no
/// promise stands behind a block.
fn is_certified(inspection: &Inspection, certificate: &Certificate) -> bool {
    inspection.evidence.1.to_bits() == certificate.threshold.to_bits()
}

/// Whether the client is blocked by the model's promise, or would be in mode `block`.
pub fn counts_against_budget(inspection: &Inspection) -> bool {
    let (level, threshold) = inspection.evidence;
    let promised = |in_force: &Arc<InForce>| is_certified(inspection, in_force.model.client_certificate());
    level >= threshold && inspection.in_force.as_ref().is_some_and(promised)
}

fn title(rule: &RuleMatch) -> String {
    format!("{} {}", rule.id, rule.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_lasts_four_times_as_long_up_to_a_day() {
        let minutes = |count| ttl(Duration::from_secs(600), count).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 60].map(minutes), [10, 40, 160, 640, 1440, 1440]);
        assert_eq!(ttl(Duration::from_secs(200_000), 3), Duration::from_secs(200_000));
    }
}
