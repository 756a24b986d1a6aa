//! Deals routes into groups that each keep the budget by themselves (Mondrian conformal prediction; what a model makes
//! of the groups says [`waf_model::model::groups`]).
//!
//! **What is promised.** Of each group, that its true rate exceeds the budget in at most 5 of 100 calibrations (at a
//! confidence of 95 %). The rate over all traffic is the mean of the groups' rates, weighted by their traffic. What is
//! certified of a rate is an upper quantile of it, and where rates scatter about normally, such a quantile of a
//! weighted mean is at most the same mean of the quantiles, however the rates depend on each other (Embrechts, McNeil,
//! Straumann 2002, "Correlation and dependence in risk management": quantiles above the median are subadditive for
//! elliptical distributions); it is equal only if all groups err together. So the rate over all traffic exceeds the
//! budget no more often than that of one group does, and no correction for many groups is made. Of `m` independent
//! groups some one exceeds more often than a single one does, in up to `1 - 0.95^m`: that no route at all exceeds is
//! not promised.
//!
//! The rate of a group with few rows is skewed, and the argument says less of it; but there `certify_clients` flags next
//! to none of the calibration rows, and hardly more than a third of the budget is used. `make bench-learning
//! ONLY=promise` replays both. What it costs is detection: many small groups use less of the budget than one large one.
//!
//! **What keeps the mean honest.** No rows fall between groups. Routes that cannot certify the budget alone do so
//! together, and if they cannot, routes with a certificate of their own join them, the smallest first: the threshold
//! of all routes would not do for them, since it keeps the budget only together with the rows of quiet routes, and
//! those now spend theirs themselves. If nothing helps, all join, and nothing is told apart; but where not even that
//! certifies the budget, those that could not stay alone and provisional, and take nothing from the others.
//!
//! **Populations of clients** would be the other half of a taxonomy, for the promise per client-day: those known by a
//! key or a session, and those known by their address. An event carries one keyed hash for any of them and does not
//! say which kind it is, and a client uses many routes in one day, so that the day belongs to none. Client-days are one
//! group.

use std::collections::HashSet;

use waf_model::model::{
    calibration::{Certificate, Standing},
    groups::RawGroups,
};

use super::certify_clients;

/// A calibration request: its client, the number of its route, its distance.
pub type Scored = (u64, u16, f32);

/// Least clients of a group: how much clients differ is not known of fewer, and one client must not say what is
/// normal.
const CLIENTS: usize = 10;

/// A route that can keep the budget by itself.
struct Own<'a> {
    name: &'a str,
    rows: Vec<(u64, f32)>,
    certificate: Certificate,
}

/// The groups that `rows` support. Route `i` is called `names[i]`; rows of other numbers belong to no route that may
/// have its own certificate. The same rows in any order give the same groups.
pub fn deal(rows: &[Scored], names: &[String], budget: f64, confidence: f64) -> RawGroups {
    let certified = |rows: &[(u64, f32)]| {
        certify_clients(rows, budget, confidence)
            .filter(|certificate| certificate.standing == Standing::Certified && has_clients(rows))
    };
    let mut of_route: Vec<Vec<(u64, f32)>> = vec![Vec::new(); names.len() + 1];
    for (client, route, distance) in rows {
        let at = usize::from(*route).min(names.len());
        of_route.get_mut(at).into_iter().for_each(|rows| rows.push((*client, *distance)));
    }
    let (mut own, mut rest) = (Vec::new(), Vec::new());
    for (at, rows) in of_route.into_iter().enumerate() {
        match names.get(at).and_then(|name| Some((name, certified(&rows)?))) {
            Some((name, certificate)) => own.push(Own { name, rows, certificate }),
            None => rest.extend(rows),
        }
    }
    own.sort_by(|a, b| b.rows.len().cmp(&a.rows.len()).then_with(|| a.name.cmp(b.name)));
    let alone = certify_clients(&rest, budget, confidence)
        .map(|certificate| Certificate { standing: Standing::Provisional, ..certificate });
    let (mut kept, mut joining) = (own.len(), 1);
    let mut others = certified(&rest);
    // Each time twice as many, so that a thousand routes do not take a thousand looks.
    while others.is_none() && !rest.is_empty() && kept > 0 {
        let fewer = kept.saturating_sub(joining);
        own.iter().take(kept).skip(fewer).for_each(|own| rest.extend(&own.rows));
        (kept, joining) = (fewer, joining * 2);
        others = certified(&rest);
    }
    if others.is_none() {
        (kept, others) = (own.len(), alone);
    }
    own.truncate(kept);
    // One group alone is all routes.
    if own.len() + usize::from(others.is_some()) < 2 {
        return RawGroups::default();
    }
    let mut routes: Vec<(String, Certificate)> =
        own.into_iter().map(|own| (own.name.to_owned(), own.certificate)).collect();
    routes.sort_by(|(a, _), (b, _)| a.cmp(b));
    RawGroups { routes, others }
}

