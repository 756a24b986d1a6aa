//! Guessing of passwords, at the gateway's own authentication and at a login of the upstream.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    responder::Responder,
};

use super::{eventually, hash};

/// Requests under way at once.
const AT_ONCE: usize = 48;

/// A shop with a login of its own: every account's password is its name backwards.
struct Shop {
    origin: Responder,
    gateway: Gateway,
    _directory: tempfile::TempDir,
}

fn right(account: &str) -> String {
    account.chars().rev().collect()
}

fn fields(request: &Request<Bytes>) -> BTreeMap<String, String> {
    serde_json::from_slice(request.body()).unwrap_or_default()
}

fn login(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let fields = fields(request);
    let of = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let is_right = of("password") == right(&of("user"));
    // Says it in the body alone where the path asks for that.
    let quiet = request.uri().path() == "/quiet";
    let mut response = Response::new(Full::from(if is_right { "welcome" } else { "Wrong password!" }));
    if !is_right && !quiet {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    response
}

impl Shop {
    async fn start(failure: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let origin = Responder::start(Box::new(login)).await.unwrap();
        let mut settings = Settings::new(origin.url());
        settings.route = vec![format!("login: {{account: user, password: password{failure}}}")];
        let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
        Self { origin, gateway, _directory: directory }
    }

    fn guess(&self, path: &str, address: &str, account: &str, password: &str) -> Request<Full<Bytes>> {
        let body = serde_json::json!({"user": account, "password": password}).to_string();
        Request::post(format!("http://{}{path}", self.gateway.address()))
            .header("content-type", "application/json")
            .header("x-forwarded-for", address)
            .body(Full::from(body))
            .unwrap()
    }

    async fn status(&self, path: &str, address: &str, account: &str, password: &str) -> u16 {
        let client = self.gateway.client();
        client.exchange(self.guess(path, address, account, password)).await.unwrap().status.as_u16()
    }

    /// Sends `count` guesses, some at once.
    async fn attack(&self, count: u32, guess: impl Fn(u32) -> (String, String, String)) {
        let client = self.gateway.client();
        let requests = (0..count).map(|number| {
            let (address, account, password) = guess(number);
            (client.clone(), self.guess("/login", &address, &account, &password))
        });
        let sent =
            stream::iter(requests).map(|(client, request)| async move { client.exchange(request).await });
        let mut answers = sent.buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            let status = answer.unwrap().status.as_u16();
            assert!([401, 403, 429].contains(&status), "{status}");
        }
    }

    /// Wrong guesses that reached the origin.
    fn reached(&self) -> usize {
        let is_wrong = |request: &&Request<Bytes>| {
            let fields = fields(request);
            fields.get("password") != fields.get("user").map(|user| right(user)).as_ref()
        };
        self.origin.seen().iter().filter(is_wrong).count()
    }

    /// People with addresses of their own who know their passwords.
    async fn honest(&self) {
        for number in 0..20 {
            let account = format!("user{}", number * 100);
            let address = format!("203.0.113.{number}");
            assert_eq!(self.status("/login", &address, &account, &right(&account)).await, 200, "{account}");
        }
    }
}

