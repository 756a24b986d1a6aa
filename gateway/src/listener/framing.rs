//! A strict reading of HTTP/1 framing beside the HTTP library's own: a request that the two could read differently is
//! refused. Bytes go on as they came; nothing is changed here.

use std::collections::VecDeque;

use memchr::memchr;

use super::flood::{Flood, Frames};
use crate::limits::Framing;

/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest line; the HTTP library refuses much shorter heads.
const LINE_BYTES: usize = 256 * 1024;

/// Longest line that gives the size of a chunk, extensions included.
const CHUNK_LINE_BYTES: usize = 1024;

/// Most bytes of trailers.
const TRAILER_BYTES: usize = 16 * 1024;

/// Follows one connection from message to message.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// The beginning of a line that has not ended.
    line: Vec<u8>,
    head: Head,
    /// Of heads that are complete and that the HTTP library has not come to.
    verdicts: VecDeque<Framing>,
    frames: Frames,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of [`PREFACE`] came, and nothing else.
    Opening(usize),
    Head,
    /// So many bytes of a body of known length are to come.
    Sized(u64),
    ChunkSize,
    ChunkData(u64),
    /// The line end behind the data of a chunk.
    ChunkEnd,
    /// So many bytes of trailers came.
    Trailers(usize),
    /// The client asked for another protocol and has to wait for the answer.
    AsksUpgrade,
    /// HTTP/2.
    Frames,
    /// Another protocol.
    Off,
    /// What follows cannot be told apart: whatever is made of it is refused.
    Lost,
}

/// What of a head decides where its message ends.
#[derive(Debug, Default)]
struct Head {
    started: bool,
    empty_lines: u8,
    is_http_11: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// A mistake in a line, by its name in the log.
type Mistake = &'static str;

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            state: State::Opening(0),
            line: Vec::new(),
            head: Head::default(),
            verdicts: VecDeque::new(),
            frames: Frames::new(),
        }
    }

    /// Takes bytes as they pass.
    ///
    /// # Errors
    /// A body's framing is broken, or too many frames of HTTP/2 came; so many of `bytes` are sound. A head that is wrong is no error: its verdict says
    /// so.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            let before = rest.len();
            let step = match self.state {
                State::Opening(matched) => {
                    self.open(matched, *first, &mut rest);
                    Ok(())
                }
                State::Sized(left) => {
                    let left = skip(left, &mut rest);
                    self.state = if left == 0 { State::Head } else { State::Sized(left) };
                    Ok(())
                }
                State::ChunkData(left) => {
                    let left = skip(left, &mut rest);
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    Ok(())
                }
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers(_) => {
                    self.lines(&mut rest)
                }
                // Bytes that come before the answer belong to neither protocol.
                State::AsksUpgrade => {
                    self.state = State::Lost;
                    Ok(())
                }
                State::Frames => return self.frames.feed(rest).map_err(|Flood| bytes.len() - before),
                State::Off | State::Lost => return Ok(()),
            };
            if step.is_err() {
                let in_head = self.state == State::Head;
                self.state = State::Lost;
                if !in_head {
                    return Err(bytes.len() - before);
                }
            }
        }
        Ok(())
    }

    /// The verdict on the head that the HTTP library comes to now.
    pub(super) fn next_verdict(&mut self) -> Framing {
        self.verdicts.pop_front().unwrap_or(Framing::Refused("unknown_framing"))
    }

    /// HTTP/2 is spoken, in frames that are counted.
    pub(super) fn frames(&mut self) -> Option<&mut Frames> {
        (self.state == State::Frames).then_some(&mut self.frames)
    }

    /// The client's wish for another protocol was answered.
    pub(super) fn answered(&mut self, switched: bool) {
        if self.state == State::AsksUpgrade {
            self.state = if switched { State::Off } else { State::Head };
        }
    }

    /// Whether a head has begun and not ended; `None` if nothing can be said any more.
    pub(super) fn in_head(&self) -> Option<bool> {
        match self.state {
            State::Opening(matched) => Some(matched > 0),
            State::Head => Some(self.head.started || !self.line.is_empty()),
            State::Lost => None,
            _ => Some(false),
        }
    }

    fn open(&mut self, matched: usize, byte: u8, rest: &mut &[u8]) {
        if PREFACE.get(matched) != Some(&byte) {
            self.state = State::Head;
            let mut begun = PREFACE.get(..matched).unwrap_or_default();
            while !begun.is_empty() && self.state == State::Head {
                if self.lines(&mut begun).is_err() {
                    self.state = State::Lost;
                }
            }
            return;
        }
        *rest = rest.get(1..).unwrap_or_default();
        self.state = if matched + 1 == PREFACE.len() { State::Frames } else { State::Opening(matched + 1) };
    }

    /// Takes one line, or the beginning of it.
    fn lines(&mut self, rest: &mut &[u8]) -> Result<(), Mistake> {
        let Some(end) = memchr(b'\n', rest) else {
            let most = if self.state == State::Head { LINE_BYTES } else { TRAILER_BYTES };
            if self.line.len() + rest.len() > most {
                return self.refuse("line_too_long");
            }
            self.line.extend_from_slice(rest);
            *rest = &[];
            return Ok(());
        };
        let (part, after) = rest.split_at_checked(end + 1).unwrap_or((rest, &[]));
        let step = if self.line.is_empty() {
            self.line(part)
        } else {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(part);
            let step = self.line(&line);
            line.clear();
            self.line = line;
            step
        };
        if step.is_ok() {
            *rest = after;
        }
        step
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Mistake> {
        let Some(text) = line.strip_suffix(b"\r\n") else { return self.refuse("bare_line_feed") };
        if memchr(b'\r', text).is_some() {
            return self.refuse("bare_carriage_return");
        }
        match self.state {
            State::Head => match self.head.line(text) {
                Ok(false) => {}
                Ok(true) => {
                    self.verdicts.push_back(Framing::Plain);
                    self.state = std::mem::take(&mut self.head).body();
                }
                Err(mistake) => return self.refuse(mistake),
            },
            State::ChunkSize => {
                let size = chunk_size(text)?;
                self.state = if size == 0 { State::Trailers(0) } else { State::ChunkData(size) };
            }
            State::ChunkEnd if text.is_empty() => self.state = State::ChunkSize,
            State::Trailers(_) if text.is_empty() => self.state = State::Head,
            State::Trailers(bytes) => {
                let bytes = bytes + line.len();
                if bytes > TRAILER_BYTES || field(text).is_err() {
                    return Err("trailers");
                }
                self.state = State::Trailers(bytes);
            }
            _ => return Err("chunk_end"),
        }
        Ok(())
    }

    /// Gives the verdict at once: the HTTP library may take the head for complete before we would.
    fn refuse(&mut self, mistake: Mistake) -> Result<(), Mistake> {
        if self.state == State::Head {
            self.verdicts.push_back(Framing::Refused(mistake));
        }
        Err(mistake)
    }
}

