//! Rules in force: the built-in set, of which this is the one place that names its files, and what is compiled.

use waf_model::rules::{ResponseBody, RuleSet, RuleSource};

pub mod files;
pub mod text;

/// The name of the built-in set in the configuration.
pub const BUILT_IN_NAME: &str = "builtin";

/// Compiled rules, and what has to be known of them without asking each time.
#[derive(Debug)]
pub struct Rules {
    /// The rules.
    pub set: RuleSet,
    /// Names of the rule sets they come from, in order.
    pub names: Vec<String>,
    /// The paranoia level given to them.
    pub paranoia: u8,
    /// What they look at of responses.
    pub responses: Responses,
}

/// What rules look at of responses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Responses {
    /// Nothing.
    Unseen,
    /// Status and headers.
    Heads,
    /// Bodies too, of these types and up to this size.
    Bodies(ResponseBody),
}

impl Rules {
    /// Takes over a compiled set.
    pub fn new(set: RuleSet, names: Vec<String>, paranoia: u8) -> Self {
        let responses = match set.response_body() {
            Some(body) => Responses::Bodies(body),
            None if set.rules().any(|rule| rule.phase > 2) => Responses::Heads,
            None => Responses::Unseen,
        };
        Self { set, names, paranoia, responses }
    }
}

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
        let rules = RuleSet::compile(BUILT_IN, &Options::default()).unwrap();
        assert_eq!(rules.warnings(), []);
    }
}
