//! OpenAPI: what a document says of requests, and whether a request keeps to it.
//!
//! [`document`] reads the file, [`compile`] makes an [`Api`] of it, once, at load; [`Api::check`] is what a request meets.

pub mod compile;
pub mod document;
mod json;
pub mod parameter;
pub mod template;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use http::{HeaderMap, Method, StatusCode, header};
use jsonschema::Validator;
use waf_model::shape;

use parameter::{Parameter, Place};
use template::Template;

/// Longest name or place in a body that is repeated in logs and answers, in bytes.
const NAME_BYTES: usize = 128;

/// An OpenAPI document as far as requests are checked against it.
#[derive(Debug, Default)]
pub struct Api {
    /// By number of segments; those with fewer variables first.
    items: BTreeMap<usize, Vec<Item>>,
}

/// One path.
#[derive(Debug)]
struct Item {
    template: Template,
    operations: Vec<(Method, Operation)>,
}

/// One operation.
#[derive(Debug, Default)]
struct Operation {
    parameters: Vec<Parameter>,
    body: Option<BodyRule>,
}

/// The operation of a request, and the variables of its path by name.
type Matched<'a> = (&'a Operation, Vec<(&'a str, &'a str)>);

/// What a body has to be.
#[derive(Debug)]
struct BodyRule {
    required: bool,
    /// Media types or ranges (`text/*`, `*/*`), most exact first, with the schema of a JSON body.
    content: Vec<(String, Option<Validator>)>,
}

/// One request, as far as a document speaks of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Method.
    pub method: &'a Method,
    /// Path as the client sent it.
    pub path: &'a str,
    /// Query, without the question mark.
    pub query: Option<&'a str>,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Body.
    pub body: Sent<'a>,
    /// Header fields that were there and were taken off, because they carried credentials.
    pub spared: &'a [&'a str],
}

/// A body.
#[derive(Debug, Clone, Copy)]
pub enum Sent<'a> {
    /// None, or an empty one.
    Nothing,
    /// All of it, its content coding undone.
    Whole(&'a [u8]),
    /// Of which only a part can be read.
    Part,
}

/// What a request breaks. Holds names of the document and places in the body, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// How it is answered.
    pub status: StatusCode,
    /// `path`, `method`, `query`, `header` or `body`.
    pub place: &'static str,
    /// The parameter; or where in the body, as a JSON pointer; empty for the place as a whole.
    pub name: String,
    /// What is not kept: a keyword of JSON Schema, or `unknown`, `missing`, `media_type`, `syntax`, `unreadable`.
    pub rule: String,
    /// Methods that would have been right.
    pub allowed: Vec<Method>,
}

impl Violation {
    fn new(status: StatusCode, place: &'static str, name: &str, rule: &str) -> Self {
        let name = name.get(..name.floor_char_boundary(NAME_BYTES)).unwrap_or_default().to_owned();
        Self { status, place, name, rule: rule.to_owned(), allowed: Vec::new() }
    }

    fn bad(place: &'static str, name: &str, rule: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, place, name, rule)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, name, rule, .. } = self;
        if name.is_empty() { write!(f, "{place}: {rule}") } else { write!(f, "{place} {name}: {rule}") }
    }
}

