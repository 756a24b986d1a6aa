//! One request as rules see it: every text that a variable can select, with its deeper decodings.

use std::{borrow::Cow, ops::Range};

use super::variable::{Source, Sources};
use crate::{
    decode::Transformation,
    request::RequestView,
    values::{Location, Value, Values},
};

/// Most times that a request-wide text is decoded once more.
const DEEPEST: usize = 3;

/// One text that a variable can select.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) source: Source,
    /// Empty for request-wide texts.
    pub(super) name: &'a [u8],
    pub(super) location: Option<Location>,
    /// Its layers in [`Subject::texts`]; the first one is the text itself.
    pub(super) layers: Range<usize>,
}

/// Makes a request-wide text.
type Text<'f, 'a> = &'f dyn Fn() -> Cow<'a, [u8]>;

/// All texts of one request.
#[derive(Debug, Default)]
pub(super) struct Subject<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    pub(super) texts: Vec<Cow<'a, [u8]>>,
}

impl<'a> Subject<'a> {
    /// Collects the texts of the sources in `used`; the deeper layers of request-wide ones only if `layered`.
    pub(super) fn new(
        request: &RequestView<'a>,
        values: &'a Values<'a>,
        used: Sources,
        layered: bool,
    ) -> Self {
        let mut subject = Self::default();
        let raw_uri = || match request.query {
            Some(query) => Cow::Owned([request.path, b"?", query].concat()),
            None => Cow::Borrowed(request.path),
        };
        let line = || {
            let parts: [&[u8]; 5] =
                [request.method.as_bytes(), b" ", &raw_uri(), b" ", request.protocol.as_bytes()];
            Cow::Owned(parts.concat())
        };
        let basename = || {
            let start = request.path.iter().rposition(|byte| matches!(byte, b'/' | b'\\'));
            request.path.get(start.map_or(0, |slash| slash + 1)..).unwrap_or_default()
        };
        let wide: [(Source, Text<'_, 'a>, bool); 10] = [
            (Source::Uri, &raw_uri, true),
            (Source::UriRaw, &raw_uri, true),
            (Source::Path, &|| Cow::Borrowed(request.path), true),
            (Source::Basename, &|| Cow::Borrowed(basename()), true),
            (Source::QueryString, &|| Cow::Borrowed(request.query.unwrap_or_default()), true),
            (Source::Method, &|| Cow::Borrowed(request.method.as_bytes()), false),
            (Source::Protocol, &|| Cow::Borrowed(request.protocol.as_bytes()), false),
            (Source::Line, &line, false),
            (Source::RawBody, &|| Cow::Borrowed(request.body.bytes), false),
            (Source::Address, &|| Cow::Borrowed(request.client_address.as_bytes()), false),
        ];
        for (source, text, decodable) in wide {
            if used.contains(source) {
                subject.push_wide(source, text(), layered && decodable);
            }
        }
        for value in &values.items {
            let (source, name_source) = match value.location {
                Location::Path => (Source::Segment, None),
                Location::Query => (Source::Query, Some(Source::QueryName)),
                Location::Header => (Source::Header, Some(Source::HeaderName)),
                Location::Cookie => (Source::Cookie, Some(Source::CookieName)),
                Location::Form | Location::Json | Location::Multipart => {
                    (Source::Body, Some(Source::BodyName))
                }
                Location::Xml => (Source::Xml, None),
                Location::FileName => (Source::FileName, Some(Source::FileField)),
                // An opaque body is `REQUEST_BODY`.
                Location::Body => continue,
            };
            if used.contains(source) {
                subject.push_value(source, value);
            }
            if let Some(name_source) = name_source.filter(|source| used.contains(*source)) {
                let name = Cow::Borrowed(&*value.name);
                subject.push(name_source, &value.name, Some(value.location), std::iter::once(name));
            }
        }
        if used.contains(Source::Finding) {
            for finding in &values.findings {
                subject.push_wide(Source::Finding, Cow::Borrowed(finding.name().as_bytes()), false);
            }
        }
        // `Values` holds each cookie, rules may also want the field as it came.
        for header in request.headers.iter().filter(|header| header.name == "cookie") {
            let name = header.name.as_bytes();
            for (source, text) in [(Source::Header, header.value), (Source::HeaderName, name)] {
                if used.contains(source) {
                    let text = std::iter::once(Cow::Borrowed(text));
                    subject.push(source, name, Some(Location::Header), text);
                }
            }
        }
        subject
    }

    fn push(
        &mut self,
        source: Source,
        name: &'a [u8],
        location: Option<Location>,
        layers: impl Iterator<Item = Cow<'a, [u8]>>,
    ) {
        let start = self.texts.len();
        self.texts.extend(layers);
        self.entries.push(Entry { source, name, location, layers: start..self.texts.len() });
    }

    fn push_value(&mut self, source: Source, value: &'a Value<'a>) {
        self.push(source, &value.name, Some(value.location), value.layers().map(Cow::Borrowed));
    }

    /// A request-wide text comes as it was on the wire; decoding it step by step shows its deeper layers.
    fn push_wide(&mut self, source: Source, text: Cow<'a, [u8]>, layered: bool) {
        let mut layers = vec![text];
        while layered && layers.len() <= DEEPEST {
            let deeper = layers.last().map(|text| Transformation::UrlDecodeUni.apply(text));
            let Some(Cow::Owned(deeper)) = deeper else { break };
            layers.push(Cow::Owned(deeper));
        }
        let location = matches!(source, Source::Path | Source::Basename).then_some(Location::Path);
        self.push(source, b"", location, layers.into_iter());
    }
}
