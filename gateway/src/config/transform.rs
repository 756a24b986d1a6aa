//! What is changed on the way: what is wrong with it, and what stays the gateway's own business.

use std::collections::BTreeMap;

use http::HeaderName;

use super::{
    Toggle,
    compile::{Compiler, toggle},
    raw::transform::{RawBeyond, RawHeaderChanges, RawJsonChanges, RawMask, RawTransform},
};
use crate::{
    identity,
    transform::{
        Changes, Headers, Text, Transform,
        json::{Change, Edits},
        mask::{Beyond, Mask},
        query::Query,
    },
};

/// Whose headers are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

/// Headers of a response that say how it is framed and coded.
const FRAMING: [&str; 5] =
    ["connection", "content-encoding", "content-length", "transfer-encoding", "upgrade"];

impl Side {
    /// Why a header of this name is not the operator's to write.
    fn reserves(self, name: &HeaderName) -> Option<&'static str> {
        let name = name.as_str();
        match self {
            Self::Request if identity::is_reserved(name) => {
                Some("the gateway writes it, or the origin would read another message than was inspected")
            }
            Self::Response if FRAMING.contains(&name) => Some("it says how the message is framed"),
            _ => None,
        }
    }
}

impl Compiler {
    /// The changes of the route at `path`.
    pub(super) fn transform(&mut self, raw: &RawTransform, path: &str) -> Transform {
        let path = format!("{path}.transform");
        let (request, response) = (&raw.request, &raw.response);
        Transform {
            request: Changes {
                headers: self.header_changes(
                    &request.headers,
                    &format!("{path}.request.headers"),
                    Side::Request,
                ),
                query: Query {
                    remove: request.query.remove.clone(),
                    set: self.texts(&request.query.set, &format!("{path}.request.query.set"), |name| {
                        Ok(name.to_owned())
                    }),
                },
                json: self.json_changes(&request.json, &format!("{path}.request.json")),
            },
            response: Changes {
                headers: self.header_changes(
                    &response.headers,
                    &format!("{path}.response.headers"),
                    Side::Response,
                ),
                query: Query::default(),
                json: self.json_changes(&response.json, &format!("{path}.response.json")),
            },
        }
    }

    fn header_changes(&mut self, raw: &RawHeaderChanges, path: &str, side: Side) -> Headers {
        let free = |name: &str| {
            let header = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not a header name"))?;
            match side.reserves(&header) {
                Some(why) => Err(format!("{name:?} cannot be changed: {why}")),
                None => Ok(header),
            }
        };
        let any =
            |name: &str| HeaderName::try_from(name).map_err(|_| format!("{name:?} is not a header name"));
        // What the gateway tells the origin may be kept from it; how the message is read may not.
        let removable = |name: &str| {
            any(name).and_then(|header| match name.to_ascii_lowercase().as_str() {
                "host" | "content-type" | "content-encoding" => free(name),
                _ => Ok(header),
            })
        };
        let mut rename = Vec::new();
        for (from, to) in &raw.rename {
            match (free(from), free(to)) {
                (Ok(from), Ok(to)) => rename.push((from, to)),
                (Err(message), _) | (_, Err(message)) => {
                    self.mistakes.add(&format!("{path}.rename.{from}"), message);
                }
            }
        }
        Headers {
            remove: self.each(&format!("{path}.remove"), &raw.remove, removable),
            rename,
            set: self.texts(&raw.set, &format!("{path}.set"), free),
            add: self.texts(&raw.add, &format!("{path}.add"), free),
        }
    }

    fn texts<N>(
        &mut self,
        raw: &BTreeMap<String, String>,
        path: &str,
        name: impl Fn(&str) -> Result<N, String>,
    ) -> Vec<(N, Text)> {
        let mut texts = Vec::new();
        for (key, text) in raw {
            match name(key).and_then(|name| Ok((name, Text::parse(text)?))) {
                Ok(pair) => texts.push(pair),
                Err(message) => self.mistakes.add(&format!("{path}.{key}"), message),
            }
        }
        texts
    }

    fn json_changes(&mut self, raw: &RawJsonChanges, path: &str) -> Edits {
        let mut edits = Edits::default();
        let remove = raw.remove.iter().map(|pointer| ("remove", pointer, Change::Remove));
        let rename = raw.rename.iter().map(|(from, to)| ("rename", from, Change::Rename(to.clone())));
        let set = raw.set.iter().map(|(pointer, value)| ("set", pointer, Change::Set(value.0.to_string())));
        for (key, pointer, change) in remove.chain(rename).chain(set) {
            if let Err(message) = edits.add(pointer, change) {
                self.mistakes.add(&format!("{path}.{key}"), message);
            }
        }
        edits
    }

    /// What is masked, if anything is.
    pub(super) fn mask(&mut self, raw: &RawMask, path: &str) -> Option<Mask> {
        let mut fields = Edits::default();
        for (index, field) in raw.fields.iter().enumerate() {
            let at = format!("{path}.fields[{index}]");
            if field.is_empty() {
                self.mistakes.add(&at, "empty; write a name or a JSON pointer");
            } else if !field.starts_with('/') {
                fields.mask_name(field);
            } else if let Err(message) = fields.add(field, Change::Mask) {
                self.mistakes.add(&at, message);
            }
        }
        let mask = Mask {
            cards: toggle(raw.cards, Toggle::Off),
            keys: toggle(raw.keys, Toggle::Off),
            beyond: match raw.beyond {
                Some(RawBeyond::Pass) => Beyond::Pass,
                Some(RawBeyond::Withhold) | None => Beyond::Withhold,
            },
            fields,
        };
        let masks = !mask.fields.is_empty() || mask.cards == Toggle::On || mask.keys == Toggle::On;
        masks.then_some(mask)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn what_the_gateway_says_itself_cannot_be_written_and_mistakes_name_the_place() {
        for (change, expected) in [
            (
                "request: {headers: {set: {X-Consumer-Username: root}}}",
                "request.headers.set.X-Consumer-Username",
            ),
            ("request: {headers: {rename: {X-User: x_forwarded_for}}}", "request.headers.rename.X-User"),
            ("request: {headers: {add: {Host: a}}}", "request.headers.add.Host"),
            ("request: {headers: {remove: [Content-Type]}}", "request.headers.remove[0]"),
            ("request: {headers: {set: {Content-Type: text/plain}}}", "another message than was inspected"),
            ("request: {headers: {set: {X-A: '{secret}'}}}", "in braces stands one of"),
            ("request: {query: {set: {a: '{'}}}", "request.query.set.a"),
            ("request: {json: {remove: [role]}}", "is not a JSON pointer"),
            ("request: {json: {rename: {'/*': a}}}", "cannot have the same name"),
            ("response: {headers: {set: {Content-Length: '1'}}}", "how the message is framed"),
        ] {
            let text = format!(
                "version: 1\nroutes:\n  - upstreams: [{{url: \"http://127.0.0.1:1\"}}]\n    transform: {{{change}}}\n"
            );
            let text = Config::load(&text, "f").unwrap_err().to_string();
            assert!(text.contains("routes[0].transform.") && text.contains(expected), "{change}: {text}");
        }
    }
}
