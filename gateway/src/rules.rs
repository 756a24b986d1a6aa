//! The built-in rule set: the one place that names its files.

use waf_model::rules::RuleSource;

/// Our own rules, in the order in which they are read.
pub const BUILT_IN: &[RuleSource<'static>] = &[
    RuleSource { name: "10-protocol.conf", text: include_str!("../rules/10-protocol.conf") },
    RuleSource { name: "20-sqli.conf", text: include_str!("../rules/20-sqli.conf") },
    RuleSource { name: "30-xss.conf", text: include_str!("../rules/30-xss.conf") },
    RuleSource { name: "40-path-traversal.conf", text: include_str!("../rules/40-path-traversal.conf") },
    RuleSource {
        name: "50-command-injection.conf",
        text: include_str!("../rules/50-command-injection.conf"),
    },
    RuleSource { name: "60-code-injection.conf", text: include_str!("../rules/60-code-injection.conf") },
    RuleSource {
        name: "70-ssrf-rfi-xxe-nosql-ldap.conf",
        text: include_str!("../rules/70-ssrf-rfi-xxe-nosql-ldap.conf"),
    },
    RuleSource {
        name: "80-scanners-and-files.conf",
        text: include_str!("../rules/80-scanners-and-files.conf"),
    },
    RuleSource { name: "90-responses.conf", text: include_str!("../rules/90-responses.conf") },
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use waf_model::rules::{Options, RuleSet};

    use super::*;

    #[test]
    fn every_rule_file_is_built_in_and_compiles() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
        let files: BTreeSet<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".conf"))
            .collect();
        assert_eq!(files, BUILT_IN.iter().map(|source| source.name.to_owned()).collect());
        RuleSet::compile(BUILT_IN, &Options::default()).unwrap();
    }
}
