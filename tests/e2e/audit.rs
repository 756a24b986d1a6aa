//! The audit log after real actions: whole, complete, and without secrets, whatever happens to gateway, disk and files.

use std::{fs, path::Path, time::Duration};

use gateway::audit::chain;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tests::{
    client::Client,
    gateway::{Gateway, Settings},
    origin::Origin,
};
use tokio::time::{Instant, sleep};

use crate::{
    admin::{ask, token, tokens},
    wire::{INJECTION, get},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `gateway audit verify` with further arguments.
async fn verify(gateway: &Gateway, more: &[&str]) -> (i32, String) {
    gateway.command(&[&["audit", "verify"], more].concat()).await.unwrap()
}

async fn head(gateway: &Gateway) -> String {
    let (code, text) = gateway.command(&["audit", "head"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    text.trim().to_owned()
}

async fn entries(gateway: &Gateway) -> Vec<Value> {
    gateway.list(&["audit", "show", "--limit", "100000"]).await.unwrap()
}

/// Actor, action and object of each entry.
fn lines(entries: &[Value]) -> Vec<String> {
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    entries.iter().map(|e| ["actor", "action", "object"].map(|name| text(e, name)).join(" ")).collect()
}

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_the_gateway_is_in_a_whole_log_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let (certificate, key) = (directory.path().join("site.pem"), directory.path().join("site.key"));
    let install = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    };
    install();
    let secret = "planted-zq7x-secret-of-a-signing-key-that-is-long";
    let mut settings = Settings::new(origin.url());
    settings.admin = vec![tokens()];
    settings.more = vec![
        "auth: {methods: {signed: {signature: {}}}}".to_owned(),
        format!("consumers: [{{name: acme, signing_keys: [{{id: a, secret: {secret}}}]}}]"),
    ];
    let tls = format!(
        "- {{name: secure, address: \"127.0.0.1:0\", tls: {{certificate: {}, key: {}}}}}",
        certificate.display(),
        key.display()
    );
    settings.listener = vec!["redirect_to_https: off".to_owned(), format!("\n  {tls}")];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let file = directory.path().join("portcullis.yaml");

    // The gateway blocks by itself, people release, allow and reload.
    let attacker = "198.51.100.7";
    for _ in 0..12 {
        assert_eq!(gateway.client().send(&get(INJECTION, attacker)).await.unwrap().status, 403);
    }
    for arguments in [&["blocks", "release", attacker][..], &["allow", "add", "192.0.2.0/24"]] {
        let (code, text) = gateway.command(arguments).await.unwrap();
        assert_eq!(code, 0, "{text}");
    }
    edit(&file, "mode: block", "mode: blok");
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert!(code == 1 && text.contains("blok"), "{text}");
    edit(&file, "mode: blok", "mode: detect");
    edit(&file, secret, "planted-zq7x-another-secret-of-a-signing-key");
    let (http, base) = (Client::new(gateway.admin()), format!("http://{}", gateway.admin()));
    let operator = format!("Bearer {}", token("operator").0);
    let headers = [("authorization", operator.as_str())];
    let answer = ask(&http, &base, "POST", "/v1/config/reload", &headers, None).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    install();
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    edit(&file, "mode: detect", "mode: on fire");
    let answer = ask(&http, &base, "POST", "/v1/config/reload", &headers, None).await;
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert!(
        answer.status == 422 && told["refused"].as_str().is_some_and(|why| why.contains("on fire")),
        "{told}"
    );
    gateway.process().signal("TERM").unwrap();
    assert!(gateway.process().wait_exit(PATIENCE).await.unwrap().success());

    let entries = entries(&gateway).await;
    let lines = lines(&entries);
    let me = format!("uid:{}", rustix::process::getuid().as_raw());
    let state = gateway.state();
    let expected = [
        format!("gateway gateway.start {}", state.display()),
        format!("gateway block.put ip:{attacker}"),
        format!("{me} block.release ip:{attacker}"),
        format!("{me} allow.set 192.0.2.0/24"),
        format!("{me} config.refused by order"),
        "token:operator config.reload by order".to_owned(),
        format!("gateway certificate.changed {}", certificate.display()),
        "token:operator config.refused by order".to_owned(),
        format!("gateway gateway.stop {}", state.display()),
    ];
    let mut rest = lines.iter();
    for line in &expected {
        assert!(rest.any(|found| found == line), "{line} is not in its place in\n{}", lines.join("\n"));
    }
    let put = entries.iter().find(|entry| entry["action"] == "block.put").unwrap();
    assert!(put["after"]["reason"].as_str().is_some_and(|reason| reason.contains("evidence")), "{put}");
    // By whichever reload it came: the file is watched, too.
    let reloads = entries.iter().filter(|entry| entry["action"] == "config.reload");
    let changed = reloads.map(|entry| entry["after"]["changes"].to_string()).collect::<String>();
    for path in ["routes[shop].waf.mode", "consumers[acme].signing_keys[0].secret"] {
        assert!(changed.contains(path), "{path} is not in {changed}");
    }
    let (code, text) = verify(&gateway, &[]).await;
    assert!(code == 0 && text.starts_with("whole: "), "{text}");

    // Neither tokens nor what was configured stand anywhere.
    let mut files = Vec::new();
    crate::secrets::files(directory.path(), &mut files);
    for path in files.iter().filter(|path| !path.ends_with("portcullis.yaml")) {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"planted"), "{}", path.display());
    }

    // Whatever is done to the files is found, and the first entry named.
    let log = chain::files(&state.join("audit")).unwrap().pop().unwrap();
    let whole = fs::read_to_string(&log).unwrap();
    let noted = head(&gateway).await;
    let place = lines.iter().position(|line| line.contains("block.release")).unwrap() + 1;
    fs::write(&log, whole.replacen("block.release", "block.confirm", 1)).unwrap();
    let (code, text) = verify(&gateway, &[]).await;
    assert!(code == 1 && text.contains(&format!("NOT WHOLE: entry {place} ")), "{text}");
    let without: Vec<&str> = whole.lines().filter(|line| !line.contains("block.release")).collect();
    fs::write(&log, without.join("\n") + "\n").unwrap();
    let (code, text) = verify(&gateway, &[]).await;
    assert!(code == 1 && text.contains(&format!("NOT WHOLE: entry {place} ")), "{text}");
    let cut = whole.trim_end().rfind('\n').unwrap() + 1;
    fs::write(&log, &whole[..cut]).unwrap();
    assert_eq!(verify(&gateway, &[]).await.0, 0, "nothing shows that the end is gone");
    let (code, text) = verify(&gateway, &["--head", &noted]).await;
    assert!(code == 1 && text.contains("cut off"), "but for a head that was noted: {text}");
    fs::write(&log, &whole).unwrap();
    assert_eq!(verify(&gateway, &["--head", &noted]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_order_is_in_the_log_though_the_gateway_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Settings::new("http://127.0.0.1:9".to_owned());
    settings.admin = vec![tokens()];
    settings.more = vec!["audit: {rotate: 16KiB}".to_owned()];
    let mut noted: Option<String> = None;
    let mut answered = Vec::new();
    for round in 0..2 {
        let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
        let (address, base) = (gateway.admin(), format!("http://{}", gateway.admin()));
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let base = base.clone();
                tokio::spawn(async move {
                    let (http, mut done) = (Client::new(address), Vec::new());
                    let operator = format!("Bearer {}", token("operator").0);
                    for number in 0.. {
                        let (high, low) = (number / 256, number % 256);
                        let network = format!("10.{}.{high}.{low}/32", round * 3 + worker);
                        let order = serde_json::json!({ "network": network, "allowed": true });
                        let request = http::Request::post(format!("{base}/v1/allow"))
                            .header("authorization", &operator)
                            .header("content-type", "application/json")
                            .body(http_body_util::Full::from(order.to_string()))
                            .unwrap();
                        match http.exchange(request).await {
                            Ok(answer) if answer.status == 200 => done.push(network),
                            Ok(answer) => panic!("{}", answer.status),
                            Err(_) => return done,
                        }
                    }
                    done
                })
            })
            .collect();
        gateway.wait_metric("portcullis_audit_entries_total", 60.0, PATIENCE).await.unwrap();
        gateway.process().kill().unwrap();
        for worker in workers {
            answered.extend(worker.await.unwrap());
        }
        let more: Vec<&str> = noted.iter().flat_map(|head| ["--head", head.as_str()]).collect();
        let (_, text) = verify(&gateway, &more).await;
        // The kill may have come while an entry was written: then the next start states it.
        assert!(text.starts_with("whole: ") || text.contains("at the end are no entry"), "{text}");
        if text.starts_with("whole: ") {
            noted = Some(head(&gateway).await);
        }
        // What a crash of the machine could leave.
        let last = chain::files(&gateway.state().join("audit")).unwrap().pop().unwrap();
        let mut torn = fs::read(&last).unwrap();
        torn.extend_from_slice(b"{\"seq\":99999,\"at\":\"20");
        fs::write(&last, torn).unwrap();
    }
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let (code, text) = gateway.command(&["allow", "add", "192.0.2.0/24"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    let more: Vec<&str> = noted.iter().flat_map(|head| ["--head", head.as_str()]).collect();
    let (code, text) = verify(&gateway, &more).await;
    assert!(code == 0 && text.matches("bytes that are none").count() == 2, "{text}");
    let lines = lines(&entries(&gateway).await);
    assert!(answered.len() >= 100, "{}", answered.len());
    for network in &answered {
        let line = format!("token:operator allow.set {network}");
        assert_eq!(lines.iter().filter(|found| **found == line).count(), 1, "{line}");
    }
    assert_eq!(lines.iter().filter(|line| line.contains("gateway.start")).count(), 3);
    assert_eq!(lines.iter().filter(|line| line.contains("audit.torn")).count(), 2);
    assert!(chain::files(&gateway.state().join("audit")).unwrap().len() > 1, "it rotates");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_neither_requests_nor_orders() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let gateway = Gateway::start(directory.path(), &Settings::new(origin.url())).await.unwrap();
    let pid = Pid::from_raw(i32::try_from(gateway.watch().pid()).unwrap());
    let inherited = getrlimit(Resource::Fsize);
    let limit = |most: Option<u64>| {
        let current = most.or(inherited.current);
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: inherited.maximum }).unwrap();
    };
    assert_eq!(verify(&gateway, &[]).await.0, 0);
    limit(Some(0));
    let (code, text) = gateway.command(&["breaker", "reset"]).await.unwrap();
    assert!(code == 1 && text.contains("no model"), "{text}");
    assert_eq!(gateway.client().get("/api/products/1").await.unwrap().status, 200);
    gateway.wait_metric("portcullis_audit_errors_total", 1.0, PATIENCE).await.unwrap();
    assert!(gateway.command(&["status", "-o", "json"]).await.unwrap().1.contains("\"failing\": true"));
    assert_eq!(gateway.client().get("/api/products/1").await.unwrap().status, 200);
    limit(None);
    let deadline = Instant::now() + PATIENCE;
    while gateway.metric("portcullis_audit_sequence").await.unwrap() < 2.0 {
        assert!(Instant::now() < deadline, "{}", gateway.watch().log());
        sleep(Duration::from_millis(50)).await;
    }
    let lines = lines(&entries(&gateway).await);
    assert!(lines.iter().any(|line| line.contains("breaker.reset")), "{lines:?}");
    assert_eq!(verify(&gateway, &[]).await.0, 0);
}
