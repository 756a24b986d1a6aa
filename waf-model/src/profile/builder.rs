//! Builds profiles from observations, in one pass and bounded memory; builders of parts can be merged.

use std::collections::BTreeMap;

use super::{
    EndpointProfile, ParamProfile, ProfileError, Profiles, collapse,
    directory::Directories,
    endpoint_key, family,
    param::{Grade, PAIRS, RawKnown, RawParamProfile, RawRange},
    tally::{Census, QUORUM, Tally, novelty, surprise},
};
use crate::{
    base::Strength,
    observation::{
        Observation,
        summary::{CHARS, KINDS, ValueSummary},
    },
    values::Location,
};

/// Most endpoint templates that are told apart before collapsing.
const ENDPOINTS: usize = 20_000;

/// Most parameters of one endpoint.
const PARAMS: usize = 256;

/// Distinct words below one path from which on they are taken as values: [`super::ANY_SEGMENT`].
pub const COLLAPSE: usize = 48;

/// Steps of a level of attack evidence: half a unit of log-odds.
const ATTACK_LEVEL: u16 = 32;

/// Most levels that are told apart.
const ATTACK_LEVELS: u16 = 60;

/// Collects what clean traffic looks like.
#[derive(Debug, Clone, Default)]
pub struct ProfileBuilder {
    endpoints: BTreeMap<(String, String), EndpointBuilder>,
}

#[derive(Debug, Clone, Default)]
struct EndpointBuilder {
    requests: Tally,
    params: BTreeMap<(Location, String), ParamBuilder>,
    path: ParamBuilder,
}

#[derive(Debug, Clone)]
struct ParamBuilder {
    present: Tally,
    repeats: u16,
    kinds: [Tally; KINDS],
    chars: [Tally; CHARS],
    pairs: Vec<Tally>,
    lengths: Histogram,
    sizes: Census,
    magnitudes: Histogram,
    layers: u8,
    /// Client changes among values with at least so much attack evidence, by level; nothing for most parameters.
    attack: BTreeMap<u16, Tally>,
    forms: Census,
    values: Census,
    judged: Judged,
}

/// What values have that a person judged harmless, one bit each.
#[derive(Debug, Clone, Copy, Default)]
struct Judged {
    kinds: u64,
    chars: u64,
    pairs: [u64; 3],
}

/// Tallies over quarter-octave buckets.
#[derive(Debug, Clone, Default)]
struct Histogram(BTreeMap<i16, Tally>);

impl ProfileBuilder {
    /// Learns one clean request of `client` (its keyed hash).
    pub fn learn(&mut self, observation: &Observation, client: u64) {
        let key = (observation.method.to_string(), observation.path.clone());
        if self.endpoints.len() >= ENDPOINTS && !self.endpoints.contains_key(&key) {
            return;
        }
        self.endpoints.entry(key).or_default().learn(observation, client);
    }

    /// Learns one request that a person judged harmless, as if `voices` clients had sent it; and whatever characters
    /// its values have are no surprise there from now on, however seldom they come.
    pub fn learn_judged(&mut self, observation: &Observation, voices: impl Iterator<Item = u64>) {
        voices.for_each(|voice| self.learn(observation, voice));
        let key = (observation.method.to_string(), observation.path.clone());
        if let Some(endpoint) = self.endpoints.get_mut(&key) {
            endpoint.judge(observation);
        }
    }

    /// Adds what another builder learned from other requests.
    pub fn merge(&mut self, other: &Self) {
        for (key, endpoint) in &other.endpoints {
            self.endpoints.entry(key.clone()).or_default().merge(endpoint);
        }
    }

    /// Freezes what was learned.
    ///
    /// # Errors
    /// Never for numbers that come from counts; the check is the same that guards stored profiles.
    pub fn finish(&self) -> Result<Profiles, ProfileError> {
        let collapsed = collapsed_paths(self.endpoints.keys().map(|(_, path)| path.as_str()));
        let mut merged: BTreeMap<String, EndpointBuilder> = BTreeMap::new();
        for ((method, path), endpoint) in &self.endpoints {
            merged.entry(endpoint_key(method, &collapse(&collapsed, path))).or_default().merge(endpoint);
        }
        let mut anywhere: BTreeMap<(Location, String), ParamBuilder> = BTreeMap::new();
        let mut by_location: BTreeMap<Location, ParamBuilder> = BTreeMap::new();
        let mut paths = ParamBuilder::default();
        for endpoint in merged.values() {
            paths.merge(&endpoint.path);
            for (key, param) in &endpoint.params {
                anywhere.entry((family(key.0), key.1.clone())).or_default().merge(param);
                by_location.entry(key.0).or_default().merge(param);
            }
        }
        Ok(Profiles {
            endpoints: merged
                .iter()
                .map(|(key, endpoint)| Ok((key.clone(), endpoint.finish()?)))
                .collect::<Result<_, ProfileError>>()?,
            anywhere: anywhere
                .iter()
                .map(|(key, param)| Ok((key.clone(), param.finish(param.present.count())?)))
                .collect::<Result<_, ProfileError>>()?,
            by_location: by_location
                .iter()
                .map(|(location, param)| Ok((*location, param.finish(param.present.count())?)))
                .collect::<Result<_, ProfileError>>()?,
            paths: paths.finish(paths.present.count())?,
            directories: Directories::of(
                merged.iter().map(|(key, endpoint)| (path_of(key), endpoint.requests.count())),
            ),
            collapsed,
        })
    }
}

