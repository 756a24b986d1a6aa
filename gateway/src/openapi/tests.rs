//! Requests against a document that has one of each.

use http::{HeaderMap, HeaderValue, Method};

use super::{Api, Asked, Sent, Violation, compile};

const DOCUMENT: &str = r##"
openapi: 3.1.0
info: {title: shop, version: "1"}
servers: [{url: "https://shop.example/v1"}]
paths:
  /orders:
    parameters: [{$ref: "#/components/parameters/tenant"}]
    get:
      parameters:
        - {name: X-Key, in: header, schema: {type: string, minLength: 3}}
        - {name: limit, in: query, required: true, schema: {type: integer, minimum: 1, maximum: 100}}
        - {name: state, in: query, schema: {enum: [open, closed]}}
        - {name: ids, in: query, schema: {type: array, items: {type: integer}, maxItems: 3, uniqueItems: true}}
        - {name: code, in: query, schema: {maxLength: 3}}
        - {name: tags, in: query, explode: false, schema: {type: array, items: {type: string, pattern: "^[a-z]+$"}}}
        - {name: near, in: query, content: {application/json: {schema: {required: [lat], properties: {lat: {type: number}}}}}}
        - name: filter
          in: query
          style: deepObject
          schema: {type: object, properties: {from: {type: integer}, text: {type: string}}, additionalProperties: false}
    post:
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: "#/components/schemas/Order"}}
          text/*: {}
  /orders/{id}:
    get:
      parameters: [{name: id, in: path, required: true, schema: {type: string, format: uuid}}]
    delete: {deprecated: true}
  /orders/latest: {get: {}}
  /own: {get: {parameters: [{name: X-Api-Key, in: header, required: true, schema: {type: string}}]}}
components:
  parameters:
    tenant: {name: X-Tenant, in: header, schema: {type: string, maxLength: 4}}
  schemas:
    Order:
      type: object
      required: [items]
      additionalProperties: false
      properties:
        items:
          type: array
          minItems: 1
          items: {type: object, required: [sku], properties: {sku: {type: string}, qty: {type: integer, exclusiveMinimum: 0}}}
        parent: {$ref: "#/components/schemas/Order"}
"##;

fn api() -> Api {
    let (api, remarks) = compile::load(DOCUMENT, "shop.yaml", None).unwrap();
    assert!(remarks.is_empty(), "{remarks:?}");
    api
}

/// What a request breaks, in words; empty for nothing.
fn told(checked: Result<(), Violation>) -> String {
    checked.map_or_else(|violation| format!("{} {violation}", violation.status.as_u16()), |()| String::new())
}

fn get(api: &Api, target: &str, headers: &[(&'static str, &'static str)]) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let headers =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
    let headers: HeaderMap = headers.collect();
    told(api.check(&Asked {
        method: &Method::GET,
        path,
        query,
        headers: &headers,
        body: Sent::Nothing,
        spared: &[],
    }))
}

fn post(api: &Api, media: &'static str, body: &str) -> String {
    let headers: HeaderMap =
        [(http::header::CONTENT_TYPE, HeaderValue::from_static(media))].into_iter().collect();
    let body = if body.is_empty() { Sent::Nothing } else { Sent::Whole(body.as_bytes()) };
    told(api.check(&Asked {
        method: &Method::POST,
        path: "/v1/orders",
        query: None,
        headers: &headers,
        body,
        spared: &[],
    }))
}

#[test]
fn paths_and_methods_are_those_of_the_document() {
    let api = api();
    assert_eq!(get(&api, "/v1/orders/latest", &[]), "");
    assert_eq!(get(&api, "/v1/orders/8f14e45f-ceea-467f-ab1b-1b1b1b1b1b1b", &[]), "");
    assert_eq!(get(&api, "/v1/orders/7", &[]), "400 path id: format");
    for unknown in ["/orders", "/v1/users", "/v1/orders/latest/", "/v1/orders/7/8", "/v1"] {
        assert_eq!(get(&api, unknown, &[]), "404 path: unknown", "{unknown}");
    }
    let headers = HeaderMap::new();
    let ask = |method: &Method, path| {
        api.check(&Asked { method, path, query: None, headers: &headers, body: Sent::Nothing, spared: &[] })
    };
    let refused = ask(&Method::PUT, "/v1/orders/latest").unwrap_err();
    assert_eq!(
        (refused.status.as_u16(), refused.allowed),
        (405, vec![Method::GET, Method::GET, Method::DELETE])
    );
    assert!(ask(&Method::HEAD, "/v1/orders/latest").is_ok(), "who may GET may HEAD");
    assert!(ask(&Method::DELETE, "/v1/orders/latest").is_ok(), "the template has it");
    assert!(ask(&Method::OPTIONS, "/v1/orders").is_err());
    let asks: HeaderMap = [(http::header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("GET"))]
        .into_iter()
        .collect();
    let preflight = Asked {
        method: &Method::OPTIONS,
        path: "/v1/orders",
        query: None,
        headers: &asks,
        body: Sent::Nothing,
        spared: &[],
    };
    assert!(api.check(&preflight).is_ok());
}

#[test]
fn parameters_are_what_their_schemas_say() {
    let api = api();
    for (query, expected) in [
        ("limit=5", ""),
        ("limit=5&unknown=1", ""),
        ("", "400 query limit: missing"),
        ("limit=", "400 query limit: type"),
        ("limit=five", "400 query limit: type"),
        ("limit=5.5", "400 query limit: type"),
        ("limit=0", "400 query limit: minimum"),
        ("limit=101", "400 query limit: maximum"),
        ("limit=5&limit=500", "400 query limit: maximum"),
        ("limit=5&st%61te=open", ""),
        ("limit=5&state=lost", "400 query state: enum"),
        ("limit=5&ids=1&ids=2", ""),
        ("limit=5&ids=1&ids=x", "400 query ids: type"),
        ("limit=5&ids=1&ids=1", "400 query ids: uniqueItems"),
        ("limit=5&ids=1&ids=2&ids=3&ids=4", "400 query ids: maxItems"),
        ("limit=5&code=123", ""),
        ("limit=5&code=12345", "400 query code: maxLength"),
        ("limit=5&tags=a,b", ""),
        ("limit=5&tags=a,B", "400 query tags: pattern"),
        ("limit=5&near=%7B%22lat%22%3A1.5%7D", ""),
        ("limit=5&near=%7B%22lat%22%3A%22x%22%7D", "400 query near: type"),
        ("limit=5&near=%7B%22lat%22%3A1%2C%22lat%22%3A2%7D", "400 query near: duplicate_key"),
        ("limit=5&filter[from]=3&filter[text]=7", ""),
        ("limit=5&filter[from]=x", "400 query filter: type"),
        ("limit=5&filter[to]=3", "400 query filter: additionalProperties"),
    ] {
        assert_eq!(get(&api, &format!("/v1/orders?{query}"), &[("x-tenant", "a")]), expected, "{query}");
    }
    assert_eq!(get(&api, "/v1/orders?limit=5", &[("x-key", "k")]), "400 header x-key: minLength");
    assert_eq!(
        get(&api, "/v1/orders?limit=5", &[("x-tenant", "too long")]),
        "400 header x-tenant: maxLength"
    );
}

#[test]
fn a_credential_that_was_taken_off_is_not_missed() {
    let api = api();
    assert_eq!(get(&api, "/v1/own", &[]), "400 header x-api-key: missing");
    let headers = HeaderMap::new();
    let known = Asked {
        method: &Method::GET,
        path: "/v1/own",
        query: None,
        headers: &headers,
        body: Sent::Nothing,
        spared: &["x-api-key"],
    };
    assert_eq!(told(api.check(&known)), "");
}

#[test]
fn bodies_are_what_their_schemas_say() {
    let api = api();
    let good = r#"{"items": [{"sku": "a", "qty": 2}], "parent": {"items": [{"sku": "b"}]}}"#;
    for (media, body, expected) in [
        ("application/json; charset=utf-8", good, ""),
        ("text/plain", "anything", ""),
        ("application/json", "", "400 body: missing"),
        ("application/xml", "<a/>", "415 body: media_type"),
        ("application/json", "{", "400 body: syntax"),
        ("application/json", r#"{"items": [], "items": []}"#, "400 body: duplicate_key"),
        ("application/json", "{}", "400 body /items: required"),
        ("application/json", r#"{"items": []}"#, "400 body /items: minItems"),
        (
            "application/json",
            r#"{"items": [{"sku": "a", "qty": 0}]}"#,
            "400 body /items/0/qty: exclusiveMinimum",
        ),
        ("application/json", r#"{"items": [{"qty": 1}]}"#, "400 body /items/0/sku: required"),
        ("application/json", r#"{"items": [{"sku": "a"}], "x": 1}"#, "400 body: additionalProperties"),
        (
            "application/json",
            r#"{"items": [{"sku": "a"}], "parent": {}}"#,
            "400 body /parent/items: required",
        ),
    ] {
        assert_eq!(post(&api, media, body), expected, "{media} {body}");
    }
    let part = Asked {
        method: &Method::POST,
        path: "/v1/orders",
        query: None,
        headers: &[(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]
            .into_iter()
            .collect(),
        body: Sent::Part,
        spared: &[],
    };
    assert_eq!(told(api.check(&part)), "413 body: unreadable");
    let part = Asked { method: &Method::GET, path: "/v1/orders/latest", ..part };
    assert_eq!(told(api.check(&part)), "400 body: unknown");
}

#[test]
fn what_3_0_says_in_its_own_way_is_understood() {
    let text = "openapi: 3.0.3\npaths:\n  /a:\n    get:\n      parameters:\n      \
                - {name: n, in: query, schema: {type: integer, nullable: true, minimum: 1, exclusiveMinimum: true}}\n";
    let (api, _) = compile::load(text, "f", Some("/base")).unwrap();
    for (query, expected) in
        [("n=2", ""), ("n=null", ""), ("n=1", "400 query n: exclusiveMinimum"), ("n=x", "400 query n: type")]
    {
        assert_eq!(get(&api, &format!("/base/a?{query}"), &[]), expected, "{query}");
    }
}

#[test]
fn mistakes_name_place_and_fix() {
    let load = |text: &str| compile::load(text, "f.yaml", None).unwrap_err().to_string();
    let text = load(
        "openapi: 3.1.0\npaths:\n  /a:\n    get:\n      parameters:\n      - {name: a, in: body}\n      \
         - {name: b, in: query, schema: {type: strin}}\n      - {name: c, in: query, schema: {pattern: '(?=x)'}}\n    \
         post: {requestBody: {content: {application/json: {schema: {type: [object]}}}}}\n  \
         '/b/{id': {get: {}}\n",
    );
    for part in [
        "f.yaml:6: #/paths/~1a/get/parameters/0: \"in\" is \"body\"",
        "f.yaml:7: #/paths/~1a/get/parameters/1/schema/type",
        "f.yaml:8: #/paths/~1a/get/parameters/2/schema",
        "look around",
        "f.yaml:10: #/paths/~1b~1{id: \"{\" has no \"}\"",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let text = load(
        "openapi: 3.1.0\npaths:\n  /a: {get: {parameters: [{$ref: 'other.yaml#/x'}]}}\n  /b: {$ref: '#/components/x'}\n",
    );
    assert!(
        text.contains("f.yaml:3: #/paths/~1a/get/parameters/0") && text.contains("leads out of this file"),
        "{text}"
    );
    assert!(text.contains("f.yaml:4: #/paths/~1b") && text.contains("leads nowhere"), "{text}");
    assert!(load("swagger: '2.0'\n").contains("convert it"));
    assert!(load("openapi: 3.1.0\npaths: {}\n").contains("no operation"));
    assert!(load("openapi: [").contains("not YAML"));
    assert!(load("{\"openapi\": ").contains("not JSON"));
    let variables = "openapi: 3.1.0\nservers: [{url: 'https://{host}/v1'}]\npaths: {/a: {get: {}}}\n";
    assert!(load(variables).contains("\"base\""));
}
