//! Observation and profiles to a feature vector of fixed order; the table below is the schema.
//!
//! Three kinds of columns: what the request is like by itself, how surprising it is in the context of its
//! endpoint's profile (in -log10 of a probability), and what the rules and tokenizers say.

use crate::{
    base::{self, Strength},
    observation::{Observation, ParamObservation, summary::Lexical},
    profile::{Context, Profiles, param::Surprises},
    recent::Recent,
    values::Location,
};

/// One column of the feature vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Feature {
    /// Stable name; part of the schema.
    pub name: &'static str,
    /// What it says, in words for an operator.
    pub text: &'static str,
    /// Smallest scale by which a deviation is measured, so that a column that never varied in training does not
    /// turn a rounding error into an anomaly.
    pub floor: f32,
    /// Whether only more than usual is suspicious.
    pub side: Side,
}

/// Which deviations of a feature are suspicious.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// More than usual.
    Above,
    /// More or less than usual.
    Both,
}

/// Defines the table and the index of each column together, so that they cannot drift apart.
macro_rules! features {
    ($($index:ident $name:literal $floor:literal $side:ident $text:literal;)*) => {
        /// Index of each column.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Column { $($index),* }

        /// Number of columns.
        pub const FEATURES: usize = [$($name),*].len();

        /// The feature table, in order.
        pub const TABLE: [Feature; FEATURES] =
            [$(Feature { name: $name, text: $text, floor: $floor, side: Side::$side }),*];
    };
}

features! {
    // What the request is like by itself.
    PathBytes "path_bytes" 0.8 Both "length of the path";
    PathDepth "path_depth" 1.5 Both "number of path segments";
    PathEntropy "path_entropy" 0.8 Both "mixture of characters in the path";
    QueryBytes "query_bytes" 1.5 Both "length of the query";
    BodyBytes "body_bytes" 1.5 Both "length of the body";
    Params "params" 0.5 Both "number of parameters";
    Headers "headers" 0.5 Both "number of header fields";
    Cookies "cookies" 0.7 Above "number of cookies";
    ValueBytes "value_bytes" 1.5 Both "length of the longest value";
    ValueEntropy "value_entropy" 1.5 Above "mixture of characters in a value";
    Layers "layers" 0.8 Above "layers of encoding around a value";
    // How surprising it is here.
    Endpoint "endpoint_surprise" 0.5 Above "an endpoint that clean clients do not ask for";
    PathChars "path_chars_surprise" 0.5 Above "characters in the path that are strange here";
    PathPairs "path_pairs_surprise" 0.5 Above "neighboring characters in the path that are strange here";
    PathLength "path_length_surprise" 0.5 Above "length of the path for this endpoint";
    NewParams "new_params_surprise" 0.5 Above "parameters that this endpoint does not have";
    MissingParams "missing_params_surprise" 0.5 Above "parameters that clean requests here always have";
    Repeats "repeats" 0.3 Above "parameters given more often than usual";
    ParamKind "param_kind_surprise" 0.5 Above "a parameter of another kind than usual";
    ParamChars "param_chars_surprise" 0.5 Above "a parameter with characters that are strange there";
    ParamPairs "param_pairs_surprise" 0.5 Above "a parameter with neighboring characters that are strange there";
    ParamLength "param_length_surprise" 0.5 Above "a parameter of unusual length";
    ParamMagnitude "param_magnitude_surprise" 0.5 Above "a number far from what is usual";
    ParamForm "param_form_surprise" 0.5 Above "a parameter of unusual structure";
    ParamValue "param_value_surprise" 0.5 Above "a value outside the few that are usual";
    ParamLayers "param_layers_surprise" 0.5 Above "a parameter encoded more often than usual";
    ParamTotal "param_total_surprise" 0.7 Above "parameters that are unusual taken together";
    NewHeaders "new_headers_surprise" 0.7 Above "header fields that clean requests here do not have";
    MissingHeaders "missing_headers_surprise" 0.7 Above "missing header fields that clean requests here have";
    HeaderTotal "header_total_surprise" 0.7 Above "header fields with unusual content";
    CookieTotal "cookie_total_surprise" 0.7 Above "cookies with unusual content";
    // What the tokenizers and the rules say.
    Quotes "quotes" 0.7 Above "quotation marks close together";
    Angles "angles" 0.7 Above "angle brackets close together";
    Brackets "brackets" 0.7 Above "brackets close together";
    Shell "shell" 0.7 Above "shell characters close together";
    Traversal "traversal" 0.5 Above "steps to a parent directory";
    Comment "comment" 0.7 Above "comment marks close together";
    Percent "percent" 0.7 Above "percent signs left after decoding";
    Control "control" 0.5 Above "control characters";
    Invalid "invalid_utf8" 0.8 Above "bytes that are not UTF-8";
    Sqli "sqli" 0.3 Above "reads like SQL injection";
    Xss "xss" 0.3 Above "reads like cross-site scripting";
    Attack "attack" 0.4 Above "reads like an attack, beyond what is usual there";
    Findings "findings" 0.3 Above "malformed or ambiguous form";
    RulePoints "rule_points" 0.3 Above "points of the rules that matched";
}

