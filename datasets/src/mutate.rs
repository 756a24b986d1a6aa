//! Mutations of attack strings that keep what the attack does: what an attacker tries against a filter.
//!
//! After WAF-A-MoLE's operators (Demetrio et al. 2020) and what people do by hand: case, comments, white space,
//! encodings, padding, other numbers and keywords, splitting over parameters. Each operator knows the languages
//! in which it changes nothing for the interpreter behind.

use fastrand::Rng;

use crate::{
    payload,
    request::{Space, encode},
    text,
};

/// Largest query that padding makes, in bytes.
pub const PADDED: usize = 8 << 10;

/// Most layers of percent-encoding over the one that every query has.
const LAYERS: u8 = 1;

/// What interprets the attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// SQL injection.
    Sql,
    /// Script injection.
    Html,
    /// Path traversal.
    Path,
    /// Command injection.
    Shell,
    /// Template injection.
    Template,
}

/// One way to write an attack differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// Other case where case means nothing.
    Case,
    /// Comments where the language ignores them.
    Comment,
    /// Other white space.
    Space,
    /// More percent-encoding, or character references.
    Encode,
    /// Harmless text around the attack, up to [`PADDED`].
    Pad,
    /// Other numbers.
    Number,
    /// Other keywords that do the same.
    Keyword,
    /// The attack spread over, or hidden between, several parameters.
    Split,
}

/// An attack in the query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    /// What interprets it.
    pub language: Language,
    /// Parameters in order; one of them holds the attack.
    pairs: Vec<(String, String)>,
    /// Which one.
    at: usize,
    /// Percent-encoding over the usual one.
    layers: u8,
    /// Of 256 characters that need no encoding, so many are encoded all the same.
    eager: u8,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 5] = [Self::Sql, Self::Html, Self::Path, Self::Shell, Self::Template];

    /// Its name in figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sql => "SQL injection",
            Self::Html => "script injection",
            Self::Path => "path traversal",
            Self::Shell => "command injection",
            Self::Template => "template injection",
        }
    }

    /// An attack in this language, by grammar.
    pub fn attack(self, rng: &mut Rng) -> String {
        match self {
            Self::Sql => payload::sql(rng),
            Self::Html => payload::script(rng),
            Self::Path => payload::traversal(rng),
            Self::Shell => payload::command(rng),
            Self::Template => payload::template(rng),
        }
    }
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 8] = [
        Self::Case,
        Self::Comment,
        Self::Space,
        Self::Encode,
        Self::Pad,
        Self::Number,
        Self::Keyword,
        Self::Split,
    ];
}

impl Mutant {
    /// `attack` as the value of parameter `name`, unchanged so far.
    pub fn new(language: Language, name: &str, attack: &str) -> Self {
        Self { language, pairs: vec![(name.to_owned(), attack.to_owned())], at: 0, layers: 0, eager: 0 }
    }

    /// The query, as it goes on the wire.
    pub fn query(&self) -> String {
        let mut query = String::new();
        for (index, (name, value)) in self.pairs.iter().enumerate() {
            if index > 0 {
                query.push('&');
            }
            query.push_str(&encode(name, Space::Percent));
            query.push('=');
            if index != self.at {
                query.push_str(&encode(value, Space::Percent));
                continue;
            }
            let mut written = self.write(value);
            (0..self.layers).for_each(|_| written = written.replace('%', "%25"));
            query.push_str(&written);
        }
        query
    }

    /// The attack itself, before percent-encoding.
    pub fn attack(&self) -> &str {
        self.pairs.get(self.at).map_or("", |(_, value)| value)
    }

    /// Percent-encodes what must be, and evenly some of what need not be.
    fn write(&self, value: &str) -> String {
        let mut out = String::with_capacity(value.len() * 2);
        for (index, character) in value.chars().enumerate() {
            let whim = (index as u32).wrapping_mul(0x9e37_79b9) >> 24;
            if character.is_ascii_alphanumeric() && whim < u32::from(self.eager) {
                out.push_str(&format!("%{:02x}", u32::from(character)));
            } else {
                out.push_str(&encode(character.encode_utf8(&mut [0; 4]), Space::Percent));
            }
        }
        out
    }

