//! Single values of the configuration, from text; the error is the message for the operator.

use std::{net::Ipv6Addr, path::PathBuf};

use http::{Method, Uri};

/// A file that is there.
pub(super) fn existing(file: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(file);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(path),
        Ok(_) => Err(format!("{file:?} is not a file")),
        Err(error) => Err(format!("{file:?}: {error}")),
    }
}

/// A host name, in lower case; a leading `*.` stands for one or more labels.
pub(super) fn parse_host(text: &str) -> Result<String, String> {
    let host = text.to_ascii_lowercase();
    let name = host.strip_prefix("*.").unwrap_or(&host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let good = is_v6.map_or_else(
        || !name.is_empty() && !name.starts_with('.') && !name.ends_with('.') && name.bytes().all(plain),
        |address| address.parse::<Ipv6Addr>().is_ok(),
    );
    if good {
        Ok(host)
    } else {
        Err(format!("{text:?} is not a host name; write shop.example or *.shop.example"))
    }
}

/// A path prefix in the one form that routing compares with.
pub(super) fn parse_prefix(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return Err(format!("{text:?}: paths are prefixes; leave out the \"*\""));
    }
    let normal = text.starts_with('/')
        && !text.contains("//")
        && !text.contains(['%', '\\', ';', '?', '#', '\0'])
        && text.split('/').all(|segment| segment != "." && segment != "..");
    if normal { Ok(text.to_owned()) } else { Err(format!("{text:?} is not a plain path; write it as /api")) }
}

/// A method; lower case is accepted.
pub(super) fn parse_method(text: &str) -> Result<Method, String> {
    match Method::from_bytes(text.to_ascii_uppercase().as_bytes()) {
        Ok(Method::CONNECT) => Err("CONNECT is never forwarded; leave it out".to_owned()),
        Ok(method) => Ok(method),
        Err(_) => Err(format!("{text:?} is not a method")),
    }
}

/// Scheme and authority of an origin.
pub(super) fn parse_upstream(text: &str) -> Result<Uri, String> {
    let example = "write scheme, host and port, such as http://127.0.0.1:3000";
    if text.is_empty() {
        return Err(format!("missing; {example}"));
    }
    let uri: Uri = text.parse().map_err(|_| format!("{text:?} is not a URL; {example}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{text:?} has no scheme or host; {example}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(format!("{text:?} is neither http nor https; {example}"));
    }
    if authority.as_str().contains('@') {
        return Err(format!("credentials in a URL are not sent; {example}"));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(format!("{text:?} has a path, which is not used; {example}"));
    }
    Ok(uri)
}

/// An Ed25519 public key in hexadecimal.
pub(super) fn parse_key(text: &str) -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    let wrong = || "is not a public key: 64 hexadecimal digits, as in <state>/keys/trainer.pub".to_owned();
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(key)
}
