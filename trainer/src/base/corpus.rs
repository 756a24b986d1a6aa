//! The corpus: labelled requests as the distinct texts that the base looks at.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use anyhow::Result;
use datasets::{
    benign,
    labelled::{Label, LabelledReader, LabelledRequest},
    payload,
    request::{Space, encode},
    snippet,
};
use waf_model::{
    base::{self, Base, KINDS, Strength, place},
    injection::Said,
    rules::{Collections, Connection, Context, RuleSet},
    values::{Limits, Location, Values},
};

/// Longest text that is learned from, in bytes.
const TEXT_BYTES: usize = 16 << 10;

/// How the names of what generators make begin.
const GENERATED: &str = "generated ";

/// One text: a layer of a value, or a path.
#[derive(Debug)]
pub struct Text {
    /// Where it stands.
    pub location: Location,
    /// The bytes.
    pub bytes: Box<[u8]>,
    /// What the tokenizers say of it.
    pub said: Said,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Whether it is an attack.
    pub attack: bool,
    /// The family of the attack, or the name of the file.
    pub family: &'static str,
    /// Index into [`waf_model::base::KINDS`]; for harmless requests 0.
    pub kind: u8,
    /// The file it comes from.
    pub file: u16,
    /// The site or list it comes from, over all files.
    pub group: u32,
    /// Names the payload after normalization: equal payloads go to the same side of a split.
    pub payload: u64,
    /// Whether a generator made it: always learned from, never judged.
    pub generated: bool,
    /// Whether it is recorded browsing of a site.
    pub browsing: bool,
    /// Indices into [`Corpus::texts`], without repeats.
    pub texts: Vec<u32>,
    /// Points of the rules that matched.
    pub points: u32,
}

/// All requests and their distinct texts.
#[derive(Debug, Default)]
pub struct Corpus {
    /// Distinct texts.
    pub texts: Vec<Text>,
    /// The requests, in file order.
    pub requests: Vec<Request>,
    /// Names of the files.
    pub files: Vec<String>,
    known: HashMap<(Location, Box<[u8]>), u32>,
    groups: HashMap<(u16, String), u32>,
}

/// Attack families, by what their classes are called.
const FAMILIES: [(&str, &str); 28] = [
    ("nosql", "nosqli"),
    ("sql", "sqli"),
    ("xss", "xss"),
    ("traversal", "traversal"),
    ("lfi", "traversal"),
    ("ssti", "template"),
    ("template", "template"),
    ("xxe", "xxe"),
    ("ssrf", "ssrf"),
    ("rfi", "rfi"),
    ("redirect", "redirect"),
    ("log4j", "code"),
    ("java", "code"),
    ("php", "code"),
    ("generic", "code"),
    ("code", "code"),
    ("cmdi", "command"),
    ("shell", "command"),
    ("command", "command"),
    ("rce", "command"),
    ("ldap", "ldap"),
    ("xpath", "xpath"),
    ("ssi", "ssi"),
    ("log forging", "protocol"),
    ("protocol-attack", "protocol"),
    ("fixation", "xss"),
    ("anomalous", "other"),
    ("", "other"),
];

/// The family that `class` belongs to.
pub fn family(class: &str) -> &'static str {
    // "session-fixation" holds "ssi" and is none.
    let class = class.to_ascii_lowercase().replace("session", "");
    FAMILIES.iter().find(|(part, _)| class.contains(part)).map_or("other", |(_, family)| family)
}

/// The kind that a family is learned as.
fn kind(family: &str) -> u8 {
    match family {
        "sqli" => 0,
        "xss" => 1,
        "traversal" => 2,
        "command" | "ssi" => 3,
        "template" => 5,
        "xxe" => 6,
        "ssrf" | "rfi" | "redirect" => 7,
        "nosqli" => 8,
        "ldap" | "xpath" => 9,
        "protocol" => 10,
        _ => 4,
    }
}

impl Request {
    /// Whether its label says what it looks like.
    pub fn is_learnable(&self) -> bool {
        !matches!(self.family, "other" | "fragment")
    }
}

impl Corpus {
    /// Reads labelled files; every `step`-th request of each.
    ///
    /// # Errors
    /// A file cannot be read; the message says where.
    pub fn read(&mut self, paths: &[PathBuf], step: usize, rules: Option<&RuleSet>) -> Result<()> {
        for path in paths {
            let file = self.file(&name_of(path));
            for (number, request) in LabelledReader::open(path)?.enumerate() {
                let request = request?;
                if number % step == 0 {
                    self.add(file, &request, rules);
                }
            }
        }
        Ok(())
    }