    /// Applies a random operator that changes something, if one of a few tries does.
    pub fn step(&mut self, rng: &mut Rng) {
        for _ in 0..4 {
            let operator = Operator::ALL.get(rng.usize(..Operator::ALL.len())).copied();
            if operator.is_some_and(|operator| self.apply(operator, rng)) {
                return;
            }
        }
    }

    /// Applies `operator`; whether anything changed. What it does follows from `rng` alone.
    pub fn apply(&mut self, operator: Operator, rng: &mut Rng) -> bool {
        let before = self.clone();
        match operator {
            Operator::Pad => self.pad(rng),
            Operator::Split => self.split(rng),
            Operator::Encode => self.encode_more(rng),
            _ => {
                let language = self.language;
                if let Some((_, value)) = self.pairs.get_mut(self.at) {
                    *value = match operator {
                        Operator::Case => case(value, language, rng),
                        Operator::Comment => comment(value, language, rng),
                        Operator::Space => space(value, language, rng),
                        Operator::Number => number(value, language, rng),
                        _ => keyword(value, language, rng),
                    };
                }
            }
        }
        if self.query().len() > 3 * PADDED {
            *self = before;
            return false;
        }
        *self != before
    }

    fn encode_more(&mut self, rng: &mut Rng) {
        match rng.u8(..4) {
            0 => self.layers = (self.layers + 1).min(LAYERS),
            1 if self.language == Language::Html => {
                // Character references are read in attribute values.
                if let Some((_, value)) = self.pairs.get_mut(self.at)
                    && let Some(at) = value.find("alert").or_else(|| value.find("confirm"))
                    && value.get(..at).is_some_and(|before| before.ends_with('='))
                {
                    let first = value.get(at..at + 1).and_then(|c| c.bytes().next()).unwrap_or(b'a');
                    value.replace_range(at..at + 1, &format!("&#{first};"));
                }
            }
            2 if self.language == Language::Path => {
                if let Some((_, value)) = self.pairs.get_mut(self.at) {
                    *value = value.replacen("../", "%2e%2e/", 1);
                }
            }
            _ => self.eager = self.eager.saturating_add(rng.u8(16..64)),
        }
    }

    fn pad(&mut self, rng: &mut Rng) {
        let room = PADDED.saturating_sub(self.query().len());
        if room < 64 {
            return;
        }
        let wanted = rng.usize(32..room.max(33));
        // Encoding makes text longer by about a third.
        let filler: String =
            text::running(rng, wanted).chars().filter(char::is_ascii).take(wanted * 2 / 3).collect();
        if rng.bool() && self.language != Language::Path {
            if let Some((_, value)) = self.pairs.get_mut(self.at) {
                value.insert_str(0, &filler.replace(['\'', '"', '<'], ""));
            }
        } else if let Some((_, value)) = self.pairs.get_mut(self.at)
            && self.language == Language::Path
            && rng.bool()
        {
            *value = format!("{}{value}", "./".repeat((wanted / 8).min(400)));
        } else {
            let at = rng.usize(..=self.pairs.len());
            self.pairs.insert(at, (format!("note{}", rng.u8(..100)), filler));
            self.at += usize::from(at <= self.at);
        }
    }

    fn split(&mut self, rng: &mut Rng) {
        if self.pairs.len() > 8 {
            return;
        }
        let Some((name, value)) = self.pairs.get(self.at).cloned() else { return };
        if self.language == Language::Sql
            && rng.bool()
            && let Some(gap) = value.find("/**/")
            && let (Some(head), Some(tail)) = (value.get(..gap), value.get(gap + 4..))
        {
            // Servers that join equal names with a comma read one comment around the seam.
            self.pairs.insert(self.at, (name.clone(), format!("{head}/*")));
            self.at += 1;
            if let Some(pair) = self.pairs.get_mut(self.at) {
                pair.1 = format!("*/{tail}");
            }
            return;
        }
        // Frameworks take the first, or the last, of several values: the others are a disguise.
        let decoy = rng.u16(..).to_string();
        if rng.bool() {
            self.pairs.push((name, decoy));
        } else {
            self.pairs.insert(self.at, (name, decoy));
            self.at += 1;
        }
    }
}

