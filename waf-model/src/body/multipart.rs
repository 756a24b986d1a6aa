//! Multipart forms to values, by the narrow grammar that browsers write; every departure is a finding.

use std::borrow::Cow;

use memchr::memmem::Finder;

use super::{Outcome, media::is_plain_charset, parameters::Parameters};
use crate::{
    decode::percent_decode,
    values::{Collector, Departure, Departures, Finding, Location},
};

/// Adds every field and file name of `input`, whose `Content-Type` has the given `parameters`.
pub(super) fn collect<'a>(parameters: &Parameters<'a>, input: &'a [u8], out: &mut Collector<'a>) -> Outcome {
    let boundary: &[u8] = parameters.get(b"boundary").map_or(b"", |boundary| boundary);
    let odd_boundary = parameters.ambiguous || !is_boundary(boundary);
    let spaced = parameters.departures.contains(Departure::BoundaryWhitespace)
        || boundary.iter().any(u8::is_ascii_whitespace);
    let mut departures = Departures::default();
    departures.note(Departure::BoundaryQuoted, parameters.is_quoted(b"boundary"));
    departures.note(Departure::BoundaryWhitespace, spaced);
    for way in [Departure::InvalidQuoting, Departure::MissingSemicolon] {
        departures.note(way, parameters.departures.contains(way));
    }
    if boundary.is_empty() {
        out.note(Finding::AmbiguousMultipart);
        out.depart(departures);
        return Outcome::Broken;
    }
    let delimiter = [b"--", boundary].concat();
    let mut lines = Lines::new(&delimiter, input, departures);
    let outcome = loop {
        let (part, mark) = lines.next();
        // What stands before the first delimiter is for mail readers; honest clients leave it empty.
        let found = lines.started;
        if found {
            lines.ambiguous |= collect_part(part, mark != Mark::Missing, &mut lines.departures, out);
        } else {
            let before = !part.trim_ascii().is_empty();
            lines.ambiguous |= lines.departures.note(Departure::DataBefore, before);
            lines.started = true;
        }
        match mark {
            Mark::Next if out.is_full() => {
                lines.departures.insert(Departure::TooManyParts);
                break Outcome::Clean;
            }
            Mark::Next => {}
            Mark::Last => {
                lines.ambiguous |= match lines.rest {
                    b"" | b"\r\n" => false,
                    b"\n" => lines.departures.note(Departure::LfLine, true),
                    _ => lines.departures.note(Departure::DataAfter, true),
                };
                break Outcome::Clean;
            }
            Mark::Missing => break if found { Outcome::Cut } else { Outcome::Broken },
        }
    };
    out.depart(lines.departures);
    let ambiguous = odd_boundary || lines.ambiguous;
    if ambiguous {
        out.note(Finding::AmbiguousMultipart);
    }
    // Where parsers disagree, what is a file to this one may be a field to another.
    match outcome {
        Outcome::Clean if ambiguous => Outcome::Doubtful,
        Outcome::Cut if ambiguous => Outcome::Broken,
        outcome => outcome,
    }
}

/// Most parts and head lines that [`parts`] returns.
const MOST_PARTS: usize = 1000;

/// One part as rules see it.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    /// The name of its field.
    pub(crate) name: Cow<'a, [u8]>,
    /// The lines of its head, `name: value`.
    pub(crate) head: Vec<&'a [u8]>,
    /// Whether it is a file.
    pub(crate) file: bool,
    /// Bytes of its content.
    pub(crate) size: usize,
}

/// The parts of `input` with their head lines, at most [`MOST_PARTS`] of both together.
pub(super) fn parts<'a>(parameters: &Parameters<'a>, input: &'a [u8]) -> Vec<Part<'a>> {
    let boundary: &[u8] = parameters.get(b"boundary").map_or(b"", |boundary| boundary);
    if boundary.is_empty() {
        return Vec::new();
    }
    let delimiter = [b"--", boundary].concat();
    let mut lines = Lines::new(&delimiter, input, Departures::default());
    let (mut found, mut count) = (Vec::new(), 0);
    loop {
        let (part, mark) = lines.next();
        if std::mem::replace(&mut lines.started, true) {
            let head = Head::parse(part);
            let disposition = head.disposition.as_ref();
            let name =
                disposition.and_then(|disposition| disposition.get(b"name")).cloned().unwrap_or_default();
            let file = disposition.is_some_and(|disposition| disposition.get(b"filename").is_some());
            let length = part.len() - head.content.len();
            let text = part.get(..length).unwrap_or_default();
            let fields =
                text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let fields: Vec<_> = fields.filter(|line| !line.is_empty()).take(MOST_PARTS - count).collect();
            count += fields.len() + 1;
            found.push(Part { name, head: fields, file, size: head.content.len() });
        }
        if mark != Mark::Next || count >= MOST_PARTS {
            return found;
        }
    }
}

