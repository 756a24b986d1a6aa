//! `gateway hash`: what the configuration holds instead of keys and passwords.

use std::io::{IsTerminal, Read, stdin};

use anyhow::{Context, bail};
use argon2::{Argon2, PasswordHasher};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Subcommand;
use zeroize::Zeroizing;

use crate::{auth::api_key, cli::output};

/// Shortest API key that is accepted from outside, in bytes: its hash is a fast one.
const SHORTEST_KEY: usize = 20;

/// Shortest password, in bytes.
const SHORTEST_PASSWORD: usize = 8;

/// What is hashed.
#[derive(Debug, Subcommand)]
pub enum Hash {
    /// Make a new API key, or with --stdin hash one that exists.
    Key {
        /// Read the key from standard input.
        #[arg(long)]
        stdin: bool,
    },
    /// Hash the password that standard input holds (argon2id).
    Password,
}

/// Prints the hash; for a new key also the key, which is shown this once.
///
/// # Errors
/// Nothing usable on standard input, or no random numbers.
pub fn run(what: &Hash) -> anyhow::Result<()> {
    match what {
        Hash::Key { stdin: false } => {
            let key = new_key()?;
            output::say(&format!("key   {}\nhash  {}", *key, key_hash(&key)));
        }
        Hash::Key { stdin: true } => {
            let key = read("key")?;
            if key.len() < SHORTEST_KEY {
                bail!(
                    "a key of fewer than {SHORTEST_KEY} bytes can be guessed; `gateway hash key` makes a good one"
                );
            }
            output::say(&key_hash(&key));
        }
        Hash::Password => {
            let password = read("password")?;
            if password.len() < SHORTEST_PASSWORD {
                bail!("a password of fewer than {SHORTEST_PASSWORD} bytes is not accepted");
            }
            output::say(&password_hash(&password)?);
        }
    }
    Ok(())
}

/// 256 random bits, with a prefix by which scanners of source code find keys that were left there.
fn new_key() -> anyhow::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).context("random numbers")?;
    Ok(Zeroizing::new(format!("pcls_{}", URL_SAFE_NO_PAD.encode(*bytes))))
}

fn key_hash(key: &str) -> String {
    let digits = api_key::hash(key.as_bytes()).map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", digits.concat())
}

fn password_hash(password: &str) -> anyhow::Result<String> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| anyhow::anyhow!("argon2: {error}"))?.to_string())
}

/// One line of standard input.
fn read(what: &str) -> anyhow::Result<Zeroizing<String>> {
    if stdin().is_terminal() {
        output::complain(&format!("type the {what}, then Enter and Ctrl-D; it is shown as you type"));
    }
    let mut text = Zeroizing::new(String::new());
    stdin().take(64 * 1024).read_to_string(&mut text).context("standard input")?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains(['\r', '\n']) {
        bail!("write the {what} to standard input, as one line");
    }
    Ok(Zeroizing::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier;

    use super::*;

    #[test]
    fn hashes_are_what_the_configuration_wants() {
        // SHA-256 of "abc" is the first example of FIPS 180-4.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key_hash("abc"), abc);
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert!(one.len() == 48 && one.starts_with("pcls_") && one != other);
        let hash = password_hash("correct horse").unwrap();
        let parsed = argon2::PasswordHash::new(&hash).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct house", &parsed).is_err());
    }
}
