//! Every name and value of a request, decoded once, shared by rules and observation.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

mod collector;
mod departures;
mod layers;

pub(crate) use collector::Collector;
pub use departures::{Departure, Departures};

/// Where in the request a value was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// One path segment; the name is empty.
    Path,
    /// A query parameter.
    Query,
    /// A header field other than `Cookie`.
    Header,
    /// One cookie.
    Cookie,
    /// A field of an urlencoded form.
    Form,
    /// A leaf of a JSON document; the name is its path, `order.items[].sku`.
    Json,
    /// Text or an attribute of an XML document; the name is its path.
    Xml,
    /// A field of a multipart form.
    Multipart,
    /// The file name of a multipart part; its content is not a value.
    FileName,
    /// A body of a type that is not parsed; the name is empty.
    Body,
}

/// One named value.
#[derive(Debug, Clone)]
pub struct Value<'a> {
    /// Where it was found.
    pub location: Location,
    /// The name after transport decoding (percent decoding for query and form; lower case for headers).
    pub name: Cow<'a, [u8]>,
    /// What rules call it where that is not `name`: `json.order.items.0.sku`.
    pub alias: Option<Vec<u8>>,
    /// The value after transport decoding: what the application will see.
    pub value: Cow<'a, [u8]>,
    /// Further forms of the value, each obtained by decoding the one before it once more (percent, HTML
    /// character references, backslash escapes, base64 that holds text); empty for most values.
    pub deeper: Vec<Vec<u8>>,
}

impl Value<'_> {
    /// The value and each of its deeper decodings, outermost first. Never empty.
    pub fn layers(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&*self.value).chain(self.deeper.iter().map(Vec::as_slice))
    }
}

/// Something about the request's form that no honest client sends, or that two parsers could read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The body does not parse as the type that its `Content-Type` names.
    MalformedBody,
    /// `Content-Type` is given twice, or names a type or charset in two ways.
    AmbiguousContentType,
    /// Two parsers could read this multipart body differently (boundary, disposition, line ends).
    AmbiguousMultipart,
    /// A JSON object holds the same key twice.
    DuplicateJsonKey,
    /// More values than [`Limits::count`]; the rest was not inspected.
    TooManyValues,
    /// A document is nested deeper than [`Limits::depth`].
    TooDeep,
    /// The values together are larger than [`Limits::bytes`].
    TooLarge,
    /// The body goes on beyond the inspection window.
    TruncatedBody,
    /// An XML document declares a document type (entities are never expanded).
    XmlDoctype,
    /// The body has a `Content-Encoding`; if it is really compressed, only its raw bytes were inspected.
    EncodedBody,
    /// A value could be decoded more often than [`Limits::layers`].
    TooManyLayers,
}

impl Finding {
    /// Its name in rules (`FINDINGS`), logs and explanations.
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedBody => "malformed_body",
            Self::AmbiguousContentType => "ambiguous_content_type",
            Self::AmbiguousMultipart => "ambiguous_multipart",
            Self::DuplicateJsonKey => "duplicate_json_key",
            Self::TooManyValues => "too_many_values",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::TruncatedBody => "truncated_body",
            Self::XmlDoctype => "xml_doctype",
            Self::EncodedBody => "encoded_body",
            Self::TooManyLayers => "too_many_layers",
        }
    }
}

/// Hard limits on what is taken out of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most values of all locations together.
    pub count: usize,
    /// Deepest nesting of JSON and XML.
    pub depth: usize,
    /// Most decoded bytes of all values together.
    pub bytes: usize,
    /// Most deeper decodings of one value.
    pub layers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { count: 1000, depth: 64, bytes: 4 << 20, layers: 3 }
    }
}

/// Every (location, name, value) of one request.
#[derive(Debug, Default)]
pub struct Values<'a> {
    /// The values in order of arrival: path, query, headers, cookies, body.
    pub items: Vec<Value<'a>>,
    /// What is wrong or ambiguous about the request's form; sorted, without repeats.
    pub findings: Vec<Finding>,
    /// How a multipart body departs from what browsers write.
    pub departures: Departures,
}