/// Whether this is a boundary by RFC 2046.
fn is_boundary(boundary: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    (1..=70).contains(&boundary.len()) && boundary.iter().all(allowed) && boundary.last() != Some(&b' ')
}

/// What ended a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// A delimiter; another part follows.
    Next,
    /// The closing delimiter.
    Last,
    /// The end of the input.
    Missing,
}

/// The input cut at its delimiter lines.
struct Lines<'a, 'd> {
    finder: Finder<'d>,
    rest: &'a [u8],
    /// Whether the first delimiter was read.
    started: bool,
    ambiguous: bool,
    departures: Departures,
}

impl<'a, 'd> Lines<'a, 'd> {
    fn new(delimiter: &'d [u8], input: &'a [u8], departures: Departures) -> Self {
        Self { finder: Finder::new(delimiter), rest: input, started: false, ambiguous: false, departures }
    }

    /// The bytes up to the next delimiter line, without the line end that belongs to it, and its kind.
    fn next(&mut self) -> (&'a [u8], Mark) {
        let mut from = 0;
        let whole = self.rest;
        while let Some(at) = whole.get(from..).and_then(|tail| self.finder.find(tail)).map(|at| from + at) {
            let before = whole.get(..at).unwrap_or_default();
            let after = whole.get(at + self.finder.needle().len()..).unwrap_or_default();
            let content = match before {
                [content @ .., b'\r', b'\n'] => Some(content),
                [] => Some(before),
                [content @ .., b'\n'] => {
                    self.ambiguous |= self.departures.note(Departure::LfLine, true);
                    Some(content)
                }
                _ => None,
            };
            if let (Some(content), Some((mark, tail))) = (content, self.line_end(after)) {
                self.rest = tail;
                return (content, mark);
            }
            // The delimiter inside a line: chance cannot put it there, and some parsers would cut here.
            self.ambiguous |= self.departures.note(Departure::UnmatchedBoundary, true);
            from = at + self.finder.needle().len();
        }
        self.rest = b"";
        (whole, Mark::Missing)
    }

    /// Reads the rest of a delimiter line.
    fn line_end(&mut self, after: &'a [u8]) -> Option<(Mark, &'a [u8])> {
        match after {
            [b'\r', b'\n', tail @ ..] => {
                self.departures.insert(Departure::CrlfLine);
                Some((Mark::Next, tail))
            }
            [b'-', b'-', tail @ ..] => Some((Mark::Last, tail)),
            [] | [b'\r' | b'-'] => Some((Mark::Missing, b"")),
            _ => {
                let blank = after.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
                let [b'\n', tail @ ..] = after.get(blank..)? else { return None };
                self.ambiguous = true;
                self.departures
                    .note(Departure::LfLine, after.get(..blank).is_none_or(|blank| !blank.ends_with(b"\r")));
                Some((Mark::Next, tail))
            }
        }
    }
}

