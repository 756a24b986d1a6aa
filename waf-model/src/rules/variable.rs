//! The `VARIABLES` part of a rule: which names and values it looks at.

use memchr::memmem::Finder;
use regex::bytes::Regex;

use super::pattern;
use crate::values::Departure;

/// What one text of an exchange is; a variable of SecLang is a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    Query,
    Body,
    QueryName,
    BodyName,
    Xml,
    XmlAttribute,
    Header,
    HeaderName,
    Cookie,
    CookieName,
    FileName,
    FileField,
    FileSize,
    PartHeader,
    Segment,
    Uri,
    UriRaw,
    Path,
    Basename,
    QueryString,
    Method,
    Protocol,
    Line,
    RawBody,
    FullRequest,
    Address,
    ClientPort,
    ServerAddress,
    ServerPort,
    ServerName,
    AuthType,
    User,
    RequestId,
    Finding,
    ResponseHeader,
    ResponseHeaderName,
    ResponseBody,
    ResponseStatus,
    ResponseProtocol,
    ResponseLine,
    ResponseType,
}

impl Source {
    /// Each of them, by its number.
    pub(super) const ALL: [Self; 41] = [
        Self::Query,
        Self::Body,
        Self::QueryName,
        Self::BodyName,
        Self::Xml,
        Self::XmlAttribute,
        Self::Header,
        Self::HeaderName,
        Self::Cookie,
        Self::CookieName,
        Self::FileName,
        Self::FileField,
        Self::FileSize,
        Self::PartHeader,
        Self::Segment,
        Self::Uri,
        Self::UriRaw,
        Self::Path,
        Self::Basename,
        Self::QueryString,
        Self::Method,
        Self::Protocol,
        Self::Line,
        Self::RawBody,
        Self::FullRequest,
        Self::Address,
        Self::ClientPort,
        Self::ServerAddress,
        Self::ServerPort,
        Self::ServerName,
        Self::AuthType,
        Self::User,
        Self::RequestId,
        Self::Finding,
        Self::ResponseHeader,
        Self::ResponseHeaderName,
        Self::ResponseBody,
        Self::ResponseStatus,
        Self::ResponseProtocol,
        Self::ResponseLine,
        Self::ResponseType,
    ];
}

/// A set of [`Source`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Sources(u64);

impl Sources {
    pub(super) fn of(sources: &[Source]) -> Self {
        Self(sources.iter().fold(0, |set, source| set | 1 << *source as u64))
    }

    pub(super) fn contains(self, source: Source) -> bool {
        self.0 & (1 << source as u64) != 0
    }

    pub(super) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether the two have a member in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// One number or word that is worked out when a rule asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scalar {
    ArgsCombinedSize,
    FilesCombinedSize,
    BodyLength,
    FullRequestLength,
    BodyProcessor,
    /// 1 if the body is not what its type says.
    BodyError,
    BodyErrorText,
    /// 1 if a multipart body can be read in two ways.
    MultipartStrict,
    /// 1 if it departs in this way from what browsers write.
    Departs(Departure),
    /// 1 if some of its lines end in CRLF and others in LF alone.
    MultipartMixedLines,
    InboundError,
    OutboundError,
    ResponseLength,
    HighestSeverity,
    /// Milliseconds since the first phase.
    Duration,
    Time,
    TimeDay,
    TimeEpoch,
    TimeHour,
    TimeMinute,
    TimeMonth,
    TimeSecond,
    TimeWeekday,
    TimeYear,
    MatchedName,
    /// The key of a collection, as `setsid` and `setuid` chose it.
    Key(Store),
    /// What a gateway does not know: which of several applications in one server this is.
    Unknown,
}

impl Scalar {
    /// The texts that it is worked out from.
    pub(super) fn reads(self) -> Sources {
        match self {
            Self::ArgsCombinedSize => Sources::of(&[Source::Query, Source::Body]),
            Self::FilesCombinedSize => Sources::of(&[Source::FileSize]),
            _ => Sources::default(),
        }
    }
}

/// A collection that outlives the request, bound to a key by `initcol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Store {
    Global,
    Ip,
    Resource,
    Session,
    User,
}

impl Store {
    /// How many there are.
    pub(super) const COUNT: usize = 5;

    /// The collection called `name`, in any case.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "global" => Self::Global,
            "ip" => Self::Ip,
            "resource" => Self::Resource,
            "session" => Self::Session,
            "user" => Self::User,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Global => "GLOBAL",
            Self::Ip => "IP",
            Self::Resource => "RESOURCE",
            Self::Session => "SESSION",
            Self::User => "USER",
        }
    }
}

