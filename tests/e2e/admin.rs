//! Access to administration: who may ask what, by token, certificate, socket and route; and what is refused at start.

use std::{collections::BTreeSet, fs, path::Path};

use bytes::Bytes;
use gateway::{
    admin::routes::{Need, ROWS, Row},
    config::admin::Role,
};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tests::{
    client::{Answer, Client},
    gateway::{Gateway, Settings},
    origin::Origin,
    ports,
    process::binary,
};

/// A token and its hash.
pub(crate) fn token(name: &str) -> (String, String) {
    let text = format!("pcls_planted-{name}-{}", "zq7x".repeat(8));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    (text, format!("sha256:{digits}"))
}

const ROLES: [Role; 4] = [Role::Viewer, Role::Reviewer, Role::Operator, Role::Admin];

/// A line of configuration with a token for each role, named like it.
pub(crate) fn tokens() -> String {
    let one = |role: Role| {
        let name = role.name();
        format!("{{name: {name}, hash: \"{}\", role: {name}}}", token(name).1)
    };
    format!("tokens: [{}]", ROLES.map(one).join(", "))
}

/// Asks the admin API at `base`.
pub(crate) async fn ask(
    http: &Client,
    base: &str,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Answer {
    let mut request = Request::builder().method(verb).uri(format!("{base}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    http.exchange(request.body(Full::from(body)).unwrap()).await.unwrap()
}

fn document(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&answer.body)))
}

