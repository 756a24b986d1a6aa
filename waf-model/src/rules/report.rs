//! What an operator sees of a match: names shaped, values masked.

use super::{
    RuleMatch, Severity,
    evaluate::Run,
    program::Rule,
    template::{Macro, Template},
    variable::Source,
};
use crate::{mask::mask, shape, values::Location};

/// Where and what a rule matched.
#[derive(Debug, Default)]
pub(super) struct Hit {
    pub(super) location: Option<Location>,
    pub(super) variable: String,
    pub(super) fragment: Vec<u8>,
}

/// The report of a match.
pub(super) fn describe(run: &Run<'_, '_, '_>, rule: &Rule, severity: Severity, hit: Hit) -> RuleMatch {
    RuleMatch {
        id: rule.id,
        message: masked(run, rule, &rule.message),
        severity,
        tags: rule.tags.clone(),
        location: hit.location,
        variable: hit.variable,
        fragment: mask(&hit.fragment),
        data: rule.data.as_ref().map(|data| masked(run, rule, data)).unwrap_or_default(),
    }
}

/// The text of a template, with masks where values stand.
fn masked(run: &Run<'_, '_, '_>, rule: &Rule, template: &Template) -> String {
    let text = template.expand(|name, out| {
        let mut value = Vec::new();
        run.macro_value(name, rule, &mut value);
        let seen = match name {
            Macro::RuleId | Macro::RuleMessage | Macro::RuleSeverity => None,
            Macro::MatchedVarName => Some(shown(&value)),
            // A sum of points is nobody's secret, and what an operator has to know.
            Macro::Tx(slot) if run.program.names.is_score(*slot) && is_number(&value) => None,
            _ => Some(mask(&value)),
        };
        out.extend_from_slice(seen.as_ref().map_or(&value, |seen| seen.as_bytes()));
    });
    String::from_utf8_lossy(&text).into_owned()
}

fn is_number(value: &[u8]) -> bool {
    value.len() <= 6 && value.iter().all(u8::is_ascii_digit)
}

/// The number that SecLang gives a severity.
pub(super) fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Critical => 2,
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Notice => 5,
    }
}

/// The variable as rules name it.
pub(super) fn raw_name(source: Source, name: &[u8]) -> Vec<u8> {
    let variable = variable(source).as_bytes();
    if name.is_empty() { variable.to_vec() } else { [variable, b":", name].concat() }
}

/// The variable as SecLang writes it, its name shaped: what does not look like a name is a value in disguise.
pub(super) fn shown_name(source: Source, name: &[u8]) -> String {
    let variable = variable(source);
    if name.is_empty() { variable.to_owned() } else { format!("{variable}:{}", shape::name(name)) }
}

/// As [`shown_name`], for a whole name.
pub(super) fn shown(name: &[u8]) -> String {
    let colon = name.iter().position(|byte| *byte == b':').unwrap_or(name.len());
    let (variable, rest) = name.split_at_checked(colon).unwrap_or((name, b""));
    let variable = String::from_utf8_lossy(variable);
    match rest.get(1..).filter(|rest| !rest.is_empty()) {
        Some(rest) => format!("{variable}:{}", shape::name(rest)),
        None => variable.into_owned(),
    }
}

fn variable(source: Source) -> &'static str {
    match source {
        Source::Query | Source::Body => "ARGS",
        Source::QueryName | Source::BodyName => "ARGS_NAMES",
        Source::Xml | Source::XmlAttribute => "XML",
        Source::Header => "REQUEST_HEADERS",
        Source::HeaderName => "REQUEST_HEADERS_NAMES",
        Source::Cookie => "REQUEST_COOKIES",
        Source::CookieName => "REQUEST_COOKIES_NAMES",
        Source::FileName => "FILES",
        Source::FileField => "FILES_NAMES",
        Source::FileSize => "FILES_SIZES",
        Source::PartHeader => "MULTIPART_PART_HEADERS",
        Source::Segment => "PATH_SEGMENTS",
        Source::Uri => "REQUEST_URI",
        Source::UriRaw => "REQUEST_URI_RAW",
        Source::Path => "REQUEST_FILENAME",
        Source::Basename => "REQUEST_BASENAME",
        Source::QueryString => "QUERY_STRING",
        Source::Method => "REQUEST_METHOD",
        Source::Protocol => "REQUEST_PROTOCOL",
        Source::Line => "REQUEST_LINE",
        Source::RawBody => "REQUEST_BODY",
        Source::FullRequest => "FULL_REQUEST",
        Source::Address => "REMOTE_ADDR",
        Source::ClientPort => "REMOTE_PORT",
        Source::ServerAddress => "SERVER_ADDR",
        Source::ServerPort => "SERVER_PORT",
        Source::ServerName => "SERVER_NAME",
        Source::AuthType => "AUTH_TYPE",
        Source::User => "REMOTE_USER",
        Source::RequestId => "UNIQUE_ID",
        Source::Finding => "FINDINGS",
        Source::ResponseHeader => "RESPONSE_HEADERS",
        Source::ResponseHeaderName => "RESPONSE_HEADERS_NAMES",
        Source::ResponseBody => "RESPONSE_BODY",
        Source::ResponseStatus => "RESPONSE_STATUS",
        Source::ResponseProtocol => "RESPONSE_PROTOCOL",
        Source::ResponseLine => "STATUS_LINE",
        Source::ResponseType => "RESPONSE_CONTENT_TYPE",
    }
}