/// The collection that a variable reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Collection {
    /// Texts of the exchange.
    Texts(Sources),
    Scalar(Scalar),
    /// The variables that rules set.
    Tx,
    Store(Store),
    /// What the rule before it in the chain matched: the last text, or each one; or their names.
    Matched {
        all: bool,
        names: bool,
    },
    /// Needs a database that the gateway does not have: always empty.
    Empty,
}

/// Which members of a collection.
#[derive(Debug, Clone)]
pub(super) enum Selector {
    All,
    /// ASCII case is ignored.
    Name(String),
    /// The name contains this text in lower case; what most patterns say.
    Part(Box<Finder<'static>>),
    /// The name starts with this text in lower case.
    Start(Box<[u8]>),
    Pattern(Regex),
}

impl Selector {
    pub(super) fn selects(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Name(wanted) => name.eq_ignore_ascii_case(wanted.as_bytes()),
            Self::Part(part) if name.iter().any(u8::is_ascii_uppercase) => {
                part.find(&name.to_ascii_lowercase()).is_some()
            }
            Self::Part(part) => part.find(name).is_some(),
            Self::Start(start) => {
                name.get(..start.len()).is_some_and(|name| name.eq_ignore_ascii_case(start))
            }
            Self::Pattern(pattern) => pattern.is_match(name),
        }
    }
}

/// What is taken of the selected members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Role {
    /// Each of them.
    Values,
    /// `&`: how many there are.
    Count,
    /// `!`: all but them.
    Exclusion,
}

/// One variable of a rule.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) collection: Collection,
    pub(super) selector: Selector,
    pub(super) role: Role,
    /// As written, for names of matches and for grouping rules with the same variables.
    pub(super) text: String,
}

impl Variable {
    /// Whether this selects whatever `other` does, told from how both are written.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (&self.selector, &other.selector) {
            (Selector::All, _) => true,
            (selector, Selector::Name(name)) => selector.selects(name.as_bytes()),
            _ => self.text.eq_ignore_ascii_case(&other.text),
        }
    }

    /// Whether the text called `name` from `source` belongs to this variable.
    pub(super) fn selects(&self, source: Source, name: &[u8]) -> bool {
        matches!(self.collection, Collection::Texts(sources) if sources.contains(source))
            && self.selector.selects(name)
    }
}

/// Parses `ARGS|!ARGS:/^_/|&REQUEST_HEADERS:Host`.
pub(super) fn parse(text: &str) -> Result<Vec<Variable>, String> {
    split(text).into_iter().map(|part| parse_one(part.trim())).collect()
}

/// Parses one variable.
pub(super) fn parse_one(text: &str) -> Result<Variable, String> {
    let (role, rest) = match text.as_bytes().first() {
        Some(b'!') => (Role::Exclusion, text.get(1..).unwrap_or_default()),
        Some(b'&') => (Role::Count, text.get(1..).unwrap_or_default()),
        _ => (Role::Values, text),
    };
    let (name, selector) = match rest.split_once(':') {
        Some((name, selector)) => (name, Some(selector)),
        None => (rest, None),
    };
    let upper = name.to_ascii_uppercase();
    let (collection, named) = collection(&upper).ok_or_else(|| {
        format!("variable `{name}` is not supported; remove the rule or take another variable")
    })?;
    let (collection, selector) = match (upper.as_str(), selector) {
        ("XML", Some("/*" | "//*" | "/*/text()" | "//text()")) => (collection, None),
        ("XML", Some("//@*")) => (Collection::Texts(Sources::of(&[Source::XmlAttribute])), None),
        ("XML", _) => {
            return Err(format!("`{text}`: only XML:/* and XML://@* are supported; take one of them"));
        }
        (_, selector) => (collection, selector),
    };
    let selector = match selector {
        None => Selector::All,
        Some(_) if !named => return Err(format!("`{name}` is one value and takes no selector; remove `:…`")),
        Some(selector) => parse_selector(selector).map_err(|error| format!("`{text}`: {error}"))?,
    };
    Ok(Variable { collection, selector, role, text: text.to_owned() })
}

fn parse_selector(text: &str) -> Result<Selector, String> {
    let text = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\'')).unwrap_or(text);
    if text.is_empty() {
        return Err("the selector after `:` is empty; name a member or remove the colon".to_owned());
    }
    match text.strip_prefix('/').and_then(|t| t.strip_suffix('/')) {
        Some(inner) if is_plain(inner) => {
            let part = inner.to_ascii_lowercase().into_bytes();
            Ok(Selector::Part(Box::new(Finder::new(&part).into_owned())))
        }
        Some(inner) if inner.strip_prefix('^').is_some_and(is_plain) => {
            let start = inner.trim_start_matches('^').to_ascii_lowercase().into_bytes();
            Ok(Selector::Start(start.into_boxed_slice()))
        }
        Some(inner) => Ok(Selector::Pattern(pattern::selector(inner)?)),
        None => Ok(Selector::Name(text.to_owned())),
    }
}