impl EndpointBuilder {
    fn learn(&mut self, observation: &Observation, client: u64) {
        self.requests.add(client);
        self.path.learn(&observation.path_summary, client);
        let mut seen: BTreeMap<(Location, &str), u16> = BTreeMap::new();
        for param in &observation.params {
            *seen.entry((param.location, &param.name)).or_default() += 1;
            let key = (param.location, param.name.to_string());
            if self.params.len() < PARAMS || self.params.contains_key(&key) {
                self.params.entry(key).or_default().learn(&param.summary, client);
            }
        }
        for ((location, name), times) in seen {
            if let Some(param) = self.params.get_mut(&(location, name.to_owned())) {
                param.repeats = param.repeats.max(times);
            }
        }
    }

    fn judge(&mut self, observation: &Observation) {
        self.path.judged.add(&observation.path_summary);
        for param in &observation.params {
            if let Some(known) = self.params.get_mut(&(param.location, param.name.to_string())) {
                known.judged.add(&param.summary);
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests.merge(other.requests);
        self.path.merge(&other.path);
        for (key, param) in &other.params {
            self.params.entry(key.clone()).or_default().merge(param);
        }
    }

    fn finish(&self) -> Result<EndpointProfile, ProfileError> {
        let total = self.requests.count();
        Ok(EndpointProfile {
            weight: total as f32,
            params: self
                .params
                .iter()
                .map(|(key, param)| Ok((key.clone(), param.finish(total)?)))
                .collect::<Result<_, ProfileError>>()?,
            new_param: novelty(self.params.values().map(|param| param.present.count()), total),
            path: self.path.finish(total)?,
        })
    }
}

impl Default for ParamBuilder {
    fn default() -> Self {
        Self {
            present: Tally::default(),
            repeats: 1,
            kinds: [Tally::default(); KINDS],
            chars: [Tally::default(); CHARS],
            pairs: vec![Tally::default(); PAIRS],
            lengths: Histogram::default(),
            sizes: Census::default(),
            magnitudes: Histogram::default(),
            layers: 0,
            attack: BTreeMap::new(),
            forms: Census::default(),
            values: Census::default(),
            judged: Judged::default(),
        }
    }
}

impl Judged {
    fn add(&mut self, summary: &ValueSummary) {
        self.merge(Self { kinds: 1 << summary.kind as u32, chars: summary.chars, pairs: summary.pairs });
    }

    fn merge(&mut self, other: Self) {
        self.kinds |= other.kinds;
        self.chars |= other.chars;
        self.pairs.iter_mut().zip(other.pairs).for_each(|(mine, other)| *mine |= other);
    }
}

impl ParamBuilder {
    fn learn(&mut self, summary: &ValueSummary, client: u64) {
        self.present.add(client);
        if let Some(kind) = self.kinds.get_mut(summary.kind as usize) {
            kind.add(client);
        }
        for class in summary.char_classes() {
            if let Some(tally) = self.chars.get_mut(class) {
                tally.add(client);
            }
        }
        for pair in summary.pair_classes() {
            if let Some(tally) = self.pairs.get_mut(pair) {
                tally.add(client);
            }
        }
        self.lengths.add((summary.bytes as f32 + 1.0).log2() * 4.0, client);
        self.sizes.add(u64::from(summary.bytes), client);
        if summary.magnitude != 0 {
            self.magnitudes.add(f32::from(summary.magnitude), client);
        }
        self.layers = self.layers.max(summary.layers);
        for level in 1..=(summary.attack.0 / ATTACK_LEVEL).min(ATTACK_LEVELS) {
            self.attack.entry(level).or_default().add(client);
        }
        self.forms.add(summary.form, client);
        self.values.add(summary.hash, client);
    }

    fn merge(&mut self, other: &Self) {
        self.present.merge(other.present);
        self.repeats = self.repeats.max(other.repeats);
        let mine = self.kinds.iter_mut().chain(&mut self.chars).chain(&mut self.pairs);
        for (mine, other) in mine.zip(other.kinds.iter().chain(&other.chars).chain(&other.pairs)) {
            mine.merge(*other);
        }
        self.lengths.merge(&other.lengths);
        self.sizes.merge(&other.sizes);
        self.magnitudes.merge(&other.magnitudes);
        self.layers = self.layers.max(other.layers);
        for (level, tally) in &other.attack {
            self.attack.entry(*level).or_default().merge(*tally);
        }
        self.forms.merge(&other.forms);
        self.values.merge(&other.values);
        self.judged.merge(other.judged);
    }

    /// The highest level that a quorum reaches, and the level above it for what is like it without being equal.
    fn usual_attack(&self) -> Strength {
        let reached = self.attack.iter().rev().find(|(_, tally)| tally.count() >= QUORUM);
        reached.map_or(Strength::default(), |(level, _)| Strength((level + 1) * ATTACK_LEVEL))
    }

    /// `requests`: client changes among the requests that could have brought the parameter.
    fn finish(&self, requests: u32) -> Result<ParamProfile, ProfileError> {
        let total = self.present.count();
        let grades = |tallies: &[Tally], judged: &[u64]| {
            let new = novelty(tallies.iter().map(|tally| tally.count()), total);
            let is_judged = |at: usize| judged.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1);
            let grade = |(at, tally): (usize, &Tally)| {
                raw_grade(match tally.count() {
                    _ if is_judged(at) => 0.0,
                    0 => new,
                    count => surprise(count, total).min(new),
                })
            };
            tallies.iter().enumerate().map(grade).collect()
        };
        let known = |census: &Census| {
            census.surprises(total).map(|(items, other)| RawKnown {
                items: items.into_iter().map(|(item, surprise)| (item, raw_grade(surprise))).collect(),
                other,
            })
        };
        RawParamProfile {
            weight: total as f32,
            absence: surprise(requests.saturating_sub(total), requests),
            repeats: self.repeats,
            kinds: grades(&self.kinds, &[self.judged.kinds]),
            chars: grades(&self.chars, &[self.judged.chars]),
            pairs: grades(&self.pairs, &self.judged.pairs),
            lengths: self.lengths.range(0.25),
            sizes: known(&self.sizes),
            magnitudes: self.magnitudes.range(1.0),
            layers: self.layers,
            attack: self.usual_attack(),
            forms: known(&self.forms),
            values: known(&self.values),
        }
        .try_into()
    }
}

/// Paths with so many different words below them that those words must be values, ascending; for [`collapse`].
pub fn collapsed_paths<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let mut collapsed: Vec<String> = Vec::new();
    // Top down, so that what is below a collapsed path is counted together.
    for depth in 0.. {
        let mut children: BTreeMap<String, std::collections::BTreeSet<&str>> = BTreeMap::new();
        let mut deeper = false;
        for path in paths.clone() {
            if let Some(child) = path.split('/').skip(1).nth(depth) {
                deeper = true;
                let parent: String = collapse(&collapsed, path)
                    .split('/')
                    .skip(1)
                    .take(depth)
                    .flat_map(|s| ["/", s])
                    .collect();
                children.entry(parent).or_default().insert(child);
            }
        }
        if !deeper {
            break;
        }
        collapsed.extend(
            children.into_iter().filter(|(_, words)| words.len() >= COLLAPSE).map(|(parent, _)| parent),
        );
        collapsed.sort_unstable();
    }
    collapsed
}

