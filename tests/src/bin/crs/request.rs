//! The bytes of a test's request, as the tool writes them that each version of the tests was written for.
//!
//! Both tools complete a request with a body: form data that does not look encoded is encoded, and the length is
//! added. They differ in what counts as form data, in the order of fields, and in line ends.

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::format::{RawHeaders, RawInput, RawText};

mod form;

/// Says that a body is form data.
const FORM: &str = "application/x-www-form-urlencoded";

/// The tool that writes the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The Python tool of version 3.
    Version3,
    /// The Go tool of version 4.
    Version4,
}

impl Writer {
    /// The bytes that are sent.
    ///
    /// # Errors
    /// What is contradictory or not understood.
    pub(crate) fn write(self, input: RawInput) -> Result<Vec<u8>> {
        match (input.encoded_request, input.raw_request) {
            (Some(_), Some(_)) => bail!("a request is given both raw and encoded"),
            (Some(encoded), None) => {
                ensure!(input.data.is_none(), "a whole request has its body in it");
                let encoded: String = encoded.split_whitespace().collect();
                return BASE64_STANDARD.decode(encoded).context("encoded_request");
            }
            (None, Some(raw)) => return Ok(raw.into_bytes()),
            (None, None) => {}
        }
        let is_completed = match (input.stop_magic, input.autocomplete_headers) {
            (_, Some(complete)) => complete,
            (Some(stop), None) => !stop,
            (None, None) => true,
        };
        let method = input.method.unwrap_or_else(|| "GET".to_owned());
        let uri = input.uri.unwrap_or_else(|| "/".to_owned());
        let version = input.version.unwrap_or_else(|| "HTTP/1.1".to_owned());
        let mut headers = input.headers;
        let mut body = match input.data {
            None => String::new(),
            Some(RawText::Text(text)) => text,
            Some(RawText::Lines(lines)) => lines.join("\r\n"),
        };
        match self {
            Self::Version3 => complete_3(&mut headers, &mut body, is_completed),
            Self::Version4 => complete_4(&method, &mut headers, &mut body, is_completed)?,
        }
        let mut bytes = format!("{method} {uri} {version}\r\n");
        for (name, value) in &headers.0 {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        bytes.push_str(&body);
        Ok(bytes.into_bytes())
    }
}

fn complete_3(headers: &mut RawHeaders, body: &mut String, is_completed: bool) {
    if body.is_empty() || !is_completed {
        return;
    }
    let exact = |headers: &RawHeaders, name: &str| {
        headers.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
    };
    let media = exact(headers, "Content-Type").unwrap_or_else(|| {
        headers.0.push(("Content-Type".to_owned(), FORM.to_owned()));
        FORM.to_owned()
    });
    if media == FORM
        && let Some(encoded) = form::encode_3(body)
    {
        *body = encoded;
    }
    if exact(headers, "Content-Length").is_none() {
        headers.0.push(("Content-Length".to_owned(), body.len().to_string()));
    }
}

fn complete_4(method: &str, headers: &mut RawHeaders, body: &mut String, is_completed: bool) -> Result<()> {
    *body = form::expand(body)?;
    headers.0.sort_by(|(one, _), (other, _)| one.cmp(other));
    let has = |headers: &RawHeaders, name: &str| {
        headers.0.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
    };
    let is_media = |headers: &RawHeaders, is: &dyn Fn(&str) -> bool| {
        headers.0.iter().any(|(name, value)| name.eq_ignore_ascii_case("content-type") && is(value))
    };
    if !body.is_empty() && is_completed {
        if !has(headers, "content-type") {
            headers.0.push(("Content-Type".to_owned(), FORM.to_owned()));
        }
        if is_media(headers, &|value| value.eq_ignore_ascii_case(FORM))
            && let Some(encoded) = form::encode_4(body)
        {
            *body = encoded;
        }
    }
    // The tests are written with bare line feeds, which no multipart parser takes.
    if is_media(headers, &|value| value.to_ascii_lowercase().contains("multipart/form-data;")) {
        *body = body.replace('\n', "\r\n");
    }
    if is_completed {
        if !has(headers, "connection") {
            headers.0.push(("Connection".to_owned(), "close".to_owned()));
        }
        let may_have_body = ["PUT", "PATCH"].iter().any(|part| method.contains(part))
            || method.starts_with("POST")
            || method.ends_with("DELETE");
        if !has(headers, "content-length") && (!body.is_empty() || may_have_body) {
            headers.0.push(("Content-Length".to_owned(), body.len().to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(data: &str, headers: &[(&str, &str)]) -> RawInput {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        RawInput {
            method: Some("POST".to_owned()),
            headers: RawHeaders(headers.collect()),
            data: Some(RawText::Text(data.to_owned())),
            ..RawInput::default()
        }
    }

    #[track_caller]
    fn written(writer: Writer, input: RawInput, expected: &str) {
        assert_eq!(String::from_utf8(writer.write(input).unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_body_gets_its_type_and_length() {
        written(
            Writer::Version3,
            input("a=b c", &[("Host", "h")]),
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 5\r\n\r\na=b+c",
        );
        written(
            Writer::Version4,
            input("a=b c", &[("Host", "h"), ("Accept", "x")]),
            "POST / HTTP/1.1\r\nAccept: x\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Connection: close\r\nContent-Length: 5\r\n\r\na=b+c",
        );
    }

    #[test]
    fn nothing_is_added_on_demand() {
        for writer in [Writer::Version3, Writer::Version4] {
            let input = RawInput { stop_magic: Some(true), ..input("a=b c", &[("Host", "h")]) };
            written(writer, input, "POST / HTTP/1.1\r\nHost: h\r\n\r\na=b c");
        }
    }

    #[test]
    fn multipart_lines_end_as_they_must() {
        let media = ("Content-Type", "multipart/form-data; boundary=x");
        written(
            Writer::Version4,
            RawInput { autocomplete_headers: Some(false), ..input("--x\n\n", &[media]) },
            "POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n\r\n",
        );
    }
}
