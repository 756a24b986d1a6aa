//! Tests of the module above.

use std::{fs, path::Path};

use super::super::{Config, Mistakes};

const ROUTES: &str = "version: 1\nroutes:\n";

fn load(text: &str) -> Result<Config, Mistakes> {
    Config::load(text, "p.yaml")
}

#[track_caller]
fn mistakes(text: &str, expected: &[&str]) {
    let found = load(text).unwrap_err().to_string();
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "\n{found}");
}

/// A directory with two rule files, of which one includes a third.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write(
        "a.conf",
        "SecRule ARGS|REQUEST_BODY \"@contains evil\" \"id:1,phase:2,block,severity:CRITICAL,tag:'x.y'\"\n",
    );
    write(
        "b.conf",
        "SecRule REQUEST_COOKIES \"@contains evil\" \"id:2,phase:2,block,severity:NOTICE,tag:'xzy'\"\n",
    );
    directory
}

fn ids(config: &Config, route: usize) -> Vec<u32> {
    config.routes[route].rules.set.rules().map(|rule| rule.id).collect()
}

fn file(directory: &Path, waf: &str, routes: &[&str]) -> String {
    let routes: String = routes
        .iter()
        .enumerate()
        .map(|(index, waf)| {
            format!("  - {{name: r{index}, upstreams: [{{url: 'http://127.0.0.1:1'}}], waf: {{{waf}}}}}\n")
        })
        .collect();
    format!(
        "{ROUTES}{routes}waf:\n  rule_sets: {{ab: ['{}']}}\n  {waf}\n",
        directory.join("*.conf").display()
    )
}

#[test]
fn routes_name_rule_sets_and_those_with_the_same_share_them() {
    let directory = directory();
    let text = file(
        directory.path(),
        "rules: [ab]",
        &[
            "",
            "rules: [builtin]",
            "rules: [ab], paranoia: 1",
            "rules: []",
            "paranoia: 3",
            "rules: [builtin, ab]",
        ],
    );
    let config = load(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(ids(&config, 0), [1, 2]);
    assert!(ids(&config, 1).len() > 50 && !ids(&config, 1).contains(&1));
    assert!(std::sync::Arc::ptr_eq(&config.routes[0].rules, &config.routes[2].rules));
    assert!(ids(&config, 3).is_empty());
    assert_eq!((config.routes[4].rules.paranoia, ids(&config, 4).len()), (3, 2));
    assert_eq!(config.routes[5].rules.names, ["builtin", "ab"]);
    assert_eq!(ids(&config, 5).len(), ids(&config, 1).len() + 2);
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn the_form_without_names_still_works() {
    let directory = directory();
    let a = directory.path().join("a.conf").display().to_string();
    let text = |rules: &str| {
        format!("{ROUTES}  - {{upstreams: [{{url: 'http://127.0.0.1:1'}}]}}\nwaf:\n  rules: {rules}\n")
    };
    let only = load(&text(&format!("{{builtin: off, files: ['{a}']}}"))).unwrap();
    assert_eq!(ids(&only, 0), [1]);
    let both = load(&text(&format!("{{files: ['{a}']}}"))).unwrap();
    assert!(ids(&both, 0).len() > 50 && ids(&both, 0).contains(&1));
    assert_eq!((both.routes[0].inbound_threshold, both.routes[0].outbound_threshold), (5, 4));
}

#[test]
fn exclusions_take_rules_out() {
    let directory = directory();
    let text = file(
        directory.path(),
        "rules: [ab]\n  exclude: [{rules: 2}]",
        &["", "exclude: [{rules: [\"1-1\"]}]", "rules: [builtin]", "exclude: [{tag: x.y}]"],
    );
    let config = load(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(ids(&config, 0), [1]);
    assert_eq!(ids(&config, 1), [0_u32; 0]);
    // A tag is meant as it stands, not as a pattern.
    assert_eq!(ids(&config, 3), [0_u32; 0]);
    assert!(
        config.warnings.is_empty(),
        "matches nothing on one route, but something on others: {:?}",
        config.warnings
    );
}

#[test]
fn an_exclusion_that_matches_nothing_is_reported() {
    let directory = directory();
    let text = file(
        directory.path(),
        "rules: [ab]\n  exclude: [{rules: 7}]",
        &["exclude: [{tag: none}, {rules: 1, parameter: 'ARGS:q'}]"],
    );
    let config = load(&text).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let places: Vec<_> =
        config.warnings.iter().map(|warning| warning.split(": excludes").next().unwrap()).collect();
    assert_eq!(
        places,
        ["p.yaml:3: routes[0].waf.exclude[0]", "p.yaml:7: waf.exclude[0]"],
        "{:?}",
        config.warnings
    );
}

#[test]
fn mistakes_in_rules_are_reported_with_the_others() {
    let directory = directory();
    let wrong = directory.path().join("wrong.conf");
    fs::write(&wrong, "SecRule ARGS \"@contains x\" \"id:3,phase:2,block\"\n\nSecNonsense On\n").unwrap();
    let text = format!(
        "version: 1
routes:
  - upstreams: [{{url: 'http://127.0.0.1:1'}}]
    waf:
      rules: [builtin, none, builtin]
      paranoia: 5
      outbound_threshold: 0
      exclude:
        - {{parameter: 'ARGS:q'}}
        - {{rules: '9-1'}}
        - {{rules: 1, parameter: 'ARGS:q|ARGS:r'}}
        - {{tag: 'a\"b'}}
        - {{rule: 1}}
  - {{upstreams: [{{url: 'http://127.0.0.1:1'}}], waf: {{rules: [w]}}}}
waf:
  rule_sets:
    w: ['{0}']
    builtin: ['{0}']
    empty: []
    gone: ['{0}.bak']
",
        wrong.display()
    );
    let file = wrong.display();
    mistakes(
        &text,
        &[
            "p.yaml:5: routes[0].waf.rules[1]: there is no rule set \"none\"; there are: builtin, empty, gone, w; name files in waf.rule_sets",
            "p.yaml:5: routes[0].waf.rules[2]: \"builtin\" is in the list already; remove it",
            "p.yaml:6: routes[0].waf.paranoia: is not a paranoia level; write 1, 2, 3 or 4",
            "p.yaml:7: routes[0].waf.outbound_threshold: must be at least 1",
            "p.yaml:9: routes[0].waf.exclude[0]: names rules by \"rules\" or by \"tag\": write one of them",
            "p.yaml:10: routes[0].waf.exclude[1].rules: \"9-1\" is no rule id and no range; write 942100 or 942100-942199",
            "p.yaml:11: routes[0].waf.exclude[2].parameter: \"ARGS:q|ARGS:r\" is not a variable; write ARGS:name, REQUEST_COOKIES:name, REQUEST_HEADERS:name or ARGS",
            "p.yaml:12: routes[0].waf.exclude[3].tag: \"a\\\"b\" is not a tag; write it as the rules do, such as attack-sqli",
            "p.yaml:13: routes[0].waf.exclude[4]: names rules by \"rules\" or by \"tag\": write one of them",
            "p.yaml:13: routes[0].waf.exclude[4].rule: unknown key; did you mean \"rules\"?",
            "p.yaml:18: waf.rule_sets.builtin: \"builtin\" is the set that comes with the gateway; choose another name",
            "p.yaml:19: waf.rule_sets.empty: names no file; write [FILE, ...]",
            &format!(
                "p.yaml:20: waf.rule_sets.gone[0]: `{file}.bak`: No such file or directory (os error 2)"
            ),
            &format!("{file}:3: directive `SecNonsense` is not supported; remove it"),
        ],
    );
}
