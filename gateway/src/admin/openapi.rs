//! The description of the admin API, made from the same table as its routes.

use axum::Json;
use schemars::Schema;
use serde_json::{Map, Value, json};

use super::{
    answers::problem_schema,
    routes::{Input, Need, ROWS, Row, Verb},
};

/// The description.
pub async fn show() -> Json<Value> {
    Json(document())
}

/// The OpenAPI 3.1 document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for row in ROWS {
        let path = paths.entry(row.path).or_insert_with(|| json!({}));
        if let Value::Object(verbs) = path {
            verbs.insert(row.verb.name().to_ascii_lowercase(), operation(row));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portcullis admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "On the admin socket every user of it has the role admin; on admin listeners a token or a \
                            certificate says which; on a route that publishes the API the groups of the consumer do.",
        },
        "paths": paths,
        "components": {
            "schemas": { "Problem": problem_schema() },
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
        },
    })
}

fn operation(row: &Row) -> Value {
    let mut operation = json!({
        "operationId": id(row),
        "summary": row.summary,
        "responses": {
            "200": { "description": row.answer, "content": { content_type(row): { "schema": {} } } },
            "default": {
                "description": "Why not.",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            },
        },
    });
    let Value::Object(members) = &mut operation else { return operation };
    match row.need {
        Need::Nobody => {}
        Need::Role(role) | Need::RoleFromAfar(role) => {
            members.insert("x-role".to_owned(), role.name().into());
            let mut ways = vec![json!({ "token": [] }), json!({ "certificate": [] })];
            if matches!(row.need, Need::RoleFromAfar(_)) {
                ways.push(json!({}));
            }
            members.insert("security".to_owned(), ways.into());
        }
    }
    match row.input {
        Input::Nothing => {}
        Input::Query(schema) => {
            members.insert("parameters".to_owned(), parameters(schema()));
        }
        Input::Document(schema) => {
            let content = json!({ "application/json": { "schema": bare(schema()) } });
            members.insert("requestBody".to_owned(), json!({ "required": true, "content": content }));
        }
    }
    operation
}

fn content_type(row: &Row) -> &'static str {
    match row.path {
        "/healthz" => "text/plain",
        "/metrics" => "application/openmetrics-text",
        _ => "application/json",
    }
}

/// `getBlocksShow`.
fn id(row: &Row) -> String {
    let verb = match row.verb {
        Verb::Get => "get",
        Verb::Post => "post",
    };
    let words = row.path.trim_start_matches("/v1").split(['/', '.']).filter(|word| !word.is_empty());
    let words = words.map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    });
    verb.to_owned() + &words.collect::<String>()
}

fn bare(schema: Schema) -> Value {
    let mut schema = schema.to_value();
    if let Value::Object(members) = &mut schema {
        members.remove("$schema");
        members.remove("title");
    }
    schema
}

fn parameters(schema: Schema) -> Value {
    let schema = bare(schema);
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let parameters = properties.into_iter().map(|(name, mut schema)| {
        let description = schema.as_object_mut().and_then(|members| members.remove("description"));
        json!({
            "name": name,
            "in": "query",
            "required": required.contains(&Value::from(name.as_str())),
            "description": description.unwrap_or_default(),
            "schema": schema,
        })
    });
    parameters.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::routes::PREFIX;

    #[test]
    fn every_route_is_described_once_and_nothing_else_is() {
        let document = document();
        let mut described = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for (path, verbs) in document["paths"].as_object().unwrap() {
            for (verb, operation) in verbs.as_object().unwrap() {
                described.insert((verb.to_uppercase(), path.clone()));
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
                assert!(operation["summary"].as_str().is_some_and(|text| text.len() > 10), "{operation}");
                let has_role = operation.get("x-role").is_some();
                assert_eq!(has_role, operation.get("security").is_some());
                assert!(has_role || !path.starts_with(PREFIX), "{path} is open to all");
            }
        }
        let offered: BTreeSet<_> =
            ROWS.iter().map(|row| (row.verb.name().to_owned(), row.path.to_owned())).collect();
        assert_eq!(offered.len(), ROWS.len(), "no row twice");
        assert_eq!(described, offered);
        let release = &document["paths"]["/v1/blocks/release"]["post"];
        let client = "/requestBody/content/application~1json/schema/properties/client/type";
        assert_eq!(
            (release["x-role"].as_str(), release.pointer(client)),
            (Some("reviewer"), Some(&json!("string")))
        );
        let explain = &document["paths"]["/v1/explain"]["get"]["parameters"][0];
        assert_eq!(
            (explain["name"].as_str(), explain["required"].as_bool()),
            (Some("request_id"), Some(true))
        );
    }

    #[test]
    fn whatever_changes_something_is_noted_and_needs_more_than_looking() {
        for row in ROWS {
            let changes = row.verb == Verb::Post;
            let is_noted = row.action.is_some() || row.path == "/v1/config/reload";
            assert_eq!(changes, is_noted, "{}", row.path);
            let allowed = matches!(row.need, Need::Role(role) if role > crate::config::admin::Role::Viewer);
            assert!(!changes || allowed, "{}", row.path);
        }
    }
}