/// The path template of an endpoint's key.
fn path_of(key: &str) -> &str {
    key.split_once(' ').map_or(key, |(_, path)| path)
}

fn raw_grade(surprise: f32) -> u8 {
    (Grade::new(surprise).get() * 32.0) as u8
}

impl Histogram {
    fn add(&mut self, quarter_octaves: f32, client: u64) {
        let bucket = quarter_octaves.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16;
        self.0.entry(bucket).or_default().add(client);
    }

    fn merge(&mut self, other: &Self) {
        for (bucket, tally) in &other.0 {
            self.0.entry(*bucket).or_default().merge(*tally);
        }
    }

    /// Bounds, percentiles and the surprise of lying outside; one bucket is `unit` wide.
    fn range(&self, unit: f32) -> RawRange {
        let (Some((low, _)), Some((high, _))) = (self.0.first_key_value(), self.0.last_key_value()) else {
            return RawRange::default();
        };
        let seen: f64 = self.0.values().map(|tally| f64::from(tally.count())).sum();
        let percentile = |share: f64| {
            let mut below = 0.0;
            self.0
                .iter()
                .find(|(_, tally)| {
                    below += f64::from(tally.count());
                    below >= share * seen
                })
                .map_or(0.0, |(bucket, _)| f32::from(*bucket) * unit)
        };
        RawRange {
            bounds: (f32::from(*low) * unit, f32::from(*high) * unit),
            usual: (percentile(0.01), percentile(0.99)),
            outside: novelty(self.0.values().map(|tally| tally.count()), seen as u32),
        }
    }
}
