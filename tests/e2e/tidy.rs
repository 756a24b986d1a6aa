//! The rules of the design that a compiler does not check: module arrows, sizes, names, who may deserialize.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The repository's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_owned()
}

/// Every source file of the workspace: path from the root, and text.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for member in ["waf-model", "gateway", "trainer", "datasets", "tests"] {
        collect(&root().join(member), &mut files);
    }
    assert!(
        files.len() > 40,
        "only {} source files found: does this test look in the right place?",
        files.len()
    );
    let named = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is text");
        (path.strip_prefix(root()).expect("below the root").display().to_string(), text)
    };
    files.into_iter().map(named).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a member of the workspace") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("corpus") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// The part of a file before its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// Fails with every finding at once.
#[track_caller]
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn the_top_level_is_fixed() {
    let allowed = BTreeSet::from([
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "waf-model",
        "gateway",
        "trainer",
        "datasets",
        "tests",
        "deploy",
    ]);
    // What the README's own commands leave behind is ignored by git, and here.
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: BTreeSet<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let found = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let known = |name: &str| name.starts_with('.') || allowed.contains(name) || ignored.contains(name);
    none(found.filter(|name| !known(name)).collect());
}

#[test]
fn every_module_starts_by_saying_what_it_is_for() {
    let silent = sources().into_iter().filter(|(_, text)| {
        let first = text.lines().find(|line| !line.starts_with("#!")).unwrap_or("");
        first.strip_prefix("//! ").is_none_or(|sentence| sentence.len() < 15)
    });
    none(silent.map(|(path, _)| format!("{path}: no `//!` sentence at the top")).collect());
}

#[test]
fn files_stay_small_and_modules_have_their_name() {
    let mut findings = Vec::new();
    for (path, text) in sources() {
        let lines = without_tests(&text).lines().count();
        if lines > 600 && !path.ends_with("/tests.rs") {
            findings.push(format!("{path}: {lines} lines without tests; 600 is the limit"));
        }
        let name = path.rsplit('/').next().unwrap_or("");
        if ["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs", "manager.rs"].contains(&name) {
            findings.push(format!("{path}: not a name of this project"));
        }
    }
    none(findings);
}

/// Code of waf-model that is linked into the programs.
fn is_model_code(path: &str) -> bool {
    path.starts_with("waf-model/src/") && !path.ends_with("/tests.rs")
}

#[test]
fn waf_model_is_pure() {
    let banned = [
        "tokio",
        "std::fs",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "ToSocketAddrs",
        "std::env",
        "std::process",
        "std::thread",
        "SystemTime",
        "Instant",
        "linfa",
        "ndarray",
        "async fn",
        "println!",
        "eprintln!",
        "getrandom",
    ];
    let mut findings = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| is_model_code(path)) {
        for (number, line) in without_tests(&text).lines().enumerate() {
            let found = banned.iter().filter(|word| code(line).contains(**word));
            findings.extend(found.map(|word| format!("{path}:{}: {word}", number + 1)));
        }
    }
    none(findings);
}

/// The module that a line declares.
fn module(line: &str) -> Option<&str> {
    line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?.strip_suffix(';')
}

#[test]
fn a_module_of_waf_model_uses_only_modules_above_it() {
    let sources = sources();
    let (_, lib) =
        sources.iter().find(|(path, _)| path == "waf-model/src/lib.rs").expect("waf-model's lib.rs");
    let order: Vec<&str> = lib.lines().filter_map(module).filter(|name| *name != "tests").collect();
    assert!(order.len() > 10, "{order:?}");
    let mut findings = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| is_model_code(path) && !path.ends_with("lib.rs")) {
        let own = path["waf-model/src/".len()..].split(['/', '.']).next().unwrap_or("");
        let Some(place) = order.iter().position(|module| *module == own) else {
            findings.push(format!("{path}: not in lib.rs"));
            continue;
        };
        for used in crate_modules(without_tests(text)) {
            if order.iter().position(|module| *module == used).is_some_and(|at| at > place) {
                findings.push(format!("{path}: uses {used}, which comes after {own} in lib.rs"));
            }
        }
    }
    none(findings);
}