/// One request as numbers, in the order of [`TABLE`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeatureVector(pub [f32; FEATURES]);

/// A feature vector, and which parameter each column comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extraction {
    /// The numbers.
    pub vector: FeatureVector,
    /// Index into [`Observation::params`] of the parameter behind each column, where there is one.
    pub culprits: [Option<u16>; FEATURES],
}

/// The schema id: changes with every change of the table.
pub fn schema_id() -> String {
    let mut hasher = blake3::Hasher::new();
    for feature in TABLE {
        hasher.update(feature.name.as_bytes());
        hasher.update(&feature.floor.to_le_bytes());
        hasher.update(&[feature.side as u8]);
    }
    hasher.update(&(crate::client::CLIENT_FEATURES as u64).to_le_bytes());
    hasher.update(crate::observation::summary::VERSION);
    hasher.update(base::shipped().id().as_bytes());
    hasher.finalize().to_hex().chars().take(16).collect()
}

/// Puts `observation` into the context of `profiles`.
pub fn extract(observation: &Observation, profiles: &Profiles) -> Extraction {
    let context = profiles.context(observation);
    let mut out = Extraction { vector: FeatureVector([0.0; FEATURES]), culprits: [None; FEATURES] };
    by_itself(&mut out, observation);
    path_in_context(&mut out, observation, &context);
    params_in_context(&mut out, observation, &context);
    presence(&mut out, observation, &context);
    let Attack { log_odds, culprit } = attack_in(observation, Some(&context));
    out.raise(Column::Attack, (log_odds + 1.0).ln(), culprit.unwrap_or(usize::MAX));
    out
}

/// What the base makes of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Attack {
    /// Attack evidence of the strongest value, in log-odds, beyond what is usual where it stands.
    pub log_odds: f32,
    /// Index of that value in [`Observation::params`]; `None` for the path, or a value that was not observed.
    pub culprit: Option<usize>,
}

/// What the base that ships makes of a request; what a site's profiles know as usual does not count.
pub fn attack(observation: &Observation, profiles: Option<&Profiles>) -> Attack {
    attack_in(observation, profiles.map(|profiles| profiles.context(observation)).as_ref())
}

fn attack_in(observation: &Observation, context: Option<&Context<'_>>) -> Attack {
    let base = base::shipped();
    let usual_path = context.map_or(Strength::default(), |context| context.path().attack);
    let path = base.log_odds(Location::Path, observation.path_summary.attack, usual_path);
    let rest = base.log_odds(Location::Query, observation.unobserved_attack, Strength::default());
    let mut strongest = Attack { log_odds: path.max(rest), culprit: None };
    for (index, param) in observation.params.iter().enumerate() {
        if param.summary.attack > Strength::default() {
            let usual = context.map_or(Strength::default(), |context| {
                context.param(param.location, &param.name).usual_attack()
            });
            let log_odds = base.log_odds(param.location, param.summary.attack, usual);
            if log_odds > strongest.log_odds {
                strongest = Attack { log_odds, culprit: Some(index) };
            }
        }
    }
    strongest
}

impl Extraction {
    fn set(&mut self, column: Column, value: f32) {
        if let Some(cell) = self.vector.0.get_mut(column as usize) {
            *cell = value;
        }
    }

    fn add(&mut self, column: Column, value: f32) {
        if let Some(cell) = self.vector.0.get_mut(column as usize) {
            *cell += value;
        }
    }

    /// Keeps the maximum, and where it came from.
    fn raise(&mut self, column: Column, value: f32, culprit: usize) {
        let (Some(cell), Some(from)) =
            (self.vector.0.get_mut(column as usize), self.culprits.get_mut(column as usize))
        else {
            return;
        };
        if value > *cell {
            *cell = value;
            *from = u16::try_from(culprit).ok();
        }
    }
}

fn by_itself(out: &mut Extraction, observation: &Observation) {
    let log = |count: f32| (count + 1.0).ln();
    let count = |wanted: fn(Location) -> bool| {
        log(observation.params.iter().filter(|param| wanted(param.location)).count() as f32)
    };
    out.set(Column::PathBytes, log(observation.path_summary.bytes as f32));
    out.set(Column::PathDepth, f32::from(observation.path_depth).min(32.0));
    out.set(Column::PathEntropy, observation.path_summary.entropy);
    out.set(Column::QueryBytes, log(observation.query_bytes as f32));
    out.set(Column::BodyBytes, log(observation.body_bytes as f32));
    out.set(Column::Params, count(is_param) + log(f32::from(observation.unobserved)));
    out.set(Column::Headers, count(|location| location == Location::Header));
    out.set(Column::Cookies, count(|location| location == Location::Cookie));
    out.set(Column::Findings, observation.findings.len() as f32);
    out.set(Column::RulePoints, log(observation.rule_points as f32));
    lexical(out, &observation.path_summary.lexical, None);
    for (index, param) in observation.params.iter().enumerate() {
        if is_param(param.location) {
            out.raise(Column::ValueBytes, log(param.summary.bytes as f32), index);
            if param.summary.bytes >= 8 {
                out.raise(Column::ValueEntropy, param.summary.entropy, index);
            }
            out.raise(Column::Layers, f32::from(param.summary.layers), index);
            lexical(out, &param.summary.lexical, Some(index));
        }
    }
}

