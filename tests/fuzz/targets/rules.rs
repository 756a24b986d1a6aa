//! Any text: it compiles to rules or gives mistakes with their lines, without a panic; the rules then evaluate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waf_model::{
    request::{BodyExtent, BodyView, Header, RequestView, ResponseView},
    rules::{Collections, Connection, Context, Options, RuleSet, RuleSource},
    values::{Limits, Values},
};

fuzz_target!(|text: &str| {
    match RuleSet::compile(&[RuleSource { name: "fuzz.conf", text }], &Options::default()) {
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            let lines = text.lines().count().max(1);
            assert!(mistakes.iter().all(|mistake| (1..=lines).contains(&mistake.line)), "{mistakes:?}");
        }
        Ok(rules) => {
            let request = RequestView {
                method: "GET",
                path: b"/a/b",
                query: Some(b"id=1%27%20or%201=1&x=<script>"),
                protocol: "HTTP/1.1",
                headers: &[],
                body: BodyView { bytes: b"", extent: BodyExtent::Complete },
                client_address: "192.0.2.1",
            };
            let collections = Collections::default();
            let context = Context { now_ms: 0, request_id: "", collections: &collections, connection: Connection::default() };
            let values = Values::extract(&request, &Limits::default());
            let evaluation = rules.evaluate(&context, &request, &values);
            let response = ResponseView {
                status: 500,
                protocol: "HTTP/1.1",
                headers: &[Header { name: "content-type", value: b"text/html" }],
                body: BodyView { bytes: b"<b>Fatal error</b>: near SELECT", extent: BodyExtent::Complete },
            };
            let _ = rules.evaluate_response(&context, evaluation.carry, &response);
        }
    }
});