/// The top modules that `text` names as `crate::module`, also within braces: `crate::{a::B, c}`.
fn crate_modules(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| format!("{}\n", code(line))).collect();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(first_word(rest));
            continue;
        };
        let mut depth = 0;
        let mut item_starts = true;
        for (index, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => item_starts = true,
                c if depth == 0 && item_starts && !c.is_whitespace() => {
                    found.insert(first_word(&group[index..]));
                    item_starts = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn uses_within_braces_are_seen() {
    let found = crate_modules("use crate::{\n    a::{B, C},\n    d, // crate::e\n};\nlet x = crate::f::g();");
    assert_eq!(found, ["a", "d", "f"].map(str::to_owned).into());
}

#[test]
fn linfa_lives_in_one_file() {
    let mut findings = Vec::new();
    for (path, text) in sources() {
        let allowed = path == "trainer/src/train.rs" || path == "tests/e2e/tidy.rs";
        if !allowed
            && text
                .lines()
                .any(|line| code(line).contains("linfa::") || code(line).contains("linfa_clustering"))
        {
            findings.push(format!("{path}: names linfa"));
        }
    }
    none(findings);
}

/// Types that are read from outside without `Raw` in their name, each with its reason.
const DESERIALIZED: &[(&str, &str)] = &[
    ("Event", "what the gateway emits and the trainer reads; the wire form is the type"),
    ("FullRecord", "sealed by the gateway, opened by the trainer; the wire form is the type"),
    ("Review", "a record beside Event in the same segments"),
    ("ReviewVerdict", "part of Review"),
    ("Observation", "part of Event"),
    ("ParamObservation", "part of Event"),
    ("ValueSummary", "part of Event"),
    ("Finding", "part of Event"),
    ("Location", "part of Event"),
    ("ClientVector", "part of Event"),
    ("Score", "part of Event"),
    ("PValue", "part of Event; its bounds are checked where it is used"),
    ("Verdict", "part of Event"),
    ("Origin", "part of Event"),
    ("RuleHit", "part of Event"),
    ("Severity", "part of RuleMatch, in answers of the admin socket"),
    ("Explanation", "part of a block's readable form"),
    ("Reason", "part of a block's readable form"),
    ("Kind", "part of ValueSummary"),
    ("Lexical", "part of ValueSummary"),
    ("Certificate", "part of RawModel, which Model checks field by field"),
    ("Standing", "part of Certificate"),
    ("Label", "one of two words in a labelled file"),
];

#[test]
fn only_raw_types_and_the_event_are_deserialized() {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        let mut derives = false;
        for line in without_tests(&text).lines() {
            let line = code(line).trim();
            derives |= line.starts_with("#[derive(") && line.contains("Deserialize");
            let declared = ["struct ", "enum "].iter().find_map(|kind| {
                let rest = line
                    .strip_prefix("pub ")
                    .or_else(|| line.strip_prefix("pub(crate) "))
                    .or_else(|| line.strip_prefix("pub(super) "))
                    .unwrap_or(line);
                rest.strip_prefix(kind)
            });
            let Some(declared) = declared else { continue };
            let name = first_word(declared);
            if std::mem::take(&mut derives) {
                if !name.starts_with("Raw") && !DESERIALIZED.iter().any(|(allowed, _)| *allowed == name) {
                    findings.push(format!(
                        "{path}: {name} derives Deserialize; read a Raw{name} and check it in a constructor"
                    ));
                }
                seen.insert(name);
            }
        }
    }
    // An exception nobody needs any more is taken back.
    findings.extend(
        DESERIALIZED
            .iter()
            .filter(|(name, _)| !seen.contains(*name))
            .map(|(name, _)| format!("{name} is excepted but does not derive Deserialize")),
    );
    none(findings);
}

#[test]
fn no_machine_is_named() {
    let mut findings = Vec::new();
    // Put together here, so that this file does not hold them.
    let banned: Vec<String> =
        ["work", "root", "home"].iter().map(|directory| format!("/{directory}/")).collect();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let found = banned.iter().filter(|word| line.contains(word.as_str()));
            findings.extend(found.map(|word| format!("{path}:{}: {word}", number + 1)));
        }
    }
    none(findings);
}
