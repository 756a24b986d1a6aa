//! What differs between two configurations, as they are written.

use serde::Serialize;
use serde_json::Value;

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where, as `routes[shop].waf.mode`: entries of lists go by their names, if they have names.
    pub path: String,
    /// What was written; nothing if it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is written now; nothing if it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Every difference between two documents, in order of the older one, then what is new.
pub fn between(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    changes
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    if before == after {
        return;
    }
    let (old, new) = (before.map(entries), after.map(entries));
    match (old.flatten(), new.flatten()) {
        (Some(old), Some(new)) => compare_entries(path, &old, &new, changes),
        // An empty group or list is no value by itself.
        (Some(old), None) if after.is_none_or(Value::is_null) => compare_entries(path, &old, &[], changes),
        (None, Some(new)) if before.is_none_or(Value::is_null) => compare_entries(path, &[], &new, changes),
        _ => changes.push(Change { path: path.to_owned(), before: before.cloned(), after: after.cloned() }),
    }
}

fn compare_entries(
    path: &str,
    old: &[(String, &Value)],
    new: &[(String, &Value)],
    changes: &mut Vec<Change>,
) {
    let find = |entries: &[(String, &Value)], key: &str| entries.iter().position(|(other, _)| other == key);
    let at = |key: &str| match (path, key.starts_with('[')) {
        ("", _) | (_, true) => format!("{path}{key}"),
        (_, false) => format!("{path}.{key}"),
    };
    for (key, value) in old {
        let other = find(new, key).and_then(|index| new.get(index)).map(|(_, value)| *value);
        compare(&at(key), Some(value), other, changes);
    }
    for (key, value) in new.iter().filter(|(key, _)| find(old, key).is_none()) {
        compare(&at(key), None, Some(value), changes);
    }
    let order = |one: &[(String, &Value)], other: &[(String, &Value)]| -> Vec<Value> {
        let named = one.iter().filter(|(key, _)| key.starts_with('[') && find(other, key).is_some());
        named.map(|(key, _)| Value::from(key.trim_matches(['[', ']']))).collect()
    };
    let (before, after) = (order(old, new), order(new, old));
    if before != after {
        // The first route that matches is taken: their order means something.
        let path = format!("{path} (order)");
        changes.push(Change { path, before: Some(before.into()), after: Some(after.into()) });
    }
}

/// Keys and values of a group, or of a list whose entries all have names; anything else is compared as a whole, but
/// for a list of groups, which goes by number.
fn entries(value: &Value) -> Option<Vec<(String, &Value)>> {
    match value {
        Value::Object(map) => Some(map.iter().map(|(key, value)| (key.clone(), value)).collect()),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            let names: Option<Vec<&str>> = list.iter().map(|entry| entry.get("name")?.as_str()).collect();
            let keyed = list.iter().enumerate().map(|(index, entry)| {
                let name = names.as_ref().and_then(|names| names.get(index)).map(|name| (*name).to_owned());
                (format!("[{}]", name.unwrap_or_else(|| index.to_string())), entry)
            });
            Some(keyed.collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(before: &Value, after: &Value) -> Vec<String> {
        let text = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
        let changes = between(before, after);
        changes.iter().map(|c| format!("{}: {} -> {}", c.path, text(&c.before), text(&c.after))).collect()
    }

    #[test]
    fn entries_go_by_name_and_their_order_counts() {
        let before = json!({
            "drain": "30s",
            "routes": [
                { "name": "a", "waf": { "mode": "block" }, "upstreams": [{ "url": "http://a" }] },
                { "name": "b" },
            ],
        });
        assert_eq!(lines(&before, &before), [""; 0]);
        let after = json!({
            "routes": [
                { "name": "b", "timeout": "5s" },
                { "name": "a", "waf": { "mode": "detect" }, "upstreams": [{ "url": "http://a" }, { "url": "http://c" }] },
            ],
            "waf": { "allow": ["10.0.0.0/8"] },
        });
        assert_eq!(
            lines(&before, &after),
            [
                "drain: \"30s\" -> -",
                "routes[a].upstreams[1].url: - -> \"http://c\"",
                "routes[a].waf.mode: \"block\" -> \"detect\"",
                "routes[b].timeout: - -> \"5s\"",
                "routes (order): [\"a\",\"b\"] -> [\"b\",\"a\"]",
                "waf.allow: - -> [\"10.0.0.0/8\"]",
            ]
        );
    }

    #[test]
    fn what_appears_and_what_goes_is_told_leaf_by_leaf() {
        let route = json!({ "routes": [{ "name": "a", "waf": { "mode": "off" } }] });
        assert_eq!(
            lines(&Value::Null, &route),
            ["routes[a].name: - -> \"a\"", "routes[a].waf.mode: - -> \"off\""]
        );
        assert_eq!(lines(&route, &json!({}))[0], "routes[a].name: \"a\" -> -");
        assert_eq!(lines(&json!({ "x": 1 }), &json!({ "x": {} })), ["x: 1 -> {}"]);
    }
}
