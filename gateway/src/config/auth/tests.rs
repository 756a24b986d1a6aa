//! Tests of the module above.

use super::{super::Config, *};

/// Any argon2id hash whose check costs little.
const PASSWORD: &str =
    "$argon2id$v=19$m=4096,t=1,p=1$c2FsdHNhbHRzYWx0$vYcw0GQKMwv2SPmDSuBMZZDeZMjcKyMIxY5bk7sO3Ac";

fn load(lines: &[&str]) -> Result<Config, String> {
    let text = format!(
        "version: 1\nroutes: [{{upstreams: [{{url: \"http://127.0.0.1:1\"}}], auth: {{any_of: [keys]}}}}]\n{}",
        lines.join("\n")
    );
    Config::load(&text, "f").map_err(|mistakes| mistakes.to_string())
}

#[track_caller]
fn refused(lines: &[&str], expected: &str) -> String {
    let mistakes = load(lines).unwrap_err();
    assert!(mistakes.contains(expected), "{mistakes}");
    mistakes
}

#[test]
fn consumers_and_methods_are_read() {
    let hash = "ab".repeat(32);
    let config = load(&[
        "auth: {methods: {keys: {api_key: {query: k}}, people: {basic: {cache: 1m}}}}",
        "consumers:",
        &format!(
            "  - {{name: acme, groups: [partners], api_keys: [\"sha256:{hash}\"], password: \"{PASSWORD}\"}}"
        ),
    ])
    .unwrap();
    assert_eq!(config.auth.consumers[0].api_keys, [[0xab; 32]]);
    assert_eq!(config.routes[0].auth.as_ref().unwrap().any_of, ["keys"]);
    let Kind::ApiKey(keys) = &config.auth.methods[0].kind else { panic!("{:?}", config.auth) };
    assert_eq!((keys.header.as_ref(), keys.query.as_deref()), (None, Some("k")));
}

