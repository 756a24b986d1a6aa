//! `gateway run --upstream` with nothing else: proxies, protects at once, and explains.

use std::{net::SocketAddr, process::Command, time::Duration};

use tests::{
    client::Client,
    crowd::made_by_gateway,
    origin::Origin,
    ports,
    process::{Process, binary},
};

use crate::wire::INJECTION;

#[tokio::test(flavor = "multi_thread")]
async fn one_command_protects_and_explains() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free().unwrap()));
    let state = directory.path().join("state");
    let mut command = Command::new(binary("gateway").unwrap());
    command
        .args(["run", "--upstream", &origin.url(), "--listen", &address.to_string(), "--state"])
        .arg(&state);
    // The quick start listens for administration on a fixed port, which another test may hold.
    command.env("PORTCULLIS_ADMIN", format!("127.0.0.1:{}", ports::free().unwrap()));
    let mut gateway = Process::spawn("gateway", &mut command, directory.path()).unwrap();
    let client = Client::new(address);
    gateway
        .wait_until("serving", Duration::from_secs(20), async || client.get("/healthz").await.is_ok())
        .await
        .unwrap();

    let benign = client.get("/api/products/7?ref=mail").await.unwrap();
    assert_eq!(benign.status, 200);
    assert!(
        benign.body.starts_with(b"{\"id\":7") || benign.body.windows(6).any(|w| w == b"\"id\":7"),
        "{:?}",
        benign.body
    );
    assert!(benign.request_id().is_some());

    let before = origin.requests();
    let attack = client.get(INJECTION).await.unwrap();
    assert_eq!(attack.status, 403);
    assert!(made_by_gateway(&attack));
    assert_eq!(origin.requests(), before, "a rejected request must not reach the origin");
    let id = attack.request_id().expect("a request id").to_owned();
    let problem: serde_json::Value = serde_json::from_slice(&attack.body).unwrap();
    assert!(problem.to_string().contains(&id), "{problem}");
    for secret in ["rule", "sql", "injection", "942", &origin.address().to_string()] {
        assert!(
            !problem.to_string().to_lowercase().contains(secret),
            "the client is told too much: {problem}"
        );
    }

    let output = Command::new(binary("gateway").unwrap())
        .args(["explain", &id, "--state"])
        .arg(&state)
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("ARGS:id"), "it does not say where: {text}");
    assert!(text.to_lowercase().contains("sql"), "it does not say which rule: {text}");
    assert!(text.contains('\''), "it does not show what matched: {text}");
}
