//! How large and how nested the parts of a request are, beside what may be.

use http::{HeaderMap, StatusCode, header, request::Parts};
use memchr::memmem;
use waf_model::request::{BodyExtent, BodyView};

use crate::{
    config::{JsonShape, RequestShape},
    error::{Fault, Refusal},
};

fn refused(status: StatusCode, reason: &'static str) -> Fault {
    Refusal::new(status, reason).into()
}

fn exceeds(found: usize, most: Option<usize>) -> bool {
    most.is_some_and(|most| found > most)
}

/// Checks what comes before the body.
///
/// # Errors
/// [`Fault::Refused`] with 414 or 431.
pub fn check_head(shape: &RequestShape, parts: &Parts) -> Result<(), Fault> {
    let arguments =
        parts.uri.query().filter(|query| !query.is_empty()).map_or(0, |query| query.split('&').count());
    if exceeds(arguments, shape.query_arguments) {
        return Err(refused(StatusCode::URI_TOO_LONG, "too_many_arguments"));
    }
    let headers = &parts.headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if exceeds(headers.len(), shape.header_count) || exceeds(bytes, shape.header_bytes) {
        return Err(refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_beyond_shape"));
    }
    Ok(())
}

/// Checks a body of which content codings are undone.
///
/// # Errors
/// [`Fault::Refused`] with 400 or 413; or [`Fault::BodyTooLarge`] where not all of it can be seen.
pub fn check_body(shape: &RequestShape, headers: &HeaderMap, body: BodyView<'_>) -> Result<(), Fault> {
    if !shape.needs_body() {
        return Ok(());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_complete = body.extent == BodyExtent::Complete;
    if is_json(kind, body.bytes) && shape.json != JsonShape::default() {
        check_json(&shape.json, body.bytes)?;
        if !is_complete {
            return Err(Fault::BodyTooLarge);
        }
    }
    if let Some(most) = shape.multipart_parts
        && let Some(boundary) = boundary(kind)
        && parts_of(boundary, body.bytes) > most
    {
        return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "too_many_parts"));
    }
    Ok(())
}

/// Whether a body is JSON by its type; or whatever its type by how it begins, because servers differ in what they
/// believe.
pub fn is_json(kind: &str, body: &[u8]) -> bool {
    if kind.starts_with("application/grpc") {
        return false;
    }
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    media == "application/json" || media.ends_with("+json") || matches!(text.first(), Some(b'{' | b'['))
}

/// Counts over the text, whether it is valid or not: what a parser makes of it is no larger.
fn check_json(shape: &JsonShape, text: &[u8]) -> Result<(), Fault> {
    let too_large = |reason| Err(refused(StatusCode::PAYLOAD_TOO_LARGE, reason));
    // Commas so far of every open array; none for objects.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut keys = 0;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => {
                let length = string_length(text.get(at..).unwrap_or_default());
                if exceeds(length, shape.string) {
                    return too_large("json_string_too_long");
                }
                at += length + 1;
            }
            b'{' | b'[' => {
                open.push((*byte == b'[').then_some(0));
                if exceeds(open.len(), shape.depth) {
                    return Err(refused(StatusCode::BAD_REQUEST, "json_too_deep"));
                }
            }
            b'}' | b']' => drop(open.pop()),
            b':' => {
                keys += 1;
                if exceeds(keys, shape.keys) {
                    return too_large("json_too_many_keys");
                }
            }
            b',' => {
                if let Some(Some(commas)) = open.last_mut() {
                    *commas += 1;
                    if exceeds(*commas + 1, shape.array) {
                        return too_large("json_array_too_long");
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Bytes before the closing quotation mark.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        match memchr::memchr2(b'"', b'\\', rest) {
            Some(found) if rest.get(found) == Some(&b'\\') => at += found + 2,
            Some(found) => return at + found,
            None => return text.len(),
        }
    }
}

/// The boundary of a multipart body.
fn boundary(kind: &str) -> Option<&str> {
    if !kind.get(..10)?.eq_ignore_ascii_case("multipart/") {
        return None;
    }
    let parameters = kind.split(';').skip(1).filter_map(|parameter| parameter.trim().split_once('='));
    let (_, value) = parameters.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    Some(value.trim().trim_matches('"')).filter(|boundary| !boundary.is_empty())
}

/// Delimiters that begin a part. A line that only begins like one counts, too: some parsers take it for one.
fn parts_of(boundary: &str, body: &[u8]) -> usize {
    let delimiter = format!("--{boundary}");
    let begins = |at: &usize| {
        let is_line = *at == 0 || body.get(at - 1) == Some(&b'\n');
        is_line && !body.get(at + delimiter.len()..).unwrap_or_default().starts_with(b"--")
    };
    memmem::find_iter(body, delimiter.as_bytes()).filter(begins).count()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn found(kind: &'static str, body: &str) -> &'static str {
        let shape = RequestShape {
            multipart_parts: Some(2),
            json: JsonShape { depth: Some(3), keys: Some(4), string: Some(6), array: Some(3) },
            ..RequestShape::default()
        };
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        let view = BodyView { bytes: body.as_bytes(), extent: BodyExtent::Complete };
        check_body(&shape, &headers, view).err().map_or("fine", |fault| fault.name())
    }

    #[test]
    fn every_part_has_its_bound() {
        for (body, expected) in [
            (r#"{"a":[[1,2,3]],"b":"\"456","c":":,[[[["}"#, "fine"),
            (r#"{"a":[[{}]]}"#, "json_too_deep"),
            (r#"{"a":1,"b":1,"c":1,"d":{"e":1}}"#, "json_too_many_keys"),
            (r#"["\"23456"]"#, "json_string_too_long"),
            (r#"{"1234567":1}"#, "json_string_too_long"),
            (r#"["1234567"#, "json_string_too_long"),
            (r#"[1,2,3,4]"#, "json_array_too_long"),
            (r#"[[1,2],[1,2],3]"#, "fine"),
        ] {
            for kind in ["application/json", "application/vnd.api+json", "text/plain"] {
                assert_eq!(found(kind, body), expected, "{kind} {body}");
            }
        }
        let part = "--b-1\r\ncontent-disposition: form-data; name=a\r\n\r\nx --b-1\r\n";
        let kind = "Multipart/Form-Data; x=y; boundary=\"b-1\"";
        assert_eq!(found(kind, &format!("{part}{part}--b-1--\r\n")), "fine");
        assert_eq!(found(kind, &format!("{part}{part}{part}--b-1--\r\n")), "too_many_parts");
    }
}
