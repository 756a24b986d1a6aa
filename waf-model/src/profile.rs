//! Profiles: what is normal for each endpoint and for each parameter of it.
//!
//! A profile answers one kind of question: how surprising is this, in units of -log10 of its probability among
//! clean requests? The probability of something never seen is estimated from how often something new turned up
//! before (Good and Turing), so a parameter that always brings new values is not surprised by one more, and one
//! whose three values are known is. Counts grow with *clients*, not with requests: see [`tally`].
//!
//! Built by [`builder::ProfileBuilder`], frozen into [`Profiles`].

use std::{
    borrow::{Borrow, Cow},
    cmp::Ordering,
    collections::BTreeMap,
};

use serde::{Deserialize, Serialize};

use crate::{
    base::Strength,
    observation::{Observation, summary::ValueSummary},
    values::Location,
};

pub mod builder;
mod directory;
pub mod param;
pub mod tally;

use directory::{Directories, RawDirectories};
use param::{ParamProfile, RawParamProfile, Surprises};

/// What stands for a path segment whose words are too many to be told apart.
pub const ANY_SEGMENT: &str = "{any}";

/// What is normal for every endpoint of a site.
#[derive(Debug, Clone, PartialEq)]
pub struct Profiles {
    /// Paths below which the next segment is taken as [`ANY_SEGMENT`], ascending.
    collapsed: Vec<String>,
    /// By `METHOD /template`, ascending.
    endpoints: Vec<(String, EndpointProfile)>,
    /// Parameters by family of locations and name wherever they occur: many endpoints share their parameters, and
    /// what no endpoint ever saw is stranger than what one of them did not.
    anywhere: BTreeMap<(Location, String), ParamProfile>,
    /// All values of one location together: for parameters that are not known.
    by_location: BTreeMap<Location, ParamProfile>,
    /// Paths as text.
    paths: ParamProfile,
    /// For endpoints that are not known: what lies beside them.
    directories: Directories,
}

/// What is normal for one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointProfile {
    /// Client changes seen: the weight of evidence behind everything here.
    pub weight: f32,
    /// Parameters by location and name.
    pub params: BTreeMap<(Location, String), ParamProfile>,
    /// -log10 of the probability that a clean request brings a parameter never seen here.
    pub new_param: f32,
    /// Paths as text, for this endpoint.
    pub path: ParamProfile,
}

/// The profile of an observation's endpoint, or what stands in for it.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    profiles: &'a Profiles,
    /// The endpoint's profile, if it is known.
    pub endpoint: Option<&'a EndpointProfile>,
    /// -log10 of the probability of this endpoint being asked for by a clean request, if it is new; 0 if known.
    pub endpoint_surprise: f32,
}

impl Profiles {
    /// The context in which `observation` is judged.
    pub fn context(&self, observation: &Observation) -> Context<'_> {
        let path = if self.collapsed.is_empty() {
            Cow::Borrowed(observation.path.as_str())
        } else {
            Cow::Owned(collapse(&self.collapsed, &observation.path))
        };
        let asked = |key: &str| order(key, &observation.method, &path);
        let at = self.endpoints.binary_search_by(|(key, _)| asked(key)).ok();
        let endpoint = at.and_then(|at| self.endpoints.get(at)).map(|(_, profile)| profile);
        let endpoint_surprise = if endpoint.is_some() { 0.0 } else { self.directories.surprise(&path) };
        Context { profiles: self, endpoint, endpoint_surprise }
    }

    /// Endpoints known, with the weight of evidence behind each.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, &EndpointProfile)> {
        self.endpoints.iter().map(|(key, profile)| (key.as_str(), profile))
    }
}

impl<'a> Context<'a> {
    /// The profiles that judge parameter `name`.
    pub fn param(&self, location: Location, name: &str) -> ParamContext<'a> {
        let elsewhere = self.profiles.anywhere.get(&(family(location), name) as &dyn ParamKey);
        let here = self.endpoint.and_then(|endpoint| endpoint.params.get(&(location, name) as &dyn ParamKey));
        let novelty = match (self.endpoint, here, elsewhere) {
            (Some(_), Some(_), _) | (None, _, Some(_)) => 0.0,
            (Some(endpoint), None, _) => endpoint.new_param,
            // The endpoint is new already; a new name adds little.
            (None, _, None) => 0.5,
        };
        ParamContext { here, elsewhere, any: self.profiles.by_location.get(&location), novelty }
    }

    /// The profile of paths as text.
    pub fn path(&self) -> &'a ParamProfile {
        self.endpoint.map_or(&self.profiles.paths, |endpoint| &endpoint.path)
    }
}

/// What judges one parameter of one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct ParamContext<'a> {
    /// Its profile at the endpoint.
    here: Option<&'a ParamProfile>,
    /// The profile of its name wherever it occurs.
    elsewhere: Option<&'a ParamProfile>,
    /// All values of its location.
    any: Option<&'a ParamProfile>,
    /// -log10 of the probability that a clean request to the endpoint brings a parameter of this name.
    pub novelty: f32,
}

impl<'a> ParamContext<'a> {
    /// The most specific profile there is.
    pub fn profile(&self) -> Option<&'a ParamProfile> {
        self.here.or(self.elsewhere).or(self.any)
    }

    /// Attack evidence that is usual here: what the endpoint says, else what the name says anywhere.
    pub fn usual_attack(&self) -> Strength {
        self.here.or(self.elsewhere).map_or(Strength::default(), |profile| profile.attack)
    }

    /// How surprising `summary` is here. What neither the endpoint nor any other ever saw is as surprising as the
    /// larger of the two bodies of evidence makes it; what the endpoint knows is no surprise.
    pub fn surprises(&self, summary: &ValueSummary) -> Surprises {
        match (self.here, self.elsewhere) {
            (Some(here), Some(elsewhere)) => here.surprises(summary).max(&elsewhere.surprises(summary)),
            _ => self.profile().map(|profile| profile.surprises(summary)).unwrap_or_default(),
        }
    }
}

