//! What was seen as an OpenAPI 3.1 document: paths, methods, names of parameters, media types, statuses. No values.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::RawListed;

/// The document.
pub(super) fn document(listed: &[RawListed]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for one in listed {
        let known = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];
        if !known.contains(&one.method.as_str()) {
            continue;
        }
        let (path, variables) = named(&one.path);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        let Some(item) = item.as_object_mut() else { continue };
        // The same path on several routes is one path here; the first route has the word.
        match item.get_mut(&one.method.to_ascii_lowercase()) {
            Some(operation) => {
                if let Some(tags) = operation.get_mut("tags").and_then(Value::as_array_mut) {
                    tags.push(one.route.clone().into());
                }
            }
            None => {
                item.insert(one.method.to_ascii_lowercase(), operation(one, &variables));
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "What was seen",
            "version": "0",
            "description": "Made by `gateway inventory --openapi` from observed traffic: names, no values.",
        },
        "paths": paths,
    })
}

/// A path template with a name of its own for each variable, and the class of each: `/orders/{int}/{int}` becomes
/// `/orders/{int}/{int2}`.
fn named(template: &str) -> (String, Vec<(String, String)>) {
    let mut path = String::new();
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((class, tail)) = after.split_once('}') else { break };
        let earlier = variables.iter().filter(|(_, other)| other == class).count();
        let name = if earlier == 0 { class.to_owned() } else { format!("{class}{}", earlier + 1) };
        path.push_str(before);
        path.push_str(&format!("{{{name}}}"));
        variables.push((name, class.to_owned()));
        rest = tail;
    }
    path.push_str(rest);
    (path, variables)
}

fn operation(one: &RawListed, variables: &[(String, String)]) -> Value {
    let of_path = variables.iter().map(
        |(name, class)| json!({ "name": name, "in": "path", "required": true, "schema": schema_of(class) }),
    );
    let others = ["query", "header"].into_iter().flat_map(|place| {
        let names = one.parameters.get(place).into_iter().flatten();
        names.filter(|(name, _)| is_plain(name)).map(move |(name, count)| {
            json!({ "name": name, "in": place, "required": *count == one.learned, "schema": {} })
        })
    });
    let mut operation = json!({
        "tags": [one.route],
        "parameters": of_path.chain(others).collect::<Vec<_>>(),
        "responses": responses(one),
        "x-portcullis": {
            "requests": one.requests,
            "clients": one.clients,
            "first_seen": one.first_seen,
            "last_seen": one.last_seen,
            "auth": one.auth.keys().collect::<Vec<_>>(),
        },
    });
    if let (Some(body), Some(members)) = (body(one), operation.as_object_mut()) {
        members.insert("requestBody".to_owned(), body);
    }
    operation
}

/// What the class of a path segment says of its values.
fn schema_of(class: &str) -> Value {
    match class {
        "int" => json!({ "type": "integer" }),
        "uuid" => json!({ "type": "string", "format": "uuid" }),
        _ => json!({ "type": "string" }),
    }
}

/// Names that were taken for values are none.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['{', '}'])
}

fn body(one: &RawListed) -> Option<Value> {
    let content: Map<String, Value> = one
        .request_types
        .keys()
        .map(|media| {
            let place = match media.as_str() {
                "application/x-www-form-urlencoded" => "form",
                "multipart/form-data" => "multipart",
                _ => "json",
            };
            (media.clone(), json!({ "schema": members(one.parameters.get(place)) }))
        })
        .collect();
    (!content.is_empty()).then(|| json!({ "content": content }))
}

/// The members of a body, by the first part of their names: `items[].sku` is in the list `items`.
fn members(names: Option<&BTreeMap<String, u64>>) -> Value {
    let mut properties = Map::new();
    for name in names.into_iter().flatten().map(|(name, _)| name) {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, rest) = name.split_at(end);
        if is_plain(first) {
            let kind = match rest.chars().next() {
                Some('[') => json!({ "type": "array" }),
                Some(_) => json!({ "type": "object" }),
                None => json!({}),
            };
            properties.insert(first.to_owned(), kind);
        }
    }
    if properties.is_empty() { json!({}) } else { json!({ "type": "object", "properties": properties }) }
}

fn responses(one: &RawListed) -> Value {
    let content: Map<String, Value> =
        one.response_types.keys().map(|media| (media.clone(), json!({}))).collect();
    let responses: Map<String, Value> = one
        .statuses
        .keys()
        .filter(|status| (100..600).contains(*status))
        .map(|status| {
            let mut response = json!({ "description": "seen" });
            if let (200..300, Some(members), false) = (*status, response.as_object_mut(), content.is_empty())
            {
                members.insert("content".to_owned(), Value::Object(content.clone()));
            }
            (status.to_string(), response)
        })
        .collect();
    Value::Object(responses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::compile;

    #[test]
    fn the_export_is_a_document_that_the_gateway_itself_accepts() {
        let count =
            |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 3)).collect::<BTreeMap<_, _>>();
        let one = RawListed {
            route: "shop".to_owned(),
            method: "POST".to_owned(),
            path: "/orders/{int}/items/{int}/{slug}.pdf".to_owned(),
            requests: 4,
            learned: 3,
            statuses: [(200, 3), (404, 1)].into(),
            request_types: count(&["application/json"]),
            response_types: count(&["application/json"]),
            parameters: [
                ("query".to_owned(), count(&["page", "{slug}"])),
                ("json".to_owned(), count(&["items[].sku", "note", "customer.name"])),
            ]
            .into(),
            ..RawListed::default()
        };
        let document = document(&[one]);
        let operation = &document["paths"]["/orders/{int}/items/{int2}/{slug}.pdf"]["post"];
        let names: Vec<&str> = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["int", "int2", "slug", "page"]);
        assert_eq!(operation["parameters"][3]["required"], true);
        let properties = &operation["requestBody"]["content"]["application/json"]["schema"]["properties"];
        assert_eq!(properties["items"]["type"], "array");
        assert_eq!(properties.as_object().unwrap().len(), 3);
        let (_, remarks) = compile::load(&document.to_string(), "export", None).unwrap();
        assert!(remarks.is_empty(), "{remarks:?}");
    }
}
