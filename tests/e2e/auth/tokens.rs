//! JSON Web Tokens whose keys an issuer publishes.

use std::{
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde_json::{Value, json};
use tests::responder::Responder;

use super::{Site, eventually, json};

/// One key of an issuer.
pub(crate) struct SigningKey {
    kid: String,
    pair: KeyPair,
}

impl SigningKey {
    pub(crate) fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: KeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    fn jwk(&self) -> Value {
        // RFC 8017, A.1.1: the modulus of 256 bytes stands behind the heads of the sequence and of the number.
        let der = self.pair.public_key().as_ref();
        assert_eq!((der.len(), &der[der.len() - 5..]), (270, &[2, 3, 1, 0, 1][..]));
        let n = &der[9..265];
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid,
               "n": URL_SAFE_NO_PAD.encode(n), "e": "AQAB"})
    }

    pub(crate) fn sign(&self, header: Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(&header), encode(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn bearer(&self, claims: &Value) -> String {
        format!("Bearer {}", self.sign(json!({"alg": "RS256", "kid": self.kid}), claims))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "api", "sub": "u-1", "exp": now() + 600, "scope": "read"})
}

/// Publishes what `set` holds.
async fn publish(set: &Arc<Mutex<Value>>, address: Option<std::net::SocketAddr>) -> Responder {
    let set = Arc::clone(set);
    let answer = Box::new(move |_: &http::Request<bytes::Bytes>| json(StatusCode::OK, &set.lock().unwrap()));
    match address {
        Some(address) => Responder::start_at(address, answer).await.unwrap(),
        None => Responder::start(answer).await.unwrap(),
    }
}

async fn site(issuer: &str, more: &str) -> Site {
    let methods = format!(
        "auth: {{methods: {{tokens: {{jwt: {{issuer: \"https://id.example\", audience: [api], jwks: \"{issuer}\", \
         refresh: 1s, max_size: 4KiB}}}}}}}}"
    );
    let consumers = "consumers: [{name: acme, groups: [partners], subjects: {tokens: [partner]}}]";
    Site::start(&[format!("auth: {{any_of: [tokens]{more}}}")], &[methods, consumers.to_owned()]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_checked_by_the_keys_that_the_issuer_publishes_now() {
    let (first, second) = (SigningKey::new("one"), SigningKey::new("two"));
    let set = Arc::new(Mutex::new(json!({"keys": [first.jwk()]})));
    let issuer = publish(&set, None).await;
    let site = site(&issuer.url(), ", scopes: [read]").await;
    let status = async |bearer: &str| site.status("/", &[("authorization", bearer)]).await;

    let token = first.bearer(&claims());
    assert_eq!(status(&token).await, 200);
    let (_, headers) = site.last();
    assert_eq!(
        (&headers["x-consumer-subject"], &headers["x-consumer-scopes"]),
        (&"u-1".parse().unwrap(), &"read".parse().unwrap())
    );
    assert!(!headers.contains_key("authorization") && !headers.contains_key("x-consumer-username"));
    let mut partner = claims();
    partner["sub"] = json!("partner");
    assert_eq!(status(&first.bearer(&partner)).await, 200);
    assert_eq!(site.last().1["x-consumer-username"], "acme");

    // What an attacker would try.
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        edit(&mut claims);
        first.bearer(&claims)
    };
    let none = format!(
        "Bearer {}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims().to_string())
    );
    let huge = edited(&|claims| claims["pad"] = json!("x".repeat(6_000)));
    for (what, bearer) in [
        ("no signature", none.as_str()),
        ("another's key", &second.bearer(&claims())),
        ("expired", &edited(&|claims| claims["exp"] = json!(now() - 60))),
        ("for others", &edited(&|claims| claims["aud"] = json!("billing"))),
        ("by others", &edited(&|claims| claims["iss"] = json!("https://evil.example"))),
        ("huge", &huge),
        ("a changed claim", &token.replacen('.', ".e", 1)),
        ("not a token", "Bearer abc"),
    ] {
        let answer = site.get("/", &[("authorization", bearer)]).await;
        assert_eq!(answer.status, 401, "{what}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"tokens\", error=\"invalid_token\"");
    }
    assert_eq!(status(&edited(&|claims| claims["scope"] = json!("write"))).await, 403);

    // A new key is found without a restart, and one that is withdrawn is not good any more, seen before or not.
    *set.lock().unwrap() = json!({"keys": [second.jwk()]});
    eventually("the new key", async || status(&second.bearer(&claims())).await == 200).await;
    eventually("the end of the old key", async || status(&token).await == 401).await;

    // The issuer is away, and comes back with nonsense: what was good stays good.
    let address = issuer.address();
    drop(issuer);
    assert_eq!(status(&second.bearer(&claims())).await, 200);
    *set.lock().unwrap() = json!({"keys": []});
    let issuer = publish(&set, Some(address)).await;
    eventually("a fetch", async || issuer.seen().len() >= 2).await;
    assert_eq!(status(&second.bearer(&claims())).await, 200);
    let secret = token.rsplit('.').next().unwrap();
    site.search(&[secret, token.split('.').nth(1).unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_there_are_no_keys_nobody_is_called_a_liar() {
    let key = SigningKey::new("one");
    let set = Arc::new(Mutex::new(json!({"keys": [key.jwk()]})));
    let address = publish(&set, None).await.address();
    let site = site(&format!("http://{address}"), "").await;
    let answer = site.get("/", &[("authorization", &key.bearer(&claims()))]).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["retry-after"]), (503, &"1".parse().unwrap()));
    let _issuer = publish(&set, Some(address)).await;
    eventually("the keys", async || {
        site.status("/", &[("authorization", &key.bearer(&claims()))]).await == 200
    })
    .await;
}
