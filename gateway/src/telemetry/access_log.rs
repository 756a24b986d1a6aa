//! The access log: one JSON line a request, in OpenTelemetry's names, without raw paths, queries or user agents.

use std::{cell::RefCell, net::IpAddr, sync::Mutex, time::SystemTime};

use serde::{Serialize, Serializer};
use waf_model::event::RuleHit;

mod writer;

pub use writer::Flusher;
use writer::Writer;

/// Where access log lines go; never waits.
#[derive(Debug)]
pub struct AccessLog {
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Stdout(Writer),
    Memory(Mutex<Vec<u8>>),
}

/// One line.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Arrival; written as RFC 3339 with nanoseconds.
    #[serde(serialize_with = "rfc3339")]
    pub timestamp: SystemTime,
    /// Method; `_OTHER` for unknown ones, which may hold anything.
    #[serde(rename = "http.request.method")]
    pub method: &'a str,
    /// Path template.
    #[serde(rename = "url.path", skip_serializing_if = "Option::is_none")]
    pub path: Option<&'a str>,
    /// `http` or `https`.
    #[serde(rename = "url.scheme")]
    pub scheme: &'a str,
    /// Route name.
    #[serde(rename = "http.route", skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// Status sent; 499 if the client left before.
    #[serde(rename = "http.response.status_code")]
    pub status: u16,
    /// Bytes of the request body.
    #[serde(rename = "http.request.size")]
    pub request_bytes: u64,
    /// Bytes of the response body.
    #[serde(rename = "http.response.size")]
    pub response_bytes: u64,
    /// The client's address.
    #[serde(rename = "client.address", skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The country that it lies in, where that is asked for.
    #[serde(rename = "client.geo.country_iso_code", skip_serializing_if = "Option::is_none")]
    pub country: Option<&'a str>,
    /// The autonomous system that it lies in, where that is asked for.
    #[serde(rename = "client.as.number", skip_serializing_if = "Option::is_none")]
    pub system: Option<u32>,
    /// The peer's address.
    #[serde(rename = "network.peer.address")]
    pub peer: IpAddr,
    /// `1.0`, `1.1` or `2`.
    #[serde(rename = "network.protocol.version")]
    pub protocol: &'a str,
    /// `1.2` or `1.3`.
    #[serde(rename = "tls.protocol.version", skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'a str>,
    /// From a valid `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// Why the gateway answered itself, or why the exchange broke off.
    #[serde(rename = "error.type", skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// What an operator needs to mend an upstream.
    #[serde(rename = "error.message", skip_serializing_if = "Option::is_none")]
    pub error_message: Option<&'a str>,
    /// Request id.
    #[serde(rename = "portcullis.request.id")]
    pub request_id: &'a str,
    /// Listener name.
    #[serde(rename = "portcullis.listener")]
    pub listener: &'a str,
    /// The consumer that proved who it is.
    #[serde(rename = "portcullis.consumer.id", skip_serializing_if = "Option::is_none")]
    pub consumer: Option<&'a str>,
    /// Whom its token speaks of.
    #[serde(rename = "user.id", skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// By which method it proved who it is.
    #[serde(rename = "portcullis.auth.method", skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<&'a str>,
    /// What it breaks of the route's OpenAPI document: names, no values.
    #[serde(rename = "portcullis.openapi.violation", skip_serializing_if = "Option::is_none")]
    pub violation: Option<&'a str>,
    /// What the WAF found.
    #[serde(rename = "portcullis.waf.verdict")]
    pub verdict: &'a str,
    /// The route's mode.
    #[serde(rename = "portcullis.waf.mode")]
    pub mode: &'a str,
    /// The request's surprise, -log10 p.
    #[serde(rename = "portcullis.waf.score", skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Ids of the rules that matched.
    #[serde(rename = "portcullis.waf.rules", skip_serializing_if = "<[u32]>::is_empty")]
    pub rules: &'a [u32],
    /// Their points.
    #[serde(rename = "portcullis.waf.points")]
    pub points: u32,
    /// Where they matched and on what, masked.
    #[serde(rename = "portcullis.waf.matches", skip_serializing_if = "Vec::is_empty")]
    pub hits: Vec<RuleHit>,
    /// Points of the rules that matched in the response.
    #[serde(rename = "portcullis.waf.response.points", skip_serializing_if = "is_zero")]
    pub response_points: u32,
    /// The rules that matched in the response, where and on what, masked.
    #[serde(rename = "portcullis.waf.response.matches", skip_serializing_if = "Vec::is_empty")]
    pub response_hits: Vec<RuleHit>,
    /// Seconds from arrival to the last byte.
    #[serde(rename = "portcullis.duration.total_s")]
    pub total_s: f64,
    /// Seconds until the upstream's headers.
    #[serde(rename = "portcullis.duration.upstream_s", skip_serializing_if = "Option::is_none")]
    pub upstream_s: Option<f64>,
    /// Seconds until it was known who calls.
    #[serde(rename = "portcullis.duration.auth_s", skip_serializing_if = "Option::is_none")]
    pub auth_s: Option<f64>,
    /// Seconds of inspection.
    #[serde(rename = "portcullis.duration.waf_s", skip_serializing_if = "Option::is_none")]
    pub waf_s: Option<f64>,
}