/// A location and a name, owned or not: what parameters are looked up by, so that a look-up copies no name.
trait ParamKey {
    fn key(&self) -> (Location, &str);
}

impl ParamKey for (Location, String) {
    fn key(&self) -> (Location, &str) {
        (self.0, &self.1)
    }
}

impl ParamKey for (Location, &str) {
    fn key(&self) -> (Location, &str) {
        *self
    }
}

impl<'a> Borrow<dyn ParamKey + 'a> for (Location, String) {
    fn borrow(&self) -> &(dyn ParamKey + 'a) {
        self
    }
}

impl PartialEq for dyn ParamKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn ParamKey + '_ {}

impl PartialOrd for dyn ParamKey + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn ParamKey + '_ {
    /// As the pairs themselves are ordered.
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Locations between which a parameter moves when the method or the encoding of a form changes.
pub(crate) fn family(location: Location) -> Location {
    match location {
        Location::Form | Location::Multipart | Location::Json => Location::Query,
        other => other,
    }
}

/// `METHOD /template`.
pub(crate) fn endpoint_key(method: &str, path: &str) -> String {
    format!("{method} {path}")
}

/// How the key of an endpoint compares to that of `method` and `path`, which a look-up does not put together.
fn order(key: &str, method: &str, path: &str) -> Ordering {
    let asked = method.bytes().chain([b' ']).chain(path.bytes());
    key.bytes().cmp(asked)
}

/// Replaces each segment below a collapsed path ([`builder::collapsed_paths`]) by [`ANY_SEGMENT`].
pub fn collapse(collapsed: &[String], path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').skip(1) {
        let any = collapsed.binary_search_by(|known| known.as_str().cmp(&out)).is_ok();
        out.push('/');
        out.push_str(if any { ANY_SEGMENT } else { segment });
    }
    out
}

/// Stored form of [`Profiles`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RawProfiles {
    collapsed: Vec<String>,
    endpoints: Vec<RawEndpoint>,
    anywhere: Vec<(Location, String, RawParamProfile)>,
    by_location: Vec<(Location, RawParamProfile)>,
    paths: RawParamProfile,
    directories: RawDirectories,
}

/// Stored form of one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawEndpoint {
    key: String,
    weight: f32,
    params: Vec<(Location, String, RawParamProfile)>,
    new_param: f32,
    path: RawParamProfile,
}

/// Why stored profiles are not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profiles: {0}")]
pub struct ProfileError(pub String);

impl TryFrom<RawProfiles> for Profiles {
    type Error = ProfileError;

    fn try_from(raw: RawProfiles) -> Result<Self, ProfileError> {
        let params = |params: Vec<(Location, String, RawParamProfile)>| {
            params
                .into_iter()
                .map(|(location, name, raw)| Ok(((location, name), ParamProfile::try_from(raw)?)))
                .collect::<Result<BTreeMap<_, _>, ProfileError>>()
        };
        if !raw.collapsed.is_sorted() {
            return Err(ProfileError("collapsed paths are not in order".to_owned()));
        }
        let endpoints = raw
            .endpoints
            .into_iter()
            .map(|endpoint| {
                let profile = EndpointProfile {
                    weight: finite("endpoint weight", endpoint.weight)?,
                    params: params(endpoint.params)?,
                    new_param: finite("surprise of a new parameter", endpoint.new_param)?,
                    path: endpoint.path.try_into()?,
                };
                Ok((endpoint.key, profile))
            })
            .collect::<Result<Vec<_>, ProfileError>>()?;
        if !endpoints.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(ProfileError("endpoints are not in order".to_owned()));
        }
        Ok(Self {
            collapsed: raw.collapsed,
            endpoints,
            anywhere: params(raw.anywhere)?,
            by_location: raw
                .by_location
                .into_iter()
                .map(|(location, raw)| Ok((location, raw.try_into()?)))
                .collect::<Result<_, ProfileError>>()?,
            paths: raw.paths.try_into()?,
            directories: raw.directories.try_into()?,
        })
    }
}

impl From<&Profiles> for RawProfiles {
    fn from(profiles: &Profiles) -> Self {
        let params = |params: &BTreeMap<(Location, String), ParamProfile>| {
            params
                .iter()
                .map(|((location, name), profile)| (*location, name.clone(), profile.into()))
                .collect()
        };
        Self {
            collapsed: profiles.collapsed.clone(),
            endpoints: profiles
                .endpoints
                .iter()
                .map(|(key, endpoint)| RawEndpoint {
                    key: key.clone(),
                    weight: endpoint.weight,
                    params: params(&endpoint.params),
                    new_param: endpoint.new_param,
                    path: (&endpoint.path).into(),
                })
                .collect(),
            anywhere: params(&profiles.anywhere),
            by_location: profiles
                .by_location
                .iter()
                .map(|(location, profile)| (*location, profile.into()))
                .collect(),
            paths: (&profiles.paths).into(),
            directories: (&profiles.directories).into(),
        }
    }
}

/// Accepts a finite number.
pub(crate) fn finite(what: &str, number: f32) -> Result<f32, ProfileError> {
    if number.is_finite() { Ok(number) } else { Err(ProfileError(format!("{what} is {number}"))) }
}
