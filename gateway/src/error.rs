//! What can go wrong with one request, whose fault it is, and the status that says so.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use waf_model::{
    rules::{Denial, Manner},
    values::Finding,
};

use crate::openapi::Violation;

/// Why a request got no answer from the upstream. What it holds is for the log; the client sees the status alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request's form is wrong, or two parsers could read it differently.
    Malformed(&'static str),
    /// `CONNECT`, which a gateway has no use for.
    Tunnel,
    /// The request is for another host than its connection was opened for.
    Misdirected,
    /// As many requests are in progress as may be.
    Overloaded,
    /// Path and query are too long.
    UriTooLong,
    /// Too many header fields, or too many bytes of them.
    HeadersTooLarge,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body stopped coming.
    BodyStalled,
    /// The body could not be read to its end.
    BodyBroken,
    /// No route matches.
    NoRoute,
    /// A route matches, but not with this method. Holds the methods that would.
    MethodNotAllowed(Vec<Method>),
    /// Who calls is not known, or may not do this.
    Refused(Box<Refusal>),
    /// It breaks the OpenAPI document of its route.
    Contract(Box<Violation>),
    /// The WAF or the block list said no.
    Rejected,
    /// A rule said no, and how.
    Denied(Denial),
    /// The WAF withheld the upstream's response.
    ResponseRejected,
    /// Inspection failed and the route demands it.
    NotInspected,
    /// Part of the request cannot be inspected, and the route demands it.
    Uninspectable(Finding),
    /// No connection to the upstream.
    UpstreamUnreachable(String),
    /// No origin may have more requests at once.
    UpstreamBusy,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream answered with something that is not HTTP, or not all of it.
    UpstreamBroken(String),
    /// A defect of the gateway.
    Internal(&'static str),
}

/// How authentication answers instead of the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// Why, for the log: from a fixed set.
    pub reason: &'static str,
    /// What the answer says beside its status.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// A status and nothing else.
    pub fn new(status: StatusCode, reason: &'static str) -> Self {
        Self::with(status, reason, Vec::new())
    }

    /// A status with headers.
    pub fn with(status: StatusCode, reason: &'static str, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self { status, reason, headers }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's side.
    Downstream,
    /// The origin's side.
    Upstream,
    /// Ours.
    Internal,
}

impl Fault {
    /// The one table from fault to status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::Tunnel | Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Uninspectable(Finding::EncodedBody) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Uninspectable(Finding::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Uninspectable(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Refused(refusal) => refusal.status,
            Self::Contract(violation) => violation.status,
            Self::Rejected | Self::ResponseRejected => StatusCode::FORBIDDEN,
            Self::Denied(denial) => denied_status(denial),
            Self::NotInspected | Self::UpstreamBusy => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnreachable(_) | Self::UpstreamBroken(_) => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whose fault it is.
    pub fn side(&self) -> Side {
        match self {
            Self::UpstreamUnreachable(_)
            | Self::UpstreamBusy
            | Self::UpstreamTimeout
            | Self::UpstreamBroken(_)
            | Self::ResponseRejected => Side::Upstream,
            Self::NotInspected | Self::Internal(_) => Side::Internal,
            _ => Side::Downstream,
        }
    }

    /// A short name for the log's `error.type`; from a fixed set.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(what) => what,
            Self::Tunnel => "tunnel",
            Self::Misdirected => "misdirected",
            Self::Overloaded => "overloaded",
            Self::UriTooLong => "uri_too_long",
            Self::HeadersTooLarge => "headers_too_large",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyStalled => "body_stalled",
            Self::BodyBroken => "body_broken",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::Refused(refusal) => refusal.reason,
            Self::Contract(_) => "openapi",
            Self::Rejected | Self::Denied(_) => "rejected",
            Self::ResponseRejected => "response_rejected",
            Self::NotInspected => "not_inspected",
            Self::Uninspectable(Finding::EncodedBody) => "encoded_body",
            Self::Uninspectable(Finding::TooManyValues) => "too_many_values",
            Self::Uninspectable(Finding::TooDeep) => "too_deep",
            Self::Uninspectable(Finding::TooLarge) => "values_too_large",
            Self::Uninspectable(Finding::TooManyLayers) => "too_many_layers",
            Self::Uninspectable(_) => "uninspectable",
            Self::UpstreamUnreachable(_) => "upstream_unreachable",
            Self::UpstreamBusy => "upstream_busy",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamBroken(_) => "upstream_broken",
            Self::Internal(what) => what,
        }
    }
}

/// The status that a rule asks for, if it is one of a refusal or, for a redirection, of that.
fn denied_status(denial: &Denial) -> StatusCode {
    let (wanted, otherwise) = match denial.manner {
        Manner::Redirect(_) => (300..400, StatusCode::FOUND),
        Manner::Deny | Manner::Drop => (400..600, StatusCode::FORBIDDEN),
    };
    StatusCode::from_u16(denial.status).ok().filter(|_| wanted.contains(&denial.status)).unwrap_or(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_with_which_status_it_denies() {
        let status =
            |status, manner| Fault::Denied(Denial { rule: 1, phase: 1, status, manner }).status().as_u16();
        assert_eq!(
            [403, 404, 503, 200, 99].map(|asked| status(asked, Manner::Deny)),
            [403, 404, 503, 403, 403]
        );
        let away = || Manner::Redirect("/away".to_owned());
        assert_eq!((status(301, away()), status(403, away())), (301, 302));
    }
}
