//! The state directory: where everything lies, the site key, the signing key, and the lock.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use ed25519_dalek::{SigningKey, VerifyingKey};
use waf_model::{
    full_record::{KEY_BYTES, RecordKey},
    observation::ValueKey,
};

/// A state directory, shared with the gateway when there is no Redis.
#[derive(Debug, Clone)]
pub struct State(PathBuf);

impl State {
    /// The state directory at `path`, which is made if needed.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open(path: &Path) -> Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the state directory {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Segment files that the gateway appends to.
    pub fn events(&self) -> PathBuf {
        self.0.join("events")
    }

    /// Segment files of whole requests that the gateway appends to.
    pub fn full_records(&self) -> PathBuf {
        self.0.join("records")
    }

    /// The key that the gateway seals whole requests with, unless its configuration names another.
    pub fn record_key(&self) -> PathBuf {
        self.0.join("keys/record.key")
    }

    /// The lake.
    pub fn lake(&self) -> PathBuf {
        self.0.join("lake")
    }

    /// Where `trainer run` writes its reports.
    pub fn reports(&self) -> PathBuf {
        self.0.join("reports")
    }

    /// Published models.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// The trainer's signing key; the public key is beside it.
    pub fn signing_key(&self) -> PathBuf {
        self.0.join("keys/trainer.key")
    }

    /// The site key of the embedded store, if the gateway has made one.
    ///
    /// # Errors
    /// The file is there but is not a key.
    pub fn site_key(&self) -> Result<Option<ValueKey>> {
        let path = self.0.join("keys/site.key");
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        match from_hex::<16>(&text) {
            Some(key) => Ok(Some(ValueKey(key))),
            None => bail!("{} must hold 32 hexadecimal digits; restore it from a backup", path.display()),
        }
    }

    /// Makes the site key, readable by the owner only; the gateway will use it too.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn make_site_key(&self) -> Result<ValueKey> {
        let path = self.0.join("keys/site.key");
        let key = ValueKey(random()?);
        match (write_secret(&path, &to_hex(&key.0)), self.site_key()?) {
            (Ok(()), _) => Ok(key),
            // The gateway was faster.
            (Err(_), Some(key)) => Ok(key),
            (Err(error), None) => Err(error),
        }
    }

    /// Takes the state directory for this process; two trainers must not write one lake.
    ///
    /// # Errors
    /// Another trainer has it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.0.join("trainer.lock");
        let file =
            File::create(&path).with_context(|| format!("cannot open the lock file {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another trainer works on {}; stop it, or use another --state", self.0.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

/// Held as long as this process may write to the state directory.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Reads the key of whole requests at `path`: 64 hexadecimal digits.
///
/// # Errors
/// The file cannot be read, or is not a key.
pub fn record_key(path: &Path) -> Result<RecordKey> {
    let text = fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the key {} that the gateway seals requests with: record some first, on a route with \
             `record: full`, or name its key with --record-key",
            path.display()
        )
    })?;
    match from_hex::<KEY_BYTES>(&text) {
        Some(key) => Ok(RecordKey::new(key)),
        None => bail!("{} must hold 64 hexadecimal digits; restore it from a backup", path.display()),
    }
}

/// Reads the signing key at `path`, or makes one (mode 0600) at first use, with the public key in
/// hexadecimal beside it, in a file ending in `.pub`.
///
/// # Errors
/// The file cannot be read or made, or is not a key.
pub fn signing_key(path: &Path) -> Result<SigningKey> {
    if path.exists() {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(seed) = from_hex::<32>(&text) else {
            bail!(
                "{} must hold 64 hexadecimal digits; restore it, or remove it to make a new key (gateways must \
                 then trust the new public key)",
                path.display()
            )
        };
        return Ok(SigningKey::from_bytes(&seed));
    }
    let key = SigningKey::from_bytes(&random::<32>()?);
    write_secret(path, &to_hex(&key.to_bytes()))?;
    let public = public_key_file(path);
    crate::durable::write(&public, format!("{}\n", to_hex(key.verifying_key().as_bytes())).as_bytes())
        .with_context(|| format!("cannot write {}", public.display()))?;
    Ok(key)
}

/// Writes a file that is readable by the owner only and was not there before.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot make the key {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| writeln!(file, "{text}").and_then(|()| file.sync_all()))
        // Unlike a rename, a link never replaces a key that someone else made meanwhile.
        .and_then(|()| fs::hard_link(&temporary, path));
    drop(fs::remove_file(&temporary));
    written.with_context(failed)
}

/// Where the public key of the signing key at `path` is kept.
pub fn public_key_file(path: &Path) -> PathBuf {
    path.with_extension("pub")
}

/// Reads a public key, 64 hexadecimal digits.
///
/// # Errors
/// The file cannot be read or is not a public key.
pub fn verifying_key(path: &Path) -> Result<VerifyingKey> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    from_hex::<32>(&text)
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .with_context(|| format!("{} must hold an Ed25519 public key, 64 hexadecimal digits", path.display()))
}

/// Random bytes from the operating system.
///
/// # Errors
/// There are none to be had.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => bail!("the operating system gives no random bytes: {error}"),
    }
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads hexadecimal of exactly `N` bytes, blanks around it ignored.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.trim().as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0;
        for &digit in pair {
            value = value * 16 + char::from(digit).to_digit(16)?;
        }
        *byte = u8::try_from(value).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_signing_key_is_made_once_private_and_its_public_key_lies_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys/trainer.key");
        let key = signing_key(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(signing_key(&path).unwrap().to_bytes(), key.to_bytes(), "the same key again");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "nothing else is left");
        assert!(write_secret(&path, "other").is_err(), "a key is never replaced");
        assert_eq!(verifying_key(&public_key_file(&path)).unwrap(), key.verifying_key());
        fs::write(&path, "nonsense").unwrap();
        let message = signing_key(&path).unwrap_err().to_string();
        assert!(message.contains("64 hexadecimal digits"), "{message}");
    }

    #[test]
    fn two_trainers_cannot_hold_one_state_directory() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        let held = state.lock().unwrap();
        assert!(state.lock().unwrap_err().to_string().contains("another trainer"));
        drop(held);
        state.lock().unwrap();
    }

    #[test]
    fn a_damaged_site_key_is_an_error_and_a_missing_one_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(directory.path()).unwrap();
        assert!(state.site_key().unwrap().is_none());
        let made = state.make_site_key().unwrap();
        assert!(state.site_key().unwrap() == Some(made) && state.make_site_key().unwrap() == made);
        fs::remove_dir_all(directory.path().join("keys")).unwrap();
        fs::create_dir(directory.path().join("keys")).unwrap();
        let file = directory.path().join("keys/site.key");
        fs::write(&file, "000102030405060708090a0b0c0d0eFF\n").unwrap();
        assert_eq!(
            state.site_key().unwrap().unwrap().0,
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]
        );
        fs::write(&file, "0001").unwrap();
        let message = state.site_key().err().unwrap().to_string();
        assert!(message.contains("32 hexadecimal digits"), "{message}");
    }
}
