//! Labelled requests, one JSON object a line, plain or gzip.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use waf_model::request::{BodyExtent, BodyView, Header, RequestView};

/// Longest line that is read, in bytes.
pub const MAX_LINE: usize = 16 << 20;

/// One labelled request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledRequest {
    /// The item's id in its file.
    pub id: String,
    /// Whether it is an attack.
    pub label: Label,
    /// The kind of request as the file names it; may be empty.
    pub class: String,
    /// What it belongs to inside its file: a site, or the list that a payload comes from; may be empty.
    pub group: String,
    /// Method as sent.
    pub method: String,
    /// Path and query exactly as they go on the wire.
    pub target: String,
    /// Header fields in file order; names are lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What a labelled request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Label {
    /// Harmless.
    Benign,
    /// An attack, or (in some sets) an anomaly.
    Attack,
}

/// A file of labelled requests that cannot be read. Displays as `file:line: what`.
#[derive(Debug, thiserror::Error)]
pub enum LabelledError {
    /// The file cannot be opened or read.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not a labelled request.
    #[error("{file}:{line}: {message}")]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong and how to mend it.
        message: String,
    },
}

/// Reads labelled requests one at a time, in file order.
pub struct LabelledReader {
    file: PathBuf,
    line: u64,
    input: Box<dyn BufRead>,
    buffer: Vec<u8>,
    failed: bool,
}

impl fmt::Debug for LabelledReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LabelledReader({}:{})", self.file.display(), self.line)
    }
}

impl LabelledReader {
    /// Opens `file`; gzip is recognized by its first bytes, not by its name.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open(file: &Path) -> Result<Self, LabelledError> {
        let failed = |source| LabelledError::Read { file: file.to_owned(), source };
        let mut input = BufReader::new(File::open(file).map_err(failed)?);
        let gzip = input.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
        let input: Box<dyn BufRead> = if gzip {
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(input)))
        } else {
            Box::new(input)
        };
        Ok(Self { file: file.to_owned(), line: 0, input, buffer: Vec::new(), failed: false })
    }

    fn read_line(&mut self) -> Result<Option<LabelledRequest>, LabelledError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let limit = MAX_LINE as u64 + 1;
            (&mut self.input)
                .take(limit)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| LabelledError::Read { file: self.file.clone(), source })?;
            if self.buffer.is_empty() {
                return Ok(None);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(self.wrong(format!("longer than {MAX_LINE} bytes; split or remove the line")));
            }
            if self.buffer.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return parse(&self.buffer).map(Some).map_err(|message| self.wrong(message));
        }
    }

    fn wrong(&self, message: String) -> LabelledError {
        LabelledError::Line { file: self.file.clone(), line: self.line, message }
    }
}

impl Iterator for LabelledReader {
    type Item = Result<LabelledRequest, LabelledError>;

    /// The next request; after an error, nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read_line();
        self.failed = next.is_err();
        next.transpose()
    }
}

impl LabelledRequest {
    /// Shows the request as the WAF would see it. `Host` and `Content-Length`, which the files leave to the
    /// client, are added where they are missing.
    pub fn with_view<T>(&self, see: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let length = self.body.len().to_string();
        let mut headers = Vec::with_capacity(self.headers.len() + 2);
        let has = |name: &str| self.headers.iter().any(|(n, _)| n == name);
        if !has("host") {
            headers.push(Header { name: "host", value: b"localhost" });
        }
        headers.extend(self.headers.iter().map(|(name, value)| Header { name, value }));
        if !self.body.is_empty() && !has("content-length") {
            headers.push(Header { name: "content-length", value: length.as_bytes() });
        }
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query.as_bytes())),
            None => (self.target.as_str(), None),
        };
        see(&RequestView {
            method: &self.method,
            path: path.as_bytes(),
            query,
            protocol: "HTTP/1.1",
            headers: &headers,
            body: BodyView { bytes: &self.body, extent: BodyExtent::Complete },
            client_address: "",
        })
    }
}

#[derive(Deserialize)]
struct RawLabelled {
    #[serde(default)]
    id: String,
    label: Label,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    source: Option<String>,
    method: String,
    uri: String,
    #[serde(default)]
    headers: RawHeaders,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_b64: Option<String>,
}