impl AccessLog {
    /// A log to standard output, written by a thread of its own until the flusher is dropped.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn stdout() -> std::io::Result<(Self, Flusher)> {
        let (writer, flusher) = Writer::start(std::io::stdout())?;
        Ok((Self { sink: Sink::Stdout(writer) }, flusher))
    }

    /// A log in memory, for tests.
    pub fn memory() -> Self {
        Self { sink: Sink::Memory(Mutex::default()) }
    }

    /// What a log in memory holds; empty for others.
    pub fn text(&self) -> String {
        let Sink::Memory(lines) = &self.sink else { return String::new() };
        let lines = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(&lines).into_owned()
    }

    /// Lines dropped because they could not be kept or written.
    pub fn dropped(&self) -> u64 {
        match &self.sink {
            Sink::Stdout(writer) => writer.dropped(),
            Sink::Memory(_) => 0,
        }
    }

    /// Writes one line.
    pub fn write(&self, line: &Line<'_>) {
        TEXT.with_borrow_mut(|text| {
            text.clear();
            if serde_json::to_writer(&mut *text, line).is_err() {
                return;
            }
            text.push(b'\n');
            match &self.sink {
                Sink::Stdout(writer) => writer.append(text),
                Sink::Memory(lines) => {
                    lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(text);
                }
            }
        });
    }
}

fn is_zero(points: &u32) -> bool {
    *points == 0
}

thread_local! {
    /// Room for the line that a thread writes: none is made for each.
    static TEXT: RefCell<Vec<u8>> = RefCell::default();
}

fn rfc3339<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_nanos(*at))
}

/// As much of a name that somebody else chose as fits into a line.
pub fn shortened(name: &str) -> &str {
    name.get(..name.floor_char_boundary(128)).unwrap_or_default()
}

/// The trace id of a valid `traceparent`.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    (is_hex(version, 2) && is_hex(id, 32) && id.bytes().any(|byte| byte != b'0')).then_some(id)
}

/// A method by name, if it is a common one: others may hold anything.
pub fn known_method(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::HEAD => "HEAD",
        http::Method::POST => "POST",
        http::Method::PUT => "PUT",
        http::Method::PATCH => "PATCH",
        http::Method::DELETE => "DELETE",
        http::Method::OPTIONS => "OPTIONS",
        http::Method::TRACE => "TRACE",
        http::Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_trace_id_is_logged() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
        assert_eq!(trace_id("00-secret-x-01"), None);
        assert_eq!(trace_id(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))), None);
    }
}
