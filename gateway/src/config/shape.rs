//! Checks a document against the schema of the raw configuration: unknown keys, wrong types, unknown words. What
//! is wrong is reported and taken out, so that the rest can be checked further.

use serde_json::Value;

use super::{
    document::{RawKind, RawNode},
    mistakes::Collector,
};

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Checks documents against one schema.
pub(super) struct Shape<'a> {
    /// The whole schema, for references.
    pub(super) schema: &'a Value,
    /// For `${NAME}`.
    pub(super) environment: Environment<'a>,
}

/// Whether a value may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Good,
    Wrong,
}

impl Shape<'_> {
    /// Checks the whole document and mends what has more than one spelling.
    pub(super) fn check_document(&self, node: &mut RawNode, mistakes: &mut Collector) {
        if self.check(node, self.schema, "", mistakes) == Fit::Wrong {
            node.kind = RawKind::Map(Vec::new());
        }
    }

    fn check(&self, node: &mut RawNode, schema: &Value, path: &str, mistakes: &mut Collector) -> Fit {
        mistakes.locate(path, node.line);
        if let RawKind::Text(text) = &mut node.kind {
            match expand(text, self.environment) {
                Ok(expanded) => *text = expanded,
                Err(message) => {
                    mistakes.add(path, message);
                    return Fit::Wrong;
                }
            }
        }
        let schema = self.choose(schema, &node.kind);
        if let Some(words) = words(schema) {
            return check_word(node, &words, path, mistakes);
        }
        match type_of(schema) {
            Some("object") => self.check_map(node, schema, path, mistakes),
            Some("array") => self.check_list(node, schema, path, mistakes),
            Some("integer") => check_integer(node, path, mistakes),
            Some("string") => check_text(node, schema, path, mistakes),
            _ => Fit::Good,
        }
    }

    /// Follows references, and takes of several alternatives the one that fits the kind of value.
    fn choose<'s>(&'s self, schema: &'s Value, kind: &RawKind) -> &'s Value {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#'))
        {
            return self.schema.pointer(name).map_or(schema, |target| self.choose(target, kind));
        }
        let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key)?.as_array());
        let Some(alternatives) = alternatives.filter(|_| words(schema).is_none()) else { return schema };
        let real = alternatives.iter().filter(|choice| type_of(choice) != Some("null"));
        let real: Vec<&Value> = real.map(|choice| self.choose(choice, kind)).collect();
        let wanted = match kind {
            RawKind::Map(_) => "object",
            RawKind::List(_) => "array",
            RawKind::Integer(_) => "integer",
            _ => "string",
        };
        real.iter().find(|choice| type_of(choice) == Some(wanted)).or(real.first()).copied().unwrap_or(schema)
    }

    fn check_map(&self, node: &mut RawNode, schema: &Value, path: &str, mistakes: &mut Collector) -> Fit {
        let RawKind::Map(entries) = &mut node.kind else {
            mistakes.add(path, format!("is {}, but a group of keys is needed here", node.kind.describe()));
            return Fit::Wrong;
        };
        let known = schema.get("properties").and_then(Value::as_object);
        // Where keys are names that the operator chooses, all have one shape.
        let named = schema.get("additionalProperties").filter(|schema| schema.is_object());
        entries.retain_mut(|(key, line, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            mistakes.locate(&path, *line);
            let Some(schema) = known.and_then(|known| known.get(key)).or(named) else {
                mistakes.add(&path, unknown_key(key, known));
                return false;
            };
            // A key without a value is as good as no key.
            !matches!(value.kind, RawKind::Null) && self.check(value, schema, &path, mistakes) == Fit::Good
        });
        Fit::Good
    }

    fn check_list(&self, node: &mut RawNode, schema: &Value, path: &str, mistakes: &mut Collector) -> Fit {
        let RawKind::List(items) = &mut node.kind else {
            let what = node.kind.describe();
            mistakes
                .add(path, format!("is {what}, but a list is needed here: put it in [ ] or after a dash"));
            return Fit::Wrong;
        };
        let item_schema = schema.get("items").unwrap_or(&Value::Null);
        for (index, item) in items.iter_mut().enumerate() {
            if self.check(item, item_schema, &format!("{path}[{index}]"), mistakes) == Fit::Wrong {
                // Something of the right type has to stand in, so that later items keep their numbers.
                item.kind = match type_of(self.choose(item_schema, &item.kind)) {
                    Some("object") => RawKind::Map(Vec::new()),
                    _ => RawKind::Text(String::new()),
                };
            }
        }
        Fit::Good
    }
}

