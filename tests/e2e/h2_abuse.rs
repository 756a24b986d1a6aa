//! HTTP/2 frame by frame, as no honest client sends it: every odd request is refused or forwarded in one form, and no
//! flood keeps the gateway from answering others or fills its memory.

use std::{fs, time::Duration};

use tests::gateway::{Gateway, Settings};

use crate::{
    h2_abuse::client::{Client, field, indexed},
    raw::{RawOrigin, Reply, Then},
};

mod client;
mod requests;

/// How much more memory a flood may take, whatever it sends.
const MEMORY: u64 = 96 * 1024 * 1024;

/// Memory that a process holds.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn get(path: &str) -> Vec<u8> {
    [field(":method", "GET"), field(":scheme", "http"), field(":path", path), field(":authority", "a")]
        .concat()
}

/// One flood: sends until the connection ends; true if it did.
async fn flood(gateway: &Gateway, name: &str) -> bool {
    let mut client = Client::connect(gateway.address()).await;
    let mut stream = 1_u32;
    // Many times what any limit allows, and few enough to be over soon where there is none.
    for round in 0..40_000_u32 {
        let mut frames = Vec::new();
        match name {
            "rapid reset" => {
                frames.extend(client::headers(stream, 0x5, &get("/flood")));
                frames.extend(client::frame(3, 0, stream, &8_u32.to_be_bytes()));
                stream += 2;
            }
            "made you reset by a window of nothing" => {
                frames.extend(client::headers(stream, 0x5, &get("/flood")));
                frames.extend(client::frame(8, 0, stream, &[0; 4]));
                stream += 2;
            }
            "made you reset by too large a window" => {
                frames.extend(client::headers(stream, 0x5, &get("/flood")));
                frames.extend(client::frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff]));
                stream += 2;
            }
            "made you reset by too much data" => {
                let head = [get("/flood"), field("content-length", "0")].concat();
                frames.extend(client::headers(stream, 0x4, &head));
                frames.extend(client::frame(0, 1, stream, b"x"));
                stream += 2;
            }
            "made you reset by a dependency on itself" => {
                frames.extend(client::headers(stream, 0x5, &get("/flood")));
                frames.extend(client::frame(2, 0, stream, &[stream.to_be_bytes().as_slice(), &[1]].concat()));
                stream += 2;
            }
            "continuations" if round == 0 => frames.extend(client::headers(1, 0, &get("/flood"))),
            "continuations" => frames.extend(client::frame(9, 0, 1, &field("a", &"b".repeat(100)))),
            "empty continuations" if round == 0 => frames.extend(client::headers(1, 0, &get("/flood"))),
            "empty continuations" => frames.extend(client::frame(9, 0, 1, b"")),
            "settings" => frames.extend(client::frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
            "empty settings" => frames.extend(client::frame(4, 0, 0, b"")),
            "pings" => frames.extend(client::frame(6, 0, 0, &[7; 8])),
            "answers to pings" => frames.extend(client::frame(6, 1, 0, &[7; 8])),
            "priorities" => frames.extend(client::frame(2, 0, stream + 2, &[0, 0, 0, 0, 1])),
            "windows" => frames.extend(client::frame(8, 0, 0, &1_u32.to_be_bytes())),
            "empty data" if round == 0 => {
                let head = [field(":method", "POST"), get("/flood").split_off(field(":method", "GET").len())];
                frames.extend(client::headers(1, 0x4, &head.concat()));
            }
            "empty data" => frames.extend(client::frame(0, 0, 1, b"")),
            "padding" if round == 0 => {
                let head = [field(":method", "POST"), get("/flood").split_off(field(":method", "GET").len())];
                frames.extend(client::headers(1, 0x4, &head.concat()));
            }
            "padding" => frames.extend(client::frame(0, 8, 1, &[3, 0, 0, 0])),
            "unknown frames" => frames.extend(client::frame(0x42, 0, 0, b"grease")),
            "a bomb of references" if round == 0 => {
                // One large entry in the table, then nothing but references to it.
                let large = client::entered("a", &"b".repeat(3_900));
                frames.extend(client::headers(1, 0x5, &[get("/flood"), large].concat()));
                stream = 3;
            }
            "a bomb of references" => {
                let head = [get("/flood"), indexed(62).repeat(16_000)].concat();
                frames.extend(client::headers(stream, 0x5, &head));
                stream += 2;
            }
            "crumbs of cookies" => {
                let head = [get("/flood"), field("cookie", "").repeat(1_000)].concat();
                frames.extend(client::headers(stream, 0x5, &head));
                stream += 2;
            }
            other => panic!("no flood is called {other}"),
        }
        if !client.send(&frames).await {
            return true;
        }
    }
    client.ends().await
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_and_nobody_else_notices() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(|_| Reply::ok()).await.unwrap();
    let mut gateway = Gateway::start(directory.path(), &Settings::new(origin.url())).await.unwrap();
    let pid = gateway.process().pid();
    let before = resident(pid);
    let mut endless = Vec::new();
    for name in [
        "rapid reset",
        "made you reset by a window of nothing",
        "made you reset by too large a window",
        "made you reset by too much data",
        "made you reset by a dependency on itself",
        "continuations",
        "empty continuations",
        "settings",
        "empty settings",
        "pings",
        "answers to pings",
        "priorities",
        "windows",
        "empty data",
        "padding",
        "unknown frames",
        "a bomb of references",
        "crumbs of cookies",
    ] {
        let other = gateway.client();
        let (ended, other) = tokio::join!(flood(&gateway, name), other.get("/other"));
        let other = other.unwrap_or_else(|error| panic!("{name}: {error:#}\n{}", gateway.watch().log()));
        assert_eq!(other.status, 200, "{name}");
        if !ended {
            endless.push(name);
        }
        let grown = resident(pid).saturating_sub(before);
        assert!(grown < MEMORY, "{name}: {grown} bytes more");
    }
    assert!(endless.is_empty(), "without end: {endless:?}");
    let floods = gateway.metric("portcullis_connection_errors_total").await.unwrap();
    assert!(floods >= 7.0, "{floods}");
    // The origin is not what a flood reaches: requests that were taken back did not all go there.
    assert!(origin.seen().len() < 8_000, "{}", origin.seen().len());
    assert!(gateway.process().is_running().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut_off_and_fills_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let large = 2 * 1024 * 1024;
    let answer =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {large}\r\n\r\n").into_bytes(), vec![b'x'; large]];
    let origin = RawOrigin::start(move |_| Reply { bytes: answer.concat(), then: Then::Keep }).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.more = vec!["limits: {keep_alive: 2s}".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let pid = gateway.process().pid();
    let before = resident(pid);
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let mut client = Client::with_settings(gateway.address(), &[(4, 0)]).await;
    for stream in 0..100 {
        // On a machine that is held up it may be cut off already.
        client.send(&client::headers(stream * 2 + 1, 5, &get("/large"))).await;
    }
    gateway.wait_metric("portcullis_connection_errors_total", 1.0, Duration::from_secs(20)).await.unwrap();
    let grown = resident(pid).saturating_sub(before);
    assert!(grown < MEMORY, "{grown} bytes more");
    assert!(client.ends().await);
    assert_eq!(gateway.client().get("/other").await.unwrap().body.len(), large);
}
