//! Files that are either whole on the disk or not there at all.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes `bytes` to `path`: temporary file in the same directory, fsync, rename, fsync of the directory.
///
/// # Errors
/// Whatever the disk says; `path` is then what it was before.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let pending = Pending::create(path)?;
    pending.file().write_all(bytes)?;
    pending.commit()
}

/// A file being written beside its final place.
#[derive(Debug)]
pub struct Pending {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Pending {
    /// Starts writing what will be `path`; its directory is made if needed.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn create(path: &Path) -> io::Result<Self> {
        let directory = parent(path);
        fs::create_dir_all(directory)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The name starts with a dot and ends in .tmp, so that neither readers of the lake nor DuckDB's globs
        // take a half-written file for a whole one.
        let temporary = directory.join(format!(".{name}.{}.tmp", std::process::id()));
        let file = File::create(&temporary)?;
        Ok(Self { file, temporary, path: path.to_owned() })
    }

    /// Where to write.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes the file durable, then visible, then makes its name durable.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn commit(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        File::open(parent(&self.path))?.sync_all()
    }
}

impl Drop for Pending {
    /// Leaves no debris after an error; after a commit there is nothing to remove.
    fn drop(&mut self) {
        drop(fs::remove_file(&self.temporary));
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_an_abandoned_one_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/file");
        write(&path, b"one").unwrap();
        let pending = Pending::create(&path).unwrap();
        pending.file().write_all(b"tw").unwrap();
        drop(pending);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