fn check_word(node: &mut RawNode, words: &[&str], path: &str, mistakes: &mut Collector) -> Fit {
    if let RawKind::Bool(value) = node.kind {
        node.kind = RawKind::Text(if value { "on" } else { "off" }.to_owned());
    }
    if let RawKind::Text(text) = &mut node.kind {
        match text.as_str() {
            "true" => "on".clone_into(text),
            "false" => "off".clone_into(text),
            _ => {}
        }
        if words.contains(&text.as_str()) {
            return Fit::Good;
        }
    }
    mistakes.add(path, format!("{} is not one of {}", node.kind.describe(), words.join(", ")));
    Fit::Wrong
}

fn check_integer(node: &mut RawNode, path: &str, mistakes: &mut Collector) -> Fit {
    if let RawKind::Text(text) = &node.kind
        && let Ok(value) = text.parse::<i128>()
    {
        node.kind = RawKind::Integer(value);
    }
    if matches!(node.kind, RawKind::Integer(value) if (0..=i128::from(u32::MAX)).contains(&value)) {
        return Fit::Good;
    }
    mistakes.add(path, format!("is {}, but a whole number from 0 is needed here", node.kind.describe()));
    Fit::Wrong
}

fn check_text(node: &RawNode, schema: &Value, path: &str, mistakes: &mut Collector) -> Fit {
    if matches!(node.kind, RawKind::Text(_)) {
        return Fit::Good;
    }
    let what = node.kind.describe();
    mistakes.add(
        path,
        match (schema.get("format").and_then(Value::as_str), &node.kind) {
            (Some("duration"), RawKind::Integer(_)) => {
                format!("{what} has no unit; write {what}s for seconds")
            }
            (Some("size"), RawKind::Integer(_)) => {
                format!("{what} has no unit; write {what}B, or use KiB or MiB")
            }
            _ => format!("is {what}, but text is needed here; quotes make text of anything"),
        },
    );
    Fit::Wrong
}

/// The words that a schema allows, if it is a choice of words.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    if let Some(word) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![word]);
    }
    let choices = schema.get("oneOf").and_then(Value::as_array)?;
    choices.iter().map(|choice| choice.get("const").and_then(Value::as_str)).collect()
}

/// The one type of a schema apart from null.
fn type_of(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        name => name.as_str(),
    }
}

fn unknown_key(key: &str, known: Option<&serde_json::Map<String, Value>>) -> String {
    let known: Vec<&str> = known.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect();
    let near = known.iter().map(|name| (distance(key, name), *name)).min();
    match near {
        Some((steps, name)) if steps <= 2 || (steps <= 3 && name.len() >= 8) => {
            format!("unknown key; did you mean {name:?}?")
        }
        _ => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// Edits (insert, delete, replace) between two words, by Wagner and Fischer.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.chars().zip(row.iter_mut().skip(1)) {
            let cost = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = cost.min(left + 1).min(*cell + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Replaces `${NAME}` by the environment variable; `$${` stays `${`.
fn expand(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            expanded.push_str(escaped);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let Some((name, tail)) = after.split_once('}') else {
            return Err("\"${\" without \"}\"; write \"$${\" for the characters themselves".to_owned());
        };
        let Some(value) = environment(name) else {
            return Err(format!("environment variable {name} is not set; set it, or write the value here"));
        };
        expanded.push_str(before);
        expanded.push_str(&value);
        rest = tail;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_near_by_their_edits() {
        assert_eq!(distance("listners", "listeners"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("mode", "mode"), 0);
        assert_eq!(distance("upstream", "streams"), 3);
    }

    #[test]
    fn variables_are_expanded() {
        let environment = |name: &str| (name == "A").then(|| "1".to_owned());
        assert_eq!(expand("x${A}y$${A}", &environment), Ok("x1y${A}".to_owned()));
        assert!(expand("${B}", &environment).unwrap_err().contains("B is not set"));
        assert!(expand("${B", &environment).is_err());
    }
}
