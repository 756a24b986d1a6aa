//! The keys of test files. A key that is not here is an error, since a test would not mean what we run.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// A whole file. What says who wrote it and why has no meaning here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    #[serde(rename = "meta")]
    _meta: Option<IgnoredAny>,
    #[serde(rename = "author")]
    _author: Option<IgnoredAny>,
    pub(super) rule_id: Option<u32>,
    pub(super) tests: Vec<RawTest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTest {
    pub(super) test_title: Option<String>,
    pub(super) test_id: Option<u32>,
    #[serde(rename = "desc")]
    _desc: Option<IgnoredAny>,
    pub(super) stages: Vec<RawStage>,
}

/// Version 3 puts the two into one more mapping.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStage {
    pub(super) stage: Option<RawExchange>,
    pub(super) input: Option<RawInput>,
    pub(super) output: Option<RawOutput>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExchange {
    pub(super) input: RawInput,
    pub(super) output: RawOutput,
}

/// A request. Where it is sent has no meaning here.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawInput {
    #[serde(rename = "dest_addr")]
    pub(crate) _dest_addr: Option<IgnoredAny>,
    #[serde(rename = "port")]
    pub(crate) _port: Option<IgnoredAny>,
    #[serde(rename = "protocol")]
    pub(crate) _protocol: Option<IgnoredAny>,
    pub(crate) method: Option<String>,
    pub(crate) uri: Option<String>,
    pub(crate) version: Option<String>,
    #[serde(default)]
    pub(crate) headers: RawHeaders,
    pub(crate) data: Option<RawText>,
    /// The whole request in base64; nothing else counts then.
    pub(crate) encoded_request: Option<String>,
    /// The whole request; nothing else counts then.
    pub(crate) raw_request: Option<String>,
    /// Whether no header is added.
    pub(crate) stop_magic: Option<bool>,
    /// Whether headers are added.
    pub(crate) autocomplete_headers: Option<bool>,
}

/// A body, also as lines to be joined.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum RawText {
    Text(String),
    Lines(Vec<String>),
}

/// Header fields in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct RawHeaders(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for RawHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = RawHeaders;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a mapping of header fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeaders, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(RawHeaders(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutput {
    pub(super) status: Option<RawStatus>,
    pub(super) expect_error: Option<bool>,
    pub(super) log_contains: Option<String>,
    pub(super) no_log_contains: Option<String>,
    pub(super) log: Option<RawLog>,
    /// For a log that is written late; ours is not.
    #[serde(rename = "retry_once")]
    _retry_once: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawStatus {
    One(u16),
    AnyOf(Vec<u16>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    #[serde(default)]
    pub(super) expect_ids: Vec<u32>,
    #[serde(default)]
    pub(super) no_expect_ids: Vec<u32>,
    pub(super) match_regex: Option<String>,
    pub(super) no_match_regex: Option<String>,
}
