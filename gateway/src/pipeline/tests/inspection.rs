//! What inspection does to requests, and what it never does.

use proptest::prelude::*;
use waf_model::keys::ClientKey;

use super::*;
use crate::{
    config::OnError,
    store::{Block, BlockExplanation, BlockOrigin, ClientKeyText},
};

const RULE: &str =
    r#"SecRule ARGS|REQUEST_BODY "@contains evil" "id:1001,phase:2,deny,msg:'Evil',severity:CRITICAL""#;

fn mode(config: &mut Config, mode: Mode) {
    let mut route = Route::clone(&config.routes[0]);
    route.mode = mode;
    config.routes = vec![Arc::new(route)];
}

async fn site(route_mode: Mode, edit: impl FnOnce(&mut Config)) -> Site {
    Site::with_rules(RULE, |config| {
        mode(config, route_mode);
        edit(config);
    })
    .await
}

fn block(client: &str) -> Block {
    Block {
        client: ClientKeyText(ClientKey::parse(client).unwrap()),
        scope: "all".to_owned(),
        reason: "by hand".to_owned(),
        score: 0.0,
        budget: String::new(),
        model: 0,
        first_seen_ms: 0,
        last_seen_ms: 0,
        count: 1,
        expires_ms: u64::MAX,
        origin: BlockOrigin::Operator,
        request_id: None,
        explanation: BlockExplanation::default(),
    }
}

#[tokio::test]
async fn a_rule_rejects_and_explains_itself() {
    let site = site(Mode::Block, |_| ()).await;
    let response = site.get("/items?q=so%20evil").await;
    assert_eq!(status(&response), "403");
    for secret in ["evil", "1001", "Evil"] {
        assert!(!response.contains(secret), "{response}");
    }
    assert!(site.seen().is_empty());
    let line = &site.log(1).await[0];
    assert_eq!(line["portcullis.waf.verdict"], "rules");
    assert_eq!(line["portcullis.waf.rules"], serde_json::json!([1001]));
    assert_eq!(line["portcullis.waf.points"], 5);
    let flagged = site.gateway.decisions.find(header(&response, "x-request-id").unwrap()).unwrap();
    assert_eq!((flagged.status, flagged.rules[0].id, flagged.rule_points), (403, 1001, (5, 5)));
    assert_eq!(status(&site.get("/items?q=good").await), "200");
    let metrics = site.gateway.metrics.encode();
    assert!(metrics.contains("portcullis_waf_rule_matches_total{rule_id=\"1001\"} 1"), "{metrics}");
}

#[tokio::test]
async fn the_same_attack_gets_the_same_verdict_however_it_is_framed() {
    let site = site(Mode::Block, |config| config.waf.block_clients = Toggle::Off).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    for rest in [
        "Content-Length: 6\r\n\r\nq=evil",
        "Transfer-Encoding: chunked\r\n\r\n6\r\nq=evil\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nq=ev\r\n2\r\nil\r\n0\r\n\r\n",
    ] {
        assert_eq!(status(&site.raw(format!("{head}{rest}")).await), "403", "{rest:?}");
    }
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request = Request::post(format!("http://{}/", site.address))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from_static(b"q=evil")))
        .unwrap();
    assert_eq!(client.request(request).await.unwrap().status(), 403);
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn what_cannot_be_inspected_is_treated_as_the_route_says() {
    let many: String = (0..2000).map(|index| format!("&a{index}=1")).collect();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let requests = [
        ("application/x-www-form-urlencoded", "", format!("q=1{many}"), "400", "too_many_values"),
        ("application/json", "", deep, "400", "too_deep"),
        (
            "application/json",
            "Content-Encoding: gzip\r\n",
            "\x1f".to_owned() + "\x08xyz",
            "415",
            "encoded_body",
        ),
    ];
    for (on_error, route_mode) in
        [(OnError::Block, Mode::Block), (OnError::Pass, Mode::Block), (OnError::Block, Mode::Detect)]
    {
        let site = site(route_mode, |config| {
            let mut route = Route::clone(&config.routes[0]);
            route.on_error = on_error;
            config.routes = vec![Arc::new(route)];
        })
        .await;
        let closed = (on_error, route_mode) == (OnError::Block, Mode::Block);
        for (kind, encoding, body, refusal, name) in &requests {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
            let length = body.len();
            let response = site
                .raw(format!(
                    "{head}Content-Type: {kind}\r\n{encoding}Content-Length: {length}\r\n\r\n{body}"
                ))
                .await;
            let expected = if closed { *refusal } else { "200" };
            assert_eq!(status(&response), expected, "{name} {on_error:?} {route_mode:?}: {response}");
        }
        let log = site.log(3).await;
        assert!(log.iter().all(|line| line["portcullis.waf.verdict"] == "fault"), "{log:?}");
        let fail = if closed { "closed" } else { "open" };
        let counted = format!("portcullis_waf_engine_errors_total{{fail=\"{fail}\"}} 3");
        assert!(site.gateway.metrics.encode().contains(&counted));
    }
}

