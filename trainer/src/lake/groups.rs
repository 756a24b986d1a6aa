//! Reading on several threads: each takes a row group of a file, and what they make of it is handed over in order.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use super::{Lake, check_schema, columns, open};

/// Most threads that read; beyond them the one that takes is the slowest.
const THREADS: usize = 4;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;

/// Batches of one thread that may wait to be taken: what bounds the memory.
const WAITING: usize = 4;

/// Part of a file of events.
#[derive(Debug)]
struct Group {
    path: PathBuf,
    /// Its number within the file.
    number: usize,
    /// Rows of the lake before it.
    first: u64,
}

/// Rows that lie together in the lake.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The file.
    pub path: &'a Path,
    /// Rows of the lake before the first one of these.
    pub first: u64,
    /// The columns asked for.
    pub records: RecordBatch,
}

impl Lake {
    /// Reads `columns` of every event. `work` runs on several threads, in no order; `take` gets what it made of each
    /// batch in the order of the lake: oldest day first, then by the name of the file.
    ///
    /// # Errors
    /// A file that is not one of ours, a damaged one, or an error of `work` or of `take`.
    pub fn read<T: Send>(
        &self,
        columns: &[&str],
        work: impl Fn(Batch<'_>) -> Result<T> + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let groups = self.groups(columns)?;
        let threads =
            thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(groups.len()).max(1);
        thread::scope(|scope| {
            let mut inboxes = Vec::new();
            for worker in 0..threads {
                let (outbox, inbox) = sync_channel(WAITING);
                inboxes.push(inbox);
                let own = groups.iter().skip(worker).step_by(threads);
                let work = &work;
                scope.spawn(move || own.map_while(|group| read_group(group, columns, work, &outbox)).count());
            }
            for inbox in inboxes.iter().cycle().take(groups.len()) {
                loop {
                    match inbox.recv() {
                        Ok(Ok(Some(made))) => take(made)?,
                        Ok(Ok(None)) => break,
                        Ok(Err(error)) => return Err(error),
                        Err(_) => bail!("a thread that reads the lake has stopped"),
                    }
                }
            }
            Ok(())
        })
    }

    /// Every row group, in order, of files that have the `wanted` columns; reads only the files' footers.
    fn groups(&self, wanted: &[&str]) -> Result<Vec<Group>> {
        let (mut groups, mut first) = (Vec::new(), 0);
        for path in self.event_files()? {
            let file = open(&path)?;
            check_schema(&path, file.schema(), &columns::event_schema(), wanted)?;
            for (number, group) in file.metadata().row_groups().iter().enumerate() {
                groups.push(Group { path: path.clone(), number, first });
                first += u64::try_from(group.num_rows()).unwrap_or(0);
            }
        }
        Ok(groups)
    }
}

/// Sends what `work` makes of every batch of `group`, and then that this was all; `None` once nobody takes it, or
/// after an error.
fn read_group<T>(
    group: &Group,
    columns: &[&str],
    work: &impl Fn(Batch<'_>) -> Result<T>,
    outbox: &SyncSender<Result<Option<T>>>,
) -> Option<()> {
    let batches = match open_group(group, columns) {
        Ok(batches) => batches,
        Err(error) => {
            outbox.send(Err(error)).ok()?;
            return None;
        }
    };
    let mut first = group.first;
    for records in batches {
        let damaged = || format!("{} is damaged; restore it or move it out", group.path.display());
        let rows = records.as_ref().map_or(0, RecordBatch::num_rows);
        let made = records
            .with_context(damaged)
            .and_then(|records| work(Batch { path: &group.path, first, records }));
        let failed = made.is_err();
        outbox.send(made.map(Some)).ok()?;
        if failed {
            return None;
        }
        first += rows as u64;
    }
    outbox.send(Ok(None)).ok()
}

fn open_group(
    group: &Group,
    wanted: &[&str],
) -> Result<impl Iterator<Item = std::result::Result<RecordBatch, arrow::error::ArrowError>> + use<>> {
    let builder: ParquetRecordBatchReaderBuilder<File> = open(&group.path)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted.iter().copied());
    Ok(builder
        .with_row_groups(vec![group.number])
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()?)
}
