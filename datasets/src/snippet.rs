//! Harmless values that look technical: markup, style sheets, queries, addresses, code, macros, logs. Honest
//! programs send such things all day, and whoever knows attacks only by their alphabet trips over them.

use fastrand::Rng;

use crate::text;

fn one<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from.get(rng.usize(..from.len().max(1))).copied().unwrap_or("")
}

fn word(rng: &mut Rng) -> String {
    let mut word = String::new();
    for _ in 0..rng.usize(1..4) {
        word.push_str(one(
            rng,
            &["ba", "con", "di", "fa", "gra", "lo", "mi", "na", "pro", "re", "sta", "ter", "vi"],
        ));
    }
    word
}

fn token(rng: &mut Rng, bytes: usize) -> String {
    (0..bytes).map(|_| rng.alphanumeric()).collect()
}

/// A host name.
fn host(rng: &mut Rng) -> String {
    let name = word(rng);
    match rng.u8(..5) {
        0 => format!("www.{name}.{}", one(rng, &["com", "org", "de", "co.uk", "io", "net"])),
        1 => format!(
            "{}.{name}.com",
            one(rng, &["cdn", "img", "api", "static", "admin", "test", "login", "files"])
        ),
        2 => format!("{name}.{}", one(rng, &["shop", "app", "dev", "info"])),
        3 => format!("{}{}.{name}.net", word(rng), rng.u8(..)),
        _ => format!("{name}.example"),
    }
}

/// An address as pages, programs and trackers pass it around.
pub fn address(rng: &mut Rng) -> String {
    let mut path = String::new();
    for _ in 0..rng.usize(0..4) {
        path.push('/');
        path.push_str(&match rng.u8(..6) {
            0 => one(rng, &["admin", "upload", "files", "etc", "bin", "system", "users", "get", "post"])
                .to_owned(),
            1 => format!("{}-{}", word(rng), rng.u32(..99_999)),
            2 => token(rng, 8),
            _ => word(rng),
        });
    }
    if rng.bool() {
        let extension = one(
            rng,
            &["php", "html", "jpg", "js", "css", "aspx", "json", "xml", "pdf", "png", "mp4", "zip", "txt"],
        );
        path.push_str(&format!("/{}.{extension}", word(rng)));
    }
    let query = match rng.u8(..4) {
        0 => format!("?{}={}&{}={}", word(rng), rng.u32(..9_999), word(rng), word(rng)),
        1 => format!("?url=https%3A%2F%2F{}%2F&id={}", host(rng), token(rng, 6)),
        2 => format!("?v={}.{}#{}", rng.u8(..9), rng.u8(..), word(rng)),
        _ => String::new(),
    };
    let port = one(rng, &["", "", "", "", ":443", ":8080"]);
    match rng.u8(..6) {
        0 => format!("//{}{path}/", host(rng)),
        1 => format!("{path}{query}"),
        2 => format!("'https://{}{path}{query}'", host(rng)),
        3 => format!("\"https://{}{path}{query}\"", host(rng)),
        _ => format!(
            "{}://{}{port}{path}{query}",
            one(rng, &["https", "http", "android-app", "wss"]),
            host(rng)
        ),
    }
}

/// Markup: what editors save and widgets report.
pub fn markup(rng: &mut Rng) -> String {
    let (word, sentence) = (word(rng), text::opinion(rng));
    match rng.u8(..10) {
        0 => format!("<p>{sentence}</p>\n<p class=\"{word}\">{}</p>", text::opinion(rng)),
        1 => format!(
            "<a href=\"{}\" target=\"_blank\" rel=\"noopener\">{sentence}</a>",
            address(rng).replace('"', "")
        ),
        2 => format!(
            "<img src=\"{}\" alt=\"{sentence}\" width=\"{}\" />",
            address(rng).replace('"', ""),
            rng.u16(..900)
        ),
        3 => "<!DOCTYPE html>".to_owned(),
        4 => format!(
            "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\" \
             \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\"><html xmlns=\"http://www.w3.org/1999/xhtml\">\
             <head><title>{sentence}</title></head>"
        ),
        5 => format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE svg PUBLIC \"-//W3C//DTD SVG 1.1//EN\" \
             \"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd\"><svg width=\"{}\" height=\"{}\"><g id=\"{word}\"/></svg>",
            rng.u8(..),
            rng.u8(..)
        ),
        6 => {
            format!("<?xml version=\"1.0\"?><{word} id=\"{}\"><name>{sentence}</name></{word}>", rng.u16(..))
        }
        7 => format!("<em class=\"{word}-highlight\">{sentence}</em>"),
        8 => format!("<ul><li>{sentence}</li><li><b>{word}</b> &amp; more</li></ul><br/>"),
        _ => format!(
            "<div style=\"color: #{:06x}; margin: 0 {}px\"><h2>{word}</h2>&nbsp;</div>",
            rng.u32(..0xff_ffff),
            rng.u8(..)
        ),
    }
}

