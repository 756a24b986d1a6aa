//! Any bytes: a segment is read frame by frame to its end, and every whole frame writes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waf_model::segment::{self, Frame};

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Frame::Whole { kind, record, size } = segment::read(rest) {
        let (frame, after) = rest.split_at(size);
        let mut written = Vec::new();
        assert!(segment::append(&mut written, kind, record));
        assert_eq!(written, frame);
        rest = after;
    }
});
