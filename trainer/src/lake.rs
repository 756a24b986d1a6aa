//! The lake: Parquet files by day, that any other tool can read as they are.
//!
//! `date=YYYY-MM-DD/events-<range>.parquet` holds events, `reviews/reviews-<range>.parquet` reviews, and
//! `records/until=YYYY-MM-DD/records-<range>.parquet` whole requests, sealed, until the day in the name is over. Names come
//! from the range of records that were ingested, so ingesting them again replaces a file and adds none.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use arrow::{
    array::{Array as _, BinaryArray, RecordBatch},
    datatypes::Schema,
};
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use waf_model::event::{Event, Review};

use crate::durable;

pub mod columns;
pub mod day;
mod full;
mod groups;

use columns::{Head, Heads};
use day::Day;
use groups::Batch;

/// Rows decoded at a time when reading.
const READ_ROWS: usize = 1024;

/// Rows of one row group when writing.
const GROUP_ROWS: usize = 65_536;

/// A directory of Parquet files.
#[derive(Debug, Clone)]
pub struct Lake(PathBuf);

impl Lake {
    /// The lake at `path`; nothing is made until something is written.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where the lake lies.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes `events`, one file for each day among them, all durable on return.
    ///
    /// # Errors
    /// Whatever the disk says; what was written before the error stays and is replaced by the next try.
    pub fn write_events(&self, range: &str, events: &[Event]) -> Result<()> {
        let mut days: BTreeMap<Day, Vec<&Event>> = BTreeMap::new();
        for event in events {
            days.entry(Day::of(event.at_ms)).or_default().push(event);
        }
        for (day, events) in days {
            let path = self.0.join(format!("date={day}/events-{range}.parquet"));
            write_parquet(&path, &columns::events(&events)?)?;
        }
        Ok(())
    }

