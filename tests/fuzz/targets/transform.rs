//! Any bytes through every transformation: no panic, and never much longer than what went in.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use waf_model::decode::Transformation;

/// Every name that `t:` takes.
const NAMES: [&str; 31] = [
    "none",
    "lowercase",
    "uppercase",
    "urlDecode",
    "urlDecodeUni",
    "urlEncode",
    "htmlEntityDecode",
    "jsDecode",
    "cssDecode",
    "escapeSeqDecode",
    "base64Decode",
    "base64DecodeExt",
    "base64Encode",
    "hexDecode",
    "hexEncode",
    "normalizePath",
    "normalizePathWin",
    "compressWhitespace",
    "removeWhitespace",
    "removeNulls",
    "replaceNulls",
    "removeComments",
    "replaceComments",
    "removeCommentsChar",
    "cmdLine",
    "utf8toUnicode",
    "trim",
    "trimLeft",
    "trimRight",
    "length",
    "sha1",
];

fuzz_target!(|data: &[u8]| {
    for name in NAMES {
        let step = Transformation::from_name(name).unwrap_or_else(|| panic!("{name} is not known"));
        let output = step.apply(data);
        assert!(output.len() <= (data.len() * 4).max(20), "{name}: {} bytes", output.len());
        if let Cow::Owned(changed) = &output {
            assert_ne!(changed.as_slice(), data, "{name} copied what it did not change");
        }
    }
});