impl Api {
    /// Whether a request keeps to the document.
    ///
    /// # Errors
    /// The first thing that it breaks: path, method, parameters as the document lists them, body.
    pub fn check(&self, asked: &Asked<'_>) -> Result<(), Violation> {
        let segments = template::segments(asked.path);
        let Some((operation, variables)) = self.find(asked, &segments)? else { return Ok(()) };
        let query: Vec<(Cow<'_, str>, Cow<'_, str>)> =
            form_urlencoded::parse(asked.query.unwrap_or_default().as_bytes()).collect();
        for parameter in &operation.parameters {
            let values: Vec<Cow<'_, str>> = match parameter.place {
                Place::Path => {
                    let found = variables.iter().filter(|(name, _)| *name == parameter.name);
                    found.map(|(_, value)| Cow::Borrowed(*value)).collect()
                }
                Place::Query if parameter.is_deep_object() => {
                    parameter.check_members(&query)?;
                    continue;
                }
                Place::Query => {
                    let found = query.iter().filter(|(name, _)| *name == parameter.name);
                    found.map(|(_, value)| Cow::Borrowed(&**value)).collect()
                }
                Place::Header if asked.spared.contains(&parameter.name.as_str()) => continue,
                Place::Header => {
                    let found = asked.headers.get_all(&parameter.name).iter();
                    found.map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
                }
            };
            parameter.check(&values)?;
        }
        check_body(operation.body.as_ref(), asked)
    }

    /// The operation and the variables of its path; nothing for a question of a browser about other origins, which a
    /// document does not list.
    fn find<'a>(
        &'a self,
        asked: &Asked<'_>,
        segments: &'a [Cow<'a, str>],
    ) -> Result<Option<Matched<'a>>, Violation> {
        let candidates = self.items.get(&segments.len()).map(Vec::as_slice).unwrap_or_default();
        let mut allowed = Vec::new();
        for item in candidates {
            let Some(variables) = item.template.variables(segments) else { continue };
            let find = |method: &Method| item.operations.iter().find(|(known, _)| known == method);
            // Who may GET may also HEAD (RFC 9110, 9.1).
            let found =
                find(asked.method).or_else(|| (asked.method == Method::HEAD).then(|| find(&Method::GET))?);
            if let Some((_, operation)) = found {
                return Ok(Some((operation, variables)));
            }
            allowed.extend(item.operations.iter().map(|(method, _)| method.clone()));
        }
        if allowed.is_empty() {
            return Err(Violation::new(StatusCode::NOT_FOUND, "path", "", "unknown"));
        }
        if *asked.method == Method::OPTIONS
            && asked.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return Ok(None);
        }
        let violation = Violation::new(StatusCode::METHOD_NOT_ALLOWED, "method", "", "unknown");
        Err(Violation { allowed, ..violation })
    }
}

fn check_body(rule: Option<&BodyRule>, asked: &Asked<'_>) -> Result<(), Violation> {
    let is_there = !matches!(asked.body, Sent::Nothing);
    let Some(rule) = rule else {
        return if is_there { Err(Violation::bad("body", "", "unknown")) } else { Ok(()) };
    };
    if !is_there {
        return if rule.required { Err(Violation::bad("body", "", "missing")) } else { Ok(()) };
    }
    let mut types = asked.headers.get_all(header::CONTENT_TYPE).iter();
    let (first, second) = (types.next(), types.next());
    let essence = first.and_then(|value| value.to_str().ok()).and_then(|text| text.split(';').next());
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    let found = rule.content.iter().find(|(range, _)| covers(range, &essence));
    let (Some((_, validator)), None) = (found, second) else {
        return Err(Violation::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body", "", "media_type"));
    };
    let (Some(validator), true) = (validator, is_json(&essence)) else { return Ok(()) };
    let Sent::Whole(bytes) = asked.body else {
        return Err(Violation::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "", "unreadable"));
    };
    let value = json::read(bytes).map_err(|rule| Violation::bad("body", "", rule))?;
    validator.validate(&value).map_err(|error| {
        let (name, rule) = parameter::broken(&error);
        Violation::bad("body", &name, &rule)
    })
}

/// Whether a media type or range of a document covers a media type.
fn covers(range: &str, essence: &str) -> bool {
    match range.strip_suffix('*') {
        Some("*/") => essence.contains('/'),
        Some(kind) => essence.starts_with(kind),
        None => range == essence,
    }
}

/// Whether a media type is JSON by its name (RFC 6839, 3.1).
fn is_json(essence: &str) -> bool {
    essence == "application/json" || essence.ends_with("+json")
}

/// A place in a body without what could be a value: names as [`shape`] keeps them, and indices.
fn shaped(pointer: &str) -> String {
    let mut shown = String::new();
    for segment in pointer.split('/').skip(1) {
        shown.push('/');
        if segment.len() <= 6 && segment.bytes().all(|byte| byte.is_ascii_digit()) {
            shown.push_str(segment);
        } else {
            shown.push_str(&shape::shape(segment.as_bytes()));
        }
        if shown.len() > NAME_BYTES {
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests;
