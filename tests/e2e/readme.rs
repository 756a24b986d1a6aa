//! Every YAML example of the README is a configuration that the gateway accepts.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use regex::Regex;
use tests::process::binary;

/// The examples: line of the fence, and text.
fn examples() -> Vec<(usize, String)> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let mut examples = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in readme.lines().enumerate() {
        match (&mut open, line) {
            (None, "```yaml") => open = Some((index + 1, String::new())),
            (Some(_), "```") => examples.extend(open.take()),
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "an example has no end");
    examples
}

/// Files that an example names: whatever ends as files of a configuration do, and is no address.
fn files(text: &str) -> BTreeSet<String> {
    let name = Regex::new(
        r#"[A-Za-z0-9_./*:-]+\.(pem|crt|key|pub|hex|cidr|txt|mmdb|conf|model|yaml|yml|json|der|ocsp)\b"#,
    )
    .unwrap();
    let code = text.lines().map(|line| line.split(" # ").next().unwrap_or(line));
    let names = code.flat_map(|line| name.find_iter(line).map(|found| found.as_str().to_owned()));
    // A list of networks is told from a network by what stands before its name.
    let names = names.map(|name| name.strip_prefix("file:").unwrap_or(&name).to_owned());
    names.filter(|name| !name.contains("://")).collect()
}

/// What a file of this name has to hold. Of two files whose names differ in their ending alone, `x.pem` and `x.key`,
/// one is the certificate and the other its key; a key without a certificate is 64 hexadecimal digits.
fn content(name: &str, others: &BTreeSet<String>, made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Vec<u8> {
    let (stem, ending) = name.rsplit_once('.').unwrap();
    let text = match ending {
        "pem" | "crt" => made.cert.pem(),
        "key" if ["pem", "crt"].iter().any(|ending| others.contains(&format!("{stem}.{ending}"))) => {
            made.signing_key.serialize_pem()
        }
        "key" | "hex" => "5a".repeat(32),
        "cidr" | "txt" => "192.0.2.0/24\n2001:db8::/32\n".to_owned(),
        "yaml" | "yml" | "json" => {
            r#"{"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {"/a": {"get": {}}}}"#
                .to_owned()
        }
        "conf" => {
            let id = 10_000 + name.bytes().fold(0_u32, |sum, byte| (sum * 31 + u32::from(byte)) % 80_000);
            format!("SecRule ARGS \"@contains needle\" \"id:{id},phase:2,pass\"\n")
        }
        "mmdb" => return tests::mmdb::write(&[]),
        // Only that they are there is looked at before they are used.
        "model" => "model".to_owned(),
        other => panic!("{name}: say here what a .{other} file holds"),
    };
    text.into_bytes()
}

/// Puts the files of an example below `directory`, and returns the example with their places.
fn put_down(text: &str, directory: &Path, made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    let files = files(text);
    let mut placed = text.to_owned();
    // Longest first: one name may be the end of another.
    let mut order: Vec<&String> = files.iter().collect();
    order.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in order {
        let place = directory.join(name.trim_start_matches('/'));
        let file = PathBuf::from(place.display().to_string().replace('*', "one"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content(name, &files, made)).unwrap();
        // A mark stands in until all are found, so that no place is taken for a name.
        let before = Regex::new(&format!(r"(^|[\s\[\{{,:\x22'=]){}", regex::escape(name))).unwrap();
        let mark = format!("${{1}}\u{1}{}", place.display().to_string().replace('/', "\u{2}"));
        placed = before.replace_all(&placed, mark.as_str()).into_owned();
    }
    placed.replace('\u{1}', "").replace('\u{2}', "/")
}

/// Runs `gateway check` on `text` with a value for every `${NAME}` of it.
fn check(text: &str, file: &Path) -> (bool, String) {
    fs::write(file, text).unwrap();
    let mut command = Command::new(binary("gateway").unwrap());
    command.args(["check", "--config"]).arg(file);
    for name in Regex::new(r"\$\{([A-Z0-9_]+)\}").unwrap().captures_iter(text) {
        let value =
            if name[1].ends_with("_URL") { "redis://127.0.0.1:6379".to_owned() } else { "5a".repeat(32) };
        command.env(&name[1], value);
    }
    let output = command.output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn every_example_of_the_readme_is_accepted() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let examples = examples();
    assert!(
        examples.len() >= 8,
        "only {} examples found: does this test look in the right place?",
        examples.len()
    );
    let mut refused = Vec::new();
    for (line, text) in &examples {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("portcullis.yaml");
        let placed = put_down(text, directory.path(), &made);
        let (accepted, said) = check(&placed, &file);
        if !accepted {
            refused.push(format!("README.md:{line}: {said}"));
        }
        // That it was read at all shows where it is wrong.
        let (accepted, said) = check(&format!("{placed}no_such_key: 1\n"), &file);
        assert!(!accepted && said.contains("no_such_key"), "README.md:{line}: a wrong key passes: {said}");
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
