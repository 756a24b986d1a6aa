//! Tests of the module above; that sets are fetched, kept and changed is tested from end to end.

use futures_util::FutureExt;

use super::*;

const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"e","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const SECRET: &str = r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#;

fn set(keys: &[&str]) -> Vec<u8> {
    format!("{{\"keys\":[{}]}}", keys.join(",")).into_bytes()
}

fn keys(source: Source) -> KeySet {
    let allowed = vec![Algorithm::Es256, Algorithm::Hs256];
    KeySet::new(Vec::new(), source, allowed, Duration::from_secs(600))
}

#[test]
fn a_fetched_set_gives_public_keys_only_and_skips_what_is_unknown() {
    let allowed = [Algorithm::Es256, Algorithm::Hs256];
    let found = |keys: &[&str]| read_set(&set(keys), &allowed).len();
    assert_eq!(found(&[EC, SECRET, "{}", "7", r#"{"kty":"new","kid":"n"}"#]), 1);
    assert_eq!(found(&[SECRET]), 0);
    assert_eq!(found(&vec![EC; 500]), MOST_KEYS);
    assert_eq!(read_set(b"<html>", &allowed).len(), 0);
}

#[test]
fn a_set_without_a_usable_key_never_replaces_a_good_one() {
    let keys = keys(Source::Set(Uri::from_static("http://127.0.0.1:1/")));
    assert!(!keys.current.load().is_complete);
    keys.take("tokens", set(&[EC]));
    assert_eq!(keys.generation(), 1);
    for broken in [set(&[]), set(&[SECRET]), b"{}".to_vec(), Vec::new()] {
        keys.take("tokens", broken);
        assert_eq!((keys.generation(), keys.current.load().keys.len()), (1, 1));
    }
    keys.take("tokens", set(&[EC]));
    assert_eq!(keys.generation(), 1, "nothing changed");
}

#[test]
fn invented_key_names_are_not_waited_for_while_the_keys_are_fresh() {
    let keys = keys(Source::Set(Uri::from_static("http://127.0.0.1:1/")));
    // {"alg":"ES256","kid":"x"}
    let token = Signed::parse("eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.e30.AAAA").unwrap();
    keys.latest_ms.store(keys.elapsed_ms() + 1, Ordering::Relaxed);
    keys.take("tokens", set(&[EC]));
    for _ in 0..100 {
        // Would wait for somebody who fetches; nobody does here.
        assert_eq!(keys.check(&token).now_or_never(), Some(Checked::Bad));
    }
    assert!(keys.wanted.notified().now_or_never().is_none(), "nothing was asked for");
}

#[test]
fn metadata_name_secure_addresses_only() {
    let address = |text: &str| {
        let document = serde_json::json!({ "jwks_uri": text });
        Metadata(document.as_object().unwrap().clone()).address("jwks_uri").is_ok()
    };
    assert!(address("https://id.example/keys") && address("http://127.0.0.1:8080/keys"));
    for bad in ["http://id.example/keys", "file:///etc/passwd", "keys", "", "https://user:pw@id.example/"] {
        assert!(!address(bad), "{bad}");
    }
}
