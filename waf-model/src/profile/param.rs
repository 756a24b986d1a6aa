//! ParamProfile: what is normal for one parameter, as surprises.

use serde::{Deserialize, Serialize};

use super::{ProfileError, finite};
use crate::{
    base::Strength,
    observation::summary::{CHARS, COARSE, KINDS, ValueSummary},
};

/// Cells for pairs of coarse classes.
pub const PAIRS: usize = COARSE * COARSE;

/// What is normal for one parameter. Surprises are -log10 of a probability, stored in 1/32.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamProfile {
    /// Client changes seen.
    pub weight: f32,
    /// -log10 of the probability that the parameter is absent from a clean request to its endpoint.
    pub absence: f32,
    /// How many values of this name one clean request brings at most.
    pub repeats: u16,
    /// Surprise of each kind.
    kinds: [Grade; KINDS],
    /// Surprise of each fine character class being present.
    chars: [Grade; CHARS],
    /// Surprise of each pair of coarse classes being present.
    pairs: [Grade; PAIRS],
    /// Lengths in bytes, as a range.
    lengths: Range,
    /// Lengths in bytes, if they are few.
    sizes: Option<Known>,
    /// Magnitudes of numbers.
    magnitudes: Range,
    /// Decoding layers seen.
    pub layers: u8,
    /// Attack evidence that several clients' values reach here; more than that is news.
    pub attack: Strength,
    /// Forms, if they are few.
    forms: Option<Known>,
    /// Values, if they are few.
    values: Option<Known>,
}

/// A surprise in 1/32, 0 to 8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grade(u8);

impl Grade {
    /// Rounds a surprise.
    pub fn new(surprise: f32) -> Self {
        Self((surprise * 32.0).round().clamp(0.0, 255.0) as u8)
    }

    /// The surprise.
    pub fn get(self) -> f32 {
        f32::from(self.0) / 32.0
    }
}

/// Items known one by one, ascending, and the surprise of any other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawKnown {
    /// Item and its surprise in 1/32.
    pub items: Vec<(u64, u8)>,
    /// Surprise of an item that is not among them.
    pub other: f32,
}

#[derive(Debug, Clone, PartialEq)]
struct Known {
    items: Vec<(u64, Grade)>,
    other: f32,
}

/// Where the bulk of some numbers lies: surprise of each tail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RawRange {
    /// Smallest and largest seen.
    pub bounds: (f32, f32),
    /// 1st and 99th percentile.
    pub usual: (f32, f32),
    /// -log10 of the probability of lying outside the bounds.
    pub outside: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Range(RawRange);

/// How surprising one value is, by aspect; each is -log10 of a probability.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Surprises {
    /// Its kind (number, word, date, ...).
    pub kind: f32,
    /// Its strangest character class.
    pub chars: f32,
    /// Its strangest pair of neighboring classes.
    pub pairs: f32,
    /// Its length.
    pub length: f32,
    /// The number it is.
    pub magnitude: f32,
    /// Its structure, where structures are few.
    pub form: f32,
    /// The value itself, where values are few.
    pub value: f32,
    /// Its number of decoding layers.
    pub layers: f32,
}

impl Surprises {
    /// The larger surprise of each aspect.
    pub fn max(&self, other: &Self) -> Self {
        Self {
            kind: self.kind.max(other.kind),
            chars: self.chars.max(other.chars),
            pairs: self.pairs.max(other.pairs),
            length: self.length.max(other.length),
            magnitude: self.magnitude.max(other.magnitude),
            form: self.form.max(other.form),
            value: self.value.max(other.value),
            layers: self.layers.max(other.layers),
        }
    }
}

impl ParamProfile {
    /// How surprising `summary` is here.
    pub fn surprises(&self, summary: &ValueSummary) -> Surprises {
        Surprises {
            kind: self.kinds.get(summary.kind as usize).map_or(0.0, |grade| grade.get()),
            chars: worst(&self.chars, summary.char_classes()),
            pairs: worst(&self.pairs, summary.pair_classes()),
            length: self
                .lengths
                .surprise((summary.bytes as f32 + 1.0).log2())
                .max(self.sizes.as_ref().map_or(0.0, |known| known.surprise(u64::from(summary.bytes)))),
            magnitude: if summary.magnitude == 0 {
                0.0
            } else {
                self.magnitudes.surprise(f32::from(summary.magnitude))
            },
            form: self.forms.as_ref().map_or(0.0, |known| known.surprise(summary.form)),
            value: self
                .values
                .as_ref()
                .filter(|_| summary.hash != 0)
                .map_or(0.0, |known| known.surprise(summary.hash)),
            layers: f32::from(summary.layers.saturating_sub(self.layers)),
        }
    }

    /// The fine character classes of `summary` that are strange here, strangest first.
    pub fn strange_chars(&self, summary: &ValueSummary) -> Vec<usize> {
        let surprise = |class: usize| self.chars.get(class).map_or(0.0, |grade| grade.get());
        let mut strange: Vec<_> = summary.char_classes().filter(|class| surprise(*class) > 1.0).collect();
        strange.sort_by(|a, b| surprise(*b).total_cmp(&surprise(*a)));
        strange
    }

