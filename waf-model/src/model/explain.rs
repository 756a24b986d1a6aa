//! Why a score is what it is, in words an operator understands.

use super::Clusters;
use crate::{
    client::{CLIENT_TABLE, ClientVector},
    features::{self, TABLE},
    observation::{Observation, ParamObservation, summary::char_name},
    profile::Profiles,
    score::Reason,
    values::Location,
};

/// Most reasons that are given for a request, or for a client.
pub const REASONS: usize = 5;

/// Share of the squared distance below which a feature is not a reason.
const LEAST_SHARE: f32 = 0.05;

/// The features that put `observation` far from its nearest cluster, strongest first.
pub(super) fn request_reasons(
    clusters: &Clusters,
    profiles: &Profiles,
    observation: &Observation,
) -> Vec<Reason> {
    let extraction = features::extract(observation, profiles);
    strongest(clusters, &extraction.vector.0, |column| {
        let feature = TABLE.get(column)?;
        let text = match features::culprit(&extraction, column, observation) {
            Some(param) => param_text(profiles, observation, param, feature.text),
            None => feature.text.to_owned(),
        };
        Some((feature.name, text))
    })
}

/// The behavior that puts a client far from its nearest cluster, strongest first.
pub(super) fn client_reasons(clusters: &Clusters, client: &ClientVector) -> Vec<Reason> {
    strongest(clusters, &client.0, |column| {
        let (name, text, _) = CLIENT_TABLE.get(column)?;
        Some((*name, format!("client: {text}")))
    })
}

fn strongest(
    clusters: &Clusters,
    x: &[f32],
    describe: impl Fn(usize) -> Option<(&'static str, String)>,
) -> Vec<Reason> {
    let cluster = usize::from(clusters.nearest(x).cluster);
    let mut shares: Vec<(usize, f32)> = clusters.shares(cluster, x).enumerate().collect();
    let total: f32 = shares.iter().map(|(_, share)| share).sum();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
        .into_iter()
        .map(|(column, share)| (column, share / total.max(f32::MIN_POSITIVE)))
        .take_while(|(_, share)| *share >= LEAST_SHARE)
        .take(REASONS)
        .filter_map(|(column, share)| {
            let (name, text) = describe(column)?;
            let observed = *x.get(column)?;
            let usual = *clusters.usual(cluster).get(column)?;
            let text = format!("{text}: {observed:.2}, usually {:.2} to {:.2}", usual.0, usual.1);
            Some(Reason { feature: name.to_owned(), share, observed, usual, text })
        })
        .collect()
}

fn param_text(
    profiles: &Profiles,
    observation: &Observation,
    param: &ParamObservation,
    what: &str,
) -> String {
    let place = match param.location {
        Location::Query => "query parameter",
        Location::Header => "header",
        Location::Cookie => "cookie",
        Location::Path => "path segment",
        Location::FileName => "file name of",
        Location::Form | Location::Multipart => "form field",
        Location::Json => "JSON field",
        Location::Xml => "XML element",
        Location::Body => "body",
    };
    let mut text = format!("{place} `{}`: {what}", param.name);
    if let Some(profile) = profiles.context(observation).param(param.location, &param.name).profile() {
        let strange: Vec<&str> =
            profile.strange_chars(&param.summary).into_iter().take(6).map(char_name).collect();
        if !strange.is_empty() {
            text.push_str(&format!(" (strange there: {})", strange.join(" ")));
        }
        let (low, high) = profile.usual_bytes();
        let bytes = param.summary.bytes as f32;
        if bytes < low - 0.5 || bytes > high + 0.5 {
            text.push_str(&format!(" ({bytes:.0} bytes, usually {low:.0} to {high:.0})"));
        }
    }
    text
}
