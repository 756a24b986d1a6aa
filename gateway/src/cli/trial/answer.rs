//! The upstream's answer to the tested request, and what the rules make of it.

use std::{borrow::Cow, fs, path::PathBuf};

use anyhow::{Context as _, bail};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use waf_model::{
    request::{BodyExtent, BodyView, Header, ResponseView},
    rules::{Carry, Context, RuleMatches},
};

use super::{field, message};
use crate::{
    body::coding::{self, Coding},
    config::{Limits, Route},
    pipeline::is_wanted,
    rules::Responses,
    waf::decision,
};

/// One response, from arguments or a file.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Answer {
    /// Status of the upstream's response; with it, or one of the next three, the response is tested, too.
    #[arg(id = "response_status", long = "status", value_name = "STATUS")]
    #[arg(value_parser = clap::value_parser!(u16).range(100..=999))]
    status: Option<u16>,
    /// One header field of the response, 'Name: value'; may be given again.
    #[arg(id = "response_header", long = "response-header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Body of the response; HTML, unless a Content-Type says otherwise.
    #[arg(id = "response_data", long = "response-data", value_name = "BODY")]
    body: Option<String>,
    /// File with a whole response as it is on the wire: status line, header fields, an empty line, the body.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["response_status", "response_header", "response_data"])]
    response: Option<PathBuf>,
}

impl Answer {
    /// The response, if one was given.
    ///
    /// # Errors
    /// It cannot be read as a response.
    pub(super) fn response(&self) -> anyhow::Result<Option<Response<Vec<u8>>>> {
        if let Some(file) = &self.response {
            let name = file.display().to_string();
            let bytes = fs::read(file).with_context(|| name.clone())?;
            return Ok(Some(parse(&bytes).with_context(|| name)?));
        }
        if self.status.is_none() && self.headers.is_empty() && self.body.is_none() {
            return Ok(None);
        }
        let mut headers = HeaderMap::new();
        for line in &self.headers {
            let (name, value) = field(line.as_bytes())?;
            headers.append(name, value);
        }
        if self.body.is_some() && !headers.contains_key(header::CONTENT_TYPE) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        }
        let mut response = Response::new(self.body.clone().unwrap_or_default().into_bytes());
        *response.status_mut() = StatusCode::from_u16(self.status.unwrap_or(200))?;
        *response.headers_mut() = headers;
        Ok(Some(response))
    }
}

/// Reads a response as it is on the wire; lines may end in LF alone.
fn parse(bytes: &[u8]) -> anyhow::Result<Response<Vec<u8>>> {
    let (first, headers, body) = message(bytes)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let Some(status) = status.filter(|_| first.starts_with("HTTP/")) else {
        bail!("line 1 is no status line; write it as HTTP/1.1 200 OK");
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status)?;
    *response.headers_mut() = headers;
    Ok(response)
}

/// What the rules of `route` found in a response, and what would become of it.
pub(super) struct Judged {
    /// Whether it would be withheld.
    pub(super) withheld: bool,
    /// For people and programs.
    pub(super) shown: Value,
    /// Why, if it would be withheld.
    pub(super) why: String,
}

/// Lets the rules look at the response to a request that they let through.
pub(super) fn judge(
    route: &Route,
    limits: &Limits,
    context: &Context<'_>,
    carry: Carry,
    (method, response): (&Method, Response<Vec<u8>>),
) -> Judged {
    let (parts, body) = response.into_parts();
    let fields: Vec<Header<'_>> = parts
        .headers
        .iter()
        .map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    let wanted = match &route.rules.responses {
        Responses::Bodies(wanted) if is_wanted(wanted, method, &parts) => {
            Some(wanted.limit.min(limits.response_inspect_bytes))
        }
        _ => None,
    };
    let seen = wanted.and_then(|most| coding::decode(Coding::of(&parts.headers), &body, most));
    let inspected = match &seen {
        Some((_, BodyExtent::Complete)) => "whole",
        Some((_, BodyExtent::Truncated)) => "prefix",
        None => "no",
    };
    let (bytes, extent) = seen.unwrap_or((Cow::Borrowed(b""), BodyExtent::Truncated));
    let body = BodyView { bytes: &bytes, extent };
    let status = parts.status.as_u16();
    let view = ResponseView { status, protocol: "HTTP/1.1", headers: &fields, body };
    let found = match route.rules.responses {
        Responses::Unseen => RuleMatches::default(),
        _ => route.rules.set.evaluate_response(context, carry, &view),
    };
    let withheld = decision::rules_reject(&found, route.outbound_threshold);
    let why = match &found.denied {
        Some(denial) => format!("rule {} withholds the response", denial.rule),
        None => {
            format!("the response has {} points, withheld from {}", found.points, route.outbound_threshold)
        }
    };
    let shown = json!({
        "status": status,
        "body_inspected": inspected,
        "points": found.weight(),
        "threshold": route.outbound_threshold,
        "denied": found.denied,
        "matches": found.matches,
    });
    Judged { withheld, shown, why }
}