fn has_clients(rows: &[(u64, f32)]) -> bool {
    let mut clients = HashSet::new();
    rows.iter().any(|(client, _)| clients.insert(*client) && clients.len() >= CLIENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: f64 = 0.01;

    /// Requests of a route, one of each client, spread evenly up to `farthest`.
    fn route(number: u16, count: u64, farthest: f32) -> Vec<Scored> {
        let distance = |at: u64| farthest * (at * 7919 % count) as f32 / count as f32;
        (0..count).map(|at| (u64::from(number) << 32 | at, number, distance(at))).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn dealt(rows: &[Scored], routes: &[&str]) -> RawGroups {
        deal(rows, &names(routes), BUDGET, 0.95)
    }

    /// Names, each with its threshold in whole numbers.
    fn thresholds(groups: &RawGroups) -> (Vec<(&str, u32)>, Option<u32>) {
        let whole = |certificate: &Certificate| certificate.threshold.round() as u32;
        let routes = groups.routes.iter().map(|(name, certificate)| (name.as_str(), whole(certificate)));
        (routes.collect(), groups.others.as_ref().map(whole))
    }

    #[test]
    fn a_route_with_a_heavy_tail_does_not_raise_the_threshold_of_a_quiet_one() {
        let quiet = route(0, 5000, 2.0);
        let all = [quiet.clone(), route(1, 5000, 80.0)].concat();
        let groups = dealt(&all, &["quiet", "wild"]);
        let (routes, others) = thresholds(&groups);
        assert_eq!((routes.len(), routes[0], others), (2, ("quiet", 2), None));
        assert!(routes[1].1 > 70, "{routes:?}");
        let alone = certify_clients(
            &quiet.iter().map(|(client, _, distance)| (*client, *distance)).collect::<Vec<_>>(),
            BUDGET,
            0.95,
        );
        assert_eq!(Some(groups.routes[0].1), alone, "as if the other were not there");
    }

    #[test]
    fn routes_with_too_few_rows_share_a_threshold_and_take_no_more_than_they_need() {
        // Two of 200 rows certify nothing by themselves, and together they do.
        let busy = [route(0, 5000, 2.0), route(1, 4000, 3.0), route(2, 3000, 4.0)].concat();
        let small = [busy.clone(), route(3, 200, 9.0), route(4, 200, 9.0)].concat();
        let names = ["a", "b", "c", "d", "e"];
        assert_eq!(thresholds(&dealt(&small, &names)), (vec![("a", 2), ("b", 3), ("c", 4)], Some(9)));
        // Fewer certify nothing together either: the smallest of the others joins them.
        let few = [busy.clone(), route(3, 60, 9.0)].concat();
        let groups = dealt(&few, &names);
        assert_eq!(thresholds(&groups).0, [("a", 2), ("b", 3)]);
        let others = groups.others.unwrap();
        assert_eq!((others.standing, others.n), (Standing::Certified, 3060));
        // A single route is all routes, with a few rows beside it or none.
        for rows in [route(0, 5000, 2.0), [route(0, 5000, 2.0), route(3, 60, 9.0)].concat()] {
            assert_eq!(dealt(&rows, &names), RawGroups::default());
        }
        assert_eq!(dealt(&route(0, 50, 2.0), &names), RawGroups::default());
    }

    #[test]
    fn what_certifies_nothing_in_any_company_stays_provisional_alone() {
        // All that is far comes from one client, and nothing is known of how often there are such.
        let mut wild = route(1, 4000, 1.0);
        wild.iter_mut().filter(|row| row.2 > 0.985).for_each(|row| (row.0, row.2) = (7, 50.0));
        let groups = dealt(&[route(0, 2000, 2.0), wild].concat(), &["quiet", "wild"]);
        assert_eq!(thresholds(&groups), (vec![("quiet", 2)], Some(50)));
        assert_eq!(groups.others.unwrap().standing, Standing::Provisional);
    }

    #[test]
    fn one_client_gives_no_route_a_threshold() {
        let mut monitor = route(1, 5000, 0.5);
        monitor.iter_mut().for_each(|row| row.0 = 7);
        assert_eq!(dealt(&[route(0, 5000, 2.0), monitor].concat(), &["a", "b"]), RawGroups::default());
    }

    #[test]
    fn rows_in_another_order_give_the_same_bits() {
        let mut rows =
            [route(0, 5000, 2.0), route(1, 4000, 3.0), route(2, 900, 9.0), route(9, 20, 9.0)].concat();
        let first = dealt(&rows, &["x", "y", "z"]);
        assert_eq!((first.routes.len(), first.others.map(|others| others.n)), (2, Some(920)));
        rows.reverse();
        assert_eq!(dealt(&rows, &["x", "y", "z"]), first);
    }
}
