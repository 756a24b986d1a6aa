//! Form data as the two tools encode it.

use anyhow::{Context as _, Result, bail};

/// `text` as form data, or `None` if it looks encoded already. Pairs without a value are left out.
pub(super) fn encode_3(text: &str) -> Option<String> {
    if decoded(text, false)? != text.as_bytes() {
        return None;
    }
    let pairs: Vec<String> = text
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| {
            let plain = |text: &str| text.replace('+', " ");
            format!("{}={}", encoded(&plain(name)), encoded(&plain(value)))
        })
        .collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

/// `text` as form data, or `None` if it looks encoded already.
pub(super) fn encode_4(text: &str) -> Option<String> {
    if decoded(text, true)? != text.as_bytes() {
        return None;
    }
    let pairs = text.split_terminator('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) => format!("{}={}", encoded(name), encoded(value)),
        None => encoded(pair),
    });
    Some(pairs.collect::<Vec<_>>().join("&"))
}

/// `text` percent-decoded. `None` where `strict` and a percent sign stands alone.
fn decoded(text: &str, strict: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let rest = bytes.as_slice();
        let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                bytes.nth(1);
            }
            (b'%', ..) if strict => return None,
            (b'+', ..) if strict => out.push(b' '),
            _ => out.push(byte),
        }
    }
    Some(out)
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Replaces `{{ "text" | repeat N }}`, the one template that the tests use.
///
/// # Errors
/// Another template.
pub(super) fn expand(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (template, after) = after.split_once("}}").context("a template without an end")?;
        let parts = template.split_once('|').map(|(literal, call)| (literal.trim(), call.trim()));
        let repeat = parts.and_then(|(literal, call)| {
            let literal = literal.strip_prefix('"')?.strip_suffix('"')?;
            Some((literal, call.strip_prefix("repeat ")?.trim().parse::<usize>().ok()?))
        });
        let Some((literal, count)) = repeat else { bail!("template {template:?} is not understood") };
        out.push_str(before);
        out.push_str(&literal.repeat(count));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_form_data_is_encoded() {
        assert_eq!(encode_3("a=<b>&c=&d&e=1+1").unwrap(), "a=%3Cb%3E&e=1+1");
        assert_eq!(encode_3("a=%3C"), None);
        assert_eq!(encode_3("<xml>"), None);
        assert_eq!(encode_3("a=5%").unwrap(), "a=5%25");
        assert_eq!(encode_4("a=<b>&c=&d&").unwrap(), "a=%3Cb%3E&c=&d");
        assert_eq!(encode_4("<x y>").unwrap(), "%3Cx+y%3E");
        for kept in ["a=%3C", "a=1+1", "a=5%"] {
            assert_eq!(encode_4(kept), None, "{kept}");
        }
    }

    #[test]
    fn one_template_is_known() {
        assert_eq!(expand(r#"a={{ "ab" | repeat 3 }}&b"#).unwrap(), "a=ababab&b");
        assert!(expand("{{ now }}").is_err());
        assert!(expand("{{").is_err());
    }
}