    /// 1st and 99th percentile of the length in bytes.
    pub fn usual_bytes(&self) -> (f32, f32) {
        (self.lengths.0.usual.0.exp2() - 1.0, self.lengths.0.usual.1.exp2() - 1.0)
    }
}

/// The largest surprise among the classes that are present.
fn worst(grades: &[Grade], present: impl Iterator<Item = usize>) -> f32 {
    present.filter_map(|class| grades.get(class).copied()).max().unwrap_or_default().get()
}

impl Range {
    /// Inside the bounds nothing is surprising; outside, surprise grows with the distance in units of the width.
    fn surprise(self, x: f32) -> f32 {
        let Self(RawRange { bounds: (low, high), outside, .. }) = self;
        let beyond = (low - x).max(x - high);
        if beyond <= 0.0 {
            return 0.0;
        }
        let width = (high - low).max(0.5);
        // One step beyond a wide range is nearly nothing; two widths beyond is all that the data can say, twice.
        outside * (beyond / width).min(2.0)
    }
}

impl Known {
    fn surprise(&self, item: u64) -> f32 {
        match self.items.binary_search_by_key(&item, |(known, _)| *known) {
            Ok(at) => self.items.get(at).map_or(0.0, |(_, grade)| grade.get()),
            Err(_) => self.other,
        }
    }
}

/// Stored form of [`ParamProfile`]. Grades are in 1/32.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RawParamProfile {
    /// Client changes seen.
    pub weight: f32,
    /// Surprise of absence.
    pub absence: f32,
    /// Most values of this name in one request.
    pub repeats: u16,
    /// One grade a kind.
    pub kinds: Vec<u8>,
    /// One grade a fine class.
    pub chars: Vec<u8>,
    /// One grade a pair.
    pub pairs: Vec<u8>,
    /// log2(bytes + 1).
    pub lengths: RawRange,
    /// Lengths in bytes, if they are few.
    pub sizes: Option<RawKnown>,
    /// Quarter-octaves.
    pub magnitudes: RawRange,
    /// Decoding layers seen.
    pub layers: u8,
    /// Attack evidence that is usual.
    pub attack: Strength,
    /// Forms, if they are few.
    pub forms: Option<RawKnown>,
    /// Values, if they are few.
    pub values: Option<RawKnown>,
}

impl TryFrom<RawParamProfile> for ParamProfile {
    type Error = ProfileError;

    fn try_from(raw: RawParamProfile) -> Result<Self, ProfileError> {
        let known = |known: Option<RawKnown>| {
            known
                .map(|known| {
                    if !known.items.is_sorted_by_key(|(item, _)| *item) {
                        return Err(ProfileError("known items are not in order".to_owned()));
                    }
                    let items = known.items.into_iter().map(|(item, grade)| (item, Grade(grade))).collect();
                    Ok(Known { items, other: finite("surprise of an unknown item", known.other)? })
                })
                .transpose()
        };
        Ok(Self {
            weight: finite("weight", raw.weight)?,
            absence: finite("surprise of absence", raw.absence)?,
            repeats: raw.repeats,
            kinds: grades("kinds", &raw.kinds)?,
            chars: grades("character classes", &raw.chars)?,
            pairs: grades("pairs", &raw.pairs)?,
            lengths: range(raw.lengths)?,
            sizes: known(raw.sizes)?,
            magnitudes: range(raw.magnitudes)?,
            layers: raw.layers,
            attack: raw.attack,
            forms: known(raw.forms)?,
            values: known(raw.values)?,
        })
    }
}

fn grades<const N: usize>(what: &str, raw: &[u8]) -> Result<[Grade; N], ProfileError> {
    let grades: [u8; N] =
        raw.try_into().map_err(|_| ProfileError(format!("{} {what} where {N} belong", raw.len())))?;
    Ok(grades.map(Grade))
}

fn range(raw: RawRange) -> Result<Range, ProfileError> {
    for number in [raw.bounds.0, raw.bounds.1, raw.usual.0, raw.usual.1, raw.outside] {
        finite("range", number)?;
    }
    Ok(Range(raw))
}

impl From<&ParamProfile> for RawParamProfile {
    fn from(profile: &ParamProfile) -> Self {
        let raw = |grades: &[Grade]| grades.iter().map(|grade| grade.0).collect();
        let known = |known: &Option<Known>| {
            known.as_ref().map(|known| RawKnown {
                items: known.items.iter().map(|(item, grade)| (*item, grade.0)).collect(),
                other: known.other,
            })
        };
        Self {
            weight: profile.weight,
            absence: profile.absence,
            repeats: profile.repeats,
            kinds: raw(&profile.kinds),
            chars: raw(&profile.chars),
            pairs: raw(&profile.pairs),
            lengths: profile.lengths.0,
            sizes: known(&profile.sizes),
            magnitudes: profile.magnitudes.0,
            layers: profile.layers,
            attack: profile.attack,
            forms: known(&profile.forms),
            values: known(&profile.values),
        }
    }
}