fn address(number: u32) -> String {
    format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_guesses_from_one_address_become_a_few() {
    let shop = Shop::start("").await;
    let guess = |number: u32| (address(1), format!("user{}", number % 700), format!("guess-{number}"));
    let (_, ()) = tokio::join!(shop.attack(10_000, guess), shop.honest());
    assert!(shop.reached() < 20, "{}", shop.reached());
    // It goes on although it is told to wait: the client is blocked, and a person can see why.
    let blocks = shop.gateway.list(&["blocks", "list"]).await.unwrap();
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    assert_eq!(blocks[0]["client"], "ip:10.0.0.1");
    assert!(blocks[0]["reason"].as_str().unwrap().contains("failed logins"), "{blocks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_addresses_get_few_guesses_at_one_account_and_its_owner_gets_in() {
    let shop = Shop::start("").await;
    let owner = async || shop.status("/login", "198.51.100.7", "user0", &right("user0")).await;
    assert_eq!(owner().await, 200);
    let guess = |number: u32| (address(number % 500), "user0".to_owned(), format!("guess-{number}"));
    let (_, ()) = tokio::join!(shop.attack(10_000, guess), async {
        // Somebody else's address would not do now; the owner's own does.
        assert_eq!(owner().await, 200);
        for number in 1..20 {
            let account = format!("user{number}");
            let address = format!("203.0.113.{number}");
            assert_eq!(shop.status("/login", &address, &account, &right(&account)).await, 200, "{account}");
        }
    });
    assert_eq!(owner().await, 200);
    assert!(shop.reached() < 100, "{}", shop.reached());
    assert_eq!(shop.status("/login", "198.51.100.8", "USER0", "x").await, 429);
    assert!(shop.gateway.metric("portcullis_login_refusals_total").await.unwrap() > 100.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_password_is_not_tried_at_five_thousand_accounts() {
    let shop = Shop::start("").await;
    let guess = |number: u32| (address(number), format!("user{number}"), "Winter2026!".to_owned());
    let (_, ()) = tokio::join!(shop.attack(5_000, guess), shop.honest());
    assert!(shop.reached() < 200, "{}", shop.reached());
    assert_eq!(shop.gateway.list(&["blocks", "list"]).await.unwrap().len(), 0, "one try each is no evidence");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_in_words_is_recognised_and_an_ambiguous_one_refused() {
    let shop = Shop::start(", failure: {body: \"(?i)wrong password\"}").await;
    for number in 0..5 {
        assert_eq!(shop.status("/quiet", "10.0.0.1", "ada", &format!("guess-{number}")).await, 200);
    }
    eventually("the end of guessing", async || {
        shop.status("/quiet", "10.0.0.1", "ada", "guess").await == 429
    })
    .await;
    assert!(shop.reached() <= 6, "{}", shop.reached());
    for _ in 0..20 {
        assert_eq!(shop.status("/quiet", "10.0.0.2", "bob", "bob").await, 200, "successes do not count");
    }
    let double = Request::post(format!("http://{}/quiet", shop.gateway.address()))
        .header("content-type", "application/json")
        .body(Full::from(r#"{"user": "ada", "user": "bob", "password": "x"}"#))
        .unwrap();
    assert_eq!(shop.gateway.client().exchange(double).await.unwrap().status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_the_gateway_itself_ends_as_soon() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Responder::start(Box::new(|_| Response::new(Full::from("here")))).await.unwrap();
    let password = hash(&["password"], "correct-horse").await;
    let mut settings = Settings::new(origin.url());
    settings.route = vec!["auth: {any_of: [people]}".to_owned()];
    settings.more = vec![
        "auth: {methods: {people: {basic: {}}}}".to_owned(),
        format!("consumers: [{{name: ada, password: \"{password}\"}}]"),
    ];
    let gateway = Arc::new(Gateway::start(directory.path(), &settings).await.unwrap());
    let status = async |address: &str, name: &str, password: &str| {
        let request = Request::get(format!("http://{}/", gateway.address()))
            .header("x-forwarded-for", address)
            .header("authorization", format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
            .body(Full::default())
            .unwrap();
        Client::new(gateway.address()).exchange(request).await.unwrap()
    };
    assert_eq!(status("192.0.2.1", "ada", "correct-horse").await.status, 200);
    let mut known = Vec::new();
    let mut unknown = Vec::new();
    for number in 0..7 {
        known.push(status("10.0.0.1", "ada", &format!("guess-{number}")).await.status.as_u16());
        unknown.push(status("10.0.0.2", "nobody", &format!("guess-{number}")).await.status.as_u16());
    }
    assert_eq!(known, [401, 401, 401, 401, 401, 429, 429]);
    assert_eq!(known, unknown, "whether there is such an account cannot be told");
    let refused = status("10.0.0.1", "ada", "correct-horse").await;
    assert_eq!(refused.status, 429, "even with the right password");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=600).contains(&wait), "{wait}");
    assert_eq!(status("192.0.2.1", "ada", "correct-horse").await.status, 200);
    assert_eq!(origin.seen().len(), 2);
}
