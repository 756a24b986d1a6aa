//! The rule sets that are measured, and the verdict of one on a request.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use datasets::labelled::LabelledRequest;
use waf_model::{
    rules::{RuleSet, RuleSource},
    values::{Limits, Values},
};

/// Points from which a request is blocked by default.
const THRESHOLD: u32 = 5;

/// One column of the table.
#[derive(Debug)]
pub(crate) struct Set {
    /// The column's name.
    pub(crate) name: String,
    rules: RuleSet,
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
        let matches =
            request.with_view(|view| self.rules.evaluate(view, &Values::extract(view, &Limits::default())));
        let found = matches.matches.iter().map(|found| format!("{}({})", found.id, found.variable));
        Verdict { blocked: matches.points >= THRESHOLD, found: found.collect::<Vec<_>>().join(" ") }
    }
}

/// Compiles the sets whose names are `wanted`, or all that there are.
pub(crate) fn load(rules: &Path, crs: Option<&Path>, wanted: Option<&[String]>) -> Result<Vec<Set>> {
    let own = read(rules)?;
    let mut sets = Vec::new();
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted.iter().any(|w| w == name));
    if is_wanted("own") {
        sets.push(compile("own", &own)?);
    }
    if let Some(crs) = crs {
        bail!("{}: the engine cannot load it yet", crs.display());
    }
    if sets.is_empty() {
        bail!(
            "none of the sets asked for exists; there are own, and with --crs: crs1, crs2, crs3, crs4, both"
        );
    }
    Ok(sets)
}

fn read(directory: &Path) -> Result<Vec<(String, String)>> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    let text = |file: PathBuf| Ok((file.display().to_string(), std::fs::read_to_string(&file)?));
    files.into_iter().map(text).collect()
}

fn compile(name: &str, texts: &[(String, String)]) -> Result<Set> {
    let sources: Vec<_> = texts.iter().map(|(name, text)| RuleSource { name, text }).collect();
    match RuleSet::compile(&sources) {
        Ok(rules) => Ok(Set { name: name.to_owned(), rules }),
        Err(errors) => {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            bail!("{name} does not compile:\n{}", lines.join("\n"))
        }
    }
}