fn parse(line: &[u8]) -> Result<LabelledRequest, String> {
    let raw: RawLabelled = serde_json::from_slice(line).map_err(|error| {
        format!(
            "not a labelled request: {error}; a line is a JSON object with label (benign or attack), method, uri, \
             and optionally id, class, headers, body or body_b64"
        )
    })?;
    let body = match (raw.body, raw.body_b64) {
        (body, Some(text)) if !text.is_empty() => {
            if body.is_some_and(|body| !body.is_empty()) {
                return Err("has both body and body_b64; keep one of them".to_owned());
            }
            STANDARD.decode(text).map_err(|error| format!("body_b64 is not base64: {error}"))?
        }
        (body, _) => body.unwrap_or_default().into_bytes(),
    };
    Ok(LabelledRequest {
        id: raw.id,
        label: raw.label,
        class: raw.class.unwrap_or_default(),
        group: raw.group.or(raw.source).unwrap_or_default(),
        method: raw.method,
        target: origin_form(raw.uri),
        headers: raw.headers.0,
        body,
    })
}

/// `http://host/path` becomes `/path`: a gateway routes by the path alone.
fn origin_form(uri: String) -> String {
    let rest = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://"));
    match rest {
        Some(rest) => rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/").to_owned(),
        None => uri,
    }
}

/// Header fields in the order of the file; a field may have one value or a list.
#[derive(Default)]
struct RawHeaders(Vec<(String, Vec<u8>)>);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawHeaderValue {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for RawHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawHeaders;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of header fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeaders, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, RawHeaderValue>()? {
                    let name = name.to_ascii_lowercase();
                    match value {
                        RawHeaderValue::One(value) => fields.push((name, value.into_bytes())),
                        RawHeaderValue::Many(values) => {
                            fields.extend(values.into_iter().map(|value| (name.clone(), value.into_bytes())));
                        }
                    }
                }
                Ok(RawHeaders(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(name: &str, content: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("labelled-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        path
    }

    const LINE: &str = r#"{"id":"a","label":"attack","class":"sqli","method":"POST","uri":"/x?q=1%27","headers":{"Zeta":"1","Accept":["a","b"]},"body_b64":"AP8=","other":3}"#;

    #[test]
    fn a_request_reads_the_same_plain_and_compressed() {
        let plain = file("plain.jsonl", format!("{LINE}\n\n{LINE}").as_bytes());
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(format!("{LINE}\n{LINE}\n").as_bytes()).unwrap();
        let gz = file("gz", &gz.finish().unwrap());
        let read = |path: &Path| LabelledReader::open(path).unwrap().map(Result::unwrap).collect::<Vec<_>>();
        let items = read(&plain);
        assert_eq!(items.len(), 2);
        assert_eq!(items, read(&gz));
        assert_eq!(items[0].body, [0, 255]);
        let names: Vec<_> = items[0].headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["zeta", "accept", "accept"], "file order, lower case");
        items[0].with_view(|view| {
            assert_eq!((view.path, view.query), (&b"/x"[..], Some(&b"q=1%27"[..])));
            assert_eq!(view.header("host"), Some(&b"localhost"[..]));
            assert_eq!(view.header("content-length"), Some(&b"2"[..]));
        });
    }

    #[test]
    fn a_mistake_names_file_and_line_and_ends_the_reading() {
        for (name, bad) in [
            ("label", r#"{"label":"good","method":"GET","uri":"/"}"#),
            ("json", "{"),
            ("both", r#"{"label":"benign","method":"GET","uri":"/","body":"x","body_b64":"AA=="}"#),
            ("base64", r#"{"label":"benign","method":"GET","uri":"/","body_b64":"%"}"#),
        ] {
            let path = file(name, format!("{LINE}\n{bad}\n{LINE}\n").as_bytes());
            let all: Vec<_> = LabelledReader::open(&path).unwrap().collect();
            assert_eq!(all.len(), 2, "{name}: nothing after the mistake");
            let message = all[1].as_ref().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{}:2: ", path.display())), "{message}");
        }
        let missing = LabelledReader::open(Path::new("no-such-file.jsonl")).unwrap_err().to_string();
        assert!(missing.starts_with("no-such-file.jsonl: "), "{missing}");
    }

    #[test]
    fn an_absolute_uri_loses_its_authority() {
        assert_eq!(origin_form("http://a:8080/b?c".to_owned()), "/b?c");
        assert_eq!(origin_form("https://a".to_owned()), "/");
        assert_eq!(origin_form("/http://a/b".to_owned()), "/http://a/b");
    }
}
