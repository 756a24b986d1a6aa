//! Bodies to named values: urlencoded, JSON, XML and multipart, with hard limits.

use std::borrow::Cow;

use crate::{
    request::{BodyExtent, RequestView},
    values::{Collector, Finding, Location},
};

mod form;
mod json;
mod media;
mod multipart;
mod parameters;
mod xml;

pub(crate) use form::{collect as collect_form, split_pair};
use media::{Kind, Media};
pub(crate) use multipart::Part;

/// How far a parser came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All of it was read, and it is what it claims to be.
    Clean,
    /// It is right as far as it goes, but it ends too early.
    Cut,
    /// It is not what it claims to be; the rest was not read.
    Broken,
    /// Another finding says what is wrong with it, and some of it may not have been read as the application will.
    Doubtful,
}

/// Adds every value of the body of `request` to `out`.
///
/// A body that does not parse is a finding and becomes one value as it is, so that it is never uninspected.
pub(crate) fn collect<'a>(request: &RequestView<'a>, out: &mut Collector<'a>) {
    let bytes = request.body.bytes;
    let encoded = is_encoded(request);
    if encoded {
        out.note(Finding::EncodedBody);
    }
    let mut types: Vec<&[u8]> = request.header_all("content-type").collect();
    if types.len() > 1 {
        out.note(Finding::AmbiguousContentType);
    }
    types.dedup();
    // Whichever of several types the application believes, the body is read that way: the first or the last.
    let last = types.pop().unwrap_or_default();
    let types = types.first().copied().into_iter().chain([last]);
    if bytes.is_empty() {
        return;
    }
    if encoded && is_compressed(bytes) {
        out.push(Location::Body, Cow::Borrowed(b""), Cow::Borrowed(bytes));
        return;
    }
    for value in types {
        let media = Media::parse(value);
        if media.ambiguous {
            out.note(Finding::AmbiguousContentType);
        }
        collect_as(&media, bytes, request.body.extent, out);
    }
}

fn collect_as<'a>(media: &Media<'a>, bytes: &'a [u8], extent: BodyExtent, out: &mut Collector<'a>) {
    let truncated = extent == BodyExtent::Truncated;
    if truncated && media.kind != Kind::Opaque {
        out.note(Finding::TruncatedBody);
    }
    let outcome = match media.kind {
        Kind::Opaque => return,
        Kind::Form => {
            form::collect(bytes, Location::Form, out);
            // Many frameworks read JSON whatever the type says; names alone would hide its escapes.
            if json::starts(bytes) && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() {
                json::collect(bytes, out);
            }
            return;
        }
        Kind::Json => match json::collect(bytes, out) {
            (Outcome::Clean, documents) if documents > 1 => Outcome::Broken,
            (outcome, _) => outcome,
        },
        Kind::Xml => xml::collect(bytes, out),
        Kind::Multipart => multipart::collect(&media.parameters, bytes, out),
        Kind::Unknown => {
            // Nothing was promised, so nothing is malformed; what is no known form is inspected as it is.
            if json::starts(bytes) {
                let (outcome, _) = json::collect(bytes, out);
                if outcome == Outcome::Clean || (outcome == Outcome::Cut && truncated) {
                    return;
                }
            } else if form::looks_like(bytes) {
                return form::collect(bytes, Location::Form, out);
            }
            return out.push(Location::Body, Cow::Borrowed(b""), Cow::Borrowed(bytes));
        }
    };
    match outcome {
        Outcome::Clean => return,
        Outcome::Cut if truncated => return,
        Outcome::Cut | Outcome::Broken if !truncated => out.note(Finding::MalformedBody),
        Outcome::Cut | Outcome::Broken | Outcome::Doubtful => {}
    }
    out.push(Location::Body, Cow::Borrowed(b""), Cow::Borrowed(bytes));
}

/// The way in which a body is read for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processor {
    /// `name=value&…`.
    Form,
    /// `multipart/form-data`.
    Multipart,
    /// JSON.
    Json,
    /// XML.
    Xml,
}

/// The way that the `Content-Type` of `request` asks for; `None` for types that are not parsed.
pub(crate) fn processor(request: &RequestView<'_>) -> Option<Processor> {
    match Media::parse(request.header("content-type")?).kind {
        Kind::Form => Some(Processor::Form),
        Kind::Json => Some(Processor::Json),
        Kind::Xml => Some(Processor::Xml),
        Kind::Multipart => Some(Processor::Multipart),
        Kind::Opaque | Kind::Unknown => None,
    }
}

/// Adds the values of the body read in the given way, whatever its type says.
pub(crate) fn collect_forced<'a>(request: &RequestView<'a>, processor: Processor, out: &mut Collector<'a>) {
    let mut media = Media::parse(request.header("content-type").unwrap_or_default());
    media.kind = match processor {
        Processor::Form => Kind::Form,
        Processor::Multipart => Kind::Multipart,
        Processor::Json => Kind::Json,
        Processor::Xml => Kind::Xml,
    };
    collect_as(&media, request.body.bytes, request.body.extent, out);
}

/// The parts of a multipart body with their head lines.
pub(crate) fn parts<'a>(request: &RequestView<'a>) -> Vec<Part<'a>> {
    let media = Media::parse(request.header("content-type").unwrap_or_default());
    multipart::parts(&media.parameters, request.body.bytes)
}

/// Whether nobody can tell what the body of `request` says without decoding it in another way than is done here.
pub(crate) fn is_opaque(request: &RequestView<'_>) -> bool {
    let media = Media::parse(request.header("content-type").unwrap_or_default());
    is_encoded(request) || media.kind == Kind::Opaque || media.ambiguous
}

fn is_encoded(request: &RequestView<'_>) -> bool {
    request
        .header_all("content-encoding")
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// Whether `bytes` start like gzip, zlib or Zstandard data. A body that is only *said* to be encoded is read as
/// if it were not, because an application may ignore the header.
fn is_compressed(bytes: &[u8]) -> bool {
    match bytes {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => true,
        [method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31),
        _ => false,
    }
}
