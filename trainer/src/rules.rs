//! Rules to try: the gateway's own ones and files, compiled as the gateway compiles them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use waf_model::rules::{Options, RuleFile, RuleFiles, RuleSet, RuleSource, initial_variables};

/// The word that stands for the gateway's own rules.
pub const BUILT_IN_NAME: &str = "builtin";

/// The gateway's own rules, in the order in which it reads them.
const BUILT_IN: [(&str, &str); 9] = [
    ("10-protocol.conf", include_str!("../../gateway/rules/10-protocol.conf")),
    ("20-sqli.conf", include_str!("../../gateway/rules/20-sqli.conf")),
    ("30-xss.conf", include_str!("../../gateway/rules/30-xss.conf")),
    ("40-path-traversal.conf", include_str!("../../gateway/rules/40-path-traversal.conf")),
    ("50-command-injection.conf", include_str!("../../gateway/rules/50-command-injection.conf")),
    ("60-code-injection.conf", include_str!("../../gateway/rules/60-code-injection.conf")),
    ("70-ssrf-rfi-xxe-nosql-ldap.conf", include_str!("../../gateway/rules/70-ssrf-rfi-xxe-nosql-ldap.conf")),
    ("80-scanners-and-files.conf", include_str!("../../gateway/rules/80-scanners-and-files.conf")),
    ("90-responses.conf", include_str!("../../gateway/rules/90-responses.conf")),
];

/// Rule files, read but not compiled.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What was named, in order.
    pub names: Vec<String>,
    /// Name and text of each file.
    sources: Vec<(String, String)>,
}

impl Rules {
    /// The files that `paths` name, in order; `builtin` stands for the gateway's own rules.
    ///
    /// # Errors
    /// A file cannot be read, or is no text.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut rules = Self::default();
        for path in paths {
            rules.add(path)?;
        }
        Ok(rules)
    }

    /// Adds one more file behind the others.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        if name == BUILT_IN_NAME {
            let own = BUILT_IN.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            self.sources.extend(own);
        } else {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read the rules {name}"))?;
            self.sources.push((name.clone(), text));
        }
        self.names.push(name);
        Ok(())
    }

    /// The compiled set for this paranoia level, and these points at which a request is rejected and a response
    /// withheld.
    ///
    /// # Errors
    /// Every mistake in the rules.
    pub fn compile(&self, paranoia: u8, (inbound, outbound): (u32, u32)) -> Result<RuleSet> {
        let sources: Vec<RuleSource<'_>> =
            self.sources.iter().map(|(name, text)| RuleSource { name, text }).collect();
        let variables = initial_variables(paranoia, inbound, outbound);
        let options = Options { files: &DiskFiles, variables: &variables };
        match RuleSet::compile(&sources, &options) {
            Ok(set) => Ok(set),
            Err(mistakes) => {
                let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                bail!("{}", lines.join("\n"))
            }
        }
    }
}

/// Reads files as rules name them: relative to the file that names them, `*` for any characters of a file name.
struct DiskFiles;

impl RuleFiles for DiskFiles {
    fn read(&self, from: &str, path: &str) -> Result<Vec<RuleFile>, String> {
        let wrong = |error: std::io::Error| format!("`{path}`: {error}");
        let full = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        let name = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = match name.split_once('*') {
            None => vec![full],
            Some((start, end)) => {
                let directory = full.parent().unwrap_or(Path::new("."));
                let fits = |file: &PathBuf| {
                    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let long = name.len() >= start.len() + end.len();
                    long && name.starts_with(start) && name.ends_with(end) && !name.starts_with('.')
                };
                let entries = fs::read_dir(directory).map_err(wrong)?;
                entries.flatten().map(|entry| entry.path()).filter(fits).collect()
            }
        };
        if files.is_empty() {
            return Err(format!("`{path}`: no file has such a name; correct it, or remove it"));
        }
        files.sort();
        let read = |file: PathBuf| {
            let bytes = fs::read(&file).map_err(wrong)?;
            Ok(RuleFile { name: file.display().to_string(), bytes })
        };
        files.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_built_in_rules_are_those_of_the_gateway() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/rules");
        let files: BTreeSet<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".conf"))
            .collect();
        assert_eq!(files, BUILT_IN.iter().map(|(name, _)| (*name).to_owned()).collect());
        Rules::read(&[BUILT_IN_NAME.into()]).unwrap().compile(1, (5, 4)).unwrap();
    }

    #[test]
    fn files_are_read_beside_the_one_that_names_them_and_mistakes_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("more")).unwrap();
        fs::write(path("words.data"), "alpha\nbeta\n").unwrap();
        fs::write(path("more/1.conf"), "SecRule ARGS \"@rx x\" \"id:2,phase:2,block\"").unwrap();
        fs::write(
            path("main.conf"),
            "SecRule ARGS \"@pmFromFile words.data\" \"id:1,phase:2,block\"\nInclude more/*.conf\n",
        )
        .unwrap();
        let set = Rules::read(&[path("main.conf")]).unwrap().compile(1, (5, 4)).unwrap();
        assert_eq!(set.rules().map(|rule| rule.id).collect::<Vec<_>>(), [1, 2]);
        fs::write(path("main.conf"), "Include none/*.conf\nSecRule NOTHING x").unwrap();
        let error = Rules::read(&[path("main.conf")]).unwrap().compile(1, (5, 4)).unwrap_err().to_string();
        assert!(error.contains("none/*.conf") && error.contains("main.conf:2"), "{error}");
        assert!(Rules::read(&[path("missing.conf")]).is_err());
    }
}
