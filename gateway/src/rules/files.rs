//! Rule files on disk: what a configuration, an `Include` or a `@pmFromFile` names.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use waf_model::rules::{RuleFile, RuleFiles};

use super::BUILT_IN;

/// Most bytes of one file: a hundred times the largest of the Core Rule Set.
const LARGEST: u64 = 16 << 20;

/// Most files that one pattern may name.
const MOST_FILES: usize = 1000;

/// Reads files as rules name them, relative to the directory of the file that names them, and remembers which.
#[derive(Debug, Default)]
pub struct DiskFiles(RefCell<BTreeSet<PathBuf>>);

impl DiskFiles {
    /// Reads one file.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(&self, path: &Path) -> Result<RuleFile, String> {
        self.0.borrow_mut().insert(path.to_owned());
        read(path)
    }

    /// Every file that was asked for so far.
    pub fn opened(&self) -> Vec<PathBuf> {
        self.0.borrow().iter().cloned().collect()
    }
}

impl RuleFiles for DiskFiles {
    fn read(&self, from: &str, path: &str) -> Result<Vec<RuleFile>, String> {
        if Path::new(path).is_relative() && BUILT_IN.iter().any(|source| source.name == from) {
            return Err(format!("`{path}`: the built-in rules have no files beside them"));
        }
        let beside = Path::new(from).parent().unwrap_or(Path::new(""));
        matching(&beside.join(path))?.iter().map(|path| self.open(path)).collect()
    }
}

/// The files that `pattern` names, in order of their names: `*` and `?` stand for any characters and one character
/// within a name, and match no name that starts with a dot.
///
/// # Errors
/// There is none, or a directory cannot be read.
pub fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str().to_string_lossy();
        let is_pattern = matches!(component, Component::Normal(_)) && name.contains(['*', '?']);
        let mut next = Vec::new();
        for path in found {
            if is_pattern {
                next.extend(matching_names(&path, &name)?);
            } else {
                next.push(path.join(component));
            }
        }
        found = next;
    }
    let text = pattern.display();
    match found.len() {
        0 => Err(format!("`{text}`: no file has such a name; correct it, or remove it")),
        1..=MOST_FILES => Ok(found),
        count => Err(format!("`{text}`: {count} files are more than the {MOST_FILES} that may be read")),
    }
}

/// Reads one file.
///
/// # Errors
/// It is not there, no file, or too large.
pub fn read(path: &Path) -> Result<RuleFile, String> {
    let name = path.display().to_string();
    let wrong = |error: std::io::Error| format!("`{name}`: {error}");
    let metadata = fs::metadata(path).map_err(wrong)?;
    if !metadata.is_file() {
        return Err(format!("`{name}` is not a file; for all rules of a directory write `{name}/*.conf`"));
    }
    if metadata.len() > LARGEST {
        return Err(format!("`{name}` is larger than {LARGEST} bytes; divide it"));
    }
    let bytes = fs::read(path).map_err(wrong)?;
    Ok(RuleFile { name, bytes })
}

/// The entries of `directory` whose names match, sorted.
fn matching_names(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let place = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let wrong = |error: std::io::Error| format!("`{}`: {error}", place.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(place).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && is_match(pattern.as_bytes(), name.as_bytes()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

/// Whether `name` matches `pattern`; takes time in proportion to the product of their lengths, at most. On a
/// mismatch only the last `*` need be tried again, a place further on.
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(place) {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, place));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((after, from)) = retry else { return false };
                retry = Some((after, from + 1));
                (at, place) = (after, from + 1);
            }
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_a_shell_does() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.example", false),
            ("REQUEST-9?1-*.conf", "REQUEST-901-INIT.conf", true),
            ("REQUEST-9?1-*.conf", "REQUEST-90-INIT.conf", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "aab", true),
            ("*a*b", "aba", false),
            ("", "", true),
            ("?", "", false),
        ] {
            assert_eq!(is_match(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_beside_the_one_that_names_them() {
        let directory = tempfile::tempdir().unwrap();
        let rules = directory.path().join("rules");
        fs::create_dir(&rules).unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf", "words.data"] {
            fs::write(rules.join(name), name).unwrap();
        }
        let main = directory.path().join("main.conf").display().to_string();
        let names = |from: &str, path: &str| -> Result<Vec<String>, String> {
            let files = DiskFiles::default().read(from, path)?;
            Ok(files.into_iter().map(|file| String::from_utf8(file.bytes).unwrap()).collect())
        };
        assert_eq!(names(&main, "rules/*.conf").unwrap(), ["a.conf", "b.conf"]);
        let inner = rules.join("a.conf").display().to_string();
        assert_eq!(names(&inner, "words.data").unwrap(), ["words.data"]);
        assert_eq!(names("elsewhere.conf", rules.join("?.conf").to_str().unwrap()).unwrap().len(), 2);
        for (path, expected) in [
            ("none/*.conf", "No such file"),
            ("rules/*.txt", "no file has such a name"),
            ("rules", "is not a file"),
        ] {
            let error = names(&main, path).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(names("20-sqli.conf", "words.data").unwrap_err().contains("built-in"));
    }
}
