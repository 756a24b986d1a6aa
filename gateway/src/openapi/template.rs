//! Paths with variables, as OpenAPI writes them: `/orders/{id}`, also within a segment: `/files/{name}.pdf`.

use std::borrow::Cow;

use regex::Regex;
use waf_model::{profile::ANY_SEGMENT, shape};

/// A path with variables.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone)]
enum Segment {
    Literal(String),
    Variable(String),
    /// Text and variables in turn.
    Mixed(Regex, Vec<String>),
}

/// The segments of a path, decoded. One that is not text after decoding stays as it came.
pub fn segments(path: &str) -> Vec<Cow<'_, str>> {
    path.strip_prefix('/').unwrap_or(path).split('/').map(decoded).collect()
}

pub(super) fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| *byte == b'%') {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(segment), Cow::Owned)
}

impl Template {
    /// Reads a path of a document.
    ///
    /// # Errors
    /// It does not begin with a slash, or a brace has no counterpart.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or("paths begin with \"/\"")?;
        let segments = rest.split('/').map(Segment::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), segments })
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many segments it has.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether there is none; there always is one.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Orders templates so that what says more comes first.
    pub fn rank(&self) -> Vec<u8> {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Mixed(..) => 1,
            Segment::Variable(_) => 2,
        };
        self.segments.iter().map(rank).collect()
    }

    /// Names of the variables and what stands in their place, if a path has these segments.
    pub fn variables<'a>(&'a self, segments: &'a [Cow<'a, str>]) -> Option<Vec<(&'a str, &'a str)>> {
        if segments.len() != self.segments.len() {
            return None;
        }
        let mut found = Vec::new();
        for (expected, segment) in self.segments.iter().zip(segments) {
            match expected {
                Segment::Literal(literal) if literal == segment => {}
                Segment::Variable(name) if !segment.is_empty() => found.push((name.as_str(), &**segment)),
                Segment::Mixed(form, names) => {
                    let captures = form.captures(segment)?;
                    let values = captures.iter().skip(1).flatten().map(|value| value.as_str());
                    found.extend(names.iter().map(String::as_str).zip(values));
                }
                _ => return None,
            }
        }
        Some(found)
    }

    /// Whether requests to it are among those that the inventory lists under the template `observed`.
    pub fn stands_for(&self, observed: &str) -> bool {
        let observed: Vec<&str> = observed.split('/').filter(|segment| !segment.is_empty()).collect();
        let mine = self
            .segments
            .iter()
            .filter(|segment| !matches!(segment, Segment::Literal(text) if text.is_empty()));
        let mine: Vec<&Segment> = mine.collect();
        mine.len() == observed.len()
            && mine.iter().zip(observed).all(|(segment, observed)| match segment {
                Segment::Literal(text) => {
                    text == observed || observed == ANY_SEGMENT || shape::shape(text.as_bytes()) == observed
                }
                Segment::Variable(_) | Segment::Mixed(..) => true,
            })
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        let mut form = String::from("(?s)^");
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, tail) = after.split_once('}').ok_or("\"{\" has no \"}\"")?;
            if name.is_empty() || before.contains('}') || name.contains('{') {
                return Err("variables are written as {name}".to_owned());
            }
            if names.is_empty() && before.is_empty() && tail.is_empty() {
                return Ok(Self::Variable(name.to_owned()));
            }
            form.push_str(&regex::escape(before));
            form.push_str("(.+?)");
            names.push(name.to_owned());
            rest = tail;
        }
        if rest.contains('}') {
            return Err("\"}\" has no \"{\"".to_owned());
        }
        if names.is_empty() {
            return Ok(Self::Literal(text.to_owned()));
        }
        form.push_str(&regex::escape(rest));
        form.push('$');
        Regex::new(&form).map(|form| Self::Mixed(form, names)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_compared_decoded_and_whole() {
        let template = Template::parse("/files/{name}.{kind}/parts/{part}").unwrap();
        let path = segments("/files/a%20b.pdf/p%61rts/7");
        assert_eq!(template.variables(&path).unwrap(), [("name", "a b"), ("kind", "pdf"), ("part", "7")]);
        for path in ["/files/a/parts/7", "/files/a.pdf/parts", "/files/a.pdf/parts/", "/files/a.pdf/parts/7/"]
        {
            assert!(template.variables(&segments(path)).is_none(), "{path}");
        }
        assert!(Template::parse("/").unwrap().variables(&segments("/")).is_some());
        for wrong in ["orders", "/a/{id", "/a/id}", "/a/{}", "/{{a}}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(segments("/%ff/%2"), ["%ff", "%2"]);
    }

    #[test]
    fn observed_templates_are_recognized() {
        let template = Template::parse("/v2/orders/{id}/").unwrap();
        for (observed, expected) in [
            ("/v2/orders/{int}", true),
            ("/v2/orders/open", true),
            ("/v2/{any}/{any}", true),
            ("/v2/users/{int}", false),
            ("/v2/orders", false),
        ] {
            assert_eq!(template.stands_for(observed), expected, "{observed}");
        }
        assert!(Template::parse("/cb/oauth2callback17x4z99").unwrap().stands_for("/cb/{slug}"));
    }
}
