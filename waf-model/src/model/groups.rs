//! Groups: which promise counts for a request, by its route (Mondrian conformal prediction).
//!
//! A Mondrian taxonomy deals units into groups by what is known before they are scored, and calibrates each group by
//! its own rows (Vovk, Gammerman, Shafer 2005, "Algorithmic Learning in a Random World", section 4.5). Here that is the
//! name of the route: one whose requests vary much does not raise the threshold of a quiet one, and does not live on
//! the quiet one's share of the budget either.
//!
//! Every request belongs to exactly one group: its route, where that has a certificate of its own; the other routes
//! together; or all routes, where nothing is told apart. A route that nobody knew at calibration belongs to the
//! others.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    ModelError,
    calibration::{Certificate, Standing},
};
use crate::score::Score;

/// Most routes with a certificate of their own.
pub const MOST_ROUTES: usize = 1000;

/// The groups of one model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Groups(RawGroups);

/// Stored form of [`Groups`]; empty where the certificate over all routes serves every request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RawGroups {
    /// Routes with a certificate of their own, by name, ascending.
    pub routes: Vec<(String, Certificate)>,
    /// What the other routes together are promised; `None` where no other was seen, and the certificate over all
    /// routes serves those that come.
    pub others: Option<Certificate>,
}

/// The group that a request belongs to. Only a model makes one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group<'m> {
    members: Members<'m>,
    certificate: &'m Certificate,
}

/// Whose requests belong to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members<'m> {
    /// One route's.
    Route(&'m str),
    /// Those of all routes without a certificate of their own.
    Others,
    /// All.
    All,
}

impl Group<'_> {
    /// Whose requests belong to it.
    pub fn members(&self) -> Members<'_> {
        self.members
    }

    /// The promise behind rejecting one of its requests.
    pub fn certificate(&self) -> &Certificate {
        self.certificate
    }

    /// Whether a request of this group is far enough from normal to be rejected under the certificate.
    pub fn flags(&self, score: &Score) -> bool {
        score.request_distance >= self.certificate.threshold
    }
}

impl fmt::Display for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(name) => write!(f, "route {name}"),
            Self::Others => f.write_str("the other routes"),
            Self::All => f.write_str("all routes"),
        }
    }
}

impl Groups {
    /// The group of a request on `route`; `all` is the certificate over all routes. Allocates nothing.
    pub(super) fn of<'m>(&'m self, route: &str, all: &'m Certificate) -> Group<'m> {
        let RawGroups { routes, .. } = &self.0;
        let found = routes.binary_search_by(|(name, _)| name.as_str().cmp(route)).ok();
        match found.and_then(|at| routes.get(at)) {
            Some((name, certificate)) => Group { members: Members::Route(name), certificate },
            None => self.others(all),
        }
    }

    /// Every group, routes first.
    pub(super) fn iter<'m>(&'m self, all: &'m Certificate) -> impl Iterator<Item = Group<'m>> {
        let route = |(name, certificate): &'m (String, Certificate)| Group {
            members: Members::Route(name),
            certificate,
        };
        self.0.routes.iter().map(route).chain(std::iter::once(self.others(all)))
    }

    fn others<'m>(&'m self, all: &'m Certificate) -> Group<'m> {
        let members = if self.0.routes.is_empty() { Members::All } else { Members::Others };
        Group { members, certificate: self.0.others.as_ref().unwrap_or(all) }
    }
}

impl TryFrom<RawGroups> for Groups {
    type Error = ModelError;

    fn try_from(raw: RawGroups) -> Result<Self, ModelError> {
        let RawGroups { routes, others } = &raw;
        if routes.len() > MOST_ROUTES || !routes.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(ModelError("groups of routes are too many, or not in order".to_owned()));
        }
        if routes.is_empty() && others.is_some() {
            return Err(ModelError("other routes than none have a certificate".to_owned()));
        }
        routes.iter().map(|(_, certificate)| certificate).chain(others).try_for_each(Certificate::check)?;
        if routes.iter().any(|(_, certificate)| certificate.standing != Standing::Certified) {
            return Err(ModelError("a route has a certificate of its own that certifies nothing".to_owned()));
        }
        Ok(Self(raw))
    }
}

impl From<&Groups> for RawGroups {
    fn from(groups: &Groups) -> Self {
        groups.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::PValue;

    fn certificate(threshold: f32, standing: Standing) -> Certificate {
        Certificate { budget: 0.01, confidence: 0.95, n: 400, threshold, standing }
    }

    fn own(name: &str, threshold: f32) -> (String, Certificate) {
        (name.to_owned(), certificate(threshold, Standing::Certified))
    }

    fn score(request_distance: f32) -> Score {
        Score {
            request_distance,
            request: PValue::ONE,
            cluster: 0,
            client_distance: 0.0,
            client: PValue::ONE,
        }
    }

    #[test]
    fn each_request_is_judged_by_the_promise_of_its_own_group() {
        let all = certificate(4.0, Standing::Certified);
        let others = Some(certificate(9.0, Standing::Provisional));
        let raw = RawGroups { routes: vec![own("api", 2.0), own("shop", 6.0)], others };
        let groups = Groups::try_from(raw.clone()).unwrap();
        for (route, threshold, words) in [
            ("api", 2.0, "route api"),
            ("shop", 6.0, "route shop"),
            ("never seen", 9.0, "the other routes"),
            ("", 9.0, "the other routes"),
        ] {
            let group = groups.of(route, &all);
            assert_eq!(
                (group.certificate().threshold, group.members().to_string().as_str()),
                (threshold, words)
            );
            assert!(group.flags(&score(threshold)) && !group.flags(&score(threshold.next_down())), "{route}");
        }
        assert_eq!(groups.iter(&all).count(), 3);
        let alone = Groups::try_from(RawGroups { others: None, ..raw }).unwrap();
        assert_eq!(alone.of("never seen", &all).certificate().threshold, 4.0);
        let none = Groups::default();
        assert_eq!(none.of("api", &all).members(), Members::All);
        assert_eq!(none.iter(&all).map(|group| group.certificate().threshold).collect::<Vec<_>>(), [4.0]);
    }

    #[test]
    fn groups_that_are_not_valid_are_refused() {
        let provisional = Some(certificate(9.0, Standing::Provisional));
        let weak = vec![("api".to_owned(), certificate(2.0, Standing::Provisional))];
        let many = (0..=MOST_ROUTES).map(|at| own(&format!("{at:05}"), 2.0)).collect();
        for (case, raw) in [
            ("out of order", RawGroups { routes: vec![own("b", 2.0), own("a", 2.0)], others: None }),
            ("twice", RawGroups { routes: vec![own("a", 2.0), own("a", 3.0)], others: None }),
            ("no number", RawGroups { routes: vec![own("a", f32::NAN)], others: None }),
            ("too many", RawGroups { routes: many, others: None }),
            ("others of none", RawGroups { routes: Vec::new(), others: provisional }),
            ("provisional by itself", RawGroups { routes: weak, others: None }),
        ] {
            assert!(Groups::try_from(raw).is_err(), "{case}");
        }
    }
}
