//! Whose end of a message it is: a corpus of raw requests and responses that parsers read differently, against a real
//! gateway in front of an origin that keeps every byte.
//!
//! Each case is sent twice, with a harmless word and with one that a rule forbids: what the origin sees, the WAF saw.

use std::{fs, path::Path};

use tests::gateway::{Gateway, Settings};

use crate::{
    framing::cases::{ALL, Case, Expect},
    raw::{RawOrigin, Reply, Seen, exchange},
};

mod cases;
mod responses;

/// The word that no rule knows, and the one that is forbidden: equally long.
const HARMLESS: &str = "harmle";
const FORBIDDEN: &str = "wicked";

/// Fields that concern one connection or that only a gateway may write; folded.
const FOREIGN: [&str; 15] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
    "http2-settings",
    "expect",
    "forwarded",
    "x-real-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-consumer-username",
    "proxy",
];

async fn start(directory: &Path, origin: &RawOrigin) -> Gateway {
    let rules = directory.join("rules.conf");
    fs::write(
        &rules,
        format!(
            "SecRule REQUEST_LINE|REQUEST_HEADERS|REQUEST_BODY|ARGS \"@contains {FORBIDDEN}\" \
             \"id:9000001,phase:2,deny,status:403,msg:'the forbidden word'\"\n"
        ),
    )
    .unwrap();
    let mut settings = Settings::new(origin.url());
    settings.waf = vec![
        format!("rule_sets: {{own: [{}]}}", rules.display()),
        "rules: [own]".to_owned(),
        "block_clients: off".to_owned(),
    ];
    Gateway::start(directory, &settings).await.unwrap()
}

/// The bytes of a text of the corpus.
fn bytes(text: &str, word: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    // `{t_` and `_t}` are the two halves of the word.
    let text = text.replace("{t}", word);
    let text = text.replace("{t_", &word[..3]).replace("_t}", &word[3..]);
    for character in text.chars() {
        match character {
            '|' => bytes.extend_from_slice(b"\r\n"),
            '¦' => bytes.push(b'|'),
            other => match u8::try_from(u32::from(other)) {
                Ok(byte) => bytes.push(byte),
                Err(_) => bytes.extend_from_slice(other.to_string().as_bytes()),
            },
        }
    }
    bytes
}

/// What is wrong with a message as the gateway sent it.
fn flaws(seen: &Seen) -> Vec<String> {
    let mut flaws = Vec::new();
    let line: Vec<&str> = seen.line().split(' ').collect();
    if line.len() != 3 || !line[1].starts_with('/') || line[2] != "HTTP/1.1" {
        flaws.push(format!("the request line {:?}", seen.line()));
    }
    if seen.head.trim_end_matches("\r\n").split("\r\n").any(|line| line.contains(['\r', '\n', '\0'])) {
        flaws.push("control characters in a line".to_owned());
    }
    for (name, value) in seen.fields() {
        let folded = name.to_ascii_lowercase().replace(['_', '.'], "-");
        let is_alias = folded != name.to_ascii_lowercase();
        let frames = ["content-length", "transfer-encoding", "content-type", "host"].contains(&&*folded);
        let forwarded = folded.starts_with("x-forwarded-") || folded == "x-request-id";
        if FOREIGN.contains(&&*folded) || (is_alias && (frames || forwarded)) {
            flaws.push(format!("the field {name}: {value}"));
        }
    }
    for name in ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "x-request-id"] {
        let count = seen.values(name).count();
        if count != 1 {
            flaws.push(format!("{name} {count} times"));
        }
    }
    flaws
}

fn lines(seen: &[Seen]) -> Vec<(String, String)> {
    seen.iter()
        .map(|seen| (seen.line().to_owned(), seen.body.iter().map(|byte| char::from(*byte)).collect()))
        .collect()
}

/// Sends a case with a word; returns what is wrong, and how many messages the origin rightly got.
async fn judge(
    gateway: &Gateway,
    origin: &RawOrigin,
    case: &Case,
    word: &str,
    before: usize,
) -> (Vec<String>, usize) {
    let mut flaws = Vec::new();
    let sent = bytes(&case.parts.concat(), word);
    let (expected, answers) = match case.expect {
        Expect::Refused => (&[][..], usize::from(!case.cut)),
        Expect::Forwarded(requests) => (requests, requests.len()),
        // One more would be one too many.
        Expect::Ended(requests) => (requests, requests.len() + 2),
    };
    let outcome = match exchange(gateway.address(), &sent, answers).await {
        Ok(outcome) => outcome,
        Err(error) => return (vec![format!("{error:#}")], 0),
    };
    let seen = origin.seen().split_off(before);
    let wants = |text: &str| bytes(text, word).iter().map(|byte| char::from(*byte)).collect::<String>();
    let mut wanted: Vec<_> = expected.iter().map(|(line, body)| (wants(line), wants(body))).collect();
    let mut statuses = vec![200; wanted.len()];
    if word == FORBIDDEN {
        let allowed = |(line, body): &(String, String)| !line.contains(word) && !body.contains(word);
        statuses = wanted.iter().map(|request| if allowed(request) { 200 } else { 403 }).collect();
        wanted.retain(allowed);
        if seen.iter().any(|seen| seen.head.contains(word)) {
            flaws.push("the origin saw what the WAF did not".to_owned());
        }
        // A field may hold the word too, and the request is then rightly rejected; or it is a field that is dropped.
        if outcome.statuses.first() == Some(&403) && seen.is_empty() {
            wanted.clear();
            statuses = outcome.statuses.clone();
        }
    }
    if lines(&seen) != wanted {
        flaws.push(format!("the origin got {:?} for {wanted:?}", lines(&seen)));
    }
    match case.expect {
        Expect::Refused if outcome.statuses.iter().any(|status| !(400..600).contains(status)) => {
            flaws.push(format!("answers {:?}", outcome.statuses));
        }
        Expect::Refused if outcome.statuses.len() > 1 => {
            flaws.push(format!("answers {:?}", outcome.statuses))
        }
        Expect::Forwarded(_) if outcome.statuses != statuses => {
            flaws.push(format!("answers {:?}", outcome.statuses));
        }
        Expect::Ended(_)
            if !outcome.statuses.starts_with(&statuses) || outcome.statuses.len() > answers - 1 =>
        {
            flaws.push(format!("answers {:?}", outcome.statuses));
        }
        _ => {}
    }
    flaws.extend(seen.iter().flat_map(self::flaws));
    if !flaws.is_empty() {
        flaws.push(outcome.text());
    }
    (flaws, seen.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_has_one_reading_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let origin = RawOrigin::start(|_| Reply::ok()).await.unwrap();
    let mut gateway = start(directory.path(), &origin).await;
    let pid = gateway.process().pid();
    let cases: Vec<&Case> = ALL.iter().flat_map(|group| group.iter()).collect();
    assert!(cases.len() >= 150, "{}", cases.len());
    let mut failures = Vec::new();
    let mut arrived = 0;
    for case in &cases {
        for word in [HARMLESS, FORBIDDEN] {
            let (flaws, got) = judge(&gateway, &origin, case, word, arrived).await;
            arrived += got;
            if !flaws.is_empty() {
                failures.push(format!("{} ({word}): {}", case.name, flaws.join("; ")));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len() * 2, failures.join("\n"));
    assert_eq!(origin.seen().len(), arrived, "nothing came late");
    assert_eq!(origin.strays(), Vec::<String>::new());
    let alive = gateway.client().get("/alive").await.unwrap();
    assert_eq!((alive.status.as_u16(), gateway.process().pid()), (200, pid));
    assert!(gateway.process().is_running().unwrap());
}
