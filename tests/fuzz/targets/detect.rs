//! Any bytes as a parameter: the detectors of SQL and script injection answer, the same twice, without a panic.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use waf_model::{
    request::{BodyExtent, BodyView, RequestView},
    rules::{Collections, Connection, Context, Options, RuleSet, RuleSource},
    values::{Limits, Values},
};

/// Both detectors, with captures, on the query as it comes.
const TEXT: &str =
    "SecRule QUERY_STRING \"@detectSQLi\" \"id:1,phase:1,block,capture,severity:CRITICAL,logdata:'%{tx.0}'\"
SecRule QUERY_STRING \"@detectXSS\" \"id:2,phase:1,block,severity:CRITICAL\"
";

static RULES: LazyLock<RuleSet> = LazyLock::new(|| {
    RuleSet::compile(&[RuleSource { name: "fuzz.conf", text: TEXT }], &Options::default())
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
});

fuzz_target!(|query: &[u8]| {
    let request = RequestView {
        method: "GET",
        path: b"/",
        query: Some(query),
        protocol: "HTTP/1.1",
        headers: &[],
        body: BodyView { bytes: b"", extent: BodyExtent::Complete },
        client_address: "192.0.2.1",
    };
    let collections = Collections::default();
    let context = Context { now_ms: 0, request_id: "", collections: &collections, connection: Connection::default() };
    let values = Values::extract(&request, &Limits::default());
    let once = RULES.evaluate(&context, &request, &values).matches;
    assert_eq!(once, RULES.evaluate(&context, &request, &values).matches);
});