fn lexical(out: &mut Extraction, found: &Lexical, culprit: Option<usize>) {
    if *found == Lexical::default() {
        return;
    }
    let culprit = culprit.unwrap_or(usize::MAX);
    let log = |count: u8| (f32::from(count) + 1.0).ln();
    for (column, value) in [
        (Column::Quotes, log(found.quotes)),
        (Column::Angles, log(found.angles)),
        (Column::Brackets, log(found.brackets)),
        (Column::Shell, log(found.shell)),
        (Column::Traversal, log(found.traversal)),
        (Column::Comment, log(found.comment)),
        (Column::Percent, log(found.percent)),
        (Column::Control, log(found.control)),
        (Column::Invalid, log(found.invalid)),
        (Column::Sqli, f32::from(u8::from(found.sqli))),
        (Column::Xss, f32::from(u8::from(found.xss))),
    ] {
        out.raise(column, value, culprit);
    }
}

fn path_in_context(out: &mut Extraction, observation: &Observation, context: &Context<'_>) {
    let surprises = context.path().surprises(&observation.path_summary);
    out.set(Column::Endpoint, context.endpoint_surprise);
    out.set(Column::PathChars, surprises.chars);
    out.set(Column::PathPairs, surprises.pairs);
    out.set(Column::PathLength, surprises.length);
}

fn params_in_context(out: &mut Extraction, observation: &Observation, context: &Context<'_>) {
    let mut contexts = Recent::new();
    for (index, param) in observation.params.iter().enumerate() {
        let asked = (param.location, param.name.as_str());
        let known = contexts.recall(asked, || context.param(asked.0, asked.1));
        let (novelty, surprises) = (known.novelty, known.surprises(&param.summary));
        match param.location {
            Location::Header => {
                out.add(Column::NewHeaders, novelty);
                out.raise(Column::HeaderTotal, text_total(&surprises), index);
                if novelty > 0.0 {
                    out.raise(Column::HeaderTotal, novelty * 0.5, index);
                }
            }
            Location::Cookie => out.raise(Column::CookieTotal, text_total(&surprises), index),
            _ => {
                out.add(Column::NewParams, novelty);
                out.raise(Column::ParamKind, surprises.kind, index);
                out.raise(Column::ParamChars, surprises.chars, index);
                out.raise(Column::ParamPairs, surprises.pairs, index);
                out.raise(Column::ParamLength, surprises.length, index);
                out.raise(Column::ParamMagnitude, surprises.magnitude, index);
                out.raise(Column::ParamForm, surprises.form, index);
                out.raise(Column::ParamValue, surprises.value, index);
                out.raise(Column::ParamLayers, surprises.layers, index);
                let total = text_total(&surprises) + surprises.magnitude + surprises.value + surprises.form;
                out.raise(Column::ParamTotal, total, index);
            }
        }
    }
}

fn text_total(surprises: &Surprises) -> f32 {
    surprises.kind + surprises.chars + surprises.pairs + surprises.length + surprises.layers
}

/// Parameters that should be there and are not, or are there too often.
fn presence(out: &mut Extraction, observation: &Observation, context: &Context<'_>) {
    let Some(endpoint) = context.endpoint else { return };
    let times = |location: Location, name: &str| {
        observation.params.iter().filter(|param| param.location == location && param.name == name).count()
    };
    for ((location, name), profile) in &endpoint.params {
        let times = times(*location, name);
        let column =
            if *location == Location::Header { Column::MissingHeaders } else { Column::MissingParams };
        // Cookies come and go with the session, not with the endpoint.
        if times == 0 && *location != Location::Cookie {
            out.add(column, (profile.absence - 0.5).max(0.0));
        }
        if times > usize::from(profile.repeats) && is_param(*location) {
            out.add(Column::Repeats, (times - usize::from(profile.repeats)) as f32);
        }
    }
}

/// Whether the application reads it as a parameter.
fn is_param(location: Location) -> bool {
    !matches!(location, Location::Header | Location::Cookie | Location::Path)
}

/// The parameter behind a column of an extraction.
pub fn culprit<'a>(
    extraction: &Extraction,
    column: usize,
    observation: &'a Observation,
) -> Option<&'a ParamObservation> {
    let index = (*extraction.culprits.get(column)?)?;
    observation.params.get(usize::from(index))
}