/// Style sheets and what pages say about their own security.
pub fn style(rng: &mut Rng) -> String {
    let (a, b) = (word(rng), word(rng));
    match rng.u8(..6) {
        0 => format!("background-image: url('{}')", address(rng).replace(['\'', '"'], "")),
        1 => format!(".{a} > #{b}:nth-child({}) {{ display: none; }}", rng.u8(1..9)),
        2 => format!("#{a} .{b}[data-id=\"{}\"] a:hover", rng.u16(..)),
        3 => format!(
            "@media (max-width: {}px) {{ .{a} {{ width: calc(100% - {}px) !important }} }}",
            rng.u16(..2000),
            rng.u8(..)
        ),
        4 => format!(
            "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' https://*.{} data: blob:; \
             report-uri /csp/{a}",
            host(rng)
        ),
        _ => format!(
            "block-all-mixed-content; frame-src 'self' https://*.{} http://{}; upgrade-insecure-requests",
            host(rng),
            host(rng)
        ),
    }
}

/// Queries of honest programs: GraphQL, search filters, sort orders, selectors.
pub fn query(rng: &mut Rng) -> String {
    let (a, b) = (word(rng), word(rng));
    match rng.u8(..9) {
        0 => format!(
            "query {a}($id: ID!) {{\n  {b}(id: $id) {{ id name ...{a}Fields }}\n}}\nfragment {a}Fields on {b} {{ uid __typename }}"
        ),
        1 => format!("mutation {{\n  create{a} {{\n    uid\n    __typename\n  }}\n}}\n"),
        2 => format!("{a}:\"{b}\" AND ({b}:[{} TO *] OR -status:deleted)", rng.u16(..)),
        3 => format!("[[\"{a}:{b}\",\"price<={}\"],[\"in_stock:true\"]]", rng.u16(..)),
        4 => format!("{a} desc, {b} asc"),
        5 => format!(
            "query={a}&hitsPerPage={}&clickAnalytics=true&distinct=true&highlightPreTag=<em>&highlightPostTag=</em>",
            rng.u8(..)
        ),
        6 => format!("$.{a}[?(@.{b} > {})].name", rng.u8(..)),
        7 => format!("/{a}-(\\d+)/{b}\\.html$/i"),
        _ => format!("{a} and {b} or not {a}"),
    }
}

/// What programs report about themselves: errors, stack frames, log lines, versions, file names, commands in help.
pub fn report(rng: &mut Rng) -> String {
    let (a, b) = (word(rng), word(rng));
    let (line, column) = (rng.u16(..9_999), rng.u8(..));
    match rng.u8(..10) {
        0 => format!(
            "TypeError: Cannot read properties of undefined (reading '{a}')\n    at {b} ({}:{line}:{column})\n    at Array.forEach (<anonymous>)",
            address(rng)
        ),
        1 => format!("document.{a}() is not allowed in an opaque origin context."),
        2 => format!(
            "java.lang.IllegalStateException: {a} is closed\n\tat com.{b}.{a}.Main.run(Main.java:{line})"
        ),
        3 => format!("File \"/usr/lib/python3/{a}/{b}.py\", line {line}, in __init__"),
        4 => {
            format!("file.{}", one(rng, &["mp4", "pdf", "docx", "tar.gz", "php", "sh", "exe", "sql", "bak"]))
        }
        5 => format!("C:\\Users\\{a}\\Documents\\{b} ({column}).docx"),
        6 => format!("/srv/{a}/{b}/.cache/{line}.tmp"),
        7 => format!("[{line}] WARN {a}: retry {column}/5 after \"{b}\" failed; see https://{}", host(rng)),
        8 => format!("npm install --save {a}-{b}@^{column}.0.1 && npm run build"),
        _ => format!("window.{a} = window.{a} || []; function {b}(){{{a}.push(arguments)}}"),
    }
}

/// Macros, encodings and packed state: what advertising, consent and analytics pass around.
pub fn packed(rng: &mut Rng) -> String {
    let (a, b) = (word(rng), word(rng));
    let n = rng.u32(..99_999);
    match rng.u8(..14) {
        0 => format!("${{{}_{n}}}", a.to_uppercase()),
        1 => format!("{{{{{a}.{b}}}}}"),
        2 => format!("%%{}%%", a.to_uppercase()),
        3 => format!("[{}]", b.to_uppercase()),
        4 => format!("{{\"{a}\":{{\"{b}\":[{n},null,true],\"v\":\"{}\"}}}}", token(rng, 12)),
        5 => format!("{a}={b}|{n}!{b}~{};{a}[{n}]", token(rng, 5)),
        6 => (0..rng.usize(8..80)).map(|_| format!("%{}{}", rng.digit(16), rng.alphanumeric())).collect(),
        7 => (0..rng.usize(8..120)).map(|_| char::from(rng.u8(33..127))).collect(),
        8 => (0..rng.usize(4..40)).map(|_| format!("%{:02X}", rng.u8(0x80..))).collect(),
        9 => (0..rng.usize(1..4)).map(|_| char::from(rng.u8(33..127))).collect(),
        10 => format!("{a}({n})"),
        11 => format!("/{a};count={n};theme={b};load=true;lang="),
        12 => format!("//{a}/{b}//{n}"),
        _ => format!("'{a}'"),
    }
}

/// What makes a value.
type Maker = fn(&mut Rng) -> String;

/// Every kind of snippet.
pub const SNIPPETS: [(&str, Maker); 6] = [
    ("address", address),
    ("markup", markup),
    ("style", style),
    ("query", query),
    ("report", report),
    ("packed", packed),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_makes_many_different_values() {
        for (name, make) in SNIPPETS {
            let mut rng = Rng::with_seed(3);
            let made: BTreeSet<String> = (0..500).map(|_| make(&mut rng)).collect();
            assert!(made.len() >= 200, "{name}: {} different of 500", made.len());
        }
    }
}
