//! The `VARIABLES` part of a rule: which names and values it looks at.

use regex::bytes::Regex;

use super::pattern;

/// What one text of a request is; a variable of SecLang is a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    Query,
    Body,
    QueryName,
    BodyName,
    Xml,
    Header,
    HeaderName,
    Cookie,
    CookieName,
    FileName,
    FileField,
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
    Address,
    Finding,
}

/// A set of [`Source`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Sources(u32);

impl Sources {
    fn of(sources: &[Source]) -> Self {
        Self(sources.iter().fold(0, |set, source| set | 1 << *source as u32))
    }

    pub(super) fn contains(self, source: Source) -> bool {
        self.0 & (1 << source as u32) != 0
    }

    pub(super) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// The collection that a variable reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Collection {
    /// Texts of the request.
    Request(Sources),
    /// The variables that rules set.
    Tx,
    /// What the rule before it in the chain matched: the last text, or each one.
    Matched { all: bool },
}

/// Which members of a collection.
#[derive(Debug, Clone)]
pub(super) enum Selector {
    All,
    /// ASCII case is ignored.
    Name(String),
    Pattern(Regex),
}

impl Selector {
    pub(super) fn selects(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Name(wanted) => name.eq_ignore_ascii_case(wanted.as_bytes()),
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
    /// Whether the text called `name` from `source` belongs to this variable.
    pub(super) fn selects(&self, source: Source, name: &[u8]) -> bool {
        matches!(self.collection, Collection::Request(sources) if sources.contains(source))
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
        format!("variable `{name}` is not supported yet; remove the rule or take another variable")
    })?;
    let selector = match selector {
        _ if upper == "XML" => match selector {
            Some("/*" | "//@*") => Selector::All,
            _ => return Err(format!("`{text}`: only XML:/* and XML://@* are supported; take one of them")),
        },
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
        Some(inner) => Ok(Selector::Pattern(pattern::selector(inner)?)),
        None => Ok(Selector::Name(text.to_owned())),
    }
}

/// The collection called `name` and whether its members have names.
fn collection(name: &str) -> Option<(Collection, bool)> {
    use Source as S;
    let (sources, named): (&[Source], bool) = match name {
        "TX" => return Some((Collection::Tx, true)),
        "MATCHED_VAR" => return Some((Collection::Matched { all: false }, false)),
        "MATCHED_VARS" => return Some((Collection::Matched { all: true }, false)),
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
        "XML" => (&[S::Xml], true),
        "PATH_SEGMENTS" => (&[S::Segment], false),
        "REQUEST_URI" => (&[S::Uri], false),
        "REQUEST_URI_RAW" => (&[S::UriRaw], false),
        "REQUEST_FILENAME" => (&[S::Path], false),
        "REQUEST_BASENAME" => (&[S::Basename], false),
        "QUERY_STRING" => (&[S::QueryString], false),
        "REQUEST_METHOD" => (&[S::Method], false),
        "REQUEST_PROTOCOL" => (&[S::Protocol], false),
        "REQUEST_LINE" => (&[S::Line], false),
        "REQUEST_BODY" => (&[S::RawBody], false),
        "REMOTE_ADDR" => (&[S::Address], false),
        // Our own: the names of what is malformed or ambiguous about the request's form.
        "FINDINGS" => (&[S::Finding], false),
        _ => return None,
    };
    Some((Collection::Request(Sources::of(sources)), named))
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
            ("ARGS|DURATION", "DURATION"),
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
