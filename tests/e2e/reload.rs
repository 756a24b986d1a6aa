//! A new configuration while the gateway runs: what is right is in force at once and costs no request, what is wrong
//! changes nothing and says why.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd,
    path::Path,
    process::Command,
    time::Duration,
};

use tests::{
    asking::{Asking, Kept},
    client::Client,
    gateway::{Gateway, Settings},
    origin::Origin,
    ports,
    process::{Process, binary},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_gateway_takes_over_at_the_same_address() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.port = Some(ports::free().unwrap());
    let mut first = Gateway::start(&directory.path().join("alone"), &settings).await.unwrap();
    assert!(Gateway::start(&directory.path().join("refused"), &settings).await.is_err());
    first.process().kill().unwrap();

    settings.listener = vec!["reuse_port: on".to_owned()];
    let mut first = Gateway::start(&directory.path().join("first"), &settings).await.unwrap();
    assert_eq!(first.client().get("/").await.unwrap().status, 200);
    let second = Gateway::start(&directory.path().join("second"), &settings).await.unwrap();
    first.process().signal("TERM").unwrap();
    let gone = async {
        while first.process().is_running().unwrap() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the first gateway does not end");
    let before = second.metric("portcullis_http_requests_total").await.unwrap();
    for _ in 0..20 {
        // Each by a connection of its own.
        assert_eq!(second.client().get("/").await.unwrap().status, 200);
    }
    assert_eq!(second.metric("portcullis_http_requests_total").await.unwrap(), before + 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_changes_nothing_and_what_is_right_is_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let gateway = Gateway::start(directory.path(), &Settings::new(origin.url())).await.unwrap();
    let file = directory.path().join("portcullis.yaml");
    let path = file.to_str().unwrap();
    let attack = crate::wire::INJECTION;
    assert_eq!(gateway.client().get(attack).await.unwrap().status, 403);
    let (code, text) = gateway.command(&["diff", "--config", path]).await.unwrap();
    assert_eq!((code, text.trim()), (0, "nothing differs"));

    // A mistake: refused, named, and the rules still protect.
    edit(&file, "mode: block", "mode: blok");
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert!(code == 1 && text.contains("refused") && text.contains("blok"), "{code}: {text}");
    assert_eq!(gateway.client().get(attack).await.unwrap().status, 403);

    // What needs a restart is named, too.
    edit(&file, "mode: blok", "mode: block");
    edit(&file, "version: 1\n", "version: 1\nevents_per_second: 7\n");
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert!(code == 1 && text.contains("events_per_second cannot change"), "{code}: {text}");

    // The difference is shown before it is made, and the changed file is taken without an order.
    edit(&file, "events_per_second: 7\n", "");
    let other = directory.path().join("other.yaml");
    fs::copy(&file, &other).unwrap();
    edit(&other, "mode: block", "mode: detect");
    let (code, text) = gateway.command(&["diff", "--config", other.to_str().unwrap()]).await.unwrap();
    assert_eq!(code, 2, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, ["- routes[shop].waf.mode: \"block\"", "+ routes[shop].waf.mode: \"detect\""]);
    edit(&file, "mode: block", "mode: detect");
    let accepted = "portcullis_config_reloads_total";
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while gateway.client().get(attack).await.unwrap().status != 200 {
        assert!(tokio::time::Instant::now() < deadline, "{}", gateway.watch().log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(gateway.metric(accepted).await.unwrap() >= 3.0);

    // Listeners come and go, and one may take over another's address.
    let second = SocketAddr::from(([127, 0, 0, 1], ports::free().unwrap()));
    edit(&file, "listeners:\n", &format!("listeners:\n  - name: second\n    address: {second}\n"));
    gateway.watch().signal("HUP").unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while Client::new(second).get("/api/products/1").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "{}", gateway.watch().log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    edit(&file, "name: second", "name: other");
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    assert_eq!(Client::new(second).get("/api/products/1").await.unwrap().status, 200);
    edit(&file, &format!("  - name: other\n    address: {second}\n"), "");
    let (code, text) = gateway.command(&["reload"]).await.unwrap();
    assert_eq!(code, 0, "{text}");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while Client::new(second).get("/api/products/1").await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "the removed listener still answers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(gateway.client().get("/api/products/1").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_and_new_certificates_cost_no_request() {
    // Another test may have installed it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let made: Vec<_> =
        (0..3).map(|_| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()).collect();
    let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let install = |index: usize| {
        let pair = &made[index % made.len()];
        fs::write(&certificate, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    };
    install(0);
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.tls = Some((certificate.clone(), key.clone()));
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let bundle: String = made.iter().map(|pair| pair.cert.pem()).collect();
    let url = format!("https://localhost:{}/api/products/1", gateway.address().port());
    let asking = Asking::start(&url, Some(&bundle), Kept::Half, 4).unwrap();
    asking.wait_asked(20).await.unwrap();
    for round in 0..9 {
        if round % 3 == 0 {
            install(1 + round / 3);
        }
        let (code, text) = gateway.command(&["reload"]).await.unwrap();
        assert_eq!(code, 0, "{text}");
        asking.wait_asked(10).await.unwrap();
    }
    // The last certificate is the one that new connections see.
    let only = |index: usize| {
        let root = reqwest::Certificate::from_pem(made[index].cert.pem().as_bytes()).unwrap();
        reqwest::Client::builder().tls_certs_only([root]).timeout(PATIENCE).build().unwrap()
    };
    assert_eq!(only(0).get(&url).send().await.unwrap().status(), 200);
    assert!(only(1).get(&url).send().await.is_err());
    assert_eq!(asking.end().await.unwrap(), [""; 0]);
}

/// A gateway as a supervisor starts it: with a socket that was opened before.
fn start_with(socket: &TcpListener, directory: &Path) -> Process {
    let mut command = Command::new(binary("gateway").unwrap());
    command.args(["run", "--config"]).arg(directory.join("portcullis.yaml"));
    command.env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", socket.as_raw_fd().to_string());
    Process::spawn("gateway", &mut command, directory).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_behind_a_handed_over_socket_loses_no_connection() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start(Duration::ZERO).await.unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
    let address = socket.local_addr().unwrap();
    let admin = ports::free().unwrap();
    let text = format!(
        "version: 1\nstate: {}\nadmin: 127.0.0.1:{admin}\nlisteners:\n  - name: main\n    address: {address}\n\
         routes:\n  - name: shop\n    upstreams:\n      - url: {}\n",
        directory.path().join("state").display(),
        origin.url()
    );
    fs::write(directory.path().join("portcullis.yaml"), text).unwrap();
    let mut gateway = start_with(&socket, directory.path());
    // A request on a kept connection may cross its end, as with every server; a new connection has no such excuse.
    let asking = Asking::start(&format!("http://{address}/api/products/1"), None, Kept::None, 4).unwrap();
    for _ in 0..2 {
        asking.wait_asked(50).await.unwrap();
        gateway.signal("TERM").unwrap();
        assert!(gateway.wait_exit(PATIENCE).await.unwrap().success());
        gateway = start_with(&socket, directory.path());
    }
    asking.wait_asked(50).await.unwrap();
    assert_eq!(asking.end().await.unwrap(), [""; 0], "{}", gateway.log());
}
