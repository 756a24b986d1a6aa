//! From a document to an [`Api`]: every schema compiled once, all mistakes reported.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Registry, Validator};
use serde_json::Value;

use super::{
    Api, BodyRule, Item, Operation,
    document::{Document, Found, step},
    is_json,
    parameter::{Form, Kinds, Parameter, Place},
    template::Template,
};
use crate::config::{Mistake, Mistakes};

/// What the document is called inside the library of schemas. It is never asked for anywhere.
const NAME: &str = "urn:portcullis:openapi";

/// Deepest look for the types that a schema allows.
const DEPTH: usize = 8;

/// Largest compiled pattern, in bytes.
const PATTERN: usize = 1 << 20;

/// Makes an API of the text of a file; `base` is the path below which its paths are, if it says nothing itself. Beside
/// it come remarks about what will not be checked.
///
/// # Errors
/// Every mistake of the file, with its place.
pub fn load(text: &str, file: &str, base: Option<&str>) -> Result<(Api, Vec<String>), Mistakes> {
    let document = Document::read(text, file)?;
    let fatal = |message: String| Mistakes {
        file: file.to_owned(),
        list: vec![Mistake { line: 0, path: String::new(), message }],
        rules: Vec::new(),
    };
    if let Some(mistakes) = document.mistakes(Vec::new()) {
        return Err(mistakes);
    }
    let base = document.base(base).map_err(fatal)?;
    let registry = Registry::new()
        .draft(Draft::Draft202012)
        .add(NAME, &document.root)
        .and_then(jsonschema::RegistryBuilder::prepare)
        .map_err(|error| fatal(error.to_string()))?;
    let mut compiler =
        Compiler { document: &document, registry: &registry, wrong: Vec::new(), remarks: Vec::new() };
    compiler.check_schemas();
    let mut items: BTreeMap<&str, Item> = BTreeMap::new();
    for found in document.found() {
        let template = match Template::parse(&format!("{base}{}", found.path)) {
            Ok(template) => template,
            Err(message) => {
                compiler.wrong.push((step("/paths", found.path), message));
                continue;
            }
        };
        let operation = compiler.operation(&found);
        let item = items.entry(found.path).or_insert(Item { template, operations: Vec::new() });
        item.operations.push((found.method, operation));
    }
    let Compiler { wrong, remarks, .. } = compiler;
    if let Some(mistakes) = document.mistakes(wrong) {
        return Err(mistakes);
    }
    if items.is_empty() {
        return Err(fatal("describes no operation: every request would be refused".to_owned()));
    }
    let mut api = Api::default();
    for item in items.into_values() {
        api.items.entry(item.template.len()).or_default().push(item);
    }
    for items in api.items.values_mut() {
        items.sort_by_cached_key(|item| item.template.rank());
    }
    Ok((api, remarks))
}

/// Keywords that only mean something for values of one type.
const MEANT: [(&str, &str); 14] = [
    ("pattern", "string"),
    ("minLength", "string"),
    ("maxLength", "string"),
    ("format", "string"),
    ("minimum", "number"),
    ("maximum", "number"),
    ("exclusiveMinimum", "number"),
    ("exclusiveMaximum", "number"),
    ("multipleOf", "number"),
    ("items", "array"),
    ("minItems", "array"),
    ("maxItems", "array"),
    ("properties", "object"),
    ("additionalProperties", "object"),
];

struct Compiler<'a> {
    document: &'a Document,
    registry: &'a Registry<'a>,
    wrong: Vec<(String, String)>,
    remarks: Vec<String>,
}

