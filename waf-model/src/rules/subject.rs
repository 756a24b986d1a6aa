//! One exchange as rules see it: every text that a variable can select, with its deeper decodings.

use std::{borrow::Cow, ops::Range};

use super::{
    Context,
    connection::{self, Connection},
    prefilter::mask_of,
    variable::{Source, Sources},
};
use crate::{
    body::{self, Processor},
    decode::{Transformation, percent_decode},
    request::{Header, RequestView, ResponseView},
    values::{Location, Value, Values},
};

/// Most times that a request-wide text is decoded once more.
const DEEPEST: usize = 3;

/// One text that a variable can select.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) source: Source,
    /// Empty for texts that are alone of their kind.
    pub(super) name: Cow<'a, [u8]>,
    pub(super) location: Option<Location>,
    /// Its layers in [`Subject::texts`]; the first one is the text itself.
    pub(super) layers: Range<usize>,
}

/// The bytes of one layer of an entry.
#[derive(Debug)]
pub(super) struct Text<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    pub(super) mask: u64,
    /// The index of its entry.
    pub(super) entry: usize,
}

/// All texts so far.
#[derive(Debug, Default)]
pub(super) struct Subject<'a> {
    pub(super) entries: Vec<Entry<'a>>,
    pub(super) texts: Vec<Text<'a>>,
    /// Entries of one source that follow each other.
    pub(super) runs: Vec<(Source, Range<usize>)>,
    /// Sources that have an entry.
    pub(super) present: Sources,
    /// What some rule reads.
    used: Sources,
    /// Whether deeper layers are wanted.
    layered: bool,
}

impl<'a> Subject<'a> {
    /// An empty one that takes only texts of the sources in `used`, their deeper layers only if `layered`.
    pub(super) fn new(used: Sources, layered: bool) -> Self {
        let mut subject = Self { used, layered, ..Self::default() };
        subject.entries.reserve(64);
        subject.texts.reserve(64);
        subject
    }

    /// Adds what is known before the body.
    pub(super) fn push_head(
        &mut self,
        request: &RequestView<'a>,
        values: &'a Values<'a>,
        context: &'a Context<'_>,
    ) {
        let raw_uri = || match request.query {
            Some(query) => Cow::Owned([request.path, b"?", query].concat()),
            None => Cow::Borrowed(request.path),
        };
        if self.used.meets(Sources::of(&[Source::Uri, Source::UriRaw])) {
            // Rules compare what follows the host; a proxy is sent the whole address.
            self.push_wide(Source::Uri, raw_uri(), true);
            self.push_wide(Source::UriRaw, raw_uri(), true);
        }
        if self.used.contains(Source::Line) {
            let uri = raw_uri();
            let parts: [&[u8]; 5] =
                [request.method.as_bytes(), b" ", &uri, b" ", request.protocol.as_bytes()];
            self.push_wide(Source::Line, Cow::Owned(parts.concat()), false);
        }
        self.push_path(Source::Path, request.path);
        let start = request.path.iter().rposition(|byte| matches!(byte, b'/' | b'\\'));
        let basename = request.path.get(start.map_or(0, |slash| slash + 1)..).unwrap_or_default();
        self.push_path(Source::Basename, basename);
        self.push_wide(Source::QueryString, Cow::Borrowed(request.query.unwrap_or_default()), true);
        self.push_wide(Source::Method, Cow::Borrowed(request.method.as_bytes()), false);
        self.push_wide(Source::Protocol, Cow::Borrowed(request.protocol.as_bytes()), false);
        self.push_wide(Source::Address, Cow::Borrowed(request.client_address.as_bytes()), false);
        self.push_wide(Source::RequestId, Cow::Borrowed(context.request_id.as_bytes()), false);
        self.push_connection(request, &context.connection);
        self.push_values(values, |location| !is_body(location));
        // `Values` holds each cookie, rules may also want the field as it came.
        for header in request.headers.iter().filter(|header| header.name == "cookie") {
            self.push_header((Source::Header, Source::HeaderName), header);
        }
        if self.used.contains(Source::Finding) {
            for finding in &values.findings {
                self.push_wide(Source::Finding, Cow::Borrowed(finding.name().as_bytes()), false);
            }
        }
    }