/// Adds the values of one part; returns whether it is ambiguous.
fn collect_part<'a>(
    part: &'a [u8],
    whole: bool,
    departures: &mut Departures,
    out: &mut Collector<'a>,
) -> bool {
    let head = Head::parse(part);
    if whole || head.complete {
        departures.extend(head.departures);
        let disposition = head.disposition.as_ref();
        departures.extend(disposition.map(|disposition| disposition.departures).unwrap_or_default());
        let named = disposition.is_some_and(|disposition| disposition.get(b"name").is_some());
        departures.note(Departure::InvalidPart, !(named && head.complete));
    }
    let mut ambiguous = head.ambiguous && (whole || head.complete);
    if !is_plain_charset(&head.charset) {
        out.note(Finding::AmbiguousContentType);
    }
    let Some(disposition) = &head.disposition else {
        // Applications may still find a field here, so its content is not skipped.
        if !part.is_empty() {
            out.push(Location::Multipart, Cow::Borrowed(b""), Cow::Borrowed(part));
        }
        return ambiguous || whole;
    };
    ambiguous |= disposition.ambiguous || !disposition.first.eq_ignore_ascii_case(b"form-data");
    let name = disposition.get(b"name").cloned();
    ambiguous |= name.is_none();
    let name = name.unwrap_or_default();
    let mut is_file = false;
    if let Some(extended) = disposition.get(b"filename*") {
        // RFC 7578 forbids it here; parsers that know it prefer it to `filename`.
        (is_file, ambiguous) = (true, true);
        let value = Cow::Owned(percent_decode(extended).into_owned());
        out.push(Location::FileName, name.clone(), value);
    }
    if let Some(file_name) = disposition.get(b"filename") {
        // A form sends an empty file name when no file was chosen; with content it is a field to some parsers.
        is_file = !file_name.is_empty() || head.content.is_empty();
        ambiguous |= !is_file;
        out.push(Location::FileName, name.clone(), file_name.clone());
    }
    if !is_file {
        if name.eq_ignore_ascii_case(b"_charset_") && !is_plain_charset(head.content) {
            out.note(Finding::AmbiguousContentType);
        }
        out.push(Location::Multipart, name, Cow::Borrowed(head.content));
    }
    ambiguous
}

/// The header fields of a part that matter, and its content.
struct Head<'a> {
    disposition: Option<Parameters<'a>>,
    charset: Cow<'a, [u8]>,
    content: &'a [u8],
    /// Whether the empty line that ends the head was there.
    complete: bool,
    ambiguous: bool,
    departures: Departures,
}

impl<'a> Head<'a> {
    fn parse(part: &'a [u8]) -> Self {
        let mut head = Self {
            disposition: None,
            charset: Cow::Borrowed(b"utf-8"),
            content: b"",
            complete: false,
            ambiguous: false,
            departures: Departures::default(),
        };
        let mut first = true;
        let (mut types, mut encodings, mut dispositions) = (0, 0, 0);
        let mut rest = part;
        loop {
            let Some((line, tail)) = memchr::memchr(b'\n', rest).and_then(|at| rest.split_at_checked(at))
            else {
                head.ambiguous = true;
                head.content = rest;
                break;
            };
            rest = tail.get(1..).unwrap_or_default();
            let stripped = line.strip_suffix(b"\r");
            head.ambiguous |= head.departures.note(Departure::LfLine, stripped.is_none());
            head.departures.note(Departure::CrlfLine, stripped.is_some());
            let line = stripped.unwrap_or(line);
            if line.is_empty() {
                head.complete = true;
                head.content = rest;
                break;
            }
            let folded = matches!(line.first(), Some(b' ' | b'\t' | 0x0b | 0x0c));
            head.departures.note(Departure::HeaderFolding, folded);
            let badly = folded && (first || !matches!(line.first(), Some(b' ' | b'\t')));
            head.departures.note(Departure::InvalidHeaderFolding, badly);
            first = false;
            let (name, value) = match memchr::memchr(b':', line).and_then(|at| line.split_at_checked(at)) {
                Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
                None => (line, &b""[..]),
            };
            // Folded lines, blanks before the colon and control characters are read in different ways.
            head.ambiguous |= name.is_empty()
                || name.len() == line.len()
                || name.iter().any(|byte| !(b'!'..=b'~').contains(byte))
                || value.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127));
            match name.trim_ascii().to_ascii_lowercase().as_slice() {
                b"content-disposition" => {
                    dispositions += 1;
                    if head.disposition.is_none() {
                        head.disposition = Some(Parameters::parse(value));
                    }
                }
                b"content-type" => {
                    types += 1;
                    if let Some(charset) = Parameters::parse(value).get(b"charset") {
                        head.charset = charset.clone();
                    }
                }
                b"content-transfer-encoding" => {
                    encodings += 1;
                    let plain = [&b"7bit"[..], b"8bit", b"binary"];
                    head.ambiguous |=
                        !plain.iter().any(|known| known.eq_ignore_ascii_case(value.trim_ascii()));
                }
                _ => {}
            }
        }
        head.ambiguous |= types > 1 || encodings > 1 || dispositions > 1;
        head
    }
}