#[tokio::test]
async fn a_client_is_blocked_on_accumulated_evidence_only() {
    let site = site(Mode::Block, |config| {
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    })
    .await;
    let from = |address: &str, target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: {address}\r\n\r\n")
    };
    assert_eq!(status(&site.raw(from("203.0.113.9", "/?q=evil")).await), "403");
    assert_eq!(status(&site.raw(from("203.0.113.9", "/")).await), "200", "one bad request blocks nobody");
    for _ in 0..6 {
        site.raw(from("203.0.113.9", "/?q=evil")).await;
    }
    assert_eq!(status(&site.raw(from("203.0.113.9", "/")).await), "403", "now the client is blocked");
    assert_eq!(status(&site.raw(from("203.0.113.10", "/")).await), "200", "and nobody else is");
    let key = ClientKey::Address("203.0.113.9".to_owned());
    let found = site.gateway.blocks.find(&[key], "default", 0).unwrap();
    assert!(found.reason.contains("rule 1001 Evil"), "{}", found.reason);
    assert_eq!((found.count, found.explanation.rules[0].as_str()), (1, "1001 Evil"));
    assert!(found.explanation.timeline.len() > 1);
}

#[tokio::test]
async fn a_new_session_with_every_request_does_not_help() {
    let site = site(Mode::Block, |config| config.waf.session_cookie = Some("sid".to_owned())).await;
    let with = |session: usize, target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nCookie: sid={session}\r\n\r\n")
    };
    for _ in 0..6 {
        site.raw(with(0, "/?q=evil")).await;
    }
    assert_eq!(status(&site.raw(with(0, "/")).await), "403", "the session is blocked");
    assert_eq!(status(&site.raw(with(1, "/")).await), "200", "others at the address are not");
    for session in 2..20 {
        site.raw(with(session, "/?q=evil")).await;
    }
    assert_eq!(status(&site.raw(with(99, "/")).await), "403", "until many of them attacked");
}

#[tokio::test]
async fn the_allow_list_comes_before_everything() {
    for by_config in [true, false] {
        let site = site(Mode::Block, |config| {
            if by_config {
                config.waf.allow = vec!["127.0.0.0/8".parse().unwrap()];
            }
        })
        .await;
        if !by_config {
            site.gateway.blocks.set_allowed("127.0.0.1/32".parse().unwrap(), crate::block_list::Allow::Add);
        }
        site.gateway.blocks.block(block("ip:127.0.0.1"));
        assert_eq!(status(&site.get("/?q=evil").await), "200");
        assert_eq!(site.log(1).await[0]["portcullis.waf.verdict"], "allowed");
    }
}

#[tokio::test]
async fn a_blocked_client_is_refused_in_mode_block_and_recorded_in_mode_detect() {
    for (route_mode, expected, verdict) in
        [(Mode::Block, "403", "blocked"), (Mode::Detect, "200", "blocked"), (Mode::Off, "200", "pass")]
    {
        let site = site(route_mode, |_| ()).await;
        site.gateway.blocks.block(block("ip:127.0.0.1"));
        assert_eq!(status(&site.get("/").await), expected, "{route_mode:?}");
        assert_eq!(site.log(1).await[0]["portcullis.waf.verdict"], verdict, "{route_mode:?}");
    }
}

#[tokio::test]
async fn the_built_in_rules_stop_the_attack_that_the_greeting_names() {
    let mut config = None;
    let bare = Site::start(|made| config = Some(made.clone())).await;
    let mut config = config.unwrap();
    let built_in = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
    edit_route(&mut config, |route| route.rules = Arc::clone(&built_in.routes[0].rules));
    let gateway = Arc::new(gateway(config));
    let bound = listener::bind(&gateway.config.snapshot().listeners[0], &gateway.acme).unwrap();
    let address = bound.address();
    tokio::spawn(listener::serve(bound, Arc::clone(&gateway), CancellationToken::new()));
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let attack = raw(address, get("/?id=1%27%20or%201=1--%20-").as_bytes()).await;
    assert_eq!(status(&attack), "403", "{attack}");
    assert_eq!(status(&raw(address, get("/?id=1").as_bytes()).await), "200");
    assert_eq!(bare.seen().len(), 1);
}

/// A request of any content within a well-formed frame.
fn requests() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        Just("/".to_owned()),
        "/[a-z0-9/%.;=&?' <>-]{0,40}".prop_map(|text| text.replace(' ', "+"))
    ];
    let agent = prop_oneof![Just("test".to_owned()), "[ -~]{0,40}"];
    let body = prop_oneof![Just(String::new()), "q=evil[a-z]{0,200}", "[ -~]{0,300}"];
    let kind =
        prop_oneof![Just("application/json"), Just("application/x-www-form-urlencoded"), Just("text/xml")];
    (target, agent, body, kind).prop_map(|(target, agent, body, kind)| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: {agent}\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
}

/// A response without what differs each time.
fn comparable(response: &str) -> String {
    response
        .lines()
        .filter(|line| !line.starts_with("x-request-id: ") && !line.starts_with("date: "))
        .map(|line| line.split("urn:portcullis:request:").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn mode_detect_never_changes_a_response() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (off, detect) = runtime.block_on(async {
        let hard = |config: &mut Config| {
            let mut route = Route::clone(&config.routes[0]);
            (route.on_error, route.oversize) = (OnError::Block, Oversize::Reject);
            config.routes = vec![Arc::new(route)];
            config.limits.inspect_bytes = 100;
        };
        let detect = site(Mode::Detect, hard).await;
        detect.gateway.blocks.block(block("ip:127.0.0.1"));
        (site(Mode::Off, hard).await, detect)
    });
    proptest!(ProptestConfig::with_cases(64), |(request in requests())| {
        let (plain, detected) =
            runtime.block_on(async { (off.raw(&request).await, detect.raw(&request).await) });
        prop_assert_eq!(comparable(&plain), comparable(&detected), "{}", request);
    });
    let flagged = detect.gateway.access_log.text().matches("waf.verdict\":\"blocked\"").count();
    assert!(flagged > 10, "the requests were recorded");
}
