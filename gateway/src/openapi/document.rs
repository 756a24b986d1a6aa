//! A document as it is written: YAML or JSON, OpenAPI 3; its paths, its references, and where in the file things stand.

use std::borrow::Cow;

use http::{Method, Uri};
use serde_json::Value;

use super::template::Template;
use crate::config::{
    Mistake, Mistakes,
    document::{self, RawKind, RawNode},
};

/// Methods that a document can describe.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Most references that lead to one another.
const HOPS: usize = 32;

/// Largest file, in bytes.
pub const MOST: u64 = 16 << 20;

/// A document.
#[derive(Debug)]
pub struct Document {
    text: String,
    file: String,
    pub(super) root: Value,
    pub(super) wrong: Vec<(String, String)>,
}

/// One operation, as far as it is compared with what was observed.
#[derive(Debug, Clone)]
pub struct Documented {
    /// Method.
    pub method: Method,
    /// Path, below the base.
    pub template: Template,
    /// Whether it is marked as deprecated.
    pub deprecated: bool,
}

/// One operation and its path item, and where they stand.
pub(super) struct Found<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) item: (String, &'a Value),
    pub(super) operation: (String, &'a Value),
}

impl Document {
    /// Reads a document; `file` is its name in messages.
    ///
    /// # Errors
    /// It is neither YAML nor JSON, or not OpenAPI 3.
    pub fn read(text: &str, file: &str) -> Result<Self, Mistakes> {
        let fatal = |line, message| Mistakes {
            file: file.to_owned(),
            list: vec![Mistake { line, path: String::new(), message }],
            rules: Vec::new(),
        };
        let root = if text.trim_start().starts_with('{') {
            serde_json::from_str(text)
                .map_err(|error| fatal(error.line() as u64, format!("not JSON: {error}")))?
        } else {
            let node = document::read_plain(text)
                .map_err(|(line, message)| fatal(line, format!("not YAML: {message}")))?;
            node.kind.to_json()
        };
        let mut document = Self { text: text.to_owned(), file: file.to_owned(), root, wrong: Vec::new() };
        let version = document.root.get("openapi").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !version.starts_with("3.") {
            let message = if document.root.get("swagger").is_some() {
                "is Swagger 2; convert it to OpenAPI 3"
            } else {
                "is not OpenAPI 3: \"openapi: 3.1.0\" is missing"
            };
            return Err(fatal(1, message.to_owned()));
        }
        if version.starts_with("3.0") {
            modernize(&mut document.root);
        }
        let mut wrong = Vec::new();
        check_references(&document.root, &document.root, String::new(), &mut wrong);
        document.wrong = wrong;
        Ok(document)
    }

    /// The mistakes found so far and others, with their lines; `None` if there are none. Places are JSON pointers.
    pub(super) fn mistakes(&self, others: Vec<(String, String)>) -> Option<Mistakes> {
        let all: Vec<_> = self.wrong.iter().cloned().chain(others).collect();
        if all.is_empty() {
            return None;
        }
        let nodes = document::read_plain(&self.text).ok();
        let mut list: Vec<Mistake> = all
            .into_iter()
            .map(|(pointer, message)| Mistake {
                line: nodes.as_ref().map_or(0, |root| line(root, &pointer)),
                path: format!("#{pointer}"),
                message,
            })
            .collect();
        list.sort();
        list.dedup();
        Some(Mistakes { file: self.file.clone(), list, rules: Vec::new() })
    }

    /// The path below which its paths are: what is given, or that of its first server.
    ///
    /// # Errors
    /// The server's has variables, so that it has to be given.
    pub fn base(&self, given: Option<&str>) -> Result<String, String> {
        let server = self.root.pointer("/servers/0/url").and_then(Value::as_str).unwrap_or("/");
        let base = match given {
            Some(given) => given.to_owned(),
            None if server.contains('{') => {
                return Err(format!(
                    "the document's server {server:?} has variables; say below which path its paths are with \"base\""
                ));
            }
            None => server.parse::<Uri>().map_or_else(|_| "/".to_owned(), |uri| uri.path().to_owned()),
        };
        let base = base.trim_end_matches('/').to_owned();
        if base.is_empty() || base.starts_with('/') { Ok(base) } else { Ok(format!("/{base}")) }
    }

    /// Every operation, for comparing. `base` is that of [`Self::base`].
    pub fn operations(&self, base: &str) -> Vec<Documented> {
        let documented = |found: Found<'_>| {
            let template = Template::parse(&format!("{base}{}", found.path)).ok()?;
            let deprecated = found.operation.1.get("deprecated").and_then(Value::as_bool).unwrap_or(false);
            Some(Documented { method: found.method, template, deprecated })
        };
        let mut operations: Vec<_> = self.found().into_iter().filter_map(documented).collect();
        operations.sort_by_cached_key(|one| (one.template.rank(), one.template.text().to_owned()));
        operations
    }

    pub(super) fn found(&self) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        let paths = self.root.get("paths").and_then(Value::as_object);
        for (path, item) in paths.into_iter().flatten().filter(|(path, _)| path.starts_with('/')) {
            let item = self.resolve(step("/paths", path), item);
            for name in METHODS {
                let Some(operation) = item.1.get(name) else { continue };
                let Ok(method) = Method::from_bytes(name.to_ascii_uppercase().as_bytes()) else { continue };
                let operation = (step(&item.0, name), operation);
                found.push(Found { method, path, item: item.clone(), operation });
            }
        }
        found
    }

    /// Follows references from `value`, which stands at `pointer`, to what they lead to. References that lead nowhere
    /// were found when the document was read.
    pub(super) fn resolve<'a>(&'a self, pointer: String, value: &'a Value) -> (String, &'a Value) {
        let (mut pointer, mut value) = (pointer, value);
        for _ in 0..HOPS {
            let Some(next) = value.get("$ref").and_then(Value::as_str).and_then(local) else { break };
            let Some(target) = self.root.pointer(&next) else { break };
            (pointer, value) = (next.into_owned(), target);
        }
        (pointer, value)
    }
}

