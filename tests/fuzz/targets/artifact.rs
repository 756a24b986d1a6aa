//! Any bytes: an artifact is refused with a reason, without a panic and without a large allocation.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // No key is trusted, so nothing may be accepted, whatever it holds.
    assert!(waf_model::artifact::decode(data, &[]).is_err());
});
