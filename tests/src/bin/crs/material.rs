//! The rule set as it lies on the disk: its files in the order of loading, and its tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use waf_model::rules::{RuleFile, RuleFiles};

use crate::{
    arguments::{Arguments, Place},
    format::{self, TestFile},
    request::Writer,
};

/// The set-up that the tests expect, as rules of our own; loaded between the rule set's own set-up and its rules.
const SET_UP: &str = include_str!("../../../crs/setup.conf");

/// The exceptions lie beside the set-up.
const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crs");

/// A rule set and its tests.
#[derive(Debug)]
pub(crate) struct Material {
    /// Name and text of each file of rules, in the order of loading.
    pub(crate) sources: Vec<(String, String)>,
    /// The list of tests that do not pass.
    pub(crate) exceptions: PathBuf,
    tests: PathBuf,
    writer: Writer,
}

impl Material {
    /// Reads the rules of what the command line names.
    ///
    /// # Errors
    /// Which directory or file is not as it should be.
    pub(crate) fn find(arguments: &Arguments) -> Result<Self> {
        match &arguments.place {
            Place::Debian(place) => Self::debian(place),
            Place::Checkout(place) => Self::checkout(place),
        }
    }

    fn debian(place: &Path) -> Result<Self> {
        let binary = place.join("binary");
        let settings = binary.join("etc/modsecurity/crs");
        let own =
            ["REQUEST-900-EXCLUSION-RULES-BEFORE-CRS.conf", "RESPONSE-999-EXCLUSION-RULES-AFTER-CRS.conf"];
        let [before, after] = own.map(|name| settings.join(name));
        let mut files = vec![before];
        files.extend(rules(&binary.join("usr/share/modsecurity-crs/rules"))?);
        files.push(after);
        Ok(Self {
            sources: sources(&settings.join("crs-setup.conf"), &files)?,
            exceptions: Path::new(OURS).join("crs-3.3.4.exceptions"),
            tests: place.join("source/tests/regression/tests"),
            writer: Writer::Version3,
        })
    }

    fn checkout(place: &Path) -> Result<Self> {
        Ok(Self {
            sources: sources(&place.join("crs-setup.conf.example"), &rules(&place.join("rules"))?)?,
            exceptions: Path::new(OURS).join("crs-4.exceptions"),
            tests: place.join("tests/regression/tests"),
            writer: Writer::Version4,
        })
    }

    /// Every file of tests, in the order of names.
    ///
    /// # Errors
    /// Which file is not understood, and why.
    pub(crate) fn tests(&self) -> Result<Vec<TestFile>> {
        let mut files = Vec::new();
        for group in children(&self.tests)?.into_iter().filter(|path| path.is_dir()) {
            for path in ending(children(&group)?, &["yaml", "yml"]) {
                let read = || format::parse(&name(&group), &name(&path), &text(&path)?, self.writer);
                files.push(read().with_context(|| path.display().to_string())?);
            }
        }
        ensure!(!files.is_empty(), "{} holds no tests", self.tests.display());
        Ok(files)
    }
}

/// The rule set's own set-up, ours, and then the rules.
fn sources(set_up: &Path, rules: &[PathBuf]) -> Result<Vec<(String, String)>> {
    let source = |path: &Path| text(path).map(|text| (path.display().to_string(), text));
    let mut sources = vec![source(set_up)?, ("setup.conf".to_owned(), SET_UP.to_owned())];
    for path in rules {
        sources.push(source(path)?);
    }
    Ok(sources)
}

/// Reads the files that rules name, from beside the file that names them.
#[derive(Debug)]
pub(crate) struct Disk;

impl RuleFiles for Disk {
    fn read(&self, from: &str, path: &str) -> Result<Vec<RuleFile>, String> {
        let path = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(vec![RuleFile { name: path.display().to_string(), bytes }])
    }
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// What lies in `directory`, in the order of names.
fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        paths.sort();
        Ok::<_, std::io::Error>(paths)
    };
    read().with_context(|| directory.display().to_string())
}

/// Those of `paths` with one of `extensions`.
fn ending(mut paths: Vec<PathBuf>, extensions: &[&str]) -> Vec<PathBuf> {
    paths.retain(|path| extensions.iter().any(|known| path.extension().is_some_and(|found| found == *known)));
    paths
}

/// The rules in `directory`, of which there have to be some.
fn rules(directory: &Path) -> Result<Vec<PathBuf>> {
    let paths = ending(children(directory)?, &["conf"]);
    ensure!(!paths.is_empty(), "{} holds no .conf file", directory.display());
    Ok(paths)
}