/// Fails if an answer of 400 or more is anything but a problem document.
#[track_caller]
fn check_form(answer: &Answer, row: &str) {
    if !answer.status.is_client_error() {
        return;
    }
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{row}");
    let problem = document(answer);
    assert_eq!(problem["status"], answer.status.as_u16(), "{row}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.len() > 5), "{row}: {problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_takes_the_roles_that_its_row_says() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(std::time::Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.admin = vec![tokens(), "failures: 1000".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let (http, base) = (Client::new(gateway.admin()), format!("http://{}", gateway.admin()));
    let empty = json!({});
    let send = async |row: &Row, authorization: Option<&str>| {
        let headers: Vec<_> = authorization.map(|value| ("authorization", value)).into_iter().collect();
        let body = (row.verb.name() == "POST").then_some(&empty);
        ask(&http, &base, row.verb.name(), row.path, &headers, body).await
    };
    for row in ROWS {
        let place = format!("{} {}", row.verb.name(), row.path);
        let needed = match row.need {
            Need::Nobody | Need::RoleFromAfar(_) => None,
            Need::Role(role) => Some(role),
        };
        let nobody = send(row, None).await;
        assert_eq!(nobody.status == StatusCode::UNAUTHORIZED, needed.is_some(), "{place}: {}", nobody.status);
        check_form(&nobody, &place);
        if let Some(needed) = needed {
            assert!(nobody.headers.contains_key("www-authenticate"), "{place}");
            for wrong in
                ["Bearer wrong", "Basic b3BzOm9wcw==", "Bearer", &format!("Bearer {}", token("admin").1)]
            {
                assert_eq!(send(row, Some(wrong)).await.status, 401, "{place} with {wrong}");
            }
            for role in ROLES {
                let answer = send(row, Some(&format!("Bearer {}", token(role.name()).0))).await;
                let refused = answer.status == StatusCode::FORBIDDEN;
                assert_eq!(refused, role < needed, "{place} for {}: {}", role.name(), answer.status);
                assert_ne!(answer.status, 401, "{place} for {}", role.name());
                assert!(!answer.status.is_server_error(), "{place}: {:?}", answer.body);
                check_form(&answer, &place);
            }
        }
    }
    // What needs no token tells nothing but that.
    let bare = document(&ask(&http, &base, "GET", "/readyz", &[], None).await);
    assert_eq!(bare, json!({ "ready": true }));
    let viewer = format!("Bearer {}", token("viewer").0);
    let headers = [("authorization", viewer.as_str())];
    let told = document(&ask(&http, &base, "GET", "/readyz", &headers, None).await);
    assert_eq!((&told["ready"], &told["model"]), (&json!(true), &json!("none")));
    // The description is the table.
    let described = document(&ask(&http, &base, "GET", "/v1/openapi.json", &headers, None).await);
    assert_eq!(described["openapi"], "3.1.0");
    let paths: BTreeSet<&str> = described["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(paths, ROWS.iter().map(|row| row.path).collect());
    for (verb, path, status) in
        [("GET", "/v1/nothing", 404), ("DELETE", "/v1/blocks", 405), ("GET", "/status", 404)]
    {
        let answer = ask(&http, &base, verb, path, &headers, None).await;
        assert_eq!(answer.status, status, "{verb} {path}");
        check_form(&answer, path);
    }
    // A page of another site cannot order anything.
    let operator = format!("Bearer {}", token("operator").0);
    let headers = [("authorization", operator.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(ask(&http, &base, "POST", "/v1/config/reload", &headers, None).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_run_out_and_the_socket_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::new("http://127.0.0.1:9".to_owned());
    settings.admin = vec![tokens(), "failures: 3".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let (http, base) = (Client::new(gateway.admin()), format!("http://{}", gateway.admin()));
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        ask(&http, &base, "GET", "/v1/status", &[("authorization", &bearer)], None).await
    };
    let good = token("viewer").0;
    assert_eq!(status(&good).await.status, 200);
    for _ in 0..3 {
        assert_eq!(status("wrong").await.status, 401);
    }
    // The right one, too: otherwise guessing could go on.
    let answer = status(&good).await;
    assert_eq!(answer.status, 429);
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(ask(&http, &base, "GET", "/healthz", &[], None).await.status, 200);
    let (code, text) = gateway.command(&["status"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    let noted = gateway.list(&["audit", "show", "--action", "admin.locked_out"]).await.unwrap();
    assert_eq!((noted.len(), &noted[0]["object"]), (1, &json!("127.0.0.1")));
}

/// Runs `gateway` to its end.
fn run(arguments: &[&str]) -> (i32, String) {
    let output = std::process::Command::new(binary("gateway").unwrap()).args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A certificate for `names` and its key, in files.
fn certificate(directory: &Path, names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (directory.join("admin.pem"), directory.join("admin.key"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate.display().to_string(), key.display().to_string())
}

#[test]
fn what_others_could_reach_is_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let quick = ["run", "--upstream", "http://127.0.0.1:9", "--listen", "127.0.0.1:0", "--state"];
    let order = [&quick[..], &[state.to_str().unwrap(), "--admin", "0.0.0.0:0"]].concat();
    let (code, text) = run(&order);
    assert!(
        code == 2 && text.contains("--admin 0.0.0.0:0") && text.contains("has no \"tls\""),
        "{code}: {text}"
    );

    let (certificate, key) = certificate(directory.path(), &["localhost"]);
    let tls = format!("tls: {{certificate: {certificate}, key: {key}}}");
    let asks = format!("tls: {{certificate: {certificate}, key: {key}, clients: {{ca: {certificate}}}}}");
    let file = directory.path().join("portcullis.yaml");
    let check = |admin: &str, routes: &str| {
        let text = format!(
            "version: 1\nadmin: {admin}\nlisteners: [{{address: '127.0.0.1:0'}}]\n\
             auth: {{methods: {{keys: {{api_key: {{}}}}}}}}\nroutes: [{routes}]\nstate: {}\n",
            state.display()
        );
        fs::write(&file, text).unwrap();
        run(&["run", "--config", file.to_str().unwrap()])
    };
    let shop = "{name: shop, upstreams: [{url: 'http://127.0.0.1:9'}]}";
    for (admin, why) in [
        ("0.0.0.0:0", "has no \"tls\""),
        ("{listeners: [{address: '[::]:0'}]}", "has no \"tls\""),
        (&format!("{{listeners: [{{address: '0.0.0.0:0', {tls}}}]}}"), "nobody could show who they are"),
        (&format!("{{listeners: [{{address: '0.0.0.0:0', {asks}}}]}}"), "nobody could show who they are"),
    ] {
        let (code, text) = check(admin, shop);
        assert!(
            code == 2 && text.contains(why) && text.contains("portcullis.yaml:2"),
            "{admin}: {code}: {text}"
        );
    }
    for (route, why) in [
        ("{name: manage, admin: on}", "needs it"),
        ("{name: manage, admin: on, auth: {anonymous: on}}", "cannot be on"),
        ("{name: manage, admin: on, auth: {}}", "which groups have which role"),
    ] {
        let (code, text) = check("127.0.0.1:0", route);
        assert!(code == 2 && text.contains(why), "{route}: {code}: {text}");
    }
    assert!(!state.exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_listeners_know_tokens_certificates_and_networks() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(directory.path(), &["localhost"]);
    let made = rcgen::generate_simple_self_signed(["laptop.ops.example".to_owned()]).unwrap();
    let ca = directory.path().join("clients.pem");
    fs::write(&ca, made.cert.pem()).unwrap();
    let (far, closed) = (ports::free().unwrap(), ports::free().unwrap());
    let mut settings = Settings::new("http://127.0.0.1:9".to_owned());
    settings.admin = vec![
        format!("  - address: 0.0.0.0:{far}"),
        format!("    tls: {{certificate: {certificate}, key: {key}, clients: {{ca: {}}}}}", ca.display()),
        format!("  - {{address: \"127.0.0.1:{closed}\", networks: [192.0.2.0/24]}}"),
        tokens(),
        "certificates: {laptop.ops.example: viewer}".to_owned(),
    ];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let url = format!("https://localhost:{far}");

    // The command line, with a token in a file.
    let secret = directory.path().join("token");
    fs::write(&secret, token("operator").0 + "\n").unwrap();
    let far = ["--admin", &url, "--token-file", secret.to_str().unwrap(), "--admin-ca", &certificate];
    for (arguments, expected) in [
        (&["blocks", "add", "203.0.113.9", "--reason", "noise"][..], "203.0.113.9"),
        (&["status"], "none"),
        (&["audit", "head"], ":"),
    ] {
        let (code, text) = gateway.command(&[arguments, &far].concat()).await.unwrap();
        assert!(code == 0 && text.contains(expected), "{arguments:?}: {code}: {text}");
    }
    let (code, text) = gateway.command(&[&["audit", "show"], &far[..]].concat()).await.unwrap();
    assert!(code == 1 && text.contains("needs the role admin, and yours is operator"), "{text}");
    let noted = gateway.list(&["audit", "show", "--actor", "token:operator"]).await.unwrap();
    let actions: Vec<_> = noted.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["block.put", "admin.refused"]);
    assert_eq!((&noted[0]["object"], &noted[0]["from"]), (&json!("ip:203.0.113.9"), &json!("127.0.0.1")));
    // A token is not sent where it could be read.
    let (code, text) = gateway
        .command(&["status", "--admin", "http://gateway.example:1", "--token-file", secret.to_str().unwrap()])
        .await
        .unwrap();
    assert!(code == 1 && text.contains("use https"), "{text}");

    // A certificate is as good as a token of its role; without either health alone is told.
    let root = reqwest::Certificate::from_pem(&fs::read(&certificate).unwrap()).unwrap();
    let client = |identity: Option<reqwest::Identity>| {
        let builder = reqwest::Client::builder().tls_certs_only([root.clone()]);
        identity.into_iter().fold(builder, reqwest::ClientBuilder::identity).build().unwrap()
    };
    let pair = made.signing_key.serialize_pem() + &made.cert.pem();
    let known = client(Some(reqwest::Identity::from_pem(pair.as_bytes()).unwrap()));
    let status = async |client: &reqwest::Client, path: &str| {
        client.get(format!("{url}{path}")).send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(&known, "/v1/blocks").await, 200);
    assert_eq!(known.post(format!("{url}/v1/models/rollback")).send().await.unwrap().status(), 403);
    let nobody = client(None);
    let asked = [("/v1/blocks", 401), ("/metrics", 401), ("/healthz", 200), ("/readyz", 200)];
    for (path, expected) in asked {
        assert_eq!(status(&nobody, path).await, expected, "{path}");
    }
    assert_eq!(status(&known, "/metrics").await, 200);
    // Whoever is not of the listener's networks gets nothing at all.
    let from_elsewhere = Client::new(([127, 0, 0, 1], closed).into());
    assert!(from_elsewhere.get("/healthz").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_publishes_the_api_to_those_whose_group_has_a_role() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(std::time::Duration::ZERO).await.unwrap();
    let consumer = |name: &str, group: &str| {
        format!("{{name: {name}, groups: [{group}], api_keys: [\"{}\"]}}", token(name).1)
    };
    let mut settings = Settings::new(origin.url());
    settings.admin = vec!["groups: {ops: operator, watch: viewer}".to_owned()];
    settings.route = vec!["match: {paths: [/shop]}".to_owned(), "auth: {anonymous: on}".to_owned()];
    let listed = [consumer("alice", "ops"), consumer("bob", "watch"), consumer("carol", "sales")].join(", ");
    settings.more =
        vec!["auth: {methods: {keys: {api_key: {}}}}".to_owned(), format!("consumers: [{listed}]")];
    // A second route, behind the origin's.
    settings.route.push("\n  - {name: manage, match: {paths: [/manage]}, admin: on, auth: {}}".to_owned());
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let (http, base) = (gateway.client(), format!("http://{}", gateway.address()));
    let block = json!({ "client": "203.0.113.7" });
    let asked = async |verb: &str, path: &str, name: Option<&str>, body: Option<&Value>| {
        let key = name.map(|name| token(name).0);
        let headers: Vec<_> = key.iter().map(|key| ("x-api-key", key.as_str())).collect();
        ask(&http, &base, verb, path, &headers, body).await.status.as_u16()
    };
    assert_eq!(asked("GET", "/manage/v1/status", None, None).await, 401);
    assert_eq!(asked("GET", "/manage/v1/status", Some("carol"), None).await, 403);
    assert_eq!(asked("GET", "/manage/metrics", Some("carol"), None).await, 403);
    assert_eq!(asked("GET", "/manage/v1/status", Some("bob"), None).await, 200);
    assert_eq!(asked("POST", "/manage/v1/blocks", Some("bob"), Some(&block)).await, 403);
    assert_eq!(asked("POST", "/manage/v1/blocks", Some("alice"), Some(&block)).await, 200);
    assert_eq!(asked("GET", "/manage/v1/audit", Some("alice"), None).await, 403);
    // Nowhere else, and an admin token means nothing here.
    assert_eq!(asked("GET", "/shop/v1/status", Some("alice"), None).await, 404);
    assert_eq!(asked("GET", "/v1/status", Some("alice"), None).await, 404);
    let noted = gateway.list(&["audit", "show", "--actor", "consumer:alice"]).await.unwrap();
    let what: Vec<_> =
        noted.iter().map(|entry| (entry["action"].as_str(), entry["object"].as_str())).collect();
    assert_eq!(what[0], (Some("block.put"), Some("ip:203.0.113.7")));
    let blocked = gateway.list(&["blocks", "list"]).await.unwrap();
    assert_eq!(blocked.len(), 1);
}