/// One step further down a JSON pointer (RFC 6901).
pub(super) fn step(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The JSON pointer of a reference within the document.
fn local(reference: &str) -> Option<Cow<'_, str>> {
    let pointer = reference.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    if !pointer.contains('%') {
        return Some(Cow::Borrowed(pointer));
    }
    Some(Cow::Owned(super::template::decoded(pointer).into_owned()))
}

fn check_references(root: &Value, value: &Value, pointer: String, wrong: &mut Vec<(String, String)>) {
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                check_references(root, item, format!("{pointer}/{at}"), wrong);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                // Examples may hold anything.
                if matches!(name.as_str(), "example" | "examples" | "default" | "enum" | "const") {
                    continue;
                }
                if let (Value::String(reference), "$ref") = (member, name.as_str()) {
                    match local(reference) {
                        None => wrong.push((
                            pointer.clone(),
                            format!("{reference:?} leads out of this file; put what it names below \"components\" and write #/components/..."),
                        )),
                        Some(target) if root.pointer(&target).is_none() => {
                            wrong.push((pointer.clone(), format!("{reference:?} leads nowhere; add what it names, or correct it")));
                        }
                        Some(_) => {}
                    }
                    continue;
                }
                check_references(root, member, step(&pointer, name), wrong);
            }
        }
        _ => {}
    }
}

/// Writes what OpenAPI 3.0 says in its own way as 3.1 and JSON Schema do: `nullable`, and limits that are exclusive.
fn modernize(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(modernize),
        Value::Object(members) => {
            if members.get("nullable") == Some(&Value::Bool(true))
                && let Some(Value::String(kind)) = members.get("type").cloned()
            {
                members.insert("type".to_owned(), Value::from(vec![kind, "null".to_owned()]));
                if let Some(Value::Array(words)) = members.get_mut("enum")
                    && !words.contains(&Value::Null)
                {
                    words.push(Value::Null);
                }
            }
            for (exclusive, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
                match members.get(exclusive) {
                    Some(Value::Bool(true)) => {
                        if let Some(number) = members.remove(limit) {
                            members.insert(exclusive.to_owned(), number);
                        } else {
                            members.remove(exclusive);
                        }
                    }
                    Some(Value::Bool(false)) => {
                        members.remove(exclusive);
                    }
                    _ => {}
                }
            }
            members.values_mut().for_each(modernize);
        }
        _ => {}
    }
}

/// The line of a place, or of the nearest thing around it.
fn line(root: &RawNode, pointer: &str) -> u64 {
    let (mut node, mut line) = (root, root.line);
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        let next = match &node.kind {
            RawKind::Map(entries) => {
                entries.iter().find(|(key, ..)| *key == name).map(|(_, line, value)| (*line, value))
            }
            RawKind::List(items) => {
                name.parse::<usize>().ok().and_then(|at| items.get(at)).map(|item| (item.line, item))
            }
            _ => None,
        };
        let Some((at, inner)) = next else { break };
        (node, line) = (inner, at);
    }
    line
}