impl Compiler<'_> {
    /// Whether the schemas that have names are schemas: those that nothing uses yet will be used.
    fn check_schemas(&mut self) {
        let schemas = self.document.root.pointer("/components/schemas").and_then(Value::as_object);
        for (name, schema) in schemas.into_iter().flatten() {
            self.check_schema(&step("/components/schemas", name), schema);
        }
    }

    fn check_schema(&mut self, pointer: &str, schema: &Value) {
        if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
            self.wrong.push((
                format!("{pointer}{}", error.instance_path().as_str()),
                format!("no schema: {error}"),
            ));
        }
    }

    fn operation(&mut self, found: &Found<'_>) -> Operation {
        // What the operation says of a parameter replaces what its path says.
        let mut parameters: BTreeMap<(String, String), Option<Parameter>> = BTreeMap::new();
        for (pointer, holder) in [&found.item, &found.operation] {
            let pointer = step(pointer, "parameters");
            let list = holder.get("parameters").and_then(Value::as_array);
            for (at, raw) in list.into_iter().flatten().enumerate() {
                let (pointer, raw) = self.document.resolve(format!("{pointer}/{at}"), raw);
                let text = |name: &str| raw.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (place, name) = (text("in"), text("name"));
                if name.is_empty() {
                    self.wrong.push((pointer, "has no \"name\"".to_owned()));
                    continue;
                }
                let parameter = self.parameter(&pointer, raw, &place, &name);
                parameters.insert((place, name), parameter);
            }
        }
        let body = found.operation.1.get("requestBody").map(|raw| {
            let (pointer, raw) = self.document.resolve(step(&found.operation.0, "requestBody"), raw);
            self.body(&pointer, raw)
        });
        let mut parameters: Vec<Parameter> = parameters.into_values().flatten().collect();
        parameters.sort_by_key(|parameter| parameter.place);
        Operation { parameters, body }
    }

    /// `None` for what is not checked.
    fn parameter(&mut self, pointer: &str, raw: &Value, place: &str, name: &str) -> Option<Parameter> {
        let (place, name) = match place {
            "path" => (Place::Path, name.to_owned()),
            "query" => (Place::Query, name.to_owned()),
            // These belong to HTTP and are not described as parameters (OpenAPI 3.1, 4.8.12).
            "header"
                if ["accept", "content-type", "authorization"]
                    .contains(&name.to_ascii_lowercase().as_str()) =>
            {
                return None;
            }
            "header" => (Place::Header, name.to_ascii_lowercase()),
            "cookie" => return None,
            other => {
                self.wrong.push((
                    pointer.to_owned(),
                    format!("\"in\" is {other:?}, but has to be path, query, header or cookie"),
                ));
                return None;
            }
        };
        if place == Place::Header && http::HeaderName::try_from(&name).is_err() {
            self.wrong.push((pointer.to_owned(), format!("{name:?} is not a header name")));
            return None;
        }
        let required = place == Place::Path || raw.get("required").and_then(Value::as_bool).unwrap_or(false);
        let content = raw.get("content").and_then(Value::as_object).and_then(|content| content.iter().next());
        let (at, schema) = match content {
            Some((media, inner)) if is_json(media) => {
                (step(&step(&step(pointer, "content"), media), "schema"), inner.get("schema"))
            }
            Some(_) => (String::new(), None),
            None => (step(pointer, "schema"), raw.get("schema")),
        };
        let mut members = BTreeMap::new();
        let (form, at) = match schema {
            None => (Form::Single(Kinds::default()), None),
            Some(_) if content.is_some() => (Form::Json, Some(at)),
            Some(schema) => match self.form(raw, place, &at, schema, &mut members) {
                Some(form) => (form, Some(at)),
                None => {
                    self.remarks.push(format!(
                        "#{pointer}: {name:?} is written in a way of which only its presence is checked"
                    ));
                    (Form::Single(Kinds::default()), None)
                }
            },
        };
        let validator = match (at, schema) {
            (Some(at), Some(schema)) => self.validator(&at, schema),
            _ => jsonschema::options().build(&Value::Bool(true)).ok(),
        };
        Some(Parameter { place, name, required, form, members, validator: validator? })
    }

    /// How a parameter is written (OpenAPI 3.1, 4.8.12.3); `None` for forms that are not told apart.
    fn form(
        &self,
        raw: &Value,
        place: Place,
        pointer: &str,
        schema: &Value,
        members: &mut BTreeMap<String, Kinds>,
    ) -> Option<Form> {
        let kinds = self.kinds(pointer, schema, DEPTH);
        let single = kinds.text || kinds.number || kinds.boolean;
        let usual = if place == Place::Query { "form" } else { "simple" };
        let style = raw.get("style").and_then(Value::as_str).unwrap_or(usual);
        let explode = raw.get("explode").and_then(Value::as_bool).unwrap_or(style == "form");
        let inner = |name: &str| {
            let (at, schema) = self.document.resolve(pointer.to_owned(), schema);
            let inner = schema.get(name)?;
            Some((step(&at, name), inner))
        };
        if kinds.list || kinds.object {
            if single {
                return None;
            }
            if kinds.object {
                let (at, properties) = inner("properties")?;
                for (name, property) in properties.as_object().into_iter().flatten() {
                    members.insert(name.clone(), self.kinds(&step(&at, name), property, DEPTH));
                }
                return (style == "deepObject" && place == Place::Query && !kinds.list)
                    .then_some(Form::DeepObject);
            }
            let items = inner("items").map(|(at, items)| self.kinds(&at, items, DEPTH)).unwrap_or_default();
            return match (style, explode) {
                ("form", true) => Some(Form::Repeated(items)),
                ("form", false) | ("simple", _) => Some(Form::Joined(items, ',')),
                ("spaceDelimited", false) => Some(Form::Joined(items, ' ')),
                ("pipeDelimited", false) => Some(Form::Joined(items, '|')),
                _ => None,
            };
        }
        matches!(style, "form" | "simple").then_some(Form::Single(kinds))
    }

    /// The types that a schema allows.
    fn kinds(&self, pointer: &str, schema: &Value, depth: usize) -> Kinds {
        let (pointer, schema) = self.document.resolve(pointer.to_owned(), schema);
        let mut kinds = Kinds::default();
        let mut allow = |kind: &str| match kind {
            "string" => kinds.text = true,
            "integer" | "number" => kinds.number = true,
            "boolean" => kinds.boolean = true,
            "null" => kinds.null = true,
            "array" => kinds.list = true,
            "object" => kinds.object = true,
            _ => {}
        };
        match schema.get("type") {
            Some(Value::String(kind)) => allow(kind),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).for_each(allow),
            // Whoever limits the length of a text means a text: another type would escape the limit.
            _ => {
                MEANT.iter().filter(|(word, _)| schema.get(word).is_some()).for_each(|(_, kind)| allow(kind));
                let words = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
                words.chain(schema.get("const")).for_each(|word| allow(kind_of(word)));
            }
        }
        if kinds != Kinds::default() || depth == 0 {
            return kinds;
        }
        for part in ["oneOf", "anyOf", "allOf"] {
            let parts = schema.get(part).and_then(Value::as_array);
            for (at, inner) in parts.into_iter().flatten().enumerate() {
                let other = self.kinds(&format!("{pointer}/{part}/{at}"), inner, depth - 1);
                kinds.text |= other.text;
                kinds.number |= other.number;
                kinds.boolean |= other.boolean;
                kinds.null |= other.null;
                kinds.list |= other.list;
                kinds.object |= other.object;
            }
        }
        kinds
    }

    fn body(&mut self, pointer: &str, raw: &Value) -> BodyRule {
        let required = raw.get("required").and_then(Value::as_bool).unwrap_or(false);
        let mut content = Vec::new();
        let types = raw.get("content").and_then(Value::as_object);
        for (media, inner) in types.into_iter().flatten() {
            let at = step(&step(&step(pointer, "content"), media), "schema");
            let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            let schema = inner.get("schema").filter(|_| is_json(&essence) || essence.ends_with('*'));
            let validator = schema.and_then(|schema| self.validator(&at, schema));
            content.push((essence, validator));
        }
        if content.is_empty() {
            content.push(("*/*".to_owned(), None));
        }
        content.sort_by_key(|(range, _)| match range.strip_suffix('*') {
            None => 0,
            Some("*/") => 2,
            Some(_) => 1,
        });
        BodyRule { required, content }
    }

    fn validator(&mut self, pointer: &str, schema: &Value) -> Option<Validator> {
        let before = self.wrong.len();
        if schema.get("$ref").is_none() {
            self.check_schema(pointer, schema);
        }
        if self.wrong.len() > before {
            return None;
        }
        let built = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_registry(self.registry)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN).dfa_size_limit(PATTERN))
            .should_validate_formats(true)
            .should_ignore_unknown_formats(true)
            .offline()
            .build(&serde_json::json!({ "$ref": format!("{NAME}#{}", fragment(pointer)) }));
        match built {
            Ok(validator) => Some(validator),
            Err(error) => {
                let message =
                    format!("cannot be checked: {error}; patterns may not look around or refer back");
                self.wrong.push((pointer.to_owned(), message));
                None
            }
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A JSON pointer as the fragment of a URI (RFC 6901, 6).
fn fragment(pointer: &str) -> String {
    pointer
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