#[test]
fn what_all_routes_demand_holds_where_a_route_says_nothing() {
    let text = "version: 1
auth: {methods: {a: {api_key: {}}, b: {basic: {}}}, require: {groups: [staff]}}
routes:
  - {upstreams: [{url: \"http://127.0.0.1:1\"}]}
  - {upstreams: [{url: \"http://127.0.0.1:1\"}], auth: {all_of: [b], anonymous: on}}
";
    let config = Config::load(text, "f").unwrap();
    let demanded = |route: usize| config.routes[route].auth.clone().unwrap();
    assert_eq!(
        (demanded(0).any_of.clone(), demanded(0).terms.groups.clone()),
        (vec!["a".to_owned(), "b".to_owned()], vec!["staff".to_owned()])
    );
    assert_eq!((demanded(1).any_of.len(), demanded(1).all_of.clone()), (0, vec!["b".to_owned()]));
    assert!(demanded(1).terms.groups.is_empty());
}

#[test]
fn mistakes_are_named_and_secrets_are_not_repeated() {
    let keys = "auth: {methods: {keys: {api_key: {}}}}";
    let mistakes =
        refused(&[keys, "consumers: [{name: a, api_keys: [my-secret-key]}]"], "`gateway hash key`");
    assert!(!mistakes.contains("my-secret-key"), "{mistakes}");
    let mistakes = refused(&[keys, "consumers: [{name: a, password: hunter22}]"], "`gateway hash password`");
    assert!(!mistakes.contains("hunter22"), "{mistakes}");
    refused(&[], "needs a method of authentication");
    refused(&["auth: {methods: {others: {api_key: {}}}}"], "there is no method \"keys\"");
    refused(&["auth: {methods: {keys: {api_key: {}, basic: {}}}}"], "exactly one kind");
    refused(&["auth: {methods: {keys: {}}}"], "exactly one kind");
    refused(&["auth: {methods: {keys: {api_key: {header: \"a b\"}}}}"], "not a header name");
    refused(&[keys, "consumers: [{name: a}, {name: a}]"], "is taken");
    refused(&[keys, "consumers: [{name: a, subjects: {tokens: [x]}}]"], "there is no method \"tokens\"");
    let hash = format!("sha256:{}", "1".repeat(64));
    refused(
        &[
            keys,
            &format!("consumers: [{{name: a, api_keys: [\"{hash}\"]}}, {{name: b, api_keys: [\"{hash}\"]}}]"),
        ],
        "given twice",
    );
    let cheap = PASSWORD.replace("m=4096", "m=64");
    refused(&[keys, &format!("consumers: [{{name: a, password: \"{cheap}\"}}]")], "64 KiB");
    let other = PASSWORD.replace("argon2id", "argon2i");
    refused(&[keys, &format!("consumers: [{{name: a, password: \"{other}\"}}]")], "`gateway hash password`");
}

#[test]
fn tokens_need_an_issuer_an_audience_and_keys_that_fit() {
    let jwt = |settings: &str| {
        let line = format!("auth: {{methods: {{keys: {{jwt: {{{settings}}}}}}}}}");
        load(&[&line]).map(|config| config.auth).map_err(|mistakes| {
            assert!(!mistakes.contains("0123456789"), "{mistakes}");
            mistakes
        })
    };
    let good = jwt("issuer: \"https://id.example/\", audience: [api], discover: on").unwrap();
    let Kind::Jwt(tokens) = &good.methods[0].kind else { panic!("{good:?}") };
    let Source::Metadata { uri, .. } = &tokens.source else { panic!("{tokens:?}") };
    assert_eq!(uri.to_string(), "https://id.example/.well-known/openid-configuration");
    assert!(tokens.algorithms.iter().all(|algorithm| !algorithm.is_shared()));
    assert!(jwt("issuer: a, any_audience: on, algorithms: [HS256], keys: [{secret: 0123456789abcdef0123456789abcdef}]").is_ok());
    for (settings, expected) in [
        ("audience: [a], jwks: \"https://id.example/k\"", "issuer: missing"),
        ("issuer: a, jwks: \"https://id.example/k\"", "audience: missing"),
        ("issuer: a, audience: [a]", "needs keys"),
        ("issuer: a, audience: [a], jwks: \"http://id.example/k\"", "use https"),
        ("issuer: a, audience: [a], algorithms: [none]", "\"none\" is not an algorithm"),
        (
            "issuer: a, audience: [a], algorithms: [HS256], keys: [{secret: \"0123456789\"}]",
            "shorter than 32 bytes",
        ),
        (
            "issuer: a, audience: [a], keys: [{secret: 0123456789abcdef0123456789abcdef}]",
            "fits none of the algorithms",
        ),
        ("issuer: a, audience: [a], algorithms: [HS256], jwks: \"https://id.example/k\"", "no secret for it"),
        ("issuer: a, audience: [a], keys: [{pem: /no/such/file}]", "/no/such/file"),
        ("issuer: a, audience: [a], keys: [{}]", "exactly one of"),
        ("issuer: a, audience: [a], leeway: 1h, jwks: \"https://id.example/k\"", "more than 5m"),
    ] {
        let mistakes = jwt(settings).unwrap_err();
        assert!(mistakes.contains(expected), "{settings}: {mistakes}");
    }
}

#[test]
fn secrets_are_not_shown_with_what_was_written() {
    let secret = "0123456789abcdef0123456789abcdef";
    let load = |secret: &str| {
        let lines = [
            "auth: {methods: {keys: {api_key: {}}, s: {signature: {}}}}".to_owned(),
            format!(
                "consumers: [{{name: a, signing_keys: [{{id: k, secret: {secret}}}], api_keys: [\"sha256:{}\"]}}]",
                "1".repeat(64)
            ),
        ];
        let store = "store: {redis: \"redis://user:hush@127.0.0.1:1\"}";
        load(&[&lines[0], &lines[1], store]).unwrap().document
    };
    let document = load(secret);
    let text = document.to_string();
    assert!(!text.contains(secret) && !text.contains("1111") && text.contains("[secret "), "{text}");
    assert!(!text.contains("hush") && text.contains("redis://[hidden]@127.0.0.1"), "{text}");
    assert_eq!(document, load(secret));
    assert_ne!(document, load("another-secret-of-at-least-32-bytes"));
}
