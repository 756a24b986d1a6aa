//! Methods that are proved by more than a header: signed requests, client certificates, and services that are asked.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{digest, hmac};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tests::{
    gateway::{Gateway, Settings},
    responder::Responder,
};

use super::{Site, json, write};

const SECRET: &str = "zq7x-a-secret-of-more-than-32-bytes";

/// Signs a request as RFC 9421 says.
fn signed(
    site: &Site,
    method: &str,
    target: &str,
    body: &str,
    nonce: u32,
    sign_as: &str,
) -> Request<Full<bytes::Bytes>> {
    let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let host = site.gateway.address().to_string();
    let digest = STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes()));
    let digest = format!("sha-256=:{digest}:");
    let parameters = format!(
        "(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\");created={created};keyid=\"acme-1\";nonce=\"{nonce}\""
    );
    let base = format!(
        "\"@method\": {method}\n\"@authority\": {host}\n\"@path\": {path}\n\"@query\": ?{query}\n\"content-digest\": {digest}\n\"@signature-params\": {parameters}"
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, sign_as.as_bytes()), base.as_bytes());
    Request::builder()
        .method(method)
        .uri(format!("http://{host}{target}"))
        .header("host", host)
        .header("content-digest", digest)
        .header("signature-input", format!("sig={parameters}"))
        .header("signature", format!("sig=:{}:", STANDARD.encode(tag.as_ref())))
        .body(Full::from(body.to_owned()))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_is_good_once_and_with_its_own_body() {
    let site = Site::start(
        &["auth: {any_of: [signed]}".to_owned()],
        &[
            "auth: {methods: {signed: {signature: {}}}}".to_owned(),
            format!("consumers: [{{name: acme, signing_keys: [{{id: acme-1, secret: {SECRET}}}]}}]"),
        ],
    )
    .await;
    let status = async |request| site.http.exchange(request).await.unwrap().status.as_u16();
    let body = r#"{"order": 1}"#;
    assert_eq!(status(signed(&site, "POST", "/orders?a=1", body, 1, SECRET)).await, 200);
    let (target, headers) = site.last();
    assert_eq!((target.as_str(), &headers["x-consumer-username"]), ("/orders?a=1", &"acme".parse().unwrap()));
    assert!(!headers.contains_key("signature"));
    assert_eq!(site.origin.seen().last().unwrap().body().as_ref(), body.as_bytes());

    let replayed = signed(&site, "POST", "/orders?a=1", body, 2, SECRET);
    let (parts, _) = replayed.into_parts();
    let again = || Request::from_parts(parts.clone(), Full::from(body));
    assert_eq!(status(again()).await, 200);
    assert_eq!(status(again()).await, 401, "the second time");
    let (parts, _) = signed(&site, "POST", "/orders?a=1", body, 3, SECRET).into_parts();
    assert_eq!(status(Request::from_parts(parts, Full::from(r#"{"order": 9}"#))).await, 401, "another body");
    let mut moved = signed(&site, "POST", "/orders?a=1", body, 4, SECRET);
    *moved.uri_mut() = format!("http://{}/orders?a=2", site.gateway.address()).parse().unwrap();
    assert_eq!(status(moved).await, 401, "another target");
    let wrong = "another-secret-of-more-than-32-bytes";
    assert_eq!(status(signed(&site, "POST", "/orders?a=1", body, 5, wrong)).await, 401, "another secret");
    assert_eq!(site.origin.seen().len(), 2);
    site.search(&[SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_forgets_nothing_that_protects() {
    let site = Site::start(
        &["auth: {any_of: [signed]}".to_owned()],
        &[
            "auth: {methods: {signed: {signature: {}}}}".to_owned(),
            format!("consumers: [{{name: acme, signing_keys: [{{id: acme-1, secret: {SECRET}}}]}}]"),
        ],
    )
    .await;
    let status = async |request| site.http.exchange(request).await.unwrap().status.as_u16();
    let (parts, _) = signed(&site, "GET", "/", "", 1, SECRET).into_parts();
    assert_eq!(status(Request::from_parts(parts.clone(), Full::default())).await, 200);
    let file = site.directory.path().join("portcullis.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("name: acme,", "name: acme, groups: [partners],")).unwrap();
    let (code, printed) = site.gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");
    assert_eq!(
        status(Request::from_parts(parts, Full::default())).await,
        401,
        "it was seen before the reload"
    );
    assert_eq!(status(signed(&site, "GET", "/", "", 2, SECRET)).await, 200);
    assert_eq!(site.last().1["x-consumer-groups"], "partners");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_is_asked_about_opaque_tokens_and_not_each_time() {
    let answer = |request: &Request<bytes::Bytes>| {
        let form = String::from_utf8_lossy(request.body()).into_owned();
        let active = form.contains("token=good-zq7x-token&");
        json(
            StatusCode::OK,
            &json!({"active": active, "sub": "u-7", "scope": "read write", "client_id": "c"}),
        )
    };
    let issuer = Responder::start(Box::new(answer)).await.unwrap();
    let methods = format!(
        "auth: {{methods: {{opaque: {{introspection: {{url: \"{}/introspect\", client_id: gateway, client_secret: \"a b:c\"}}}}}}}}",
        issuer.url()
    );
    let site = Site::start(&["auth: {any_of: [opaque], scopes: [read]}".to_owned()], &[methods]).await;
    let status = async |token: &str| {
        let bearer = format!("Bearer {token}");
        site.status("/", &[("authorization", bearer.as_str())]).await
    };
    for _ in 0..5 {
        assert_eq!(status("good-zq7x-token").await, 200);
        assert_eq!(status("bad-token").await, 401);
    }
    assert_eq!(site.last().1["x-consumer-subject"], "u-7");
    {
        let asked = issuer.seen();
        assert_eq!(asked.len(), 2, "once about each");
        // RFC 6749, 2.3.1: encoded first, then joined.
        let expected = format!("Basic {}", STANDARD.encode("gateway:a+b%3Ac"));
        assert_eq!(asked[0].headers()["authorization"], expected.as_str());
    }
    drop(issuer);
    assert_eq!(status("good-zq7x-token").await, 200, "it is remembered");
    assert_eq!(status("unknown-token").await, 503, "nobody can tell");
    site.search(&["good-zq7x-token"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_decides_and_what_it_says_of_the_caller_cannot_be_forged() {
    let broken = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&broken);
    let decide = move |request: &Request<bytes::Bytes>| {
        let header =
            |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let builder = Response::builder();
        let builder = match (flag.load(Ordering::Relaxed), header("cookie"), header("x-forwarded-uri")) {
            (true, ..) => builder.status(500),
            (_, "session=ada", "/admin") => builder.status(403),
            (_, "session=ada", _) => {
                builder.header("x-user", "ada").header("x-roles", "staff, ops").header("x-extra", "1")
            }
            _ => builder.status(302).header("location", "https://login.example/").header("set-cookie", "a=b"),
        };
        builder.body(Full::default()).unwrap()
    };
    let service = Responder::start(Box::new(decide)).await.unwrap();
    let methods = format!(
        "auth: {{methods: {{service: {{forward: {{url: \"{}/decide\", copies: [X-User, X-Extra], user_header: X-User, groups_header: X-Roles}}}}}}}}",
        service.url()
    );
    let site = Site::start(&["auth: {any_of: [service], groups: [ops]}".to_owned()], &[methods]).await;
    let ada = [("cookie", "session=ada"), ("x_user", "root"), ("x-extra", "9"), ("x.extra", "9")];
    assert_eq!(site.status("/orders?a=1", &ada).await, 200);
    let (_, headers) = site.last();
    assert_eq!(headers.get_all("x-user").iter().collect::<Vec<_>>(), ["ada"]);
    assert_eq!(headers.get_all("x-extra").iter().collect::<Vec<_>>(), ["1"]);
    assert!(!headers.contains_key("x_user") && !headers.contains_key("x.extra"));
    assert_eq!(
        (&headers["x-consumer-subject"], &headers["x-consumer-groups"]),
        (&"ada".parse().unwrap(), &"staff, ops".parse().unwrap())
    );
    assert_eq!(service.seen()[0].headers()["x-forwarded-uri"], "/orders?a=1");
    assert_eq!(site.status("/admin", &ada).await, 403);
    let away = site.get("/", &[]).await;
    assert_eq!(
        (away.status.as_u16(), &away.headers["location"]),
        (302, &"https://login.example/".parse().unwrap())
    );
    assert_eq!(away.headers["set-cookie"], "a=b");
    broken.store(true, Ordering::Relaxed);
    assert_eq!(site.status("/", &ada).await, 503);
    assert_eq!(site.origin.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_says_who_calls() {
    let directory = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let ca_file = write(directory.path(), "ca.pem", &ca.pem());
    let issuer = Issuer::new(params, ca_key);
    let identity = |name: &str, issuer: Option<&Issuer<'_, KeyPair>>| {
        let (key, params) =
            (KeyPair::generate().unwrap(), CertificateParams::new(vec![name.to_owned()]).unwrap());
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        format!("{}{}", certificate.pem(), key.serialize_pem())
    };
    let server_key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&server_key, &issuer)
        .unwrap();
    let certificate = write(directory.path(), "server.pem", &server.pem());
    let key = write(directory.path(), "server.key", &server_key.serialize_pem());

    let origin = Responder::start(Box::new(|_| Response::new(Full::from("here")))).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.tls = Some((certificate.into(), key.into()));
    settings.tls_more = vec![format!("clients: {{ca: {ca_file}}}")];
    settings.route = vec!["auth: {any_of: [mtls]}".to_owned()];
    settings.more = vec![
        "auth: {methods: {mtls: {certificate: {names: [\"*.partner.example\"]}}}}".to_owned(),
        "consumers: [{name: acme, groups: [partners], certificates: [api.partner.example]}]".to_owned(),
    ];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let status = async |pem: Option<String>| {
        let mut builder = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&fs::read(&ca_file).unwrap()).unwrap()]);
        if let Some(pem) = pem {
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
        }
        let client = builder.build().unwrap();
        let sent = client
            .get(format!("https://{}/", gateway.address()))
            .header("x-consumer-username", "root")
            .send()
            .await;
        sent.map(|response| response.status().as_u16()).unwrap_or(0)
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    assert_eq!(status(Some(identity("api.partner.example", Some(&issuer)))).await, 200);
    {
        let seen = origin.seen();
        let headers = seen.last().unwrap().headers();
        assert_eq!(
            (&headers["x-consumer-username"], &headers["x-consumer-subject"]),
            (&"acme".parse().unwrap(), &"api.partner.example".parse().unwrap())
        );
    }
    assert_eq!(status(Some(identity("other.partner.example", Some(&issuer)))).await, 200);
    assert_eq!(
        status(Some(identity("api.elsewhere.example", Some(&issuer)))).await,
        401,
        "a name that is not accepted"
    );
    assert_eq!(
        status(Some(identity("api.partner.example", None))).await,
        0,
        "signed by itself: no connection"
    );
    assert_eq!(status(None).await, 401);
    assert_eq!(origin.seen().len(), 2);
}
