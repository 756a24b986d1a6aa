//! What each stage of inspection costs: CPU time per request of one core, in process, on distinct requests of eight
//! kinds.
//!
//! Usage: `cargo run --release -p waf-model --example inspection_cost -- FILE…`, where each file is SecLang; names
//! in it are read relative to it. `ROUNDS` requests a lap; `ONLY` is the one stage to run, for a profiler.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool for developers"
)]

use std::{collections::BTreeMap, fs, hint::black_box, path::Path, time::Instant};

use waf_model::{
    observation::{Observation, ValueKey},
    request::{BodyExtent, BodyView, Header, RequestView, ResponseView},
<<<<<<< HEAD:waf-model/examples/inspection_cost.rs
    rules::{Collections, Context, Options, RuleFile, RuleFiles, RuleMatches, RuleSet, RuleSource},
=======
    rules::{Collections, Connection, Context, Options, RuleFile, RuleFiles, RuleSet, RuleSource},
>>>>>>> b-gaps:waf-model/examples/rules_cost.rs
    values::{Limits, Values},
};

struct Disk;

impl RuleFiles for Disk {
    fn read(&self, from: &str, path: &str) -> Result<Vec<RuleFile>, String> {
        let path = Path::new(from).parent().unwrap_or(Path::new(".")).join(path);
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        Ok(vec![RuleFile { name: path.display().to_string(), bytes }])
    }
}

struct Request {
    method: &'static str,
    path: String,
    query: Option<String>,
    cookie: String,
    body: Option<(&'static str, String)>,
}

/// Request number `n` of eight kinds that take turns; no two are alike.
fn request(n: u64) -> Request {
    let cookie = format!(
        "sid={:032x}; theme=dark; _ga=GA1.2.{}.{}",
        n * 0x9e37_79b9_7f4a,
        1_234_567 + n,
        1_718_000 + n
    );
    let get = |path: String, query: Option<String>| (("GET", path, query), None);
    let ((method, path, query), body) = match n % 8 {
        0 => get(
            "/api/v1/products".into(),
            Some(format!("page={n}&per_page=50&sort=-price&q=blue+running+shoes+{n}")),
        ),
        1 => get(format!("/api/v1/products/{}", 81_274 + n), None),
        2 => get(
            "/api/v1/users/me/orders".into(),
            Some(format!("status=shipped&from=2026-01-{:02}&to=2026-06-30&n={n}", n % 28 + 1)),
        ),
        3 => (
            ("POST", "/api/v1/cart/items".into(), None),
            Some((
                "application/json",
                format!(
                    "{{\"product_id\":{n},\"quantity\":2,\"options\":{{\"color\":\"blue\",\"size\":\"42\",\"note\":\"Please leave at door {n}, thanks!\"}}}}"
                ),
            )),
        ),
        4 => get(format!("/static/app.{n:06x}.js"), None),
        5 => (
            ("POST", "/api/v1/login".into(), None),
            Some((
                "application/x-www-form-urlencoded",
                format!("username=alice{n}%40example.com&password=correct-horse-{n}-staple&remember=1"),
            )),
        ),
        6 => get("/search".into(), Some(format!("q=how+to+select+a+union+job+from+the+table+{n}&lang=en"))),
        _ => (
            ("PUT", format!("/api/v1/users/{n}/profile"), None),
            Some((
                "application/json",
                format!(
                    "{{\"display_name\":\"Alice O'Neil {n}\",\"bio\":\"I like hiking, C++ & Rust; email me <alice{n}@example.com>\",\"address\":{{\"street\":\"{n} Rue d'Al\u{e9}sia\",\"city\":\"Paris\",\"zip\":\"75014\"}},\"prefs\":{{\"newsletter\":true,\"langs\":[\"en\",\"fr\"]}}}}"
                ),
            )),
        ),
    };
    Request { method, path, query, cookie, body }
}

/// The stages in the order of the request path; each lap runs those up to one of them.
const STAGES: [&str; 4] = ["request and values", "rules", "observation", "rules on the response"];

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<String> = names.iter().map(|name| fs::read_to_string(name).unwrap()).collect();
    let sources: Vec<_> = names.iter().zip(&texts).map(|(name, text)| RuleSource { name, text }).collect();
    let start = Instant::now();
    let rules =
        RuleSet::compile(&sources, &Options { files: &Disk, variables: &[] }).unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        });
    println!("{} rules, compiled in {:?}", rules.rules().count(), start.elapsed());
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let rounds = number("ROUNDS").unwrap_or(20_000);
    let only = number("ONLY").map(|stage| stage as usize);
    let mut bench = Bench { rules, collections: Collections::default(), matched: BTreeMap::new() };
    let mut best = [u64::MAX; STAGES.len()];
    for lap in 0..5 * STAGES.len() as u64 {
        let stage = only.unwrap_or(lap as usize % STAGES.len());
        let before = cpu_ns();
        for n in lap * rounds..(lap + 1) * rounds {
            bench.one(n, stage);
        }
        best[stage] = best[stage].min(cpu_ns() - before);
    }
    let each = |ns: u64| ns as f64 / rounds as f64 / 1e3;
    // Every stage but the first is measured on top of the first.
    for (stage, ns) in STAGES.iter().zip(best).filter(|(_, ns)| *ns < u64::MAX) {
        let base = if *stage == STAGES[0] || only.is_some() { 0 } else { best[0] };
        println!("{stage}: {:.2} µs", each(ns.saturating_sub(base)));
    }
    println!("matched {:?}", bench.matched);
}

