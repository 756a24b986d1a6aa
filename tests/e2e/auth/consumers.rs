//! Consumers with API keys and passwords.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Site, eventually, hash};

const PASSWORD: &str = "correct-horse-zq7x";

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// Two consumers; the first has a new key, which is returned too.
async fn site(route: &str) -> (Site, String) {
    let printed = hash(&["key"], "").await;
    let word = |name: &str| {
        let line = printed.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let (key, key_hash) = (word("key"), word("hash"));
    assert_eq!(hash(&["key", "--stdin"], &key).await, key_hash);
    let password = hash(&["password"], PASSWORD).await;
    let more = [
        "auth: {methods: {keys: {api_key: {header: X-Api-Key, query: api_key}}, people: {basic: {realm: Staff}}}}"
            .to_owned(),
        format!(
            "consumers: [{{name: acme, groups: [partners, gold], api_keys: [\"{key_hash}\"]}}, \
             {{name: ada, groups: [staff], password: \"{password}\"}}]"
        ),
    ];
    (Site::start(&[route.to_owned()], &more).await, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_known_by_key_or_password_and_the_upstream_learns_who_they_are() {
    let (site, key) = site("auth: {any_of: [keys, people]}").await;

    let nobody = site.get("/orders", &[]).await;
    assert_eq!(nobody.status, 401);
    let challenges: Vec<_> = nobody.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges, ["ApiKey realm=\"keys\"", "Basic realm=\"Staff\", charset=\"UTF-8\""]);
    assert_eq!(nobody.headers["content-type"], "application/problem+json");
    assert!(site.origin.seen().is_empty());

    // Every spelling under which a client could claim to be somebody.
    let spoofed = [
        ("x-consumer-username", "root"),
        ("x_consumer_username", "root"),
        ("x.consumer.groups", "admin"),
        ("X-Consumer-Custom-Id", "1"),
        ("x-credential-identifier", "1"),
        ("x-anonymous-consumer", "true"),
        ("connection", "close, x-consumer-username"),
    ];
    let with_key = [&[("x-api-key", key.as_str())][..], &spoofed].concat();
    assert_eq!(site.status("/orders?a=1", &with_key).await, 200);
    let (target, headers) = site.last();
    assert_eq!(target, "/orders?a=1");
    assert_eq!(headers["x-consumer-username"], "acme");
    assert_eq!(headers["x-consumer-groups"], "partners, gold");
    assert_eq!(headers["x-consumer-method"], "keys");
    let names: Vec<String> = headers.keys().map(|name| name.as_str().replace(['_', '.'], "-")).collect();
    let claims = names.iter().filter(|name| name.contains("consumer") || name.contains("credential"));
    assert_eq!(claims.count(), 3, "{names:?}");
    assert!(!headers.contains_key("x-api-key"));

    assert_eq!(site.status(&format!("/orders?api%5Fkey={key}&a=%41"), &[]).await, 200);
    assert_eq!(site.last().0, "/orders?a=%41");

    assert_eq!(site.status("/", &[("authorization", &basic("ada", PASSWORD))]).await, 200);
    let (_, headers) = site.last();
    assert_eq!(headers["x-consumer-username"], "ada");
    assert!(!headers.contains_key("authorization"));

    // What proves nothing: all of it looks the same from outside.
    let reached = site.origin.seen().len();
    let wrong_key = format!("{}x", &key[..key.len() - 1]);
    let mut bodies = Vec::new();
    for headers in [
        vec![("x-api-key", wrong_key.as_str())],
        vec![("x-api-key", key.as_str()), ("x-api-key", key.as_str())],
        vec![("authorization", basic("ada", "wrong").as_str())],
        vec![("authorization", basic("nobody", PASSWORD).as_str())],
        vec![("authorization", basic("acme", PASSWORD).as_str())],
        vec![("authorization", "Basic !!!")],
    ] {
        let answer = site.get("/", &headers).await;
        let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        bodies.push((
            answer.status.as_u16(),
            document["title"].clone(),
            answer.headers["www-authenticate"].clone(),
        ));
    }
    assert!(bodies.iter().all(|body| body == &bodies[0] && body.0 == 401), "{bodies:?}");
    assert_eq!(site.origin.seen().len(), reached);

    eventually("the access log", async || site.log().len() >= 10).await;
    let log = site.log();
    assert_eq!(log[1]["portcullis.consumer.id"], "acme");
    assert_eq!(log[1]["portcullis.auth.method"], "keys");
    assert_eq!(log[0]["error.type"], "credentials_missing");
    let encoded = basic("ada", PASSWORD);
    site.search(&[&key, PASSWORD, encoded.trim_start_matches("Basic "), &wrong_key]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_who_may_and_who_need_not_say() {
    let (site, key) = site("auth: {any_of: [keys, people], anonymous: on, groups: [staff]}").await;
    assert_eq!(site.status("/", &[]).await, 200);
    assert!(!site.last().1.contains_key("x-consumer-username"));
    assert_eq!(site.status("/", &[("x-api-key", "wrong")]).await, 401, "wrong is not nothing");
    assert_eq!(site.status("/", &[("x-api-key", &key)]).await, 403, "not of the staff");
    assert_eq!(site.status("/", &[("authorization", &basic("ada", PASSWORD))]).await, 200);
    // Somebody else's scheme is the upstream's business.
    assert_eq!(site.status("/", &[("authorization", "Bearer of.news")]).await, 200);
    assert_eq!(site.last().1["authorization"], "Bearer of.news");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_methods_that_a_route_names_are_needed() {
    let (site, key) = site("auth: {all_of: [keys, people], anonymous: on}").await;
    let password = basic("ada", PASSWORD);
    assert_eq!(site.status("/", &[("x-api-key", &key)]).await, 401, "half is not nothing");
    assert_eq!(site.status("/", &[("authorization", &password)]).await, 401);
    // Both are good, but speak of two callers.
    assert_eq!(site.status("/", &[("x-api-key", &key), ("authorization", &password)]).await, 403);
    assert_eq!(site.status("/", &[]).await, 200);
    assert_eq!(site.origin.seen().len(), 1);
}
