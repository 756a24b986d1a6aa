//! A dataset from labelled files: distinct harmless requests in file order.

use std::{collections::HashSet, fmt, path::PathBuf};

use anyhow::Result;
use datasets::labelled::{Label, LabelledReader, LabelledRequest};
use waf_model::{
    observation::{Observation, ValueKey},
    rules::RuleMatches,
    values::{Limits, Values},
};

use super::{Extent, Row, Slice, spread};

/// Share of each file's distinct harmless requests that is learned from.
const TRAIN: f64 = 0.5;

/// Share that calibrates; the last ones are held out.
const CALIBRATE: f64 = 0.3;

/// Labelled files.
pub struct FileDataset {
    files: Vec<File>,
    key: ValueKey,
    extent: Extent,
}

struct File {
    path: PathBuf,
    distinct_benign: u64,
}

/// One distinct labelled request.
#[derive(Debug)]
pub struct LabelledRow {
    /// The request.
    pub request: LabelledRequest,
    /// Its slice; `None` for attacks, which are never learned from.
    pub slice: Option<Slice>,
    /// Its number among all requests of all files.
    pub number: u64,
}

impl fmt::Debug for FileDataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileDataset({} files)", self.files.len())
    }
}

impl FileDataset {
    /// Counts the distinct requests of `files`.
    ///
    /// # Errors
    /// A file cannot be read; the message says where.
    pub fn plan(files: Vec<PathBuf>, key: ValueKey) -> Result<Self> {
        let mut dataset = Self {
            files: files.into_iter().map(|path| File { path, distinct_benign: 0 }).collect(),
            key,
            extent: Extent::default(),
        };
        let mut counts = vec![0; dataset.files.len()];
        let mut extent = Extent::default();
        dataset.read(|file, request, repeated| {
            extent.read += 1;
            let reason = match (request.label, repeated) {
                (_, true) => "repeat",
                (Label::Attack, false) => "attack",
                (Label::Benign, false) => {
                    extent.rows += 1;
                    counts.get_mut(file).into_iter().for_each(|count| *count += 1);
                    return Ok(());
                }
            };
            *extent.removed.entry(reason.to_owned()).or_default() += 1;
            Ok(())
        })?;
        extent.clients = extent.rows;
        for (file, count) in dataset.files.iter_mut().zip(counts) {
            file.distinct_benign = count;
        }
        dataset.extent = extent;
        Ok(dataset)
    }

    /// Gives every distinct request to `take`, with its slice.
    ///
    /// # Errors
    /// Reading fails, or `take` does.
    pub fn scan_labelled(&self, mut take: impl FnMut(LabelledRow) -> Result<()>) -> Result<()> {
        let mut number = 0;
        let mut seen_benign = vec![0_u64; self.files.len()];
        self.read(|file, request, repeated| {
            number += 1;
            if repeated {
                return Ok(());
            }
            let mut slice = None;
            if request.label == Label::Benign
                && let (Some(seen), Some(file)) = (seen_benign.get_mut(file), self.files.get(file))
            {
                slice = Some(slice_of(*seen, file.distinct_benign));
                *seen += 1;
            }
            take(LabelledRow { request, slice, number })
        })
    }

    pub(super) fn scan(&self, slice: Slice, take: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        self.scan_labelled(|row| {
            if row.slice != Some(slice) {
                return Ok(());
            }
            take(Row {
                number: row.number,
                at_ms: row.number,
                // Each request counts as one of another client.
                client: spread(row.number, "labelled"),
                network: spread(row.number, "labelled"),
                route: String::new(),
                harmless: false,
                rejected: false,
                observation: observe(&row.request, &self.key),
                client_vector: None,
            })
        })
    }

    pub(super) fn value_key(&self) -> ValueKey {
        self.key
    }

    pub(super) fn extent(&self) -> &Extent {
        &self.extent
    }

    /// Reads every request of every file, and whether an equal one came before.
    fn read(&self, mut take: impl FnMut(usize, LabelledRequest, bool) -> Result<()>) -> Result<()> {
        let mut seen = HashSet::new();
        for (number, file) in self.files.iter().enumerate() {
            for request in LabelledReader::open(&file.path)? {
                let request = request?;
                let repeated = !seen.insert(fingerprint(&request));
                take(number, request, repeated)?;
            }
        }
        Ok(())
    }
}

/// What is observed of a labelled request. Rules do not run: the model alone is trained and judged.
pub fn observe(request: &LabelledRequest, key: &ValueKey) -> Observation {
    request.with_view(|view| {
        let values = Values::extract(view, &Limits::default());
        Observation::of(view, &values, &RuleMatches::default(), key)
    })
}

/// Equal for requests that say the same: cookies and the spelling of header names aside.
fn fingerprint(request: &LabelledRequest) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&[u8::from(request.label == Label::Attack)]);
    part(request.method.as_bytes());
    part(request.target.as_bytes());
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "cookie") {
        part(name.as_bytes());
        part(value);
    }
    part(&request.body);
    let mut print = [0; 16];
    hasher.finalize_xof().fill(&mut print);
    print
}

fn slice_of(position: u64, of: u64) -> Slice {
    let share = position as f64 / of.max(1) as f64;
    if share < TRAIN {
        Slice::Train
    } else if share < TRAIN + CALIBRATE {
        Slice::Calibrate
    } else {
        Slice::Holdout
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn line(label: &str, uri: &str, cookie: &str) -> String {
        format!(r#"{{"label":"{label}","method":"GET","uri":"{uri}","headers":{{"Cookie":"{cookie}"}}}}"#)
    }

    #[test]
    fn distinct_harmless_requests_are_cut_in_order_and_attacks_never_learned_from() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.jsonl");
        let mut text = String::new();
        for at in 0..20 {
            for cookie in ["x", "y"] {
                writeln!(text, "{}", line("benign", &format!("/{at}"), cookie)).unwrap();
            }
            writeln!(text, "{}", line("attack", &format!("/{at}"), "z")).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        let dataset = FileDataset::plan(vec![path], ValueKey([1; 16])).unwrap();
        assert_eq!((dataset.extent.read, dataset.extent.rows), (60, 20));
        assert_eq!((dataset.extent.removed["repeat"], dataset.extent.removed["attack"]), (20, 20));
        let mut slices = Vec::new();
        dataset
            .scan_labelled(|row| {
                slices.push((row.request.label, row.slice));
                Ok(())
            })
            .unwrap();
        let count = |wanted| slices.iter().filter(|found| **found == wanted).count();
        assert_eq!(count((Label::Benign, Some(Slice::Train))), 10);
        assert_eq!(count((Label::Benign, Some(Slice::Calibrate))), 6);
        assert_eq!(count((Label::Benign, Some(Slice::Holdout))), 4);
        assert_eq!(count((Label::Attack, None)), 20);
        let mut last = 0;
        dataset
            .scan(Slice::Calibrate, &mut |row| {
                assert!(row.at_ms > last, "in order");
                last = row.at_ms;
                Ok(())
            })
            .unwrap();
        assert!(last > 0);
    }
}