/// Applies `change` to some of the words of letters in `value` that lie outside of quotes.
fn words(value: &str, rng: &mut Rng, mut change: impl FnMut(&str, &mut Rng) -> String) -> String {
    let mut out = String::with_capacity(value.len());
    let mut word = String::new();
    for character in value.chars().chain(['\0']) {
        if character.is_ascii_alphabetic() {
            word.push(character);
            continue;
        }
        if !word.is_empty() {
            out.push_str(&if rng.bool() { change(&word, rng) } else { word.clone() });
            word.clear();
        }
        if character != '\0' {
            out.push(character);
        }
    }
    out
}

const SQL_WORDS: [&str; 18] = [
    "or",
    "and",
    "union",
    "select",
    "from",
    "where",
    "drop",
    "table",
    "sleep",
    "benchmark",
    "null",
    "user",
    "database",
    "concat",
    "like",
    "extractvalue",
    "updatexml",
    "version",
];

const HTML_WORDS: [&str; 11] = [
    "script",
    "img",
    "svg",
    "body",
    "input",
    "src",
    "onerror",
    "onload",
    "onfocus",
    "autofocus",
    "javascript",
];

fn case(value: &str, language: Language, rng: &mut Rng) -> String {
    let known: &[&str] = match language {
        Language::Sql => &SQL_WORDS,
        Language::Html => &HTML_WORDS,
        _ => return value.to_owned(),
    };
    words(value, rng, |word, rng| {
        if known.contains(&word.to_ascii_lowercase().as_str()) {
            word.chars()
                .map(|c| if rng.bool() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect()
        } else {
            word.to_owned()
        }
    })
}

/// Replaces a random occurrence of `from`.
fn replace_one(value: &str, from: &str, to: &str, rng: &mut Rng) -> String {
    let places: Vec<usize> = value.match_indices(from).map(|(at, _)| at).collect();
    match places.get(rng.usize(..places.len().max(1))) {
        Some(at) => {
            let mut out = value.to_owned();
            out.replace_range(*at..at + from.len(), to);
            out
        }
        None => value.to_owned(),
    }
}

fn comment(value: &str, language: Language, rng: &mut Rng) -> String {
    let word: String = (0..rng.usize(0..6)).map(|_| rng.lowercase()).collect();
    match language {
        Language::Sql => match rng.u8(..3) {
            0 => replace_one(value, " ", "/**/", rng),
            1 => replace_one(value, " ", &format!("/*{word}*/"), rng),
            _ => replace_one(value, "/**/", &format!("/*{word}*/"), rng),
        },
        // Empty quotes vanish when a shell reads a word.
        Language::Shell => replace_one(value, "cat ", "c''at ", rng),
        Language::Html => replace_one(value, "(", &format!("/*{word}*/("), rng),
        Language::Path | Language::Template => value.to_owned(),
    }
}

fn space(value: &str, language: Language, rng: &mut Rng) -> String {
    let (from, to): (&str, &[&str]) = match language {
        Language::Sql => (" ", &["\t", "\n", "\u{b}", "  ", "\r\n"]),
        Language::Html => (" ", &["/", "\t", "\n", "  "]),
        Language::Shell => (" ", &["\t", "${IFS}", "$IFS$9", "  "]),
        Language::Template => ("{{", &["{{ ", "{{\t"]),
        Language::Path => ("/", &["//", "/./"]),
    };
    replace_one(value, from, to.get(rng.usize(..to.len())).copied().unwrap_or(" "), rng)
}

fn number(value: &str, language: Language, rng: &mut Rng) -> String {
    let fresh = rng.u32(2..99_999);
    match language {
        Language::Sql => {
            // `n=n` stays true with any n.
            let bytes = value.as_bytes();
            let Some(equal) = bytes.iter().position(|b| *b == b'=') else { return value.to_owned() };
            let digits = |b: &&u8| b.is_ascii_digit();
            let left = bytes.iter().take(equal).rev().take_while(digits).count();
            let right = bytes.iter().skip(equal + 1).take_while(digits).count();
            let (from, to) = (equal - left, equal + 1 + right);
            if left == 0 || value.get(from..equal) != value.get(equal + 1..to) {
                return value.to_owned();
            }
            let mut out = value.to_owned();
            let both = match rng.u8(..3) {
                0 => format!("{fresh}={fresh}"),
                1 => format!("0x{fresh:x}={fresh}"),
                _ => format!("{fresh}={}+{}", fresh - 1, 1),
            };
            out.replace_range(from..to, &both);
            out
        }
        Language::Template => replace_one(value, "*", &format!("*{}*", fresh % 9 + 1), rng),
        Language::Path => format!("../{value}"),
        Language::Html | Language::Shell => value.to_owned(),
    }
}

fn keyword(value: &str, language: Language, rng: &mut Rng) -> String {
    let swaps: &[(&str, &str)] = match language {
        Language::Sql => &[
            ("or ", "|| "),
            ("OR ", "|| "),
            ("and ", "&& "),
            ("union ", "union all "),
            ("UNION ", "UNION ALL "),
            ("union/**/", "union/**/all/**/"),
            ("sleep(", "pg_sleep("),
            ("extractvalue", "updatexml"),
            ("-- -", "#"),
            ("--", "-- -"),
        ],
        Language::Html => &[
            ("alert(", "confirm("),
            ("confirm(", "prompt("),
            ("prompt(", "alert("),
            ("onerror", "onload"),
            ("document.cookie", "document['cookie']"),
            ("img src", "video src"),
        ],
        Language::Shell => &[
            ("cat ", "tac "),
            ("cat ", "head -99 "),
            ("/etc/passwd", "/etc/pas?wd"),
            ("/etc/hosts", "/???/hosts"),
            ("; ", " && "),
            ("whoami", "id -un"),
            ("curl ", "wget -qO- "),
        ],
        Language::Path => &[("etc/passwd", "etc/./passwd"), ("etc/", "etc//"), ("../", "..\\"), ("\\", "/")],
        Language::Template => &[("*", "+"), ("config", "self"), ("__mro__", "__bases__")],
    };
    let (from, to) = swaps.get(rng.usize(..swaps.len())).copied().unwrap_or_default();
    replace_one(value, from, to, rng)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_mutants_and_others_others() {
        let mutate = |seed| {
            let mut rng = Rng::with_seed(seed);
            let mut mutant = Mutant::new(Language::Sql, "q", "1' or 7=7-- -");
            (0..100).for_each(|_| mutant.step(&mut rng));
            mutant.query()
        };
        assert_eq!(mutate(3), mutate(3));
        assert!((0..20).map(mutate).collect::<BTreeSet<_>>().len() == 20);
    }

    #[test]
    fn a_hundred_steps_keep_what_the_attack_needs_and_stay_within_bounds() {
        type Holds = fn(&str) -> bool;
        let needles: [(Language, &str, Holds); 5] = [
            (Language::Sql, "1' or 7=7-- -", |s| s.contains('\'') && s.contains('=')),
            (Language::Html, "<img src=x onerror=alert(1)>", |s| s.contains('<') && s.contains("(1)")),
            (Language::Path, "../../../../etc/passwd", |s| s.contains("..") && s.contains("passwd")),
            (Language::Shell, "x;cat /etc/passwd", |s| s.contains(';')),
            (Language::Template, "{{7*7}}", |s| s.contains("{{") && s.contains("}}")),
        ];
        for (language, attack, holds) in needles {
            for seed in 0..10 {
                let mut rng = Rng::with_seed(seed);
                let mut mutant = Mutant::new(language, "q", attack);
                (0..100).for_each(|_| mutant.step(&mut rng));
                let all: String = mutant.pairs.iter().map(|(_, value)| value.as_str()).collect();
                assert!(holds(&all), "{language:?} {seed}: {all}");
                let query = mutant.query();
                assert!(query.len() <= 3 * PADDED, "{}", query.len());
                assert!(query.bytes().all(|b| b.is_ascii_graphic()), "{query}");
                assert_ne!(query, Mutant::new(language, "q", attack).query());
            }
        }
    }

    #[test]
    fn each_operator_changes_some_attack_of_its_language() {
        for operator in Operator::ALL {
            let changed = Language::ALL.into_iter().any(|language| {
                let mut rng = Rng::with_seed(1);
                (0..50).any(|_| {
                    let attack = language.attack(&mut rng);
                    Mutant::new(language, "q", &attack).apply(operator, &mut rng)
                })
            });
            assert!(changed, "{operator:?}");
        }
    }
}
