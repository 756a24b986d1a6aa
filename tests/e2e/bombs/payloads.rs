//! Requests of up to 1 MiB that patterns, decoders, parsers and tokenizers could take long for.

use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

const MIB: usize = 1024 * 1024;

/// The largest body: with its head it is 1 MiB at most.
const MOST: usize = MIB - 1024;

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
pub(super) const JSON: &str = "application/json";
pub(super) const XML: &str = "application/xml";
pub(super) const MULTIPART: &str = "multipart/form-data; boundary=bnd";

/// A content coding.
pub(super) type Code = fn(&[u8]) -> Vec<u8>;

/// What servers send under which name; deflate with and without its frame.
pub(super) const CODINGS: [(&str, Code); 5] =
    [("gzip", gzip), ("deflate", zlib), ("deflate", deflate), ("br", br), ("zstd", zst)];

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn br(mut bytes: &[u8]) -> Vec<u8> {
    let parameters = brotli::enc::BrotliEncoderParams { quality: 2, ..Default::default() };
    let mut coded = Vec::new();
    brotli::BrotliCompress(&mut bytes, &mut coded, &parameters).unwrap();
    coded
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// `part` over and over, up to `bytes` and without half a part.
fn fill(part: &str, bytes: usize) -> String {
    part.repeat(bytes / part.len())
}

fn post(kind: &str, coding: &str, body: &[u8]) -> Vec<u8> {
    let coding = if coding.is_empty() { String::new() } else { format!("Content-Encoding: {coding}\r\n") };
    let body = body.get(..MOST).unwrap_or(body);
    let head = format!(
        "POST /bomb HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n{coding}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Text in which nothing repeats.
fn noise() -> String {
    let mut seed = 1_u64;
    std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + (seed >> 33) as u8 % 95)
    })
    .take(MOST)
    .collect()
}

/// Pieces of which a long value may consist.
const PIECES: &[&str] = &[
    "a",
    " ",
    "'",
    "\"",
    "<",
    ">",
    "(",
    ")",
    "/*",
    "*/",
    "--",
    "#",
    ";",
    "\\",
    "../",
    "..\\",
    "select ",
    "or 1=",
    "' or '1'='1",
    "union select ",
    "<script",
    "<a b=",
    "javascript:",
    "&#x41;",
    "&lt;",
    "%2541",
    "%u0041",
    "%",
    "\\u0041",
    "\\x41",
    "QUFB",
    "QUFB=",
    "{{",
    "${",
    "$(",
    "`",
    "|",
    "eval(",
    "0x41",
    "1,",
    "=",
    ".",
    "\n",
    "a\n",
    "é",
    "http://",
    "@",
    "[",
    "{\"a\":",
    "O:8:",
    "()",
    "}{",
    "/etc/",
    "cmd ",
    "'||'",
    "/**/",
    "-",
    "_",
    "1",
    "e1",
];

/// All of them, each with what is expensive about it.
pub(super) fn bombs() -> Vec<(String, Vec<u8>)> {
    let mut bombs: Vec<(String, Vec<u8>)> = PIECES
        .iter()
        .map(|piece| ((*piece).to_owned(), post(FORM, "", format!("q={}", fill(piece, MOST)).as_bytes())))
        .collect();
    bombs.extend(texts());
    bombs.extend(documents());
    bombs.extend(coded());
    bombs.extend(heads());
    bombs
}

fn texts() -> Vec<(String, Vec<u8>)> {
    let noise = noise();
    let pairs: String = (0..100_000).map(|at| format!("p{at}=v&")).collect();
    let attack = "' or 1=1 union select <script>".repeat(35);
    let heavy: String = (0..1_000).map(|at| format!("p{at}={attack}&")).collect();
    [
        ("noise", post("text/plain", "", noise.as_bytes())),
        ("noise in a form", post(FORM, "", noise.as_bytes())),
        ("noise in JSON", post(JSON, "", serde_json::json!([noise]).to_string().as_bytes())),
        ("many parameters", post(FORM, "", pairs.as_bytes())),
        ("one parameter many times", post(FORM, "", fill("p=' or 1&", MOST).as_bytes())),
        ("no values", post(FORM, "", fill("&", MOST).as_bytes())),
        ("no names", post(FORM, "", fill("=&", MOST).as_bytes())),
        ("many heavy parameters", post(FORM, "", heavy.as_bytes())),
    ]
    .map(|(name, request)| (name.to_owned(), request))
    .into()
}

