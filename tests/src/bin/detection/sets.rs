//! The rule sets that are measured, and the verdict of one on a request.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use datasets::labelled::LabelledRequest;
use waf_model::{
    rules::{Collections, Connection, Context, Options, RuleFile, RuleFiles, RuleSet, RuleSource},
    values::{Limits, Values},
};

/// Points from which a request is blocked by default.
const THRESHOLD: u32 = 5;
/// The time of every request, in milliseconds since 1970: the same in each run.
const NOW_MS: u64 = 1_700_000_000_000;
/// Where a package or a checkout of the Core Rule Set has its settings and its rules.
const CRS_PLACES: [(&str, &str); 3] = [
    ("etc/modsecurity/crs/crs-setup.conf", "usr/share/modsecurity-crs/rules"),
    ("crs-setup.conf", "rules"),
    ("crs-setup.conf.example", "rules"),
];
/// The variables that set the paranoia level in one version of the Core Rule Set or another.
const LEVEL_VARIABLES: [&str; 4] =
    ["paranoia_level", "executing_paranoia_level", "blocking_paranoia_level", "detection_paranoia_level"];

/// One column of the table.
#[derive(Debug)]
pub(crate) struct Set {
    /// The column's name.
    pub(crate) name: String,
    /// A request is blocked if one of these blocks it: each set counts its own points.
    rules: Vec<Arc<RuleSet>>,
}

/// What a set says about one request.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Whether it would be rejected at the default threshold.
    pub(crate) blocked: bool,
    /// The rules that matched, with what they matched in.
    pub(crate) found: String,
}

impl Set {
    /// Evaluates the request as the gateway does.
    pub(crate) fn judge(&self, request: &LabelledRequest) -> Verdict {
        let mut verdict = Verdict { blocked: false, found: String::new() };
        request.with_view(|view| {
            let values = Values::extract(view, &Limits::default());
            for rules in &self.rules {
                // Nothing may be remembered from one request to the next: each is judged alone.
                let collections = Collections::new(0);
                let context = Context {
                    now_ms: NOW_MS,
                    request_id: "",
                    collections: &collections,
                    connection: Connection::default(),
                };
                let matches = rules.evaluate(&context, view, &values).matches;
                verdict.blocked |= matches.points >= THRESHOLD || matches.denied.is_some();
                for found in &matches.matches {
                    verdict.found += &format!("{}({}) ", found.id, found.variable);
                }
            }
        });
        verdict
    }
}

/// Compiles the sets whose names are `wanted`, or all that there are.
pub(crate) fn load(rules: &Path, crs: Option<&Path>, wanted: Option<&[String]>) -> Result<Vec<Set>> {
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted.iter().any(|w| w == name));
    let own = compile(&configuration_files(rules)?, &[])?;
    let mut sets = Vec::new();
    if is_wanted("own") {
        sets.push(Set { name: "own".to_owned(), rules: vec![own.clone()] });
    }
    if let Some(crs) = crs {
        let files = crs_files(crs)?;
        let mut together = None;
        for level in 1..=4 {
            let name = format!("crs{level}");
            let both = level == 1 && is_wanted("both");
            if !both && !is_wanted(&name) {
                continue;
            }
            let variables = LEVEL_VARIABLES.map(|variable| (variable.to_owned(), level.to_string()));
            let crs = compile(&files, &variables)?;
            if both {
                together = Some(Set { name: "both".to_owned(), rules: vec![own.clone(), crs.clone()] });
            }
            if is_wanted(&name) {
                sets.push(Set { name, rules: vec![crs] });
            }
        }
        sets.extend(together);
    }
    ensure!(
        !sets.is_empty(),
        "none of the sets asked for exists; there are own, and with --crs: crs1, crs2, crs3, crs4, both"
    );
    Ok(sets)
}

/// The settings and the rules of the Core Rule Set, in the order in which they are loaded.
fn crs_files(directory: &Path) -> Result<Vec<PathBuf>> {
    for (setup, rules) in CRS_PLACES {
        let (setup, rules) = (directory.join(setup), directory.join(rules));
        if setup.is_file() && rules.is_dir() {
            let mut files = vec![setup];
            files.extend(configuration_files(&rules)?);
            return Ok(files);
        }
    }
    let places = CRS_PLACES.map(|(setup, rules)| format!("{setup} and {rules}")).join(", or ");
    bail!("{} holds no Core Rule Set: it needs {places}", directory.display());
}

fn configuration_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    ensure!(!files.is_empty(), "{} holds no *.conf", directory.display());
    Ok(files)
}

fn compile(files: &[PathBuf], variables: &[(String, String)]) -> Result<Arc<RuleSet>> {
    let text = |file: &PathBuf| {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        Ok((file.display().to_string(), text))
    };
    let texts: Vec<(String, String)> = files.iter().map(text).collect::<Result<_>>()?;
    let sources: Vec<_> = texts.iter().map(|(name, text)| RuleSource { name, text }).collect();
    match RuleSet::compile(&sources, &Options { files: &Disk, variables }) {
        Ok(rules) => Ok(Arc::new(rules)),
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            bail!("the rules do not compile:\n{}", lines.join("\n"))
        }
    }
}

/// Files beside the one that names them.
struct Disk;

impl RuleFiles for Disk {
    fn read(&self, from: &str, path: &str) -> Result<Vec<RuleFile>, String> {
        let file = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(vec![RuleFile { name: file.display().to_string(), bytes }])
    }
}
