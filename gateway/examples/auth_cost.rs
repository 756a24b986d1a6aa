//! What authentication adds to a request: CPU time of one core, in process, per kind of credential.
//!
//! Usage: `cargo run --release -p gateway --example auth_cost`. `ROUNDS` requests a lap; the median of nine laps is shown.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for developers"
)]

use std::{fs, hint::black_box, sync::Arc, time::Instant};

use argon2::{Argon2, PasswordHasher};
use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use gateway::{
    auth::{Auth, Visit, api_key},
    clock,
    config::Config,
    identity::{self, Peer},
};
use http::{Request, request::Parts};
use serde_json::{Value, json};
use waf_model::observation::ValueKey;

const LAPS: usize = 9;

const KEY: &str = "pcls_an-api-key-for-the-benchmark-that-is-long";

struct Bench {
    config: Config,
    auth: Auth,
    peer: Peer,
    rounds: u32,
}

impl Bench {
    /// Nanoseconds that a request to `route` takes at this stage, in the median.
    async fn measure(&self, route: usize, headers: &[(&str, String)]) -> f64 {
        let template = request(headers);
        let route = Arc::clone(&self.config.routes[route]);
        let identity = identity::identify(
            &self.config,
            &ValueKey([1; 16]),
            &self.peer,
            &template.headers,
            identity::fresh_request_id(),
        );
        let mut laps = Vec::new();
        for _ in 0..LAPS {
            let started = Instant::now();
            for _ in 0..self.rounds {
                let mut parts = template.clone();
                let mut visit = Visit {
                    route: &route,
                    peer: &self.peer,
                    identity: &identity,
                    allowed: false,
                    parts: &mut parts,
                };
                let caller = self.auth.admit(&mut visit).await.expect("admitted");
                self.auth.strip(&route, &mut parts);
                if let Some(caller) = caller {
                    caller.write(&mut parts.headers);
                }
                black_box(&parts);
            }
            laps.push(started.elapsed().as_nanos() as f64 / f64::from(self.rounds));
        }
        laps.sort_by(f64::total_cmp);
        laps[LAPS / 2]
    }
}

fn request(headers: &[(&str, String)]) -> Parts {
    let mut request = Request::get("/api/orders?page=2")
        .header("host", "shop.example")
        .header("user-agent", "bench/1.0")
        .header("accept", "application/json")
        .header("cookie", "theme=light");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(()).unwrap().into_parts().0
}

fn token(pair: &KeyPair) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "iss": "https://id.example", "aud": "api", "sub": "4f7d2a9e-0c11-4b0f-9a52-6a3f3c3e2b10",
        "exp": clock::now_ms() / 1000 + 3600, "scope": "orders:read orders:write profile", "groups": ["staff", "ops"],
        "name": "Ada Lovelace", "email": "ada@example.com", "jti": "0190b3a4-1111-7222-8333-444455556666",
    });
    let message =
        format!("{}.{}", encode(&json!({"alg": "RS256", "typ": "JWT", "kid": "a"})), encode(&claims));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let rounds = std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let directory = std::env::temp_dir().join(format!("auth-cost-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let pem = directory.join("key.pem");
    let der = STANDARD.encode(pair.public_key().as_der().unwrap().as_ref());
    fs::write(&pem, format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")).unwrap();
    let hash = api_key::hash(KEY.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
    let password = Argon2::default().hash_password(b"correct horse").unwrap();
    let consumers: Vec<String> =
        (0..1_000).map(|number| format!("  - {{name: c{number}, groups: [partners]}}")).collect();
    let upstreams = "upstreams: [{url: \"http://127.0.0.1:1\"}]";
    let text = format!(
        "version: 1
auth:
  methods:
    keys: {{api_key: {{}}}}
    people: {{basic: {{}}}}
    tokens: {{jwt: {{issuer: \"https://id.example\", audience: [api], keys: [{{pem: {}}}]}}}}
consumers:
{}
  - {{name: acme, groups: [partners], api_keys: [\"sha256:{hash}\"], password: \"{password}\"}}
routes:
  - {{name: open, {upstreams}}}
  - {{name: keys, {upstreams}, auth: {{any_of: [keys], groups: [partners]}}}}
  - {{name: tokens, {upstreams}, auth: {{any_of: [tokens], scopes: [\"orders:read\"]}}}}
  - {{name: people, {upstreams}, auth: {{any_of: [people]}}}}
",
        pem.display(),
        consumers.join("\n")
    );
    let config = Config::load(&text, "bench").unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let auth = Auth::new(&config, &ValueKey([1; 16]), None).unwrap();
    let peer = Peer {
        address: "192.0.2.1:4711".parse().unwrap(),
        listener: "http".into(),
        local: "192.0.2.2:8080".parse().unwrap(),
        tls: None,
        certificate: None,
    };
    let bench = Bench { config, auth, peer, rounds };
    let bearer = [("authorization", format!("Bearer {}", token(&pair)))];
    let basic = [("authorization", format!("Basic {}", STANDARD.encode("acme:correct horse")))];

    println!("µs a request, above a route that asks for nothing");
    for (name, route, headers) in [
        ("API key", 1, vec![("x-api-key", KEY.to_owned())]),
        ("RS256 JWT, seen before", 2, bearer.to_vec()),
        ("password, seen before", 3, basic.to_vec()),
    ] {
        let without = bench.measure(0, &headers).await;
        let with = bench.measure(route, &headers).await;
        println!("{name:<24} {:>7.2}", (with - without) / 1000.0);
    }
    fs::remove_dir_all(&directory).unwrap();
}