    /// Adds what the generators make: `count` attacks of each grammar, and the shop's harmless clients.
    pub fn generate(&mut self, seed: u64, count: usize, rules: Option<&RuleSet>) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let file = self.file("generated attacks");
        for (class, make) in payload::GRAMMARS {
            for _ in 0..count {
                let payload = make(&mut rng);
                self.add(file, &placed(Label::Attack, class, &payload), rules);
            }
        }
        let file = self.file("generated snippets");
        for (class, make) in snippet::SNIPPETS {
            for _ in 0..count * 4 {
                let value = make(&mut rng);
                self.add(file, &placed(Label::Benign, class, &value), rules);
            }
        }
        let file = self.file("generated shop");
        let clients = u32::try_from(count / 10).unwrap_or(1).max(1);
        for (number, client) in benign::population(seed, 0, clients).into_iter().enumerate() {
            for request in client.take(20) {
                let request = LabelledRequest {
                    id: String::new(),
                    label: Label::Benign,
                    class: String::new(),
                    group: format!("client {number}"),
                    method: request.method.to_owned(),
                    target: request.uri,
                    headers: request
                        .headers
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value.into_bytes()))
                        .collect(),
                    body: request.body,
                };
                self.add(file, &request, rules);
            }
        }
    }

    fn file(&mut self, name: &str) -> u16 {
        self.files.push(name.to_owned());
        u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX)
    }

    fn add(&mut self, file: u16, request: &LabelledRequest, rules: Option<&RuleSet>) {
        let attack = request.label == Label::Attack;
        let mut texts = Vec::new();
        let (mut payload, mut points) = (Vec::new(), 0);
        request.with_view(|view| {
            let values = Values::extract(view, &Limits::default());
            base::texts(&values, |location, bytes| {
                let bytes = bytes.get(..TEXT_BYTES).unwrap_or(bytes);
                if !bytes.is_empty() {
                    texts.push(self.text(location, bytes));
                }
            });
            for value in values.items.iter().filter(|value| place(value.location) == 1) {
                normalize(value.layers().last().unwrap_or_default(), &mut payload);
            }
            if payload.is_empty() {
                normalize(request.target.as_bytes(), &mut payload);
                for (_, value) in &request.headers {
                    normalize(value, &mut payload);
                }
            }
            if let Some(rules) = rules {
                let collections = Collections::default();
                let context = Context {
                    now_ms: 0,
                    request_id: "",
                    collections: &collections,
                    connection: Connection::default(),
                };
                points = rules.evaluate(&context, view, &values).matches.points;
            }
        });
        texts.sort_unstable();
        texts.dedup();
        let next = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let group = *self.groups.entry((file, request.group.clone())).or_insert(next);
        let browsing = !attack && request.class.starts_with("browsing");
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(&payload).as_bytes();
        self.requests.push(Request {
            attack,
            kind: kind(family(&request.class)),
            family: match attack {
                true if is_fragment(&payload) => "fragment",
                true => family(&request.class),
                false => "benign",
            },
            file,
            group,
            payload: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            browsing,
            generated: self.files.get(usize::from(file)).is_some_and(|name| name.starts_with(GENERATED)),
            texts,
            points,
        });
    }

    fn text(&mut self, location: Location, bytes: &[u8]) -> u32 {
        let next = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let key = (location, bytes.into());
        *self.known.entry(key).or_insert_with(|| {
            self.texts.push(Text { location, bytes: bytes.into(), said: Said::of(bytes) });
            next
        })
    }

    /// The place of text number `text`.
    pub fn place(&self, text: u32) -> usize {
        self.texts.get(text as usize).map_or(0, |text| place(text.location))
    }

    /// The strength of every text.
    pub fn strengths(&self, base: &Base) -> Vec<Strength> {
        self.texts.iter().map(|text| base.strength(&text.bytes, text.said)).collect()
    }

    /// For every text the evidence for each kind, biases not taken off.
    pub fn by_kind(&self, base: &Base) -> Vec<[f32; KINDS.len()]> {
        self.texts.iter().map(|text| base.by_kind(&text.bytes, text.said)).collect()
    }

    /// The score of a request: its strongest text, where it stands.
    pub fn score(&self, base: &Base, strengths: &[Strength], request: &Request) -> f32 {
        request
            .texts
            .iter()
            .filter_map(|text| {
                let strength = *strengths.get(*text as usize)?;
                Some(base.log_odds(self.texts.get(*text as usize)?.location, strength, Strength::default()))
            })
            .fold(0.0, f32::max)
    }

    /// Requests by file, attacks and harmless ones.
    pub fn census(&self) -> BTreeMap<&str, (usize, usize)> {
        let mut census: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for request in &self.requests {
            let name = self.files.get(usize::from(request.file)).map_or("", String::as_str);
            let (attacks, benign) = census.entry(name).or_default();
            *(if request.attack { attacks } else { benign }) += 1;
        }
        census
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A payload as the value of a query parameter.
fn placed(label: Label, class: &str, payload: &str) -> LabelledRequest {
    LabelledRequest {
        id: String::new(),
        label,
        class: class.to_owned(),
        group: class.to_owned(),
        method: "GET".to_owned(),
        target: format!("/search?q={}", encode(payload, Space::Percent)),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

/// Whether a payload is no attack by itself: a plain word, or a template whose placeholder nobody filled.
fn is_fragment(payload: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | 0);
    payload.iter().all(plain) || payload.windows(8).any(|part| part == b"xxpathxx")
}

/// Appends `text` in the form in which payloads are compared: lower case, digits as one, no white space.
fn normalize(text: &[u8], out: &mut Vec<u8>) {
    if text.len() <= 2 || text.iter().all(u8::is_ascii_digit) {
        return;
    }
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                if out.last() != Some(&b'0') {
                    out.push(b'0');
                }
            }
            byte if byte.is_ascii_whitespace() => {}
            byte => out.push(byte.to_ascii_lowercase()),
        }
    }
    out.push(0);
}