impl Head {
    /// Takes one line; true if it was the last.
    fn line(&mut self, line: &[u8]) -> Result<bool, Mistake> {
        if !self.started {
            if line.is_empty() {
                // One is forgiven: old clients sent it behind a body (RFC 9112, 2.2).
                self.empty_lines += 1;
                return if self.empty_lines > 1 { Err("empty_lines") } else { Ok(false) };
            }
            self.started = true;
            self.is_http_11 = request_line(line)?;
            return Ok(false);
        }
        if line.is_empty() {
            return match (self.chunked, self.length) {
                (true, Some(_)) => Err("conflicting_framing"),
                (true, None) if !self.is_http_11 => Err("transfer_encoding"),
                _ => Ok(true),
            };
        }
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err("multiple_content_lengths");
            }
            self.length = Some(length(value)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("transfer_encoding");
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        }
        Ok(false)
    }

    /// What comes behind the head.
    fn body(&self) -> State {
        match self.length {
            _ if self.chunked => State::ChunkSize,
            Some(length) if length > 0 => State::Sized(length),
            _ if self.upgrade => State::AsksUpgrade,
            _ => State::Head,
        }
    }
}

/// Whether a request line is one of HTTP/1.1 rather than 1.0.
fn request_line(line: &[u8]) -> Result<bool, Mistake> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("request_line");
    };
    // A fragment is cut off by some parsers and part of the path to others.
    let odd = |byte: &u8| *byte <= b' ' || *byte == 0x7f || *byte == b'#';
    if method.is_empty() || target.is_empty() || target.iter().any(odd) {
        return Err("request_target");
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err("http_version"),
    }
}

/// Name and value of a field. The HTTP library checks the name's characters.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Mistake> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("folded_field");
    }
    let colon = memchr(b':', line).ok_or("field_name")?;
    let (name, value) = line.split_at_checked(colon).ok_or("field_name")?;
    if name.is_empty() || name.iter().any(|byte| *byte <= b' ' || *byte >= 0x7f) {
        return Err("field_name");
    }
    Ok((name, trim(value.get(1..).unwrap_or_default())))
}

/// Without the white space that HTTP allows around values, and no other.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn length(value: &[u8]) -> Result<u64, Mistake> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err("content_length");
    }
    let digit = |sum: u64, byte: &u8| sum * 10 + u64::from(byte - b'0');
    Ok(value.iter().fold(0, digit))
}

