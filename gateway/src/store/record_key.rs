//! The key of full records: a file of 64 hexadecimal digits.

use std::{fs, io, path::Path};

use waf_model::full_record::{KEY_BYTES, RecordKey};

use super::{
    StoreError,
    model_directory::{away, hex, unhex, write_whole},
};

/// Reads the key at `path`.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read(path: &Path) -> Result<RecordKey, StoreError> {
    let text = fs::read_to_string(path).map_err(|error| away(path, &error))?;
    unhex::<KEY_BYTES>(text.trim()).map(RecordKey::new).ok_or_else(|| StoreError::Unexpected {
        at: path.display().to_string(),
        what: "not 64 hexadecimal digits; restore it, or make another with `openssl rand -hex 32`: what was \
               recorded under the old one is lost then"
            .to_owned(),
    })
}

/// Reads the key at `path`, or makes one that the owner alone can read.
///
/// # Errors
/// As [`read`]; or the file cannot be made.
pub fn read_or_make(path: &Path) -> Result<RecordKey, StoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return read(path),
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| StoreError::Away(format!("no randomness: {error}")))?;
    write_whole(path, hex(&key).as_bytes(), 0o600).map_err(|error| away(path, &error))?;
    Ok(RecordKey::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record.key");
        let key = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        assert!(read_or_make(&path).unwrap_err().to_string().contains("64 hexadecimal digits"));
        assert!(read(&directory.path().join("none")).is_err());
    }
}
