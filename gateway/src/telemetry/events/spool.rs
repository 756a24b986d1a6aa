//! The local spool: records that wait on disk, in order, until the store is back.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use waf_model::segment::{self, Frame, Kind, MAX_PAYLOAD};

use crate::store::segments::{self, SEGMENT_BYTES, SegmentLog};

/// Most bytes of records that wait on disk.
pub const SPOOL_CAP: u64 = 256 << 20;

/// A first-in first-out queue of records in segment files. What was sent but not deleted before a crash is sent
/// again: readers drop repeats by id.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    log: SegmentLog,
    /// Where the oldest unsent record lies.
    at: Position,
    waiting: u64,
}

/// A place between two records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    first: u64,
    offset: u64,
    frames: u64,
}

/// The oldest records, and where the next ones start.
#[derive(Debug, Default)]
pub struct Front {
    /// Kind and wire form.
    pub records: Vec<(Kind, Vec<u8>)>,
    /// Behind the last of them.
    pub end: Position,
}

impl Spool {
    /// Opens the spool in `directory` with what an earlier process left there. Blocks until done.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: &Path, cap: u64) -> io::Result<Self> {
        Self::open_with(directory, cap, SEGMENT_BYTES.min(cap / 4))
    }

    fn open_with(directory: &Path, cap: u64, segment_bytes: u64) -> io::Result<Self> {
        let log = SegmentLog::open(directory, cap, segment_bytes)?;
        let mut waiting = 0;
        let kept = segments::list(directory)?;
        for segment in &kept {
            waiting += segments::count(&segment.path)?;
        }
        let first = kept.first().map_or(0, |segment| segment.first);
        Ok(Self {
            directory: directory.to_owned(),
            log,
            at: Position { first, ..Position::default() },
            waiting,
        })
    }

    /// How many records wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Appends records; returns how many were lost to stay within the cap.
    ///
    /// # Errors
    /// The disk refuses; none of `records` is kept.
    pub fn push(&mut self, records: &[(Kind, Vec<u8>)]) -> io::Result<u64> {
        let before = self.log.next();
        let lost = self.log.append(records.iter().map(|(kind, record)| (*kind, record.as_slice())))?;
        let kept = self.log.next() - before;
        self.waiting += kept;
        let oversized = records.len() as u64 - kept;
        let mut deleted = lost.saturating_sub(oversized);
        if deleted > 0 {
            // Part of the deleted segment may have been sent already.
            deleted = deleted.saturating_sub(self.at.frames);
            self.at =
                Position { first: self.oldest()?.map_or(0, |segment| segment.first), ..Position::default() };
        }
        self.waiting = self.waiting.saturating_sub(deleted);
        Ok(deleted + oversized)
    }

    /// The oldest records, at most `most`; they stay until [`Self::advance`].
    ///
    /// # Errors
    /// The disk refuses.
    pub fn front(&mut self, most: usize) -> io::Result<Front> {
        loop {
            let Some(segment) = self.oldest()? else {
                self.waiting = 0;
                return Ok(Front::default());
            };
            if segment.first != self.at.first {
                self.at = Position { first: segment.first, ..Position::default() };
            }
            let mut file = File::open(&segment.path)?;
            file.seek(SeekFrom::Start(self.at.offset))?;
            let mut bytes = Vec::new();
            file.take(2 * MAX_PAYLOAD as u64).read_to_end(&mut bytes)?;
            let mut front = Front { records: Vec::new(), end: self.at };
            let mut rest = bytes.as_slice();
            while front.records.len() < most
                && let Frame::Whole { kind, record, size } = segment::read(rest)
            {
                front.records.push((kind, record.to_vec()));
                front.end.offset += size as u64;
                front.end.frames += 1;
                rest = rest.get(size..).unwrap_or_default();
            }
            if !front.records.is_empty() {
                return Ok(front);
            }
            // All of it was sent, or what follows cannot be read (torn by a crash).
            self.delete_oldest(&segment)?;
        }
    }

    /// Drops the records before `end`, which [`Self::front`] returned.
    ///
    /// # Errors
    /// The disk refuses; the records will be sent again.
    pub fn advance(&mut self, end: Position) -> io::Result<()> {
        if end.first != self.at.first {
            // The segment was deleted meanwhile, because the spool was full.
            return Ok(());
        }
        self.waiting = self.waiting.saturating_sub(end.frames.saturating_sub(self.at.frames));
        self.at = end;
        if self.waiting == 0 {
            while let Some(segment) = self.oldest()? {
                self.delete_oldest(&segment)?;
            }
        }
        Ok(())
    }

    fn oldest(&self) -> io::Result<Option<segments::Segment>> {
        Ok(segments::list(&self.directory)?.into_iter().next())
    }

    fn delete_oldest(&mut self, segment: &segments::Segment) -> io::Result<()> {
        // If it is the one being written, the next record starts a new one.
        self.log.close();
        fs::remove_file(&segment.path)?;
        self.at = Position::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(numbers: std::ops::Range<u64>) -> Vec<(Kind, Vec<u8>)> {
        numbers.map(|number| (Kind::Event, number.to_le_bytes().repeat(12))).collect()
    }

    fn drain(spool: &mut Spool, most: usize) -> Vec<u64> {
        let mut found = Vec::new();
        loop {
            let front = spool.front(most).unwrap();
            if front.records.is_empty() {
                return found;
            }
            found.extend(
                front.records.iter().map(|(_, record)| u64::from_le_bytes(*record.first_chunk().unwrap())),
            );
            spool.advance(front.end).unwrap();
        }
    }

    #[test]
    fn records_come_back_in_order_and_leave_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open_with(directory.path(), 1 << 20, 1_100).unwrap();
        for batch in 0..5 {
            assert_eq!(spool.push(&records(batch * 7..batch * 7 + 7)).unwrap(), 0);
        }
        assert_eq!(spool.waiting(), 35);
        assert_eq!(drain(&mut spool, 3), (0..35).collect::<Vec<_>>());
        assert_eq!(spool.waiting(), 0);
        assert!(segments::list(directory.path()).unwrap().is_empty());
        spool.push(&records(35..40)).unwrap();
        drop(spool);
        let mut spool = Spool::open(directory.path(), 1 << 20).unwrap();
        assert_eq!(spool.waiting(), 5);
        spool.push(&records(40..41)).unwrap();
        assert_eq!(drain(&mut spool, 100), (35..41).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_the_cap_the_oldest_are_lost_and_every_loss_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open_with(directory.path(), 3_300, 1_100).unwrap();
        let mut lost = 0;
        for batch in 0..10 {
            if batch == 3 {
                let front = spool.front(4).unwrap();
                spool.advance(front.end).unwrap();
            }
            lost += spool.push(&records(batch * 10..batch * 10 + 10)).unwrap();
        }
        let left = drain(&mut spool, 1_000);
        assert_eq!(left, (70..100).collect::<Vec<_>>());
        assert_eq!(lost, 100 - 4 - 30);
    }
}