    /// Writes `reviews` to one file, durable on return.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn write_reviews(&self, range: &str, reviews: &[Review]) -> Result<()> {
        if reviews.is_empty() {
            return Ok(());
        }
        write_parquet(&self.0.join(format!("reviews/reviews-{range}.parquet")), &columns::reviews(reviews)?)
    }

    /// Every file of events, oldest day first, then by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn event_files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for (_, directory) in self.days()? {
            files.extend(parquet_files(&directory)?);
        }
        Ok(files)
    }

    /// How many events there are, repeats included; reads only the files' footers.
    ///
    /// # Errors
    /// A file that is not Parquet.
    pub fn count_events(&self) -> Result<u64> {
        let mut count = 0;
        for path in self.event_files()? {
            let rows = open(&path)?.metadata().file_metadata().num_rows();
            count += u64::try_from(rows).unwrap_or(0);
        }
        Ok(count)
    }

    /// Gives every event to `take`, oldest file first, in bounded memory. An event that was ingested twice comes
    /// twice.
    ///
    /// # Errors
    /// A file that is not one of ours, a damaged one, or an error of `take`.
    pub fn scan_events(&self, take: impl FnMut(Event) -> Result<()>) -> Result<()> {
        self.scan_rows(|_| true, |_, event| event, take)
    }

    /// Gives the head of every event to `take`, with the number of its row, in the order of [`Self::scan_events`] and
    /// without decoding an event.
    ///
    /// # Errors
    /// A file that is not one of ours, a damaged one, or an error of `take`.
    pub fn scan_heads(&self, mut take: impl FnMut(u64, &Head) -> Result<()>) -> Result<()> {
        let work = |batch: Batch<'_>| {
            let heads = Heads::of(&batch.records)?;
            let heads = (0..batch.records.num_rows()).map(|row| heads.get(row));
            Ok((batch.first, heads.collect::<Result<Vec<_>>>()?))
        };
        self.read(&columns::HEAD, work, |(first, heads)| {
            (first..).zip(&heads).try_for_each(|(number, head)| take(number, head))
        })
    }

    /// As [`Self::scan_events`], but only of the rows whose number is `wanted`; the others are not decoded. What
    /// `work` makes of the number and the event, on several threads, is given to `take`.
    ///
    /// # Errors
    /// A file that is not one of ours, a damaged one, or an error of `take`.
    pub fn scan_rows<T: Send>(
        &self,
        wanted: impl Fn(u64) -> bool + Sync,
        work: impl Fn(u64, Event) -> T + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let decoded = |batch: Batch<'_>| {
            let wire = columns::wire(&batch.records)?;
            let numbered = (batch.first..).zip(0..batch.records.num_rows());
            let wanted = numbered.filter(|(number, _)| wanted(*number));
            wanted
                .map(|(number, row)| Ok(work(number, decode(batch.path, wire, row)?)))
                .collect::<Result<Vec<_>>>()
        };
        self.read(&["event"], decoded, |made| made.into_iter().try_for_each(&mut take))
    }

    /// Every review.
    ///
    /// # Errors
    /// A file that is not one of ours, or a damaged one.
    pub fn reviews(&self) -> Result<Vec<Review>> {
        let mut all = Vec::new();
        for path in parquet_files(&self.0.join("reviews"))? {
            scan(&path, &columns::review_schema(), &["at", "request_id", "client", "verdict"], |batch| {
                all.extend(columns::read_reviews(batch).with_context(|| path.display().to_string())?);
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// Removes the days more than `keep_days` before `today`; returns how many.
    ///
    /// # Errors
    /// The directory cannot be read or removed.
    pub fn retain(&self, today: Day, keep_days: u32) -> Result<usize> {
        let mut removed = 0;
        for (day, directory) in self.days()? {
            if day.days_before(today) > i64::from(keep_days) {
                fs::remove_dir_all(&directory)
                    .with_context(|| format!("cannot remove the old partition {}", directory.display()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn days(&self) -> Result<Vec<(Day, PathBuf)>> {
        partitions(&self.0, "date=")
    }
}

/// The days in the names of the directories in `directory` that start with `prefix`, oldest first.
fn partitions(directory: &Path, prefix: &str) -> Result<Vec<(Day, PathBuf)>> {
    let mut days = Vec::new();
    for path in entries(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(day) = name.strip_prefix(prefix).and_then(Day::parse) {
            days.push((day, path));
        }
    }
    days.sort();
    Ok(days)
}

fn decode(path: &Path, wire: &BinaryArray, row: usize) -> Result<Event> {
    let bytes = if row < wire.len() { wire.value(row) } else { b"" };
    Event::decode(bytes).with_context(|| format!("{}: row {row} of a batch", path.display()))
}

fn write_parquet(path: &Path, batch: &RecordBatch) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let pending = durable::Pending::create(path).with_context(failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer =
        ArrowWriter::try_new(pending.file(), batch.schema(), Some(properties)).with_context(failed)?;
    writer.write(batch).with_context(failed)?;
    writer.close().with_context(failed)?;
    pending.commit().with_context(failed)
}

fn scan(
    path: &Path,
    expected: &Arc<Schema>,
    wanted: &[&str],
    mut take: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let builder = open(path)?;
    check_schema(path, builder.schema(), expected, wanted)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted.iter().copied());
    for batch in builder.with_projection(mask).with_batch_size(READ_ROWS).build()? {
        take(&batch.with_context(|| format!("{} is damaged; restore it or move it out", path.display()))?)?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .with_context(|| format!("{} is not a Parquet file; move it out of the lake", path.display()))
}

/// Columns that later versions add are no fault; a wanted one that is missing or of another type is.
fn check_schema(path: &Path, found: &Schema, expected: &Schema, wanted: &[&str]) -> Result<()> {
    for &name in wanted {
        let expected = expected.field_with_name(name)?.data_type();
        match found.field_with_name(name).map(|field| field.data_type()) {
            Ok(found) if found == expected => {}
            Ok(found) => bail!(
                "{}: column {name} is {found}, not {expected}; it was not written by this trainer: move it out of \
                 the lake",
                path.display()
            ),
            Err(_) => bail!(
                "{}: there is no column {name}; it was not written by this trainer: move it out of the lake",
                path.display()
            ),
        }
    }
    Ok(())
}

fn parquet_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = entries(directory)?;
    files.retain(|path| {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        !hidden && path.extension().is_some_and(|extension| extension == "parquet")
    });
    files.sort();
    Ok(files)
}

/// What lies in `directory`; nothing if there is no such directory.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot list {}", directory.display());
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.with_context(failed)?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(failed),
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Small events and reviews for tests.
    use waf_model::{
        client::{CLIENT_FEATURES, ClientVector},
        event::{Event, Origin, Review, ReviewVerdict, Verdict},
        observation::Observation,
        score::{PValue, Score},
    };

    /// An event at 2026-07-31T23:59:59.990Z plus `id` milliseconds: ten of them, and a new day begins.
    pub(crate) fn event(id: u128) -> Event {
        Event {
            id: id.to_be_bytes(),
            at_ms: 1_785_542_399_990 + id as u64,
            client: id as u64 % 7,
            network: 1,
            route: "shop".to_owned(),
            observation: Observation {
                method: "GET".into(),
                path: "/orders/{int}".to_owned(),
                rules: vec![7, 8],
                ..Observation::default()
            },
            client_vector: ClientVector([1.0; CLIENT_FEATURES]),
            score: id.is_multiple_of(2).then_some(Score {
                request_distance: 1.5,
                request: PValue::new(0.25),
                cluster: 3,
                client_distance: 0.5,
                client: PValue::ONE,
            }),
            model: 2,
            key_id: 9,
            verdict: Verdict::Pass,
            status: 200,
            origin: Origin::Upstream,
            upstream_us: 100,
            response_bytes: 5,
            weight: 1.0,
            hits: Vec::new(),
            response_hits: Vec::new(),
        }
    }

    pub(crate) fn review(id: u128) -> Review {
        Review {
            request: Some(id.to_be_bytes()),
            client: 5,
            verdict: ReviewVerdict::FalsePositive,
            at_ms: 77,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, ListArray, StringArray, UInt64Array};

    use super::*;

    #[test]
    fn events_lie_by_day_in_readable_columns_and_read_back_bit_for_bit() {
        let directory = tempfile::tempdir().unwrap();
        let lake = Lake::new(directory.path().to_owned());
        let events: Vec<_> = (0..20).map(samples::event).collect();
        lake.write_events("a", &events).unwrap();
        lake.write_events("a", &events).unwrap();
        let names: Vec<_> = lake.event_files().unwrap();
        let names: Vec<_> = names.iter().map(|p| p.strip_prefix(directory.path()).unwrap()).collect();
        assert_eq!(
            names,
            [Path::new("date=2026-07-31/events-a.parquet"), Path::new("date=2026-08-01/events-a.parquet")]
        );
        let mut back = Vec::new();
        lake.scan_events(|event| {
            back.push(event);
            Ok(())
        })
        .unwrap();
        assert_eq!(back, events);

        let wanted = ["request_id", "path", "client", "verdict", "rules", "request_p"];
        scan(&lake.event_files().unwrap()[0], &columns::event_schema(), &wanted, |batch| {
            fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> &'a T {
                batch.column_by_name(name).unwrap().as_any().downcast_ref().unwrap()
            }
            assert_eq!(
                column::<StringArray>(batch, "request_id").value(9),
                "00000000-0000-0000-0000-000000000009"
            );
            assert_eq!(column::<StringArray>(batch, "path").value(0), "/orders/{int}");
            assert_eq!(column::<StringArray>(batch, "verdict").value(0), "pass");
            assert_eq!(column::<UInt64Array>(batch, "client").value(8), 1);
            assert_eq!(column::<ListArray>(batch, "rules").value(0).len(), 2);
            let p = column::<Float32Array>(batch, "request_p");
            assert!(p.value(0) == 0.25 && p.is_null(1));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn a_foreign_file_in_the_lake_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let lake = Lake::new(directory.path().to_owned());
        write_parquet(&directory.path().join("date=2026-01-01/x.parquet"), &columns::reviews(&[]).unwrap())
            .unwrap();
        let message = lake.scan_events(|_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("x.parquet: there is no column event"), "{message}");
        fs::write(directory.path().join("date=2026-01-01/x.parquet"), "text").unwrap();
        let message = lake.scan_events(|_| Ok(())).unwrap_err().to_string();
        assert!(message.contains("is not a Parquet file; move it out of the lake"), "{message}");
    }

    #[test]
    fn rows_come_in_order_and_numbered_however_many_threads_read() {
        let directory = tempfile::tempdir().unwrap();
        let lake = Lake::new(directory.path().to_owned());
        for file in 0..7_u128 {
            let events: Vec<Event> = (0..1500).map(|at| samples::event(file * 1500 + at)).collect();
            write_parquet(&directory.path().join(format!("date=2026-08-01/{file}.parquet")), &{
                columns::events(&events.iter().collect::<Vec<_>>()).unwrap()
            })
            .unwrap();
        }
        let mut heads = Vec::new();
        lake.scan_heads(|number, head| {
            heads.push((number, u128::from_be_bytes(head.id)));
            Ok(())
        })
        .unwrap();
        assert_eq!(heads, (0..10_500).map(|at| (at, u128::from(at))).collect::<Vec<_>>());
        let mut taken = Vec::new();
        let third = |number: u64| number.is_multiple_of(3);
        let take = |made| {
            taken.push(made);
            if taken.len() < 3000 { Ok(()) } else { Err(anyhow::anyhow!("enough")) }
        };
        let stopped = lake.scan_rows(third, |number, event| (number, event.id), take).unwrap_err();
        assert_eq!(stopped.to_string(), "enough");
        let expected = (0..3000).map(|at| (at * 3, u128::from(at * 3).to_be_bytes()));
        assert_eq!(taken, expected.collect::<Vec<_>>());
    }

    #[test]
    fn old_partitions_go_and_younger_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let lake = Lake::new(directory.path().to_owned());
        lake.write_events("a", &[samples::event(0), samples::event(10)]).unwrap();
        let today = Day::parse("2026-08-05").unwrap();
        assert_eq!(lake.retain(today, 5).unwrap(), 0);
        assert_eq!(lake.retain(today, 4).unwrap(), 1);
        assert_eq!(lake.event_files().unwrap().len(), 1);
    }
}
