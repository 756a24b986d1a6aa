//! One parameter of an operation: where it is, how its text becomes a value, and what the value has to be.

use std::{borrow::Cow, collections::BTreeMap};

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use super::{Violation, json, shaped};

/// Most values of one parameter in one request.
const VALUES: usize = 1_000;

/// Where a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// A header field.
    Header,
}

impl Place {
    /// Its name in documents and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
        }
    }
}

/// The types of JSON that a schema allows; none for any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Whether text is.
    pub text: bool,
    /// Whether numbers are.
    pub number: bool,
    /// Whether `true` and `false` are.
    pub boolean: bool,
    /// Whether null is.
    pub null: bool,
    /// Whether lists are.
    pub list: bool,
    /// Whether objects are.
    pub object: bool,
}

/// How the text of a parameter becomes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One value.
    Single(Kinds),
    /// A list: one text for each item.
    Repeated(Kinds),
    /// A list in one text.
    Joined(Kinds, char),
    /// `name[member]=value`, of the query.
    DeepObject,
    /// JSON.
    Json,
}

/// One parameter of an operation.
#[derive(Debug)]
pub struct Parameter {
    /// Where it is.
    pub place: Place,
    /// Its name; of header fields in lower case.
    pub name: String,
    /// Whether it has to be there.
    pub required: bool,
    /// How it is written.
    pub form: Form,
    /// The types of its members, if it is an object.
    pub members: BTreeMap<String, Kinds>,
    /// What its value has to be.
    pub validator: Validator,
}

impl Parameter {
    /// Whether it is spread over names such as `filter[from]`.
    pub fn is_deep_object(&self) -> bool {
        self.form == Form::DeepObject
    }

    /// Whether its texts, in order, are what they have to be.
    ///
    /// # Errors
    /// It is missing, or the first rule that it breaks.
    pub fn check(&self, texts: &[Cow<'_, str>]) -> Result<(), Violation> {
        if texts.is_empty() {
            return if self.required { Err(self.broken("missing")) } else { Ok(()) };
        }
        if texts.len() > VALUES {
            return Err(self.broken("maxItems"));
        }
        match self.form {
            Form::Single(kinds) => texts.iter().try_for_each(|text| self.check_one(text, kinds)),
            Form::Repeated(kinds) => {
                self.validate(&Value::Array(texts.iter().map(|text| item(text, kinds)).collect()))
            }
            // Repeated header fields are one list.
            Form::Joined(kinds, separator) if self.place == Place::Header || texts.len() == 1 => {
                let items = texts.iter().flat_map(|text| text.split(separator)).take(VALUES);
                self.validate(&Value::Array(items.map(|text| item(text.trim(), kinds)).collect()))
            }
            Form::Joined(..) => Err(self.broken("type")),
            Form::Json => texts.iter().try_for_each(|text| {
                let value = json::read(text.as_bytes()).map_err(|rule| self.broken(rule))?;
                self.validate(&value)
            }),
            Form::DeepObject => Ok(()),
        }
    }

    /// As [`Self::check`], for an object of which each member is a parameter of the query.
    ///
    /// # Errors
    /// It is missing, or the first rule that it breaks.
    pub fn check_members(&self, query: &[(Cow<'_, str>, Cow<'_, str>)]) -> Result<(), Violation> {
        let mut members = Map::new();
        for (name, value) in query {
            let member = name.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('['));
            let Some(member) = member.and_then(|rest| rest.strip_suffix(']')) else { continue };
            let kinds = self.members.get(member).copied().unwrap_or_default();
            if members.insert(member.to_owned(), item(value, kinds)).is_some() {
                return Err(self.broken("duplicate_key"));
            }
        }
        match members.is_empty() {
            true if self.required => Err(self.broken("missing")),
            true => Ok(()),
            false => self.validate(&Value::Object(members)),
        }
    }

    /// A text is good if one of its readings is.
    fn check_one(&self, text: &str, kinds: Kinds) -> Result<(), Violation> {
        let mut broken = None;
        for value in readings(text, kinds) {
            match self.validate(&value) {
                Ok(()) => return Ok(()),
                Err(violation) => broken = broken.or(Some(violation)),
            }
        }
        Err(broken.unwrap_or_else(|| self.broken("type")))
    }

    fn validate(&self, value: &Value) -> Result<(), Violation> {
        self.validator.validate(value).map_err(|error| self.broken(&broken(&error).1))
    }

    fn broken(&self, rule: &str) -> Violation {
        Violation::bad(self.place.name(), &self.name, rule)
    }
}

/// What a text can mean among these types of JSON: numbers and words first.
fn readings(text: &str, kinds: Kinds) -> Vec<Value> {
    let any = kinds == Kinds::default();
    let mut readings = Vec::new();
    if kinds.number || any {
        readings.extend(number(text));
    }
    if kinds.boolean || any {
        readings.extend(text.parse::<bool>().ok().map(Value::Bool));
    }
    if kinds.null && matches!(text, "" | "null") {
        readings.push(Value::Null);
    }
    if kinds.text || any {
        readings.push(Value::String(text.to_owned()));
    }
    readings
}

/// An item of a list: a number or a word where it can be one and text is not asked for, else text.
fn item(text: &str, kinds: Kinds) -> Value {
    let kinds = Kinds { text: false, ..kinds };
    let first = if kinds == Kinds::default() { None } else { readings(text, kinds).into_iter().next() };
    first.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A number as JSON writes it.
fn number(text: &str) -> Option<Value> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
    if plain && text.len() <= 64 { serde_json::from_str(text).ok() } else { None }
}

/// Where in the value, and which keyword of JSON Schema is not kept. A missing member is named as if it were there.
pub(super) fn broken(error: &ValidationError<'_>) -> (String, String) {
    let mut pointer = shaped(error.instance_path().as_str());
    if let ValidationErrorKind::Required { property: Value::String(name) } = error.kind() {
        pointer.push('/');
        pointer.push_str(name);
    }
    (pointer, error.kind().keyword().to_owned())
}
