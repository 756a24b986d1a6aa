//! Any bytes as a body of every type that is parsed: values within their limits, without a panic; and without its secrets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waf_model::{
    request::{BodyExtent, BodyView, Header, RequestView},
    secrets::{self, Text},
    values::{Limits, Values},
};

/// Types; the boundary is short so that it is found.
const TYPES: [&str; 5] = [
    "application/x-www-form-urlencoded",
    "application/json",
    "application/xml",
    "multipart/form-data; boundary=b",
    "text/plain",
];

fuzz_target!(|body: &[u8]| {
    for kind in TYPES {
        for extent in [BodyExtent::Complete, BodyExtent::Truncated] {
            let headers = [Header { name: "content-type", value: kind.as_bytes() }];
            let request = RequestView {
                method: "POST",
                path: b"/",
                query: None,
                protocol: "HTTP/1.1",
                headers: &headers,
                body: BodyView { bytes: body, extent },
                client_address: "192.0.2.1",
            };
            let limits = Limits { count: 100, depth: 16, bytes: 64 << 10, layers: 3 };
            let values = Values::extract(&request, &limits);
            assert!(values.items.len() <= limits.count, "{kind}: {} values", values.items.len());
        }
    }
    // What is recorded of it is never longer.
    for text in [Text::Pairs, Text::Free] {
        let once = secrets::conceal(body, text);
        assert!(once.len() <= body.len());
    }
});
