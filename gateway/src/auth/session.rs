//! What a browser keeps for us between requests: sealed, so that it can neither read nor change it, nor make one up.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use http::{HeaderMap, HeaderValue, header::COOKIE};
use serde::{Serialize, de::DeserializeOwned};

/// Longest cookie that browsers are sure to keep, with its name, in bytes.
const LONGEST: usize = 4_000;

/// Bytes of a nonce.
const NONCE: usize = 24;

/// Seals and opens cookies of one purpose.
pub struct Sealer {
    cipher: XChaCha20Poly1305,
    /// What a cookie is for is sealed with it: one of another purpose does not open.
    purpose: String,
    secure: bool,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Cookies for `purpose`; `secure` ones go over TLS only.
    pub fn new(key: &[u8; 32], purpose: &str, secure: bool) -> Self {
        Self { cipher: XChaCha20Poly1305::new(key.into()), purpose: purpose.to_owned(), secure }
    }

    /// A cookie that holds `content` for `seconds`; `None` if it does not fit into one, or there are no random numbers.
    pub fn seal<T: Serialize>(&self, name: &str, content: &T, seconds: u64) -> Option<HeaderValue> {
        let content = serde_json::to_vec(content).ok()?;
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).ok()?;
        let payload = Payload { msg: &content, aad: self.purpose.as_bytes() };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        let text = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        (name.len() + text.len() <= LONGEST).then(|| self.cookie(name, &text, seconds)).flatten()
    }

    /// What `cookie` holds, if it was sealed here for this purpose.
    pub fn open<T: DeserializeOwned>(&self, cookie: &str) -> Option<T> {
        if cookie.len() > LONGEST {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cookie).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let nonce: [u8; NONCE] = nonce.try_into().ok()?;
        let payload = Payload { msg: sealed, aad: self.purpose.as_bytes() };
        let content = self.cipher.decrypt(&XNonce::from(nonce), payload).ok()?;
        serde_json::from_slice(&content).ok()
    }

    /// Takes a cookie away from the browser.
    pub fn clear(&self, name: &str) -> Option<HeaderValue> {
        self.cookie(name, "", 0)
    }

    fn cookie(&self, name: &str, text: &str, seconds: u64) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{name}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&cookie).ok()
    }
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(found, _)| *found == name).map(|(_, value)| value).next()
}

/// Takes cookies whose name starts with `prefix` out of what goes on.
pub fn strip(headers: &mut HeaderMap, prefix: &str) {
    let Some(line) = headers.get(COOKIE).and_then(|line| line.to_str().ok()) else { return };
    if !line.contains(prefix) {
        return;
    }
    let kept: Vec<&str> = line.split(';').map(str::trim).filter(|pair| !pair.starts_with(prefix)).collect();
    match HeaderValue::from_str(&kept.join("; ")) {
        Ok(line) if !kept.is_empty() => drop(headers.insert(COOKIE, line)),
        _ => drop(headers.remove(COOKIE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(purpose: &str) -> Sealer {
        Sealer::new(&[7; 32], purpose, true)
    }

    fn value(cookie: &HeaderValue) -> String {
        cookie.to_str().unwrap().split(['=', ';']).nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_cookie_opens_where_it_was_made_and_for_what() {
        let cookie = sealer("session").seal("s", &("ada", 7), 60).unwrap();
        assert!(cookie.to_str().unwrap().ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"));
        let text = value(&cookie);
        assert!(!text.contains("ada"));
        assert_eq!(sealer("session").open::<(String, u32)>(&text), Some(("ada".to_owned(), 7)));
        assert_eq!(sealer("login").open::<(String, u32)>(&text), None, "another purpose");
        assert_eq!(Sealer::new(&[8; 32], "session", true).open::<(String, u32)>(&text), None, "another key");
        let mut changed = text.clone().into_bytes();
        changed[40] ^= 1;
        assert_eq!(sealer("session").open::<(String, u32)>(&String::from_utf8_lossy(&changed)), None);
        for bad in ["", "AAAA", &"A".repeat(10_000)] {
            assert_eq!(sealer("session").open::<(String, u32)>(bad), None);
        }
        assert_eq!(sealer("session").seal("s", &"x".repeat(4_000), 60), None, "browsers would drop it");
    }

    #[test]
    fn only_our_cookies_are_taken_out() {
        let stripped = |line: &'static str| {
            let mut headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(line))]);
            strip(&mut headers, "portcullis-");
            headers.get(COOKIE).map(|line| line.to_str().unwrap().to_owned())
        };
        assert_eq!(stripped("a=1; portcullis-x=2; b=portcullis-y"), Some("a=1; b=portcullis-y".to_owned()));
        assert_eq!(stripped("portcullis-x=2"), None);
        assert_eq!(stripped("a=1"), Some("a=1".to_owned()));
    }
}