/// Time that this thread was on a processor, in nanoseconds: other load does not count.
fn cpu_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

struct Bench {
    rules: RuleSet,
    collections: Collections,
    matched: BTreeMap<u32, u64>,
}

impl Bench {
    /// Makes request `n`, takes out its values, and does what `stage` says.
    fn one(&mut self, n: u64, stage: usize) {
        let request = request(n);
        let (kind, body) = request.body.as_ref().map_or(("", ""), |(kind, body)| (*kind, body.as_str()));
        let length = body.len().to_string();
        let mut headers = vec![
        Header { name: "host", value: b"shop.example.com" },
        Header { name: "user-agent", value: b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36" },
        Header { name: "accept", value: b"application/json, text/plain, */*" },
        Header { name: "accept-language", value: b"en-US,en;q=0.9" },
        Header { name: "accept-encoding", value: b"gzip, deflate, br" },
        Header { name: "cookie", value: request.cookie.as_bytes() },
        Header { name: "referer", value: b"https://shop.example.com/products?page=1" },
        Header { name: "x-requested-with", value: b"XMLHttpRequest" },
    ];
        if !kind.is_empty() {
            headers.push(Header { name: "content-type", value: kind.as_bytes() });
            headers.push(Header { name: "content-length", value: length.as_bytes() });
        }
        let view = RequestView {
            method: request.method,
            path: request.path.as_bytes(),
            query: request.query.as_ref().map(String::as_bytes),
            protocol: "HTTP/1.1",
            headers: &headers,
            body: BodyView { bytes: body.as_bytes(), extent: BodyExtent::Complete },
            client_address: "192.0.2.7",
        };
        let values = Values::extract(&view, &Limits::default());
        let context = Context {
            now_ms: 1_800_000_000_000 + n,
            request_id: "01890000-0000",
            collections: &self.collections,
        };
        match stage {
            1 => {
                let evaluation = self.rules.evaluate(&context, &view, &values);
                for found in &evaluation.matches.matches {
                    *self.matched.entry(found.id).or_default() += 1;
                }
            }
            2 => {
                black_box(Observation::of(&view, &values, &RuleMatches::default(), &ValueKey([7; 16])));
            }
            3 => {
                let evaluation = self.rules.evaluate(&context, &view, &values);
                let headers = [Header { name: "content-type", value: b"application/json" }];
                let body = BodyView { bytes: b"", extent: BodyExtent::Complete };
                let response = ResponseView { status: 200, protocol: "HTTP/1.1", headers: &headers, body };
                black_box(self.rules.evaluate_response(&context, evaluation.carry, &response));
            }
            _ => {
                black_box(&values);
            }
        }
    }
<<<<<<< HEAD:waf-model/examples/inspection_cost.rs
=======
    let view = RequestView {
        method: request.method,
        path: request.path.as_bytes(),
        query: request.query.as_ref().map(String::as_bytes),
        protocol: "HTTP/1.1",
        headers: &headers,
        body: BodyView { bytes: body.as_bytes(), extent: BodyExtent::Complete },
        client_address: "192.0.2.7",
    };
    let values = Values::extract(&view, &Limits::default());
    let Some(rules) = rules else {
        std::hint::black_box(&values);
        return;
    };
    let context = Context {
        now_ms: 1_800_000_000_000 + n,
        request_id: "01890000-0000",
        collections,
        connection: Connection::default(),
    };
    let evaluation = rules.evaluate(&context, &view, &values);
    for found in &evaluation.matches.matches {
        *matched.entry(found.id).or_default() += 1;
    }
    let headers = [Header { name: "content-type", value: b"application/json" }];
    let body = BodyView { bytes: b"", extent: BodyExtent::Complete };
    let response = ResponseView { status: 200, protocol: "HTTP/1.1", headers: &headers, body };
    std::hint::black_box(rules.evaluate_response(&context, evaluation.carry, &response));
>>>>>>> b-gaps:waf-model/examples/rules_cost.rs
}
