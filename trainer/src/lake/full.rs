//! Whole requests in the lake: sealed, by the day after which they are removed, bounded in size.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use arrow::{
    array::{Array as _, ArrayRef, BinaryArray, RecordBatch},
    datatypes::{DataType, Field, Schema},
};
use waf_model::full_record;

use super::{Lake, day::Day, parquet_files, partitions, scan, write_parquet};

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("sealed", DataType::Binary, false)]))
}

impl Lake {
    fn full_path(&self) -> PathBuf {
        self.path().join("records")
    }

    /// Writes sealed requests, one file for each day on which some are to be removed, all durable on return. What is
    /// no sealed request is left out.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn write_full(&self, range: &str, sealed: &[Vec<u8>]) -> Result<()> {
        let mut days: BTreeMap<Day, Vec<&[u8]>> = BTreeMap::new();
        for record in sealed {
            if let Ok(until_ms) = full_record::keep_until(record) {
                days.entry(Day::of(until_ms)).or_default().push(record);
            }
        }
        for (day, records) in days {
            let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(records));
            let path = self.full_path().join(format!("until={day}/records-{range}.parquet"));
            write_parquet(&path, &RecordBatch::try_new(schema(), vec![column])?)?;
        }
        Ok(())
    }

    /// Gives every sealed request that is still to be kept on `today` to `take`, in bounded memory; one that was
    /// ingested twice comes twice.
    ///
    /// # Errors
    /// A file that is not one of ours, a damaged one, or an error of `take`.
    pub fn scan_full(&self, today: Day, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for (day, directory) in partitions(&self.full_path(), "until=")? {
            if day < today {
                continue;
            }
            for path in parquet_files(&directory)? {
                scan(&path, &schema(), &["sealed"], |batch| {
                    let column =
                        batch.column_by_name("sealed").and_then(|column| column.as_any().downcast_ref());
                    let column: &BinaryArray = column.with_context(|| path.display().to_string())?;
                    (0..column.len()).try_for_each(|row| take(column.value(row)))
                })?;
            }
        }
        Ok(())
    }

    /// Removes sealed requests whose day is over, then the oldest files until at most `most` bytes are left; returns
    /// how many files.
    ///
    /// # Errors
    /// A directory cannot be read, or a file not be removed.
    pub fn retain_full(&self, today: Day, most: u64) -> Result<usize> {
        let (mut removed, mut files, mut total) = (0, Vec::new(), 0);
        for (day, directory) in partitions(&self.full_path(), "until=")? {
            let found = parquet_files(&directory)?;
            if day < today {
                fs::remove_dir_all(&directory).with_context(|| failed(&directory))?;
                removed += found.len();
                continue;
            }
            for path in found {
                let bytes = fs::metadata(&path).with_context(|| failed(&path))?.len();
                total += bytes;
                files.push((path, bytes));
            }
        }
        for (path, bytes) in files {
            if total <= most {
                break;
            }
            fs::remove_file(&path).with_context(|| failed(&path))?;
            total -= bytes;
            removed += 1;
        }
        Ok(removed)
    }
}

fn failed(path: &Path) -> String {
    format!("cannot remove the old whole requests in {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    /// What looks like a sealed record that is kept until `day`.
    fn sealed(day: u64) -> Vec<u8> {
        let until_ms = day * DAY_MS + 5;
        [&full_record::SEALED_VERSION.to_le_bytes()[..], &until_ms.to_le_bytes(), &[0; 100]].concat()
    }

    fn count(lake: &Lake, today: u64) -> usize {
        let mut count = 0;
        lake.scan_full(Day::of(today * DAY_MS), |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
        count
    }

    #[test]
    fn what_is_over_goes_and_what_is_too_much() {
        let directory = tempfile::tempdir().unwrap();
        let lake = Lake::new(directory.path().to_owned());
        lake.write_full("a", &[sealed(10), sealed(11), sealed(11), b"none".to_vec()]).unwrap();
        lake.write_full("a", &[sealed(10), sealed(11), sealed(11)]).unwrap();
        lake.write_full("b", &[sealed(12)]).unwrap();
        assert_eq!((count(&lake, 10), count(&lake, 11), count(&lake, 13)), (4, 3, 0));
        assert_eq!(lake.retain_full(Day::of(10 * DAY_MS), 1 << 20).unwrap(), 0);
        assert_eq!(lake.retain_full(Day::of(11 * DAY_MS), 1 << 20).unwrap(), 1);
        assert_eq!(count(&lake, 0), 3);
        assert_eq!(lake.retain_full(Day::of(11 * DAY_MS), 10).unwrap(), 2);
        assert_eq!(count(&lake, 0), 0);
        assert!(lake.event_files().unwrap().is_empty());
    }
}