fn documents() -> Vec<(String, Vec<u8>)> {
    let keys: Vec<String> = (0..60_000).map(|at| format!("\"k{at}\":{at}")).collect();
    let laughs: String =
        (1..10).map(|at| format!("<!ENTITY l{at} \"{}\">", format!("&l{};", at - 1).repeat(10))).collect();
    let entity =
        format!("<!DOCTYPE z [<!ENTITY a \"{}\">]><z>{}</z>", "A".repeat(50_000), "&a;".repeat(5_000));
    let attributes: String = (0..40_000).map(|at| format!("x{at}=\"1\" ")).collect();
    let disposition = "--bnd\r\nContent-Disposition: form-data";
    let part = format!("{disposition}; name=\"f\"\r\n\r\nv\r\n");
    let end = "\r\n\r\nv\r\n--bnd--\r\n";
    [
        ("deep lists", JSON, fill("[", MOST / 2) + &fill("]", MOST / 2)),
        ("deep objects", JSON, fill("{\"a\":", MOST)),
        ("many keys", JSON, format!("{{{}}}", keys.join(","))),
        ("one key many times", JSON, format!("{{{}\"a\":1}}", fill("\"a\":1,", MOST - 100))),
        ("many numbers", JSON, format!("[{}1]", fill("1,", MOST - 100))),
        ("a long number", JSON, format!("[{}]", fill("9", MOST - 100))),
        ("escapes", JSON, format!("[\"{}\"]", fill("\\u0027", MOST - 100))),
        ("escaped escapes", JSON, format!("[\"{}\"]", fill("\\\\u0027", MOST - 100))),
        ("JSON in JSON", JSON, serde_json::json!(["[".repeat(MOST - 100)]).to_string()),
        ("laughs", XML, format!("<!DOCTYPE z [<!ENTITY l0 \"lol\">{laughs}]><z>&l9;</z>")),
        ("one entity many times", XML, entity),
        ("deep elements", XML, fill("<a>", MOST)),
        ("many attributes", XML, format!("<a {attributes}/>")),
        ("many elements", XML, format!("<a>{}</a>", fill("<b>c</b>", MOST - 100))),
        ("character references", XML, format!("<a>{}</a>", fill("&#x27;", MOST - 100))),
        ("CDATA", XML, format!("<a>{}</a>", fill("<![CDATA[']]>", MOST - 100))),
        ("many parts", MULTIPART, fill(&part, MOST)),
        ("many lines in a part", MULTIPART, format!("--bnd\r\n{}{end}", fill("X-A: b\r\n", MOST - 100))),
        ("near misses of a boundary", MULTIPART, fill("\r\n--bn", MOST)),
        ("dashes", MULTIPART, fill("-", MOST)),
        (
            "many parameters of a part",
            MULTIPART,
            format!("{disposition}{}{end}", fill("; name=a", MOST - 100)),
        ),
    ]
    .map(|(name, kind, body)| (name.to_owned(), post(kind, "", body.as_bytes())))
    .into()
}

fn coded() -> Vec<(String, Vec<u8>)> {
    let (zeros, noise) = (vec![0; 64 * MIB], noise());
    let quotes = format!("q={}", fill("'", 10 * MIB));
    let mut bombs = Vec::new();
    for (coding, code) in CODINGS {
        bombs.push((format!("{coding} of nothing"), post(JSON, coding, &code(&zeros))));
        bombs.push((format!("{coding} of quotes"), post(FORM, coding, &code(quotes.as_bytes()))));
        bombs.push((format!("{coding} of noise"), post(FORM, coding, &code(noise.as_bytes()))));
    }
    bombs.push(("gzip in gzip".to_owned(), post(JSON, "gzip, gzip", &gzip(&gzip(&zeros)))));
    bombs.push(("many members".to_owned(), post(JSON, "gzip", &gzip(b"a").repeat(40_000))));
    bombs
}

fn heads() -> Vec<(String, Vec<u8>)> {
    let fields: String =
        (0..90).map(|at| format!("X-{at}: {}\r\n", "' or 1=1 <script> ".repeat(8))).collect();
    let cookies = (0..1_400).map(|at| format!("c{at}='")).collect::<Vec<_>>().join("; ");
    let mut bombs = vec![
        ("a large head".to_owned(), format!("GET /bomb HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()),
        (
            "many cookies".to_owned(),
            format!("GET /bomb HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n").into_bytes(),
        ),
    ];
    for part in ["/", "/..", "%2e%2e%2f", ";", "%252e", "'", "//", "/a'or(1=1)--"] {
        for (name, start) in [("path", "/"), ("query", "/?")] {
            let target = format!("{start}{}", fill(part, 8_000));
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            bombs.push((format!("a {name} of {part}"), request.into_bytes()));
        }
    }
    bombs
}
