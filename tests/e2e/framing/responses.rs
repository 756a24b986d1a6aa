//! Answers of a broken or hostile origin: the client gets one sound response or an error, and nobody gets what was
//! meant for another.

use std::net::SocketAddr;

use futures_util::future::join_all;

use super::{Gateway, HARMLESS, RawOrigin, Reply, Seen, Settings, bytes, exchange};
use crate::raw::{Outcome, Then};

/// What has to become of an answer.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// An error of the gateway.
    Refused,
    /// A response of which the client sees that it is not whole.
    Cut,
    /// This status and body.
    Passed(u16, &'static str),
    /// An error, or one whole response with this body.
    OneReading(&'static str),
}

use Fate::{Cut, OneReading, Passed, Refused};

/// What the origin sends (`|` stands for CRLF), what it does then, and what has to become of it.
const ANSWERS: &[(&str, Then, Fate)] = &[
    ("HTTP/1.1 200 OK|Content-Length: 2||ok", Then::Keep, Passed(200, "ok")),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||", Then::Keep, Passed(200, "ok")),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0|A: b||", Then::Keep, Passed(200, "ok")),
    ("HTTP/1.1 200 OK||until the end", Then::Close, Passed(200, "until the end")),
    ("HTTP/1.0 200 OK||until the end", Then::Close, Passed(200, "until the end")),
    ("HTTP/1.1 200 OK|Content-Length: 2||ok", Then::Close, Passed(200, "ok")),
    ("HTTP/1.1 200 OK|Content-Length: 2||ok", Then::HalfClose, Passed(200, "ok")),
    ("HTTP/1.1 200 A long reason\u{fc}|Content-Length: 2||ok", Then::Keep, Passed(200, "ok")),
    ("HTTP/1.1 100 Continue||HTTP/1.1 200 OK|Content-Length: 2||ok", Then::Keep, Passed(200, "ok")),
    ("HTTP/1.1 103 Early|Link: </a>||HTTP/1.1 200 OK|Content-Length: 2||ok", Then::Keep, Passed(200, "ok")),
    ("HTTP/1.1 204 No Content||HTTP/1.1 200 OK|Content-Length: 6||poison", Then::Keep, Passed(204, "")),
    ("HTTP/1.1 204 No Content|Content-Length: 6||poison", Then::Keep, OneReading("")),
    ("HTTP/1.1 304 Not Modified|Content-Length: 6||poison", Then::Keep, OneReading("")),
    // More than was said.
    (
        "HTTP/1.1 200 OK|Content-Length: 2||okHTTP/1.1 200 OK|Content-Length: 6||poison",
        Then::Keep,
        Passed(200, "ok"),
    ),
    ("HTTP/1.1 200 OK|Content-Length: 2||ok and more", Then::Keep, Passed(200, "ok")),
    (
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0||HTTP/1.1 200 OK|Content-Length: 6||poison",
        Then::Keep,
        Passed(200, "ok"),
    ),
    // Two readings.
    ("HTTP/1.1 200 OK|Content-Length: 2|Transfer-Encoding: chunked||2|ok|0||", Then::Keep, OneReading("ok")),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked|Content-Length: 7||2|ok|0||", Then::Keep, OneReading("ok")),
    ("HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 3||ok!", Then::Keep, Refused),
    ("HTTP/1.1 200 OK|Content-Length: 2|Content-Length: 2||ok", Then::Keep, OneReading("ok")),
    ("HTTP/1.1 200 OK|Content-Length: 2, 3||ok!", Then::Keep, Refused),
    ("HTTP/1.1 200 OK|Content-Length: +2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|Content-Length: 0x2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|Content-Length: 18446744073709551618||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|Content-Length : 2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|Transfer-Encoding:| chunked||2|ok|0||", Then::Close, Refused),
    ("HTTP/1.1 200 OK|A: b| c|Content-Length: 2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|A: b\rc|Content-Length: 2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|A: b\0c|Content-Length: 2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|A b: c|Content-Length: 2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|: c|Content-Length: 2||ok", Then::Close, Refused),
    ("HTTP/1.1 200 OK|abc|Content-Length: 2||ok", Then::Close, Refused),
    // Chunks.
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||x|ok|0||", Then::Keep, Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||0x2|ok|0||", Then::Keep, Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||+2|ok|0||", Then::Keep, Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||-2|ok|0||", Then::Keep, Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok!|0||", Then::Keep, Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||10000000000000002|ok|0||", Then::Keep, Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|", Then::Close, Cut),
    ("HTTP/1.1 200 OK|Transfer-Encoding: chunked||2|ok|0|", Then::Close, Cut),
    // Not all of it.
    ("HTTP/1.1 200 OK|Content-Length: 5||ok", Then::Close, Cut),
    ("HTTP/1.1 200 OK|Content-Length: 5||ok", Then::HalfClose, Cut),
    ("HTTP/1.1 200 OK|Content-Length: 5||ok", Then::Reset, Cut),
    ("HTTP/1.1 200 OK|Content-Length: 5|", Then::Close, Refused),
    ("HTTP/1.1 200", Then::Close, Refused),
    ("", Then::Close, Refused),
    ("", Then::HalfClose, Refused),
    ("", Then::Reset, Refused),
    ("", Then::Hang, Refused),
    // Not HTTP.
    ("ok", Then::Close, Refused),
    ("SSH-2.0-OpenSSH_9.9|", Then::Close, Refused),
    ("\0\x01\x02\x03", Then::Close, Refused),
    ("<html>ok</html>", Then::Close, Refused),
    ("HTTP/1.1 abc OK||", Then::Close, Refused),
    ("HTTP/1.1 99 OK||", Then::Close, Refused),
    ("HTTP/1.1 1000 OK||", Then::Close, Refused),
    ("HTTP/1.1  200 OK||", Then::Close, Refused),
    ("HTTP/2.0 200 OK|Content-Length: 2||ok", Then::Close, Refused),
    ("HTTP/0.9 200 OK|Content-Length: 2||ok", Then::Close, Refused),
    ("ICY 200 OK|Content-Length: 2||ok", Then::Close, Refused),
    // Nobody asked for it.
    ("HTTP/1.1 101 Switching Protocols|Connection: upgrade|Upgrade: x||ok", Then::Keep, Refused),
    ("HTTP/1.1 101 Switching Protocols||HTTP/1.1 200 OK|Content-Length: 2||ok", Then::Keep, Refused),
    // Without end.
    ("", Then::Repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Refused),
    (
        "HTTP/1.1 200 OK\r\n",
        Then::Repeat(b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n"),
        Refused,
    ),
    ("HTTP/1.1 200 OK\r\nA: ", Then::Repeat(b"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"), Refused),
    ("HTTP/1.1 200 ", Then::Repeat(b"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"), Refused),
    ("", Then::Repeat(b"\r\n"), Refused),
    ("", Then::Repeat(b"\0"), Refused),
];

/// The origin's answer by the number in the path; anything else gets its own path back, so that a mix-up shows.
fn reply(seen: &Seen) -> Reply {
    let path = seen.line().split(' ').nth(1).unwrap_or_default();
    let known = path.strip_prefix("/answer/").and_then(|number| ANSWERS.get(number.parse::<usize>().ok()?));
    match known {
        Some((text, then, _)) => Reply { bytes: bytes(text, HARMLESS), then: *then },
        None => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", path.len());
            Reply { bytes: [head.as_bytes(), path.as_bytes()].concat(), then: Then::Keep }
        }
    }
}

