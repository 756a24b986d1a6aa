//! What the injection tokenizers (libinjection's method) say of one layer of a value.

/// What the tokenizers say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// SQL injection, with the fingerprint of its first five tokens.
    pub sqli: Option<[u8; 5]>,
    /// Cross-site scripting.
    pub xss: bool,
}

impl Said {
    /// Asks both tokenizers where they could have anything to say.
    pub fn of(text: &[u8]) -> Self {
        let mut said = Self::default();
        // They need a word character and a special one to say anything at all.
        if text.len() >= 4
            && text.iter().any(|b| matches!(b, b'\'' | b'"' | b'`' | b'(' | b'-' | b'/' | b'=' | b' '))
        {
            said.sqli = sqli(text);
        }
        if text.contains(&b'<') || text.contains(&b'=') || text.contains(&b':') {
            said.xss = xss(text);
        }
        said
    }
}

/// The tokenizer is a port of C code; should it ever panic, its verdict is "nothing found".
fn sqli(text: &[u8]) -> Option<[u8; 5]> {
    std::panic::catch_unwind(|| {
        let found = libinjectionrs::detect_sqli(text);
        found.is_injection().then(|| {
            let mut print = [b'.'; 5];
            let given = found.fingerprint.as_ref().map(|given| given.as_bytes()).unwrap_or_default();
            for (cell, byte) in print.iter_mut().zip(given.iter().filter(|byte| byte.is_ascii_graphic())) {
                *cell = *byte;
            }
            print
        })
    })
    .unwrap_or(None)
}

fn xss(text: &[u8]) -> bool {
    std::panic::catch_unwind(|| libinjectionrs::detect_xss(text).is_injection()).unwrap_or(false)
}