/// Whether a pattern means just itself.
fn is_plain(pattern: &str) -> bool {
    pattern.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// The collection called `name` and whether its members have names.
fn collection(name: &str) -> Option<(Collection, bool)> {
    use {Scalar as N, Source as S};
    let (sources, named): (&[Source], bool) = match name {
        "TX" => return Some((Collection::Tx, true)),
        "MATCHED_VAR" => return Some((Collection::Matched { all: false, names: false }, false)),
        "MATCHED_VARS" => return Some((Collection::Matched { all: true, names: false }, true)),
        "MATCHED_VARS_NAMES" => return Some((Collection::Matched { all: true, names: true }, true)),
        "ARGS" => (&[S::Query, S::Body], true),
        "ARGS_GET" => (&[S::Query], true),
        "ARGS_POST" => (&[S::Body], true),
        "ARGS_NAMES" => (&[S::QueryName, S::BodyName], true),
        "ARGS_GET_NAMES" => (&[S::QueryName], true),
        "ARGS_POST_NAMES" => (&[S::BodyName], true),
        "REQUEST_HEADERS" => (&[S::Header], true),
        "REQUEST_HEADERS_NAMES" => (&[S::HeaderName], true),
        "REQUEST_COOKIES" => (&[S::Cookie], true),
        "REQUEST_COOKIES_NAMES" => (&[S::CookieName], true),
        "FILES" => (&[S::FileName], true),
        "FILES_NAMES" => (&[S::FileField], true),
        "FILES_SIZES" => (&[S::FileSize], true),
        "MULTIPART_FILENAME" => (&[S::FileName], true),
        "MULTIPART_NAME" => (&[S::FileField], true),
        "MULTIPART_PART_HEADERS" => (&[S::PartHeader], true),
        "XML" => (&[S::Xml, S::XmlAttribute], true),
        // Our own: each segment of the path, decoded.
        "PATH_SEGMENTS" => (&[S::Segment], false),
        "REQUEST_URI" => (&[S::Uri], false),
        "REQUEST_URI_RAW" => (&[S::UriRaw], false),
        "REQUEST_FILENAME" | "PATH_INFO" => (&[S::Path], false),
        "REQUEST_BASENAME" => (&[S::Basename], false),
        "QUERY_STRING" => (&[S::QueryString], false),
        "REQUEST_METHOD" => (&[S::Method], false),
        "REQUEST_PROTOCOL" => (&[S::Protocol], false),
        "REQUEST_LINE" => (&[S::Line], false),
        "REQUEST_BODY" => (&[S::RawBody], false),
        "FULL_REQUEST" => (&[S::FullRequest], false),
        "REMOTE_ADDR" | "REMOTE_HOST" => (&[S::Address], false),
        "REMOTE_PORT" => (&[S::ClientPort], false),
        "REMOTE_USER" => (&[S::User], false),
        "AUTH_TYPE" => (&[S::AuthType], false),
        "SERVER_ADDR" => (&[S::ServerAddress], false),
        "SERVER_NAME" => (&[S::ServerName], false),
        "SERVER_PORT" => (&[S::ServerPort], false),
        "UNIQUE_ID" => (&[S::RequestId], false),
        "RESPONSE_HEADERS" => (&[S::ResponseHeader], true),
        "RESPONSE_HEADERS_NAMES" => (&[S::ResponseHeaderName], true),
        "RESPONSE_BODY" => (&[S::ResponseBody], false),
        "RESPONSE_STATUS" => (&[S::ResponseStatus], false),
        "RESPONSE_PROTOCOL" => (&[S::ResponseProtocol], false),
        "STATUS_LINE" => (&[S::ResponseLine], false),
        "RESPONSE_CONTENT_TYPE" => (&[S::ResponseType], false),
        // Our own: the names of what is malformed or ambiguous about the request's form.
        "FINDINGS" => (&[S::Finding], false),
        "GEO" => return Some((Collection::Empty, true)),
        _ => {
            if let Some(store) = Store::named(name) {
                return Some((Collection::Store(store), true));
            }
            let scalar = match name {
                "ARGS_COMBINED_SIZE" => N::ArgsCombinedSize,
                "FILES_COMBINED_SIZE" => N::FilesCombinedSize,
                "REQUEST_BODY_LENGTH" => N::BodyLength,
                "FULL_REQUEST_LENGTH" => N::FullRequestLength,
                "REQBODY_PROCESSOR" => N::BodyProcessor,
                "REQBODY_ERROR" | "REQBODY_PROCESSOR_ERROR" => N::BodyError,
                "REQBODY_ERROR_MSG" | "REQBODY_PROCESSOR_ERROR_MSG" => N::BodyErrorText,
                "MULTIPART_STRICT_ERROR" => N::MultipartStrict,
                "MULTIPART_BOUNDARY_QUOTED" => N::Departs(Departure::BoundaryQuoted),
                "MULTIPART_BOUNDARY_WHITESPACE" => N::Departs(Departure::BoundaryWhitespace),
                "MULTIPART_CRLF_LF_LINES" => N::MultipartMixedLines,
                "MULTIPART_DATA_AFTER" => N::Departs(Departure::DataAfter),
                "MULTIPART_DATA_BEFORE" => N::Departs(Departure::DataBefore),
                "MULTIPART_FILE_LIMIT_EXCEEDED" => N::Departs(Departure::TooManyParts),
                "MULTIPART_HEADER_FOLDING" => N::Departs(Departure::HeaderFolding),
                "MULTIPART_INVALID_HEADER_FOLDING" => N::Departs(Departure::InvalidHeaderFolding),
                "MULTIPART_INVALID_PART" => N::Departs(Departure::InvalidPart),
                "MULTIPART_INVALID_QUOTING" => N::Departs(Departure::InvalidQuoting),
                "MULTIPART_LF_LINE" => N::Departs(Departure::LfLine),
                "MULTIPART_MISSING_SEMICOLON" => N::Departs(Departure::MissingSemicolon),
                "MULTIPART_UNMATCHED_BOUNDARY" => N::Departs(Departure::UnmatchedBoundary),
                "INBOUND_DATA_ERROR" => N::InboundError,
                "OUTBOUND_DATA_ERROR" => N::OutboundError,
                "RESPONSE_CONTENT_LENGTH" => N::ResponseLength,
                "HIGHEST_SEVERITY" => N::HighestSeverity,
                "DURATION" => N::Duration,
                "TIME" => N::Time,
                "TIME_DAY" => N::TimeDay,
                "TIME_EPOCH" => N::TimeEpoch,
                "TIME_HOUR" => N::TimeHour,
                "TIME_MIN" => N::TimeMinute,
                "TIME_MON" => N::TimeMonth,
                "TIME_SEC" => N::TimeSecond,
                "TIME_WDAY" => N::TimeWeekday,
                "TIME_YEAR" => N::TimeYear,
                "MATCHED_VAR_NAME" => N::MatchedName,
                "SESSIONID" => N::Key(Store::Session),
                "USERID" => N::Key(Store::User),
                "WEBAPPID" => N::Unknown,
                _ => return None,
            };
            return Some((Collection::Scalar(scalar), false));
        }
    };
    Some((Collection::Texts(Sources::of(sources)), named))
}

/// Splits at `|` outside of a `/pattern/`.
fn split(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut parts = Vec::new();
    let (mut start, mut in_pattern) = (0, false);
    for (index, byte) in bytes.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|i| bytes.get(i));
        match byte {
            b'/' if in_pattern => in_pattern = before == Some(&b'\\'),
            // A pattern opens right after the colon, perhaps inside a quote; `XML:/*` is none.
            b'/' => {
                let opens = matches!(before, Some(b':' | b'\''));
                in_pattern = opens && !matches!(bytes.get(index + 1), Some(b'*' | b'/'));
            }
            b'|' if !in_pattern => {
                parts.push(text.get(start..index).unwrap_or_default());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn roles_and_selectors() {
        let found =
            parse("ARGS|!ARGS:/^a|b/|&REQUEST_HEADERS:Host|XML:/*|TX:'/^x\\/|y/'|REQUEST_URI").unwrap();
        let roles: Vec<_> = found.iter().map(|v| v.role).collect();
        assert_eq!(
            roles,
            [Role::Values, Role::Exclusion, Role::Count, Role::Values, Role::Values, Role::Values]
        );
        assert!(found.get(1).unwrap().selects(Source::Query, b"bb"));
        assert!(!found.get(1).unwrap().selects(Source::Cookie, b"bb"));
        assert!(found.get(2).unwrap().selects(Source::Header, b"host"));
        assert!(found.get(4).unwrap().selector.selects(b"y"));
    }

    #[test]
    fn unknown_variables_are_named() {
        for (text, part) in [
            ("ARGS|ENV", "ENV"),
            ("REQUEST_URI:x", "no selector"),
            ("ARGS:", "empty"),
            ("XML:/a/b", "only XML:/*"),
            ("ARGS:/(/", "ARGS:/(/"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
