//! Tests of the module above: what a token must say, and the attacks on those who read them.

use std::time::Duration;

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;
use crate::{
    auth::jws::{Algorithm, Key},
    config::auth::{ClaimNames, Source},
};

const NOW: f64 = 1_800_000_000.0;

struct Issuer(EcdsaKeyPair);

impl Issuer {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn key(&self, kid: Option<&str>) -> Key {
        let der = self.0.public_key().as_der().unwrap();
        let lines = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n");
        Key::pem(pem.as_bytes(), kid.map(str::to_owned), &Algorithm::asymmetric()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn method(issuer: &Issuer, edit: impl FnOnce(&mut auth::Jwt)) -> Jwt {
    let mut settings = auth::Jwt {
        issuer: "https://id.example".to_owned(),
        audience: vec!["api".to_owned(), "shop".to_owned()],
        algorithms: Algorithm::asymmetric(),
        keys: vec![issuer.key(Some("a"))],
        source: Source::Given,
        refresh: Duration::from_secs(600),
        leeway: Duration::from_secs(30),
        most_bytes: 2_000,
        header: None,
        names: ClaimNames {
            groups: "realm_access.roles".to_owned(),
            scopes: vec!["scope".to_owned(), "scp".to_owned()],
        },
        forward: Toggle::Off,
    };
    edit(&mut settings);
    let known = Findings {
        consumer: Some("acme".into()),
        groups: vec!["partners".to_owned()],
        ..Findings::default()
    };
    let consumers = HashMap::from([("partner-1".to_owned(), known)]);
    Jwt::new(&"tokens".into(), &settings, consumers, &ValueKey([1; 16])).unwrap()
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "api", "sub": "partner-1", "exp": NOW + 60.0})
}

/// What becomes of a token whose claims are those above with `changes`; null takes one away.
async fn outcome(changes: Value) -> String {
    let issuer = Issuer::new();
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    let token = issuer.sign(&json!({"alg": "ES256", "kid": "a"}), &claims);
    name(method(&issuer, |_| {}).read(&token, NOW).await)
}

fn name(outcome: Outcome) -> String {
    match outcome {
        Outcome::Verified(_) => "good".to_owned(),
        Outcome::Refused { reason } => reason.name().to_owned(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_token_says_by_whom_for_whom_and_until_when() {
    assert_eq!(outcome(json!({})).await, "good");
    assert_eq!(outcome(json!({"aud": ["other", "shop"]})).await, "good");
    for (changes, expected) in [
        (json!({"iss": "https://evil.example"}), "wrong_issuer"),
        (json!({"iss": null}), "wrong_issuer"),
        (json!({"iss": ["https://id.example"]}), "wrong_issuer"),
        (json!({"aud": "other"}), "wrong_audience"),
        (json!({"aud": ["API"]}), "wrong_audience"),
        (json!({"aud": null}), "wrong_audience"),
        (json!({"exp": NOW - 31.0}), "token_expired"),
        (json!({"exp": NOW - 29.0}), "good"),
        (json!({"exp": null}), "token_expired"),
        (json!({"exp": "9999999999"}), "no_token"),
        (json!({"nbf": NOW + 31.0}), "token_too_early"),
        (json!({"nbf": NOW + 29.0}), "good"),
        (json!({"nbf": true}), "no_token"),
        (json!({"iat": NOW + 3_600.0}), "token_too_early"),
        (json!({"pad": "x".repeat(2_000)}), "token_too_large"),
    ] {
        assert_eq!(outcome(changes.clone()).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn a_token_is_signed_with_a_key_of_the_issuer_in_a_way_that_is_accepted() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let jwt = method(&issuer, |_| {});
    let read = async |token: String| name(jwt.read(&token, NOW).await);
    assert_eq!(read(issuer.sign(&json!({"alg": "ES256"}), &claims())).await, "good");
    assert_eq!(read(other.sign(&json!({"alg": "ES256", "kid": "a"}), &claims())).await, "wrong_signature");
    // Names of keys are compared with those that are known, and lead nowhere.
    for kid in ["b", "../../dev/null", "a' union select 1--", "https://evil.example/jwks.json", ""] {
        let header = json!({"alg": "ES256", "kid": kid, "jku": "https://evil.example/jwks.json"});
        assert_eq!(read(issuer.sign(&header, &claims())).await, "wrong_signature", "{kid}");
    }
    let none = issuer.sign(&json!({"alg": "none"}), &claims());
    assert_eq!(read(none.clone()).await, "no_token");
    assert_eq!(read(format!("{}.", none.rsplit_once('.').unwrap().0)).await, "no_token");
    assert_eq!(read(issuer.sign(&json!({"alg": "HS256"}), &claims())).await, "wrong_algorithm");
    assert_eq!(read(issuer.sign(&json!({"alg": "ES384"}), &claims())).await, "wrong_signature");
    let only = method(&issuer, |settings| settings.algorithms = vec![Algorithm::Rs256]);
    let token = issuer.sign(&json!({"alg": "ES256"}), &claims());
    assert_eq!(name(only.read(&token, NOW).await), "wrong_algorithm");
}

#[tokio::test]
async fn what_is_remembered_still_expires() {
    let issuer = Issuer::new();
    let jwt = method(&issuer, |_| {});
    let token = issuer.sign(&json!({"alg": "ES256", "kid": "a"}), &claims());
    let Outcome::Verified(first) = jwt.read(&token, NOW).await else { panic!() };
    let Outcome::Verified(again) = jwt.read(&token, NOW + 89.0).await else { panic!() };
    assert!(Arc::ptr_eq(&first, &again), "the second time it was remembered");
    assert_eq!(name(jwt.read(&token, NOW + 91.0).await), "token_expired");
    assert_eq!(first.consumer(), Some("acme"));
}

#[tokio::test]
async fn groups_and_scopes_come_from_claims_and_from_the_consumer() {
    let issuer = Issuer::new();
    let jwt = method(&issuer, |_| {});
    let read = async |changes: Value| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let token = issuer.sign(&json!({"alg": "ES256"}), &claims);
        let Outcome::Verified(caller) = jwt.read(&token, NOW).await else { panic!() };
        caller
    };
    let caller =
        read(json!({"realm_access": {"roles": ["staff", 7]}, "scope": "read write", "scp": ["x"]})).await;
    assert_eq!(caller.groups(), ["partners", "staff"]);
    assert_eq!(caller.scopes(), ["read", "write"]);
    let stranger = read(json!({"sub": "somebody", "scp": ["x"], "realm_access.roles": "a b"})).await;
    assert_eq!((stranger.consumer(), stranger.subject()), (None, Some("somebody")));
    assert_eq!((stranger.groups().len(), stranger.scopes()), (2, &["x".to_owned()][..]));
}
