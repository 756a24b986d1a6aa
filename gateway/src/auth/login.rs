//! Logins at the upstream: who tries to log in is read from the request, whether it worked from the response.

use std::{
    borrow::Cow,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{
    Account,
    brute::{Attempt, Guard, Tried},
};
use crate::{
    body::{
        Body, BoxError,
        coding::{self, Coding},
    },
    clock,
    config::auth::Login,
    error::Fault,
};

/// Most bytes of a response's body in which a sign of failure is looked for.
pub const LOOKED_AT: usize = 64 * 1024;

/// What a login request tries. A request that names no account counts for the one account of all such requests, so that
/// an unusual form is no way around the limits.
///
/// # Errors
/// It names several accounts, or the body was not read to its end: what the upstream would make of it is anybody's guess.
pub fn tried(
    login: &Login,
    guard: &Guard,
    headers: &HeaderMap,
    body: &[u8],
    is_whole: bool,
) -> Result<Tried, Fault> {
    if !is_whole {
        return Err(Fault::BodyTooLarge);
    }
    let account = field(headers, body, &login.account)?;
    let password = match &login.password {
        Some(name) => field(headers, body, name)?,
        None => None,
    };
    Ok(Tried {
        account: Some(Account::of(account.as_deref().unwrap_or_default())),
        password: password.map(|password| guard.password(password.as_bytes())),
    })
}

/// Settles an attempt by what the upstream answers: by the status at once, by the body when it has gone by.
pub fn watch(login: &Arc<Login>, attempt: Attempt, response: Response<Body>) -> Response<Body> {
    if login.statuses.contains(&response.status().as_u16()) {
        attempt.failed();
        return response;
    }
    // Neither a failure nor a success: the upstream is in trouble.
    if response.status().is_server_error() {
        attempt.undecided();
        return response;
    }
    if login.body.is_none() {
        attempt.succeeded(clock::now_ms());
        return response;
    }
    let coding = Coding::of(response.headers());
    response.map(|inner| {
        let mut watched =
            Watched { inner, login: Arc::clone(login), attempt: Some(attempt), coding, seen: Vec::new() };
        if watched.inner.is_end_stream() {
            watched.settle();
        }
        watched.boxed_unsync()
    })
}

/// Asks for a body that can be read where it says whether a login failed.
pub fn ask_for_readable(login: &Login, headers: &mut HeaderMap) {
    if login.body.is_some() {
        headers.remove(header::ACCEPT_ENCODING);
    }
}

/// A body of which the start is looked at as it goes by. The attempt counts as failed unless the body ends without a
/// sign of failure, so that leaving early is no way out.
struct Watched {
    inner: Body,
    login: Arc<Login>,
    attempt: Option<Attempt>,
    coding: Coding,
    seen: Vec<u8>,
}

impl Watched {
    fn settle(&mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        let decoded = coding::decode(self.coding, &self.seen, LOOKED_AT);
        let text = decoded.as_ref().map(|(bytes, _)| String::from_utf8_lossy(bytes));
        match (text, &self.login.body) {
            (Some(text), Some(pattern)) if !pattern.is_match(&text) => attempt.succeeded(clock::now_ms()),
            _ => attempt.failed(),
        }
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let room = LOOKED_AT.saturating_sub(self.seen.len());
            self.seen.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
        if frame.is_none() || self.inner.is_end_stream() {
            self.settle();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The one value of a field, whatever the case of its name.
fn field<'a>(headers: &HeaderMap, body: &'a [u8], name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    let mut found = None;
    let mut take = |value: Cow<'a, str>| match found.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::Malformed("ambiguous_login")),
    };
    if is_json(headers, body) {
        if let Ok(fields) = serde_json::from_slice::<RawFields>(body) {
            for (_, value) in fields.0.into_iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)) {
                take(value.into())?;
            }
        }
    } else {
        let pairs = form_urlencoded::parse(body);
        for (_, value) in pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)) {
            take(value)?;
        }
    }
    Ok(found)
}

fn is_json(headers: &HeaderMap, body: &[u8]) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
    let says_json = kind.is_some_and(|kind| kind.windows(4).any(|window| window == b"json"));
    // Servers that do not look at the type read it all the same.
    says_json || body.trim_ascii_start().starts_with(b"{")
}

/// The texts and numbers of a JSON object, one given twice twice.
struct RawFields(Vec<(String, String)>);

/// A value, as far as it can be the name of an account.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawField {
    Text(String),
    Number(i64),
    Other(IgnoredAny),
}

impl<'de> Deserialize<'de> for RawFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, RawField>()? {
                    match value {
                        RawField::Text(text) => fields.push((name, text)),
                        RawField::Number(number) => fields.push((name, number.to_string())),
                        RawField::Other(_) => {}
                    }
                }
                Ok(RawFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn account(kind: &'static str, body: &str) -> Result<Option<String>, &'static str> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        match field(&headers, body.as_bytes(), "user") {
            Ok(found) => Ok(found.map(Cow::into_owned)),
            Err(fault) => Err(fault.name()),
        }
    }

    #[test]
    fn the_account_is_read_as_a_server_would_and_two_are_refused() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(account(form, "a=1&user=a%40b&p=x"), Ok(Some("a@b".to_owned())));
        assert_eq!(account(form, "User=a"), Ok(Some("a".to_owned())));
        assert_eq!(account(form, "user=a&user=b"), Err("ambiguous_login"));
        assert_eq!(account(form, "other=a"), Ok(None));
        let json = "application/json";
        assert_eq!(account(json, r#"{"user":"a","p":{"user":"b"}}"#), Ok(Some("a".to_owned())));
        assert_eq!(account(form, r#" {"user":"a"}"#), Ok(Some("a".to_owned())));
        assert_eq!(account(json, r#"{"user":"a","USER":"b"}"#), Err("ambiguous_login"));
        assert_eq!(account(json, r#"{"user":17}"#), Ok(Some("17".to_owned())));
        assert_eq!(account(json, r#"{"user":["a"]}"#), Ok(None));
        assert_eq!(account(json, "not json"), Ok(None));
        assert_eq!(account("multipart/form-data; boundary=b", "--b"), Ok(None));
    }
}
