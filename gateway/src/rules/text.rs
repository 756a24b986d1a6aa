//! The text of one rule, as its file has it.

use std::path::Path;

use super::{BUILT_IN, files};

/// The text of the rule that starts on `line` (from 1) of `file`, with the rules chained to it.
///
/// # Errors
/// The file cannot be read any more.
pub fn of(file: &str, line: usize) -> Result<String, String> {
    match BUILT_IN.iter().find(|source| source.name == file) {
        Some(source) => Ok(cut(source.text, line)),
        None => files::read(Path::new(file)).map(|read| cut(&String::from_utf8_lossy(&read.bytes), line)),
    }
}

/// Directives from `line` on, as long as each is chained to the next. Lines go on after a backslash at their end.
fn cut(text: &str, line: usize) -> String {
    let mut taken = Vec::new();
    let mut directive = String::new();
    for line in text.lines().skip(line.saturating_sub(1)) {
        let is_comment = line.trim_start().starts_with('#');
        if directive.is_empty() && (is_comment || line.trim().is_empty()) {
            continue;
        }
        taken.push(line.trim_end());
        if is_comment {
            continue;
        }
        match line.trim_end().strip_suffix('\\') {
            Some(open) => {
                directive.push_str(open);
                continue;
            }
            None => directive.push_str(line),
        }
        if !directive.split(['"', '\'', ',']).any(|action| action.trim() == "chain") {
            break;
        }
        directive.clear();
    }
    taken.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_belongs_to_its_first_rule() {
        let text = "# one\nSecRule ARGS \"@rx a\" \\\n  \"id:1,\\\n   chain\"\n# two\n  SecRule ARGS \"@rx b\"\nSecMarker X\n";
        assert_eq!(
            cut(text, 2),
            "SecRule ARGS \"@rx a\" \\\n  \"id:1,\\\n   chain\"\n  SecRule ARGS \"@rx b\""
        );
        assert_eq!(cut(text, 7), "SecMarker X");
        assert_eq!(cut(text, 99), "");
        assert!(of("20-sqli.conf", 1).is_ok() && of("none.conf", 1).is_err());
    }
}