    /// Adds who connected to whom: few rules ask.
    fn push_connection(&mut self, request: &RequestView<'a>, connection: &Connection) {
        const ASKED: [Source; 6] = [
            Source::ClientPort,
            Source::ServerAddress,
            Source::ServerPort,
            Source::ServerName,
            Source::AuthType,
            Source::User,
        ];
        if !self.used.meets(Sources::of(&ASKED)) {
            return;
        }
        let text = |text: String| Cow::Owned(text.into_bytes());
        let Connection { client_port, server } = connection;
        let found = [
            client_port.map(|port| text(port.to_string())),
            server.map(|server| text(server.ip().to_canonical().to_string())),
            server.map(|server| text(server.port().to_string())),
            connection::server_name(request).map(Cow::Borrowed),
            connection::auth_type(request).map(Cow::Borrowed),
            connection::user(request).map(Cow::Owned),
        ];
        for (source, found) in ASKED.into_iter().zip(found) {
            if let Some(found) = found {
                self.push_wide(source, found, false);
            }
        }
    }

    /// Adds the body, read by `processor`; `values` may hold what is not of the body, too.
    pub(super) fn push_body(
        &mut self,
        request: &RequestView<'a>,
        values: &'a Values<'a>,
        processor: Option<Processor>,
    ) {
        self.push_values(values, is_body);
        let clean = !values.items.iter().any(|value| value.location == Location::Body);
        // What was taken apart is not looked at as a whole, but for JSON, whose names rules want in their quotes.
        let parsed = matches!(processor, Some(Processor::Multipart | Processor::Xml));
        if !(request.body.bytes.is_empty() || parsed && clean) {
            self.push_wide(Source::RawBody, Cow::Borrowed(request.body.bytes), false);
        }
        if self.used.contains(Source::FullRequest) {
            let mut all = [request.method.as_bytes(), b" ", request.path].concat();
            for header in request.headers {
                for part in [b"\n", header.name.as_bytes(), b": ", header.value] {
                    all.extend_from_slice(part);
                }
            }
            all.extend_from_slice(b"\n\n");
            all.extend_from_slice(request.body.bytes);
            self.push_wide(Source::FullRequest, Cow::Owned(all), false);
        }
        if processor == Some(Processor::Multipart)
            && self.used.meets(Sources::of(&[Source::PartHeader, Source::FileSize]))
        {
            for part in body::parts(request) {
                for line in part.head {
                    let text = std::iter::once(Cow::Borrowed(line));
                    self.push(Source::PartHeader, part.name.clone(), Some(Location::Multipart), text);
                }
                if part.file {
                    let size = std::iter::once(Cow::Owned(part.size.to_string().into_bytes()));
                    self.push(Source::FileSize, part.name, Some(Location::FileName), size);
                }
            }
        }
    }

    /// Adds the head of the response.
    pub(super) fn push_response(&mut self, response: &ResponseView<'a>) {
        let status = response.status.to_string().into_bytes();
        if self.used.contains(Source::ResponseLine) {
            let line = [response.protocol.as_bytes(), b" ", &status].concat();
            self.push_wide(Source::ResponseLine, Cow::Owned(line), false);
        }
        self.push_wide(Source::ResponseStatus, Cow::Owned(status), false);
        self.push_wide(Source::ResponseProtocol, Cow::Borrowed(response.protocol.as_bytes()), false);
        for header in response.headers {
            self.push_header((Source::ResponseHeader, Source::ResponseHeaderName), header);
        }
        if let Some(header) = response.headers.iter().find(|header| header.name == "content-type") {
            self.push_wide(Source::ResponseType, Cow::Borrowed(header.value), false);
        }
    }

    /// Adds the body of the response.
    pub(super) fn push_response_body(&mut self, response: &ResponseView<'a>) {
        self.push_wide(Source::ResponseBody, Cow::Borrowed(response.body.bytes), false);
    }

    /// Adds a text kept from an earlier phase.
    pub(super) fn push_kept(
        &mut self,
        source: Source,
        name: Cow<'a, [u8]>,
        location: Option<Location>,
        text: Cow<'a, [u8]>,
    ) {
        self.push(source, name, location, std::iter::once(text));
    }

