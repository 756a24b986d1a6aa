//! Any bytes: an event is read or refused; what was read is written and read back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use waf_model::event::Event;

fuzz_target!(|data: &[u8]| {
    if let Ok(event) = Event::decode(data) {
        let bytes = event.encode();
        let again = Event::decode(&bytes).expect("what was written can be read");
        // Compared as bytes: NaN is not equal to itself.
        assert_eq!(again.encode(), bytes);
    }
});
