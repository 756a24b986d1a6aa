//! A bounded log of segment files: appended by the gateway, deleted by whoever has consumed them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use waf_model::segment::{self, FRAME_HEADER, Frame, Kind};

/// Bytes after which a new segment is started.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// How long appended frames may lie in the page cache only: what a power cut can cost.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// An append-only log in a directory; one writer.
#[derive(Debug)]
pub struct SegmentLog {
    directory: PathBuf,
    cap: u64,
    segment_bytes: u64,
    open: Option<Open>,
    next: u64,
    synced: Instant,
}

/// The segment that is written now.
#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// One segment file on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of its first frame.
    pub first: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl SegmentLog {
    /// Opens the log in `directory`, which is made if it is missing; at most `cap` bytes are kept, room for one
    /// segment of `segment_bytes` included.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(directory: &Path, cap: u64, segment_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut next = 0;
        if let Some(last) = list(directory)?.last() {
            let frames = count(&last.path)?;
            // A segment without one whole frame keeps its name; the next must not take it.
            next = last.first + frames.max(1);
        }
        Ok(Self {
            directory: directory.to_owned(),
            cap,
            segment_bytes,
            open: None,
            next,
            synced: Instant::now(),
        })
    }

    /// Appends frames; they are in the file when this returns. Returns how many older ones were deleted unread to
    /// stay within the cap, and how many were too large to keep.
    ///
    /// # Errors
    /// The file cannot be written (disk full, for one); whole segments of `records` may be kept then.
    pub fn append<'a>(&mut self, records: impl Iterator<Item = (Kind, &'a [u8])>) -> io::Result<u64> {
        let (mut frames, mut written, mut lost) = (Vec::new(), 0, 0);
        for (kind, record) in records {
            let size = (FRAME_HEADER + 1 + record.len()) as u64;
            let used = self.open.as_ref().map(|open| open.bytes + frames.len() as u64);
            // An empty segment takes any record: another one would have the same name.
            if used.is_none_or(|used| used > 0 && used + size > self.segment_bytes) {
                self.write(&mut frames, &mut written)?;
                lost += self.rotate()?;
            }
            if segment::append(&mut frames, kind, record) {
                written += 1;
            } else {
                lost += 1;
            }
        }
        self.write(&mut frames, &mut written)?;
        if self.synced.elapsed() >= SYNC_EVERY
            && let Some(open) = &self.open
        {
            open.file.sync_data()?;
            self.synced = Instant::now();
        }
        Ok(lost)
    }

    fn write(&mut self, frames: &mut Vec<u8>, written: &mut u64) -> io::Result<()> {
        let Some(open) = self.open.as_mut().filter(|_| *written > 0) else { return Ok(()) };
        let kept = open.file.write_all(frames);
        self.next += std::mem::take(written);
        if let Err(error) = kept {
            // What part of a frame was written is cut off again, so that readers see whole frames only; if even that
            // fails the segment is left as it is, and the next starts behind all that it may hold.
            let _ = open.file.set_len(open.bytes);
            self.open = None;
            return Err(error);
        }
        open.bytes += frames.len() as u64;
        frames.clear();
        Ok(())
    }

    /// Sequence number of the next frame.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Closes the current segment; the next append starts a new one.
    pub fn close(&mut self) {
        if let Some(open) = self.open.take()
            && let Err(error) = open.file.sync_data()
        {
            tracing::warn!(directory = %self.directory.display(), %error, "segment not synced");
        }
    }

    fn rotate(&mut self) -> io::Result<u64> {
        self.close();
        let lost = self.make_room()?;
        let path = self.directory.join(format!("{:020}.seg", self.next));
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        File::open(&self.directory)?.sync_all()?;
        self.open = Some(Open { file, bytes: 0 });
        Ok(lost)
    }

    /// Deletes the oldest segments until one more fits; returns the number of frames in them.
    fn make_room(&self) -> io::Result<u64> {
        let segments = list(&self.directory)?;
        let mut total: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut lost = 0;
        let nexts = segments.iter().skip(1).map(|segment| segment.first).chain([self.next]);
        for (segment, next) in segments.iter().zip(nexts) {
            if total + self.segment_bytes <= self.cap {
                break;
            }
            match fs::remove_file(&segment.path) {
                Ok(()) => lost += next.saturating_sub(segment.first),
                // The trainer was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            total = total.saturating_sub(segment.bytes);
        }
        Ok(lost)
    }
}

/// The segments of a directory, oldest first; files with other names are not touched.
///
/// # Errors
/// The directory cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let Some(first) = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
        else {
            continue;
        };
        match fs::metadata(&path) {
            Ok(metadata) => segments.push(Segment { first, path, bytes: metadata.len() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Number of whole frames in a segment file.
///
/// # Errors
/// The file cannot be read.
pub fn count(path: &Path) -> io::Result<u64> {
    let bytes = fs::read(path)?;
    let mut rest = bytes.as_slice();
    let mut frames = 0;
    while let Frame::Whole { size, .. } = segment::read(rest) {
        frames += 1;
        rest = rest.get(size..).unwrap_or_default();
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(log: &mut SegmentLog, numbers: std::ops::Range<u64>) -> u64 {
        let records: Vec<_> = numbers.map(|number| [number.to_le_bytes(); 12].concat()).collect();
        log.append(records.iter().map(|record| (Kind::Event, record.as_slice()))).unwrap()
    }

    #[test]
    fn segments_are_named_by_their_first_frame_also_after_a_restart_and_a_torn_tail() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = SegmentLog::open(directory.path(), 1 << 22, 1 << 20).unwrap();
        put(&mut log, 0..3);
        put(&mut log, 3..5);
        drop(log);
        let path = directory.path().join("00000000000000000000.seg");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"torn").unwrap();
        assert_eq!(count(&path).unwrap(), 5);
        let mut log = SegmentLog::open(directory.path(), 1 << 22, 1 << 20).unwrap();
        put(&mut log, 5..6);
        let names: Vec<_> = list(directory.path()).unwrap().iter().map(|segment| segment.first).collect();
        assert_eq!(names, [0, 5]);
    }

    #[test]
    fn beyond_the_cap_the_oldest_go_and_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        // A frame of 96 bytes and its header are 105; a segment of 1,100 bytes holds ten.
        let mut log = SegmentLog::open(directory.path(), 3_300, 1_100).unwrap();
        let mut lost = 0;
        for batch in 0..10 {
            lost += put(&mut log, batch * 10..batch * 10 + 10);
        }
        let kept = list(directory.path()).unwrap();
        let frames: u64 = kept.iter().map(|segment| count(&segment.path).unwrap()).sum();
        assert_eq!(frames + lost, 100);
        assert_eq!(kept.len(), 3);
        assert_eq!(kept.last().unwrap().first, 90);
    }

    #[test]
    fn a_record_too_large_is_counted_and_the_rest_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = SegmentLog::open(directory.path(), 1 << 30, SEGMENT_BYTES).unwrap();
        let huge = vec![0; segment::MAX_PAYLOAD + 1];
        let lost =
            log.append([(Kind::Event, huge.as_slice()), (Kind::Review, &b"x"[..])].into_iter()).unwrap();
        assert_eq!(lost, 1);
        assert_eq!(log.next(), 1);
    }
}
