//! XML to values: text, attributes, comments and document types; entities are never expanded.

use std::borrow::Cow;

use quick_xml::{
    Error, Reader,
    errors::SyntaxError,
    escape::unescape,
    events::{BytesStart, Event},
};

use super::{Outcome, media::is_plain_charset};
use crate::values::{Collector, Finding, Location};

/// Adds every text and attribute of `input`.
pub(super) fn collect(input: &[u8], out: &mut Collector<'_>) -> Outcome {
    // Bytes that are no UTF-8 become U+FFFD; markup is ASCII in every charset that is no finding by itself.
    let text = String::from_utf8_lossy(input);
    let text = text.trim_start_matches('\u{feff}');
    let mut reader = Reader::from_str(text);
    let mut walk = Walk {
        path: Vec::new(),
        open: Vec::new(),
        text: String::new(),
        leaf: false,
        roots: 0,
        odd: false,
        out,
    };
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                walk.flush();
                return if is_cut(&error) { Outcome::Cut } else { Outcome::Broken };
            }
        };
        if walk.out.is_full() {
            return Outcome::Clean;
        }
        if event == Event::Eof {
            walk.flush();
            return match (walk.open.is_empty() && walk.roots > 0, walk.odd || walk.roots > 1) {
                (_, true) => Outcome::Broken,
                (true, _) => Outcome::Clean,
                (false, _) => Outcome::Cut,
            };
        }
        if let Err(outcome) = walk.event(&event) {
            return outcome;
        }
    }
}

/// Whether the parser stopped because the input ends inside markup.
fn is_cut(error: &Error) -> bool {
    matches!(error, Error::Syntax(error) if !matches!(error, SyntaxError::InvalidBangMarkup))
}

struct Walk<'a, 'c> {
    /// Names of the open elements, joined by dots.
    path: Vec<u8>,
    /// Length of the path before each open element.
    open: Vec<usize>,
    /// Text of the current element so far. Comments and references do not end it, as they do not for an
    /// application.
    text: String,
    /// Whether the innermost element has had no content yet.
    leaf: bool,
    roots: usize,
    /// Whether something was accepted that strict parsers refuse.
    odd: bool,
    out: &'c mut Collector<'a>,
}

impl Walk<'_, '_> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), Outcome> {
        match event {
            Event::Start(start) => self.start(start)?,
            Event::Empty(start) => {
                self.start(start)?;
                self.end();
            }
            Event::End(_) => self.end(),
            Event::Text(text) => self.text.push_str(text),
            Event::CData(text) => self.text.push_str(text),
            Event::GeneralRef(reference) => match (reference.resolve_char_ref(), predefined(reference)) {
                (Ok(Some(character)), _) | (_, Some(character)) => self.text.push(character),
                _ => {
                    self.text.push('&');
                    self.text.push_str(reference);
                    self.text.push(';');
                }
            },
            Event::Comment(text) => self.push(text),
            Event::PI(text) => self.push(text),
            Event::DocType(text) => {
                self.out.note(Finding::XmlDoctype);
                self.push(text);
            }
            Event::Decl(declaration) => {
                if let Some(Ok(charset)) = declaration.encoding()
                    && !is_plain_charset(charset.as_bytes())
                {
                    self.out.note(Finding::AmbiguousContentType);
                }
            }
            Event::Eof => {}
        }
        Ok(())
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), Outcome> {
        self.flush();
        if self.open.len() >= self.out.limits().depth {
            self.out.note(Finding::TooDeep);
            return Err(Outcome::Doubtful);
        }
        if self.open.is_empty() {
            self.roots += 1;
        }
        self.open.push(self.path.len());
        if !self.path.is_empty() {
            self.path.push(b'.');
        }
        self.path.extend_from_slice(start.name().0.as_bytes());
        self.leaf = true;
        for attribute in start.attributes().with_checks(false) {
            let Ok(attribute) = attribute else {
                // The name of what does not parse is unknown, its text is not.
                self.odd = true;
                self.push(start.attributes_raw());
                break;
            };
            if self.out.is_full() {
                break;
            }
            let raw: &str = attribute.value.as_ref();
            let value = unescape(raw).unwrap_or(Cow::Borrowed(raw));
            let name = [&self.path, &b".@"[..], attribute.key.0.as_bytes()].concat();
            self.out.push(Location::Xml, Cow::Owned(name), Cow::Owned(value.as_bytes().to_vec()));
            self.leaf = false;
        }
        Ok(())
    }

    fn end(&mut self) {
        self.flush();
        if self.leaf {
            self.push("");
        }
        self.leaf = false;
        self.path.truncate(self.open.pop().unwrap_or(0));
    }

    /// Adds the text read so far, unless it is only white space.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.trim_ascii().is_empty() {
            self.odd |= self.open.is_empty();
            self.leaf = false;
            self.push(&text);
        }
    }

    fn push(&mut self, value: &str) {
        self.out.push(Location::Xml, Cow::Owned(self.path.clone()), Cow::Owned(value.as_bytes().to_vec()));
    }
}

fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}
