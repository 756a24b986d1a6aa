//! What must not stand in the log is hidden before it gets there: what may be a secret, by the name that it has.

use serde_json::Value;

/// Words of names under which secrets are kept, in lower case.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "secret",
    "token",
    "hash",
    "authorization",
    "cookie",
    "credential",
    "api_key",
    "api-key",
    "apikey",
    "private",
];

/// Names that hold one of those words and no secret.
const HARMLESS: [&str; 4] = ["blake3_hash", "session_cookie", "api_key_header", "cookies"];

/// The value with everything hidden that stands under a name of secrets, and what URLs hold for logging in.
pub fn secrets(value: Value) -> Value {
    hide(value, false)
}

/// Whether a value under this name, or at this path of a configuration, may be a secret.
pub fn is_secret(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name).to_ascii_lowercase();
    let last = last.split('[').next().unwrap_or_default();
    !HARMLESS.contains(&last) && NAMES.iter().any(|word| last.contains(word))
}

fn hide(value: Value, is_hidden: bool) -> Value {
    match value {
        Value::Object(map) => {
            // A change of a configuration names its place beside its values.
            let at = map.get("path").and_then(Value::as_str).is_some_and(is_secret);
            let hidden = |name: &str| is_hidden || is_secret(name) || (at && name != "path");
            let pairs = map.into_iter().map(|(name, value)| {
                let is_hidden = hidden(&name);
                (name, hide(value, is_hidden))
            });
            Value::Object(pairs.collect())
        }
        Value::Array(items) => items.into_iter().map(|item| hide(item, is_hidden)).collect(),
        Value::String(text) if is_hidden => hidden(&text),
        Value::String(text) => Value::from(without_login(&text)),
        Value::Number(_) if is_hidden => Value::from("[hidden]"),
        other => other,
    }
}

/// What names a variable of the environment, and what was hidden before, tells nothing.
fn hidden(text: &str) -> Value {
    let is_harmless = text.is_empty() || text.starts_with("${") || text.starts_with("[secret ");
    Value::from(if is_harmless { text } else { "[hidden]" })
}

/// `redis://user:password@host` without what comes before the host.
pub fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://[hidden]@{host}{path}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_go_by_their_names_wherever_they_stand() {
        let shown = secrets(json!({
            "changes": [
                { "path": "consumers[a].password", "before": "$argon2id$x", "after": "${PASSWORD}" },
                { "path": "admin.tokens[0].hash", "before": ["sha256:aa"] },
                { "path": "routes[a].waf.mode", "before": "block", "after": "detect" },
                { "path": "store.redis", "after": "redis://u:p@ss@host:1/0" },
                { "path": "responses.set", "after": { "Authorization": "Basic x", "X-A": "1" } },
            ],
            "client_secret": 7,
            "session_cookie": "sid",
        }));
        assert_eq!(
            shown,
            json!({
                "changes": [
                    { "path": "consumers[a].password", "before": "[hidden]", "after": "${PASSWORD}" },
                    { "path": "admin.tokens[0].hash", "before": ["[hidden]"] },
                    { "path": "routes[a].waf.mode", "before": "block", "after": "detect" },
                    { "path": "store.redis", "after": "redis://[hidden]@host:1/0" },
                    { "path": "responses.set", "after": { "Authorization": "[hidden]", "X-A": "1" } },
                ],
                "client_secret": "[hidden]",
                "session_cookie": "sid",
            })
        );
    }
}