    fn push_values(&mut self, values: &'a Values<'a>, chosen: impl Fn(Location) -> bool) {
        for value in values.items.iter().filter(|value| chosen(value.location)) {
            let (source, name_source) = match value.location {
                Location::Path => (Source::Segment, None),
                Location::Query => (Source::Query, Some(Source::QueryName)),
                Location::Header => (Source::Header, Some(Source::HeaderName)),
                Location::Cookie => (Source::Cookie, Some(Source::CookieName)),
                Location::Form | Location::Json | Location::Multipart => {
                    (Source::Body, Some(Source::BodyName))
                }
                Location::Xml if is_attribute(&value.name) => (Source::XmlAttribute, None),
                Location::Xml => (Source::Xml, None),
                Location::FileName => (Source::FileName, Some(Source::FileField)),
                // An opaque body is `REQUEST_BODY`.
                Location::Body => continue,
            };
            let name = value.alias.as_deref().unwrap_or(&value.name);
            let location = Some(value.location);
            if self.used.contains(source) {
                self.push(source, Cow::Borrowed(name), location, layers(value));
            }
            if let Some(name_source) = name_source.filter(|source| self.used.contains(*source)) {
                let text = std::iter::once(Cow::Borrowed(name));
                self.push(name_source, Cow::Borrowed(name), location, text);
            }
        }
    }

    fn push_header(&mut self, (source, name_source): (Source, Source), header: &Header<'a>) {
        let name = header.name.as_bytes();
        for (source, text) in [(source, header.value), (name_source, name)] {
            if self.used.contains(source) {
                let text = std::iter::once(Cow::Borrowed(text));
                self.push(source, Cow::Borrowed(name), Some(Location::Header), text);
            }
        }
    }

    fn push(
        &mut self,
        source: Source,
        name: Cow<'a, [u8]>,
        location: Option<Location>,
        layers: impl Iterator<Item = Cow<'a, [u8]>>,
    ) {
        let (start, entry) = (self.texts.len(), self.entries.len());
        let layered = self.layered;
        let layers = layers.enumerate().take_while(|(index, _)| layered || *index == 0);
        self.texts.extend(layers.map(|(_, bytes)| Text { mask: mask_of(&bytes), bytes, entry }));
        self.entries.push(Entry { source, name, location, layers: start..self.texts.len() });
        self.present.insert(Sources::of(&[source]));
        match self.runs.last_mut() {
            Some((last, range)) if *last == source => range.end = entry + 1,
            _ => self.runs.push((source, entry..entry + 1)),
        }
    }

    /// A path is decoded; how it was on the wire is the last of its layers.
    fn push_path(&mut self, source: Source, raw: &'a [u8]) {
        if !self.used.contains(source) {
            return;
        }
        let mut layers = vec![percent_decode(raw)];
        if self.layered {
            deepen(&mut layers);
            if layers.first().is_some_and(|decoded| **decoded != *raw) {
                layers.push(Cow::Borrowed(raw));
            }
        }
        self.push(source, Cow::Borrowed(b""), Some(Location::Path), layers.into_iter());
    }

    /// A request-wide text comes as it was on the wire; decoding it step by step shows its deeper layers.
    fn push_wide(&mut self, source: Source, text: Cow<'a, [u8]>, decodable: bool) {
        if !self.used.contains(source) {
            return;
        }
        let mut layers = vec![text];
        if self.layered && decodable {
            deepen(&mut layers);
        }
        self.push(source, Cow::Borrowed(b""), None, layers.into_iter());
    }
}

/// Adds what the last layer decodes to, and what that does.
fn deepen(layers: &mut Vec<Cow<'_, [u8]>>) {
    while layers.len() <= DEEPEST {
        let deeper = layers.last().map(|text| Transformation::UrlDecodeUni.apply(text));
        let Some(Cow::Owned(deeper)) = deeper else { break };
        layers.push(Cow::Owned(deeper));
    }
}

fn layers<'a>(value: &'a Value<'a>) -> impl Iterator<Item = Cow<'a, [u8]>> {
    value.layers().map(Cow::Borrowed)
}

fn is_body(location: Location) -> bool {
    match location {
        Location::Path | Location::Query | Location::Header | Location::Cookie => false,
        Location::Form
        | Location::Json
        | Location::Xml
        | Location::Multipart
        | Location::FileName
        | Location::Body => true,
    }
}

/// Whether this is the name of an XML attribute: its last part starts with `@`.
fn is_attribute(name: &[u8]) -> bool {
    memchr::memrchr(b'.', name).is_some_and(|dot| name.get(dot + 1) == Some(&b'@'))
}
