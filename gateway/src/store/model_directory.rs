//! Models and keys as files below the state directory: `models/<seq>.model`, `models/current`, `keys/`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use crate::store::{ModelSource, StoreError, StoreFuture};

/// Largest artifact that is read, in bytes.
pub const MAX_ARTIFACT: u64 = 256 << 20;

/// The directories `models` and `keys` of one state directory.
#[derive(Debug, Clone)]
pub struct ModelDirectory {
    models: PathBuf,
    keys: PathBuf,
}

impl ModelDirectory {
    /// Makes the directories below `state` if they are missing.
    ///
    /// # Errors
    /// One of them cannot be made.
    pub fn open(state: &Path) -> io::Result<Self> {
        let directory = Self { models: state.join("models"), keys: state.join("keys") };
        fs::create_dir_all(&directory.models)?;
        fs::create_dir_all(&directory.keys)?;
        Ok(directory)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, StoreError> {
        let path = self.models.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(away(&path, &error)),
        };
        match text.trim().parse() {
            Ok(seq) => Ok(Some(seq)),
            Err(_) => Err(StoreError::Unexpected {
                at: path.display().to_string(),
                what:
                    "not a decimal sequence number; publish again or choose one with `gateway models promote`"
                        .to_owned(),
            }),
        }
    }
}

impl ModelSource for ModelDirectory {
    fn current(&self) -> StoreFuture<'_, Option<u64>> {
        blocking(self, |directory| directory.number("current"))
    }

    fn fetch(&self, seq: u64) -> StoreFuture<'_, Vec<u8>> {
        blocking(self, move |directory| read_artifact(&directory.models.join(format!("{seq}.model"))))
    }

    fn list(&self) -> StoreFuture<'_, Vec<u64>> {
        blocking(self, |directory| {
            let entries = fs::read_dir(&directory.models).map_err(|error| away(&directory.models, &error))?;
            let mut found: Vec<u64> = entries
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".model")?.parse().ok())
                .collect();
            found.sort_unstable();
            Ok(found)
        })
    }

    fn chosen(&self) -> StoreFuture<'_, Option<u64>> {
        blocking(self, |directory| directory.number("chosen"))
    }

    fn set_current(&self, seq: u64) -> StoreFuture<'_, ()> {
        blocking(self, move |directory| {
            if !directory.models.join(format!("{seq}.model")).is_file() {
                return Err(StoreError::Unexpected {
                    at: format!("model {seq}"),
                    what: "there is no such model; see `gateway models list`".to_owned(),
                });
            }
            for name in ["chosen", "current"] {
                let path = directory.models.join(name);
                write_whole(&path, seq.to_string().as_bytes(), 0o644).map_err(|error| away(&path, &error))?;
            }
            Ok(())
        })
    }

    fn in_force(&self) -> StoreFuture<'_, Option<u64>> {
        blocking(self, |directory| directory.number("in-force"))
    }

    fn set_in_force(&self, seq: u64) -> StoreFuture<'_, ()> {
        blocking(self, move |directory| {
            let path = directory.models.join("in-force");
            write_whole(&path, seq.to_string().as_bytes(), 0o644).map_err(|error| away(&path, &error))
        })
    }

    fn site_key(&self) -> StoreFuture<'_, [u8; 16]> {
        blocking(self, |directory| site_key(&directory.keys.join("site.key")))
    }
}

/// Reads an artifact file, up to [`MAX_ARTIFACT`] bytes.
///
/// # Errors
/// The file cannot be read, or is too large.
pub fn read_artifact(path: &Path) -> Result<Vec<u8>, StoreError> {
    let file = fs::File::open(path).map_err(|error| away(path, &error))?;
    let mut bytes = Vec::new();
    file.take(MAX_ARTIFACT + 1).read_to_end(&mut bytes).map_err(|error| away(path, &error))?;
    if bytes.len() as u64 > MAX_ARTIFACT {
        return Err(StoreError::Unexpected {
            at: path.display().to_string(),
            what: format!("larger than {MAX_ARTIFACT} bytes, the most that is loaded"),
        });
    }
    Ok(bytes)
}

/// Reads the site key, or makes one: 32 hexadecimal digits, readable by the owner only.
fn site_key(path: &Path) -> Result<[u8; 16], StoreError> {
    match fs::read_to_string(path) {
        Ok(text) => {
            return unhex(text.trim()).ok_or_else(|| StoreError::Unexpected {
                at: path.display().to_string(),
                what: "not 32 hexadecimal digits; restore it, or delete it and train anew".to_owned(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(away(path, &error)),
    }
    let key = new_site_key()?;
    write_whole(path, hex(&key).as_bytes(), 0o600).map_err(|error| away(path, &error))?;
    Ok(key)
}

/// A fresh site key.
///
/// # Errors
/// The system has no randomness to give.
pub fn new_site_key() -> Result<[u8; 16], StoreError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|error| StoreError::Away(format!("no randomness: {error}")))?;
    Ok(key)
}

/// Writes a file so that readers see all of it or the one before: beside it, synced, renamed.
///
/// # Errors
/// The file cannot be written; the old one is untouched.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly `N` bytes of hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

pub(super) fn away(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Away(format!("{}: {error}", path.display()))
}

/// Runs file work of `store` off the request threads.
fn blocking<T: Send + 'static>(
    store: &ModelDirectory,
    work: impl FnOnce(&ModelDirectory) -> Result<T, StoreError> + Send + 'static,
) -> StoreFuture<'static, T> {
    let store = store.clone();
    Box::pin(async move {
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .unwrap_or_else(|error| Err(StoreError::Away(error.to_string())))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_site_key_is_made_once_and_private() {
        let state = tempfile::tempdir().unwrap();
        let directory = ModelDirectory::open(state.path()).unwrap();
        let key = directory.site_key().await.unwrap();
        assert_eq!(directory.site_key().await.unwrap(), key);
        let path = state.path().join("keys/site.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(matches!(directory.site_key().await, Err(StoreError::Unexpected { .. })));
    }

    #[test]
    fn hexadecimal_reads_back() {
        assert_eq!(unhex::<3>(&hex(&[0, 255, 16])), Some([0, 255, 16]));
        assert_eq!(unhex::<3>("00ff1"), None);
        assert_eq!(unhex::<1>("+1"), None);
    }
}
