//! The one place that decides whether a request goes on. Mode `detect` cannot change a response because of what
//! stands here.

use waf_model::{event::Verdict, rules::RuleMatches};

use crate::{
    body::Window,
    config::{Mode, OnError, Oversize, Route},
    error::Fault,
    waf::Inspection,
};

/// Proof that inspection had its say about a request. Forwarding demands it, and only this module makes it.
#[derive(Debug)]
pub struct Inspected {
    _only_made_here: (),
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    /// It goes to the upstream.
    Forward(Inspected),
    /// It is answered by the gateway.
    Reject(Fault),
}

/// Decides about a request for which nothing but `verdict` counts: allowed, blocked, or not inspected because of
/// a fault or because the route is off ([`Verdict::Pass`]).
pub fn decide(route: &Route, verdict: Verdict) -> Decision {
    let forward = Decision::Forward(Inspected { _only_made_here: () });
    match (route.mode, verdict) {
        (Mode::Off | Mode::Detect, _) | (Mode::Block, Verdict::Pass | Verdict::Allowed) => forward,
        (Mode::Block, Verdict::Rules | Verdict::Model | Verdict::Base | Verdict::Blocked) => {
            Decision::Reject(Fault::Rejected)
        }
        (Mode::Block, Verdict::Response) => Decision::Reject(Fault::ResponseRejected),
        (Mode::Block, Verdict::Fault) => match route.on_error {
            OnError::Block => Decision::Reject(Fault::NotInspected),
            OnError::Pass => forward,
        },
    }
}

/// Decides about an inspected request: the route's mode is the ceiling, and the model acts as far as its
/// certificate reaches.
pub fn decide_inspected(route: &Route, inspection: &Inspection) -> Decision {
    match inspection.verdict {
        Verdict::Fault => match (decide(route, Verdict::Fault), inspection.blind_spot) {
            (Decision::Reject(_), Some(finding)) => Decision::Reject(Fault::Uninspectable(finding)),
            (decision, _) => decision,
        },
        // A rule that denies may say how.
        Verdict::Rules => match (decide(route, Verdict::Rules), &inspection.rules.denied) {
            (Decision::Reject(_), Some(denial)) => Decision::Reject(Fault::Denied(denial.clone())),
            (decision, _) => decision,
        },
        Verdict::Model if inspection.model_mode != Mode::Block => decide(route, Verdict::Pass),
        Verdict::Base if inspection.base_mode != Mode::Block => decide(route, Verdict::Pass),
        verdict => decide(route, verdict),
    }
}

/// Whether rules reject what they looked at: one denies, or the points come to `threshold` (at least 1).
pub fn rules_reject(found: &RuleMatches, threshold: u32) -> bool {
    found.denied.is_some() || found.points >= threshold
}

/// How much of a body is read for inspection; what would refuse a large body does so in mode `block` only.
pub fn body_window(route: &Route) -> Window {
    match (route.mode, route.oversize) {
        (Mode::Off, _) => Window::Closed,
        (Mode::Detect, Oversize::Reject) => Window::Open(Oversize::InspectPrefix),
        (_, oversize) => Window::Open(oversize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn route(mode: Mode, on_error: OnError) -> Route {
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        Route { mode, on_error, oversize: Oversize::Reject, ..Route::clone(&config.routes[0]) }
    }

    #[test]
    fn only_mode_block_rejects() {
        for on_error in [OnError::Block, OnError::Pass] {
            for verdict in Verdict::ALL {
                for mode in [Mode::Off, Mode::Detect] {
                    assert!(matches!(decide(&route(mode, on_error), verdict), Decision::Forward(_)));
                }
            }
        }
        let rejected: Vec<_> = Verdict::ALL
            .into_iter()
            .filter(|verdict| {
                matches!(decide(&route(Mode::Block, OnError::Block), *verdict), Decision::Reject(_))
            })
            .collect();
        let expected = [
            Verdict::Rules,
            Verdict::Model,
            Verdict::Blocked,
            Verdict::Fault,
            Verdict::Response,
            Verdict::Base,
        ];
        assert_eq!(rejected, expected);
        assert!(matches!(decide(&route(Mode::Block, OnError::Pass), Verdict::Fault), Decision::Forward(_)));
    }

    #[test]
    fn a_large_body_is_refused_in_mode_block_only() {
        assert_eq!(body_window(&route(Mode::Off, OnError::Pass)), Window::Closed);
        assert_eq!(body_window(&route(Mode::Detect, OnError::Pass)), Window::Open(Oversize::InspectPrefix));
        assert_eq!(body_window(&route(Mode::Block, OnError::Pass)), Window::Open(Oversize::Reject));
    }
}
