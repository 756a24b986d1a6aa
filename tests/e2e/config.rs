//! The configuration: all mistakes at once, each with its line; the schema; the check.

use std::{fs, process::Command};

use tests::process::binary;

fn gateway(arguments: &[&str]) -> (i32, String) {
    let output = Command::new(binary("gateway").unwrap()).args(arguments).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn every_mistake_is_reported_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portcullis.yaml");
    let lines = [
        "version: 1",
        "listeners:",
        "  - name: main",
        "    address: nowhere",
        "routes:",
        "  - name: shop",
        "    upstreams: [{url: \"ftp://127.0.0.1:1\"}]",
        "  - name: shop",
        "    upstreams: [{url: \"http://127.0.0.1:1\"}]",
        "trusted_proxies: [10.0.0.0/99]",
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let (code, text) = gateway(&["check", "--config", file.to_str().unwrap()]);
    assert_ne!(code, 0, "{text}");
    for (line, what) in [(4, "nowhere"), (7, "ftp"), (8, "shop"), (10, "10.0.0.0/99")] {
        let reported =
            text.lines().any(|message| message.contains(&format!(":{line}")) && message.contains(what));
        assert!(reported, "line {line} ({what}) is not reported:\n{text}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("portcullis.yaml");
    fs::write(
        &file,
        "version: 1\nroutes:\n  - name: shop\n    upstreams: [{url: \"http://127.0.0.1:1\"}]\n    mod: block\n",
    )
    .unwrap();
    let (code, text) = gateway(&["check", "--config", file.to_str().unwrap()]);
    assert_ne!(code, 0, "{text}");
    assert!(text.contains(":5") && text.contains("mod"), "{text}");
}

#[test]
fn the_schema_is_json_and_knows_the_sections() {
    let (code, text) = gateway(&["schema"]);
    assert_eq!(code, 0, "{text}");
    let schema: serde_json::Value = serde_json::from_str(&text).expect("a JSON schema");
    let known = schema["properties"].as_object().expect("properties");
    for section in ["version", "listeners", "routes", "waf", "store", "limits"] {
        assert!(known.contains_key(section), "{section} is not in the schema");
    }
}