/// The size of a chunk: up to 15 hexadecimal digits, and extensions, which are dropped.
fn chunk_size(line: &[u8]) -> Result<u64, Mistake> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    if digits.is_empty() || digits.len() > 15 || line.len() > CHUNK_LINE_BYTES || line.iter().any(control) {
        return Err("chunk_size");
    }
    let mut size = 0;
    for byte in digits {
        let digit = char::from(*byte).to_digit(16).ok_or("chunk_size")?;
        size = size << 4 | u64::from(digit);
    }
    Ok(size)
}

/// Skips up to `left` bytes; returns how many are left to skip.
fn skip(left: u64, rest: &mut &[u8]) -> u64 {
    let now = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    *rest = rest.get(now..).unwrap_or_default();
    left - now as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verdicts on what was sent, and whether a body's framing broke; the same however it is cut into pieces.
    #[track_caller]
    fn scan(text: &str) -> (Vec<Framing>, bool) {
        let whole = pieces(text.as_bytes(), text.len().max(1));
        for size in [1, 2, 3, 7] {
            assert_eq!(pieces(text.as_bytes(), size), whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    fn pieces(bytes: &[u8], size: usize) -> (Vec<Framing>, bool) {
        let mut scanner = Scanner::new();
        let broken = bytes.chunks(size).any(|piece| scanner.feed(piece).is_err());
        (scanner.verdicts.into(), broken)
    }

    #[test]
    fn what_is_sound_goes_on() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let sound = format!("{head}3\r\nabc\r\n");
        assert_eq!(Scanner::new().feed(format!("{sound}x\r\n").as_bytes()), Err(sound.len()));
    }

    #[test]
    fn messages_are_told_apart() {
        let plain = |count| (vec![Framing::Plain; count], false);
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let sized = "POST / HTTP/1.0\r\ncontent-LENGTH:\t5 \r\n\r\nGET /";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=\"b\"\r\n0\r\n\r\n\r\n0\r\nA: b\r\n\r\n";
        assert_eq!(scan(get), plain(1));
        assert_eq!(scan(&[get, sized, get, chunked, "\r\n", get].concat()), plain(5));
        assert_eq!(scan("GET / HTTP/1.1\r\nHost: a\r\n"), plain(0));
        assert_eq!(scan(&format!("{}{get}", String::from_utf8_lossy(PREFACE))), plain(0));
    }

    #[test]
    fn what_two_parsers_read_differently_is_refused() {
        for (head, mistake) in [
            ("GET / HTTP/1.1\n", "bare_line_feed"),
            ("GET / HTTP/1.1\r\nA: b\n", "bare_line_feed"),
            ("GET / HTTP/1.1\r\nA: b\rC: d\r\n", "bare_carriage_return"),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n", "folded_field"),
            ("GET / HTTP/1.1\r\nA : b\r\n", "field_name"),
            ("GET /#a HTTP/1.1\r\n", "request_target"),
            ("GET /\ta HTTP/1.1\r\n", "request_target"),
            ("GET  / HTTP/1.1\r\n", "request_line"),
            ("GET /\r\n", "request_line"),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "http_version"),
            ("\r\n\r\nGET / HTTP/1.1\r\n", "empty_lines"),
            ("POST / HTTP/1.1\r\nContent-Length: +3\r\n", "content_length"),
            ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n", "multiple_content_lengths"),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                "conflicting_framing",
            ),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n", "transfer_encoding"),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer_encoding"),
        ] {
            let expected = (vec![Framing::Refused(mistake)], false);
            assert_eq!(scan(head), expected, "{head:?}");
            assert_eq!(scan(&format!("{head}\r\n\r\nGET / HTTP/1.1\r\n\r\n")), expected, "{head:?}");
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_breaks() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [
            "3 \r\n",
            "+3\r\n",
            "0x3\r\n",
            "3\n",
            "\r\n",
            "g\r\n",
            "3\r\nabc\n",
            "3\r\nabcd\r\n",
            "3;a\nb\r\n",
            "0\r\n a: b\r\n",
            "0\r\nA: b\n",
            "0\r\nabc\r\n",
            "1000000000000000\r\n",
        ] {
            let found = scan(&format!("{head}{body}0\r\n\r\n"));
            assert_eq!(found, (vec![Framing::Plain], true), "{body:?}");
        }
    }

    #[test]
    fn nothing_may_come_before_the_answer_to_an_upgrade() {
        let ask = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let asked = || {
            let mut scanner = Scanner::new();
            scanner.feed(ask).unwrap();
            assert_eq!(scanner.next_verdict(), Framing::Plain);
            scanner
        };
        let mut early = asked();
        early.feed(get).unwrap();
        early.answered(false);
        assert_eq!(early.next_verdict(), Framing::Refused("unknown_framing"));
        let mut patient = asked();
        patient.answered(false);
        patient.feed(get).unwrap();
        assert_eq!(patient.next_verdict(), Framing::Plain);
    }
}
