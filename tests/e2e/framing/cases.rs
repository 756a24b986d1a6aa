//! Requests byte by byte, and what has to become of each.
//!
//! In the texts `|` stands for CRLF, `¦` for `|`, and `{t}` for a word that a rule may forbid. A character up to
//! U+00FF is one byte.

mod bodies;
mod connections;
mod heads;

/// What has to become of a case.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    /// An error or a closed connection, and nothing at the origin.
    Refused,
    /// Exactly these requests at the origin: request line and body of each.
    Forwarded(&'static [(&'static str, &'static str)]),
    /// Those requests at the origin, and then the connection ends.
    Ended(&'static [(&'static str, &'static str)]),
}

/// One connection of a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    /// What is odd about it.
    pub(super) name: &'static str,
    /// What the client sends, one part after the other.
    pub(super) parts: [&'static str; 3],
    /// What has to become of it.
    pub(super) expect: Expect,
    /// Whether the client ends its side at once, because the gateway rightly waits for more.
    pub(super) cut: bool,
}

/// What is hidden behind many a case.
const HIDDEN: &str = "GET /hidden?{t} HTTP/1.1|Host: a||";

/// The head of a chunked request.
const CHUNKED: &str = "POST /{t} HTTP/1.1|Host: a|Transfer-Encoding: chunked||";

const fn no(name: &'static str, text: &'static str) -> Case {
    Case { name, parts: [text, HIDDEN, ""], expect: Expect::Refused, cut: false }
}

/// A field that spoils a POST.
const fn field(name: &'static str, field: &'static str) -> Case {
    let parts = ["POST /{t} HTTP/1.1|Host: a|", field, "||5|hello|0||GET /hidden?{t} HTTP/1.1|Host: a||"];
    Case { name, parts, expect: Expect::Refused, cut: false }
}

/// A chunked body that cannot be read.
const fn chunks(name: &'static str, body: &'static str) -> Case {
    Case { name, parts: [CHUNKED, body, HIDDEN], expect: Expect::Refused, cut: false }
}

/// Not all of a message.
const fn cut(name: &'static str, text: &'static str) -> Case {
    Case { name, parts: [text, "", ""], expect: Expect::Refused, cut: true }
}

const fn yes(
    name: &'static str,
    text: &'static str,
    requests: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, parts: [text, "", ""], expect: Expect::Forwarded(requests), cut: false }
}

/// A field that does not keep a request from being forwarded.
const fn harmless(name: &'static str, field: &'static str) -> Case {
    let expect = Expect::Forwarded(&[("GET /a HTTP/1.1", "")]);
    Case { name, parts: ["GET /a HTTP/1.1|Host: a|", field, "||"], expect, cut: false }
}

/// A chunked body that is forwarded as `hello`.
const fn good_chunks(name: &'static str, body: &'static str) -> Case {
    let expect = Expect::Forwarded(&[("POST /{t} HTTP/1.1", "hello")]);
    Case { name, parts: [CHUNKED, body, ""], expect, cut: false }
}

/// A request target that is forwarded as it is.
const fn target(
    name: &'static str,
    text: &'static str,
    line: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, parts: ["GET ", text, " HTTP/1.1|Host: a||"], expect: Expect::Forwarded(line), cut: false }
}

/// A request target that is refused.
const fn bad_target(name: &'static str, text: &'static str) -> Case {
    Case { name, parts: ["GET ", text, " HTTP/1.1|Host: a||"], expect: Expect::Refused, cut: false }
}

/// All of them.
pub(super) const ALL: &[&[Case]] = &[
    bodies::LENGTHS,
    bodies::ENCODINGS,
    bodies::CHUNKS,
    heads::LINES,
    heads::FIELDS,
    heads::TARGETS,
    heads::VERSIONS,
    heads::HOSTS,
    connections::HOPS,
    connections::ALIASES,
    connections::PIPELINES,
    connections::CUT,
];