/// The body of the one response that came, if it is whole.
fn body(outcome: &Outcome) -> Option<String> {
    let text = outcome.text();
    let (head, body) = text.split_once("\r\n\r\n")?;
    if outcome.statuses.len() != 1 {
        return None;
    }
    if !head.contains("transfer-encoding: chunked") {
        return Some(body.to_owned());
    }
    // Data lines alternate with sizes.
    Some(body.split("\r\n").skip(1).step_by(2).collect())
}

fn is_met(outcome: &Outcome, fate: Fate) -> bool {
    let error = matches!(outcome.statuses.as_slice(), [502..=504]);
    match fate {
        Refused => error,
        Cut => error || outcome.statuses.is_empty(),
        Passed(status, text) => outcome.statuses == [status] && body(outcome).as_deref() == Some(text),
        OneReading(text) => error || body(outcome).as_deref() == Some(text),
    }
}

/// Asks for something else. The origin closes many connections at this time, and the gateway may meet some of them
/// before it knows.
async fn next(address: SocketAddr, number: usize) -> Outcome {
    let get = format!("GET /next/{number} HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut outcome = Outcome::default();
    for _ in 0..10 {
        outcome = exchange(address, get.as_bytes(), 1).await.unwrap();
        if outcome.statuses != [502] {
            break;
        }
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_answer_is_one_error_and_nobody_elses() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(reply).await.unwrap();
    let mut settings = Settings::new(origin.url());
    settings.mode = "detect";
    settings.route = vec!["timeout: 5s".to_owned()];
    let mut gateway = Gateway::start(directory.path(), &settings).await.unwrap();
    let address = gateway.address();
    let outcomes = join_all(ANSWERS.iter().enumerate().map(|(number, (text, then, fate))| async move {
        let get = format!("GET /answer/{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        let outcome = exchange(address, get.as_bytes(), 1).await.unwrap();
        // Whatever connection it takes, nothing is left on it.
        let next = next(address, number).await;
        let sound = body(&next) == Some(format!("/next/{number}"));
        let failure = format!("{text:?}, {then:?}: not {fate:?} but\n{}\n{}", outcome.text(), next.text());
        (!is_met(&outcome, *fate) || !sound).then_some(failure)
    }))
    .await;
    let failures: Vec<String> = outcomes.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), ANSWERS.len(), failures.join("\n\n"));
    assert!(gateway.process().is_running().unwrap());
}
