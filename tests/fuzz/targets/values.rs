//! Any request: values are taken out of it within their limits, and it is observed, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waf_model::{
    observation::{Observation, ValueKey},
    request::{BodyExtent, BodyView, Header, RequestView},
    rules::RuleMatches,
    values::{Limits, Values},
};

// Path, query, content type, cookie and body, each up to the next NUL byte; the body is the rest.
fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(5, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (path, query, kind, cookie, body) = (part(), part(), part(), part(), part());
    let headers = [Header { name: "content-type", value: kind }, Header { name: "cookie", value: cookie }];
    let request = RequestView {
        method: "POST",
        path,
        query: Some(query),
        protocol: "HTTP/1.1",
        headers: &headers,
        body: BodyView { bytes: body, extent: BodyExtent::Complete },
        client_address: "192.0.2.1",
    };
    let limits = Limits { count: 100, depth: 16, bytes: 64 << 10, layers: 3 };
    let values = Values::extract(&request, &limits);
    assert!(values.items.len() <= limits.count);
    let _ = Observation::of(&request, &values, &RuleMatches::default(), &ValueKey([7; 16]));
});
