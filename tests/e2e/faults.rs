//! What fails around the gateway: origins, names, file descriptors, the disk. Each has its documented answer, and all is
//! well again when the fault ends, without a restart.

use std::{fs, net::SocketAddr, time::Duration};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tests::{
    gateway::{Gateway, Settings},
    ports,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    raw::{RawOrigin, Reply, Seen, Then, exchange},
    wire::{INJECTION, segment_events},
};

/// How long recovery may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn reply(seen: &Seen) -> Reply {
    let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe".to_vec();
    match seen.line().split(' ').nth(1) {
        Some("/hang") => Reply { bytes: Vec::new(), then: Then::Hang },
        Some("/stop") => Reply { bytes: begun, then: Then::Close },
        Some("/reset") => Reply { bytes: begun, then: Then::Reset },
        Some("/slow") => Reply { bytes: begun, then: Then::Slowly(b"llo") },
        _ => Reply::ok(),
    }
}

async fn get(gateway: &Gateway, path: &str) -> Vec<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    exchange(gateway.address(), request.as_bytes(), 1).await.unwrap().statuses
}

/// Waits until requests are served.
async fn recovery(gateway: &Gateway) {
    let served = async {
        while get(gateway, "/").await != [200] {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("it recovers");
}

/// Changes what the gateway may use up, which it inherited from this process; without a number back to that.
fn limit(gateway: &Gateway, resource: Resource, most: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(gateway.watch().pid()).unwrap());
    let inherited = getrlimit(resource);
    let current = most.or(inherited.current);
    prlimit(pid, resource, Rlimit { current, maximum: inherited.maximum }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_may_fail_in_every_way() {
    let directory = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], ports::free().unwrap()));
    let origin = RawOrigin::start_at(address, reply).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.route = vec!["timeout: 2s".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    recovery(&gateway).await;
    assert_eq!(get(&gateway, "/slow").await, [200]);
    assert_eq!(get(&gateway, "/hang").await, [504]);
    // What was begun cannot be taken back: the client sees that it is not whole.
    for path in ["/stop", "/reset"] {
        assert_eq!(get(&gateway, path).await, [0_u16; 0], "{path}");
    }
    recovery(&gateway).await;
    drop(origin);
    let refused = async {
        while !matches!(get(&gateway, "/").await.as_slice(), [502 | 503]) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("there is no origin");
    let _origin = RawOrigin::start_at(address, reply).await.unwrap();
    recovery(&gateway).await;
    assert!(gateway.process().is_running().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_may_be_unknown_until_it_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let mut settings = Settings::new("http://nowhere.invalid".to_owned());
    settings.route = vec!["timeout: 5s".to_owned()];
    let gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let answer = get(&gateway, "/").await;
    assert!(matches!(answer.as_slice(), [502..=504]), "{answer:?}");
    let file = directory.path().join("portcullis.yaml");
    let mended = fs::read_to_string(&file).unwrap().replace("http://nowhere.invalid", &origin.url());
    fs::write(&file, mended).unwrap();
    recovery(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_descriptors_may_run_out() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let mut gateway = Gateway::start(directory.path(), &Settings::new(origin.url())).await.unwrap();
    recovery(&gateway).await;
    let mut kept = TcpStream::connect(gateway.address()).await.unwrap();
    let ask = async |stream: &mut TcpStream| {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 4096];
        let size = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&answer[..size]).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(ask(&mut kept).await, "200");
    let used = fs::read_dir(format!("/proc/{}/fd", gateway.watch().pid())).unwrap().count() as u64;
    limit(&gateway, Resource::Nofile, Some(used + 4));
    let mut waiting = Vec::new();
    for _ in 0..40 {
        waiting.push(TcpStream::connect(gateway.address()).await.unwrap());
    }
    let full = async {
        while !gateway.watch().log().contains("cannot accept connections") {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, full).await.expect("it says so");
    // Who is there already is served.
    assert_eq!(ask(&mut kept).await, "200");
    drop(waiting);
    recovery(&gateway).await;
    limit(&gateway, Resource::Nofile, None);
    let refused = gateway.metric("portcullis_connection_errors_total{reason=\"accept\"}").await.unwrap();
    assert!(refused >= 1.0, "{refused}");
    assert!(gateway.process().is_running().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_may_be_full() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.waf = vec!["block_clients: off".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    recovery(&gateway).await;
    // Not a byte more fits into any file, the log included.
    limit(&gateway, Resource::Fsize, Some(0));
    for _ in 0..200 {
        assert_eq!(get(&gateway, "/").await, [200]);
        assert_eq!(get(&gateway, INJECTION).await, [403]);
    }
    assert!(gateway.process().is_running().unwrap());
    limit(&gateway, Resource::Fsize, None);
    let state = gateway.state();
    let known = segment_events(&state).len();
    let written = async {
        while segment_events(&state).len() <= known {
            assert_eq!(get(&gateway, INJECTION).await, [403]);
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, written).await.expect("events are written again");
}
