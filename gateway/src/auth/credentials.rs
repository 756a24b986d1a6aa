//! Credentials as a request carries them: found, and taken out of what goes on.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, Uri,
    header::AUTHORIZATION,
    request::Parts,
    uri::{InvalidUri, PathAndQuery},
};

/// Longest credential that is looked at, in bytes.
pub const LONGEST: usize = 16 * 1024;

/// What a request says where a credential may stand.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// Nothing.
    Absent,
    /// One credential.
    One(T),
    /// Several, or one that cannot be read.
    Unclear,
}

/// The value of a header that may stand once.
pub fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Found<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) => match value.to_str() {
            Ok(text) if !text.is_empty() && text.len() <= LONGEST => Found::One(text),
            _ => Found::Unclear,
        },
        (Some(_), Some(_)) => Found::Unclear,
    }
}

/// What follows `scheme` in `Authorization`; other schemes are somebody else's.
pub fn authorization<'a>(headers: &'a HeaderMap, scheme: &str) -> Found<&'a str> {
    match header(headers, &AUTHORIZATION) {
        Found::One(text) => match after_scheme(text, scheme) {
            Some("") => Found::Unclear,
            Some(rest) => Found::One(rest),
            None => Found::Absent,
        },
        other => other,
    }
}

fn after_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim_start())
}

/// The value of a query argument that may stand once, decoded.
pub fn argument<'a>(query: Option<&'a str>, name: &str) -> Found<Cow<'a, str>> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = pairs.filter(|(found, _)| found == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Found::Absent,
        (Some(value), None) if !value.is_empty() => Found::One(value),
        _ => Found::Unclear,
    }
}

/// Takes credentials of `scheme` out of `Authorization`.
pub fn strip_authorization(headers: &mut HeaderMap, scheme: &str) {
    let is_ours = |value: &http::HeaderValue| {
        let bytes = value.as_bytes().trim_ascii_start();
        bytes.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    if headers.get_all(AUTHORIZATION).iter().any(is_ours) {
        headers.remove(AUTHORIZATION);
    }
}

/// Takes a query argument out of the target; what is left of the query stays as it was written.
///
/// # Errors
/// What is left is no target, which cannot happen to one that was.
pub fn strip_argument(parts: &mut Parts, name: &str) -> Result<(), InvalidUri> {
    let Some(query) = parts.uri.query() else { return Ok(()) };
    let is_other = |pair: &&str| form_urlencoded::parse(pair.as_bytes()).all(|(found, _)| found != name);
    let kept: Vec<&str> = query.split('&').filter(is_other).collect();
    if kept.len() == query.split('&').count() {
        return Ok(());
    }
    let path = parts.uri.path();
    let target = if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    let mut pieces = parts.uri.clone().into_parts();
    pieces.path_and_query = Some(target.parse::<PathAndQuery>()?);
    if let Ok(uri) = Uri::from_parts(pieces) {
        parts.uri = uri;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    #[test]
    fn a_scheme_is_found_in_any_case_and_only_once() {
        let found = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            match authorization(&headers, "Bearer") {
                Found::One(text) => text.to_owned(),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(found(&["bearer  abc"]), "abc");
        assert_eq!(found(&["Basic abc"]), "Absent");
        assert_eq!(found(&["Bearerabc"]), "Absent");
        assert_eq!(found(&["Bearer"]), "Unclear");
        assert_eq!(found(&["Bearer a", "Bearer b"]), "Unclear");
    }

    #[test]
    fn an_argument_is_found_and_removed_in_every_spelling_and_the_rest_is_left_alone() {
        assert_eq!(argument(Some("a=1&k=x%20y"), "k"), Found::One("x y".into()));
        assert_eq!(argument(Some("k=1&%6b=2"), "k"), Found::Unclear);
        assert_eq!(argument(Some("k="), "k"), Found::Unclear);
        assert_eq!(argument(None, "k"), Found::Absent);
        let stripped = |target: &str| {
            let mut parts = Request::builder().uri(target).body(()).unwrap().into_parts().0;
            strip_argument(&mut parts, "k").unwrap();
            parts.uri.to_string()
        };
        assert_eq!(stripped("/a?x=%41&k=1&&y&%6B=2"), "/a?x=%41&&y");
        assert_eq!(stripped("/a?k=1"), "/a");
        assert_eq!(stripped("/a?kk=1"), "/a?kk=1");
        assert_eq!(stripped("/a"), "/a");
    }
}
