//! Which parser a `Content-Type` asks for.

use super::parameters::Parameters;

/// How a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Form,
    Json,
    Xml,
    Multipart,
    /// Media, archives, binary messages: nothing in them is a value.
    Opaque,
    /// Text of no structure that we know, or no type at all: the body itself must tell.
    Unknown,
}

/// A parsed `Content-Type`.
#[derive(Debug)]
pub(super) struct Media<'a> {
    pub(super) kind: Kind,
    pub(super) parameters: Parameters<'a>,
    /// Whether two parsers could take it for different types or charsets.
    pub(super) ambiguous: bool,
}

impl<'a> Media<'a> {
    pub(super) fn parse(input: &'a [u8]) -> Self {
        let parameters = Parameters::parse(input);
        let essence = parameters.first.to_ascii_lowercase();
        let kind = Kind::of(&essence);
        let charset = parameters.get(b"charset").is_none_or(|charset| is_plain_charset(charset));
        // The parameters of a multipart type are judged with its body.
        let quoting = parameters.ambiguous && kind != Kind::Multipart;
        let ambiguous = quoting || !charset || essence.contains(&b',');
        Self { kind, parameters, ambiguous }
    }
}

impl Kind {
    fn of(essence: &[u8]) -> Self {
        match essence {
            b"application/x-www-form-urlencoded" => Self::Form,
            b"application/json" | b"text/json" | b"application/x-json" => Self::Json,
            b"application/xml" | b"text/xml" => Self::Xml,
            b"multipart/form-data" => Self::Multipart,
            _ if essence.ends_with(b"+json") => Self::Json,
            _ if essence.ends_with(b"+xml") => Self::Xml,
            _ if OPAQUE.contains(&essence)
                || OPAQUE_PREFIXES.iter().any(|start| essence.starts_with(start)) =>
            {
                Self::Opaque
            }
            _ => Self::Unknown,
        }
    }
}

/// Whether ASCII text is the same bytes in this charset as in UTF-8 (unlike UTF-7 or UTF-16), and attackers
/// gain nothing from it.
pub(super) fn is_plain_charset(charset: &[u8]) -> bool {
    [&b"utf-8"[..], b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"windows-1252"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(charset.trim_ascii()))
}

const OPAQUE_PREFIXES: [&[u8]; 6] =
    [b"image/", b"video/", b"audio/", b"font/", b"application/grpc", b"application/vnd.openxmlformats"];

const OPAQUE: [&[u8]; 18] = [
    b"application/octet-stream",
    b"binary/octet-stream",
    b"message/ohttp-req",
    b"application/x-protobuffer",
    b"application/protobuf",
    b"application/x-protobuf",
    b"application/vnd.google.protobuf",
    b"application/zip",
    b"application/gzip",
    b"application/x-gzip",
    b"application/x-tar",
    b"application/x-7z-compressed",
    b"application/zstd",
    b"application/pdf",
    b"application/msgpack",
    b"application/x-msgpack",
    b"application/cbor",
    b"application/wasm",
];
