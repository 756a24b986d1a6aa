//! What is changed on the way: headers, query arguments and fields of JSON bodies, by what the operator states. Inspection
//! sees what the client and the upstream sent; the other side gets that, and the stated changes.

use http::{HeaderMap, HeaderName, HeaderValue};

pub mod json;
pub mod mask;
pub mod query;

use json::Edits;

/// The changes of a route.
#[derive(Debug, Clone, Default)]
pub struct Transform {
    /// To requests.
    pub request: Changes,
    /// To responses.
    pub response: Changes,
}

/// Changes to one side's messages.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Headers.
    pub headers: Headers,
    /// Query arguments; of requests.
    pub query: query::Query,
    /// Fields of JSON bodies.
    pub json: Edits,
}

/// Changes to headers, in this order: removed, renamed, set, added.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// Taken off.
    pub remove: Vec<HeaderName>,
    /// Given another name.
    pub rename: Vec<(HeaderName, HeaderName)>,
    /// Set, in place of those of that name.
    pub set: Vec<(HeaderName, Text)>,
    /// Added to those of that name.
    pub add: Vec<(HeaderName, Text)>,
}

/// Text in which facts of the request may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    RequestId,
    Consumer,
    ClientAddress,
}

/// The facts.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The request id.
    pub request_id: &'a str,
    /// Name of the consumer that calls; empty for nobody known.
    pub consumer: &'a str,
    /// The client's address.
    pub client_address: &'a str,
}

impl Text {
    /// Reads text with `{request_id}`, `{consumer}` and `{client_address}`.
    ///
    /// # Errors
    /// Something else stands in braces.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let wrong = || {
                format!("{text:?}: in braces stands one of {{request_id}}, {{consumer}}, {{client_address}}")
            };
            let (name, tail) = after.split_once('}').ok_or_else(wrong)?;
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            pieces.push(match name {
                "request_id" => Piece::RequestId,
                "consumer" => Piece::Consumer,
                "client_address" => Piece::ClientAddress,
                _ => return Err(wrong()),
            });
            rest = tail;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        if HeaderValue::try_from(text).is_err() {
            return Err(format!("{text:?} cannot be the value of a header"));
        }
        Ok(Self(pieces))
    }

    /// With the facts filled in.
    pub fn fill(&self, facts: Facts<'_>) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Literal(text) => text,
            Piece::RequestId => facts.request_id,
            Piece::Consumer => facts.consumer,
            Piece::ClientAddress => facts.client_address,
        });
        pieces.collect()
    }
}

impl Headers {
    /// Changes `headers`. What a fact makes no header of is left out.
    pub fn apply(&self, headers: &mut HeaderMap, facts: Facts<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (from, to) in &self.rename {
            let values: Vec<HeaderValue> = headers.get_all(from).iter().cloned().collect();
            if values.is_empty() {
                continue;
            }
            headers.remove(from);
            // What had the name before would stand beside it as if it were the same thing.
            headers.remove(to);
            for value in values {
                headers.append(to, value);
            }
        }
        for (name, text) in &self.set {
            headers.remove(name);
            if let Ok(value) = HeaderValue::try_from(text.fill(facts)) {
                headers.insert(name, value);
            }
        }
        for (name, text) in &self.add {
            if let Ok(value) = HeaderValue::try_from(text.fill(facts)) {
                headers.append(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_change_in_the_stated_order_and_facts_are_filled_in() {
        let name = HeaderName::from_static;
        let changes = Headers {
            remove: vec![name("x-secret")],
            rename: vec![(name("x-old"), name("x-new")), (name("x-none"), name("x-kept"))],
            set: vec![(name("x-via"), Text::parse("{request_id}/{consumer}").unwrap())],
            add: vec![(name("x-from"), Text::parse("from {client_address}").unwrap())],
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-secret", "1"),
            ("x-old", "a"),
            ("x-old", "b"),
            ("x-new", "c"),
            ("x-kept", "d"),
            ("x-via", "e"),
            ("x-from", "f"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        changes.apply(&mut headers, Facts { request_id: "id", consumer: "", client_address: "::1" });
        let mut found: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        found.sort();
        assert_eq!(found, ["x-from=f", "x-from=from ::1", "x-kept=d", "x-new=a", "x-new=b", "x-via=id/"]);
        for text in ["{other}", "{request_id", "a\nb"] {
            assert!(Text::parse(text).is_err(), "{text}");
        }
    }
}
