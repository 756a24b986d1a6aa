//! How large and how nested the parts of a request may be: what the top level says, and what a route says instead.

use super::{
    compile::{Compiler, bytes},
    raw::shape::RawShape,
};

/// How large and how nested the parts of a request may be; what is `None` is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestShape {
    /// Most query arguments.
    pub query_arguments: Option<usize>,
    /// Most header fields.
    pub header_count: Option<usize>,
    /// Most bytes of header fields.
    pub header_bytes: Option<usize>,
    /// Most parts of a multipart body.
    pub multipart_parts: Option<usize>,
    /// Of JSON bodies.
    pub json: JsonShape,
}

/// How large and how nested JSON bodies may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JsonShape {
    /// Deepest nesting of objects and arrays.
    pub depth: Option<usize>,
    /// Most keys in all.
    pub keys: Option<usize>,
    /// Longest text in bytes, as it is written.
    pub string: Option<usize>,
    /// Most items of one array.
    pub array: Option<usize>,
}

impl RequestShape {
    /// Whether it says something about bodies.
    pub fn needs_body(&self) -> bool {
        self.multipart_parts.is_some() || self.json != JsonShape::default()
    }
}

impl Compiler {
    /// What holds for the route at `path`.
    pub(super) fn request_shape(&mut self, raw: &RawShape, path: &str, top: &RawShape) -> RequestShape {
        let number = |own: Option<u64>, top: Option<u64>| {
            own.or(top).map(|most| usize::try_from(most).unwrap_or(usize::MAX))
        };
        let mut size = |key: &str, own: &Option<String>, top: &Option<String>| {
            // A mistake of the top level is told where it stands.
            let at = if own.is_some() { format!("{path}.shape.{key}") } else { format!("shape.{key}") };
            own.as_ref().or(top.as_ref()).map(|text| bytes(self.size(&at, Some(text), 1)))
        };
        RequestShape {
            header_bytes: size("headers", &raw.headers, &top.headers),
            json: JsonShape {
                string: size("json.string", &raw.json.string, &top.json.string),
                depth: number(raw.json.depth, top.json.depth),
                keys: number(raw.json.keys, top.json.keys),
                array: number(raw.json.array, top.json.array),
            },
            query_arguments: number(raw.query_arguments, top.query_arguments),
            header_count: number(raw.header_count, top.header_count),
            multipart_parts: number(raw.multipart_parts, top.multipart_parts),
        }
    }
}
