//! Records from the segment files of the embedded store, which the gateway appends to meanwhile.

use std::{
    fmt,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use waf_model::{
    event::Review,
    segment::{self, Frame, Kind},
};

use super::{BATCH, Batch, Source, read_if_there};
use crate::{durable, lake::Lake};

/// Bytes read at a time: many times [`segment::MAX_PAYLOAD`], so that a frame that does not fit is torn.
const CHUNK: u64 = 16 << 20;

/// The segment files of one state directory.
#[derive(Debug)]
pub struct Segments {
    directory: PathBuf,
    cursor_file: PathBuf,
    /// Everything before it is in the lake.
    cursor: Cursor,
    /// Where the batch read last ends.
    next: Cursor,
}

/// Everything that the embedded store of one state directory holds: events and reviews first, then whole requests,
/// which lie in segments of their own.
#[derive(Debug)]
pub struct StateSegments {
    parts: [Segments; 2],
    /// Which of them was read last.
    at: usize,
}

impl StateSegments {
    /// The segments in `events` and `full`, from where the cursors kept beside `lake` stand.
    ///
    /// # Errors
    /// A cursor cannot be read.
    pub fn open(events: PathBuf, full: PathBuf, lake: &Lake) -> Result<Self> {
        let parts =
            [Segments::open(events, lake)?, Segments::open_at(full, lake.path().join("cursor-records"))?];
        Ok(Self { parts, at: 0 })
    }
}

impl Source for StateSegments {
    fn read(&mut self) -> Result<Option<Batch>> {
        for (at, part) in self.parts.iter_mut().enumerate() {
            self.at = at;
            if let Some(batch) = part.read()? {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    fn acknowledge(&mut self) -> Result<()> {
        self.parts.get_mut(self.at).map_or(Ok(()), Segments::acknowledge)
    }

    fn name(&self) -> String {
        self.parts.first().map_or_else(String::new, Segments::name)
    }
}

/// A place in the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    /// Raised when the segments begin anew, so that ranges never repeat.
    generation: u64,
    /// Sequence number in the segment's name.
    segment: u64,
    /// Bytes from its start.
    offset: u64,
}

impl Segments {
    /// The segments in `directory`, from where the cursor kept beside `lake` stands.
    ///
    /// # Errors
    /// The cursor cannot be read.
    pub fn open(directory: PathBuf, lake: &Lake) -> Result<Self> {
        Self::open_at(directory, lake.path().join("cursor"))
    }

    fn open_at(directory: PathBuf, cursor_file: PathBuf) -> Result<Self> {
        let cursor = match read_if_there(&cursor_file)? {
            Some(text) => Cursor::parse(&text).with_context(|| {
                format!(
                    "{} is damaged; remove it to ingest the segments again (repeats are dropped by event id)",
                    cursor_file.display()
                )
            })?,
            None => Cursor { generation: 0, segment: 0, offset: 0 },
        };
        Ok(Self { directory, cursor_file, cursor, next: cursor })
    }

    /// Sequence numbers of the segments, ascending.
    fn list(&self) -> Result<Vec<u64>> {
        let failed = || format!("cannot list {}", self.directory.display());
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(failed),
        };
        let mut segments = Vec::new();
        for entry in entries {
            let name = entry.with_context(failed)?.file_name();
            let name = name.to_string_lossy();
            let stem = name.strip_suffix(".seg").filter(|stem| stem.len() == 20);
            segments.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.directory.join(format!("{segment:020}.seg"))
    }

    /// Puts the cursor on a segment that is there. `false` if there is none.
    fn settle(&self, cursor: &mut Cursor, segments: &[u64]) -> Result<bool> {
        let Some(&first) = segments.first() else { return Ok(false) };
        match segments.iter().find(|&&segment| segment >= cursor.segment) {
            Some(&segment) if segment == cursor.segment => {
                let path = self.path(segment);
                let length =
                    fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
                if length < cursor.offset {
                    // The store was replaced by another one. Repeats, if any, are dropped by event id.
                    *cursor = Cursor { generation: cursor.generation + 1, segment: first, offset: 0 };
                }
            }
            Some(&segment) => *cursor = Cursor { segment, offset: 0, ..*cursor },
            None => *cursor = Cursor { generation: cursor.generation + 1, segment: first, offset: 0 },
        }
        Ok(true)
    }

    /// Removes what is in the lake; the newest stays, for the gateway writes to it.
    fn remove_consumed(&self) -> Result<()> {
        let segments = self.list()?;
        let newest = segments.last().copied().unwrap_or(0);
        for &segment in segments.iter().filter(|&&segment| segment < self.cursor.segment && segment < newest)
        {
            let path = self.path(segment);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

impl Source for Segments {
    fn read(&mut self) -> Result<Option<Batch>> {
        // Listed before reading: a segment that has a successor now will not grow any more.
        let segments = self.list()?;
        let mut cursor = self.cursor;
        let mut batch = Batch::default();
        while self.settle(&mut cursor, &segments)? {
            batch.events_range = cursor.range();
            batch.reviews_range.clone_from(&batch.events_range);
            batch.full_range.clone_from(&batch.events_range);
            let end = read_frames(&self.path(cursor.segment), &mut cursor.offset, &mut batch)?;
            let successor = segments.iter().find(|&&segment| segment > cursor.segment).copied();
            match (end, successor) {
                (End::More, _) => break,
                (End::Clean, Some(segment)) => cursor = Cursor { segment, offset: 0, ..cursor },
                (End::Torn | End::Damaged, Some(segment)) => {
                    batch.damaged += 1;
                    cursor = Cursor { segment, offset: 0, ..cursor };
                }
                (End::Damaged, None) => {
                    tracing::warn!(
                        segment = %self.path(cursor.segment).display(),
                        offset = cursor.offset,
                        "damaged frame in the newest segment; waiting for the next segment"
                    );
                    break;
                }
                (End::Clean | End::Torn, None) => break,
            }
            if batch.records() > 0 {
                break;
            }
        }
        if cursor == self.cursor {
            return Ok(None);
        }
        self.next = cursor;
        Ok(Some(batch))
    }

    fn acknowledge(&mut self) -> Result<()> {
        durable::write(&self.cursor_file, self.next.to_string().as_bytes())
            .with_context(|| format!("cannot write {}", self.cursor_file.display()))?;
        self.cursor = self.next;
        self.remove_consumed()
    }

    fn name(&self) -> String {
        self.directory.display().to_string()
    }
}

/// How reading a segment ended.
enum End {
    /// At the end of the file, between two frames.
    Clean,
    /// At the end of the file, inside a frame.
    Torn,
    /// At a frame that cannot be read; nothing after it can.
    Damaged,
    /// There is more to read.
    More,
}

/// Reads whole frames from `offset` on and moves it behind them.
fn read_frames(path: &Path, offset: &mut u64, batch: &mut Batch) -> Result<End> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| {
            file.seek(SeekFrom::Start(*offset))?;
            file.take(CHUNK).read_to_end(&mut bytes)
        })
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut rest = bytes.as_slice();
    loop {
        if batch.records() >= BATCH {
            return Ok(End::More);
        }
        match segment::read(rest) {
            Frame::Whole { kind, record, size } => {
                match kind {
                    Kind::Event => batch.take_event(record),
                    Kind::Full => batch.take_full(record),
                    Kind::Review => match Review::decode(record) {
                        Ok(review) => batch.reviews.push(review),
                        Err(_) => batch.rejected.push(record.to_vec()),
                    },
                }
                *offset += size as u64;
                rest = rest.get(size..).unwrap_or_default();
            }
            Frame::Partial if rest.is_empty() && (bytes.len() as u64) < CHUNK => return Ok(End::Clean),
            Frame::Partial if (bytes.len() as u64) < CHUNK => return Ok(End::Torn),
            Frame::Partial => return Ok(End::More),
            Frame::Damaged => return Ok(End::Damaged),
        }
    }
}

impl Cursor {
    /// Names what starts here. Not where it ends: after a crash the same start may reach further, and must then
    /// replace the shorter file.
    fn range(&self) -> String {
        format!("g{}-{:020}-{:012}", self.generation, self.segment, self.offset)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace().map(|part| part.parse::<u64>().ok());
        let mut part = || parts.next().flatten();
        let cursor = Self { generation: part()?, segment: part()?, offset: part()? };
        parts.next().is_none().then_some(cursor)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.generation, self.segment, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write};

    use super::*;
    use crate::{
        ingest::{Ingested, drain},
        lake::samples,
    };

    struct Site {
        _directory: tempfile::TempDir,
        events: PathBuf,
        lake: Lake,
    }

    fn site() -> Site {
        let directory = tempfile::tempdir().unwrap();
        let events = directory.path().join("events");
        fs::create_dir(&events).unwrap();
        Site { events, lake: Lake::new(directory.path().join("lake")), _directory: directory }
    }

    impl Site {
        fn append(&self, segment: u64, bytes: &[u8]) {
            let path = self.events.join(format!("{segment:020}.seg"));
            fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
        }

        fn source(&self) -> Segments {
            Segments::open(self.events.clone(), &self.lake).unwrap()
        }

        fn drain(&self) -> Ingested {
            drain(&mut self.source(), &self.lake).unwrap()
        }

        /// How often each event is in the lake.
        fn ids(&self) -> BTreeMap<u128, u32> {
            let mut ids = BTreeMap::new();
            self.lake
                .scan_events(|event| {
                    *ids.entry(u128::from_be_bytes(event.id)).or_default() += 1;
                    Ok(())
                })
                .unwrap();
            ids
        }
    }

    fn frames(ids: std::ops::Range<u128>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for id in ids {
            assert!(segment::append(&mut bytes, Kind::Event, &samples::event(id).encode()));
        }
        bytes
    }

    fn once(ids: std::ops::Range<u128>) -> BTreeMap<u128, u32> {
        ids.map(|id| (id, 1)).collect()
    }

    #[test]
    fn a_growing_segment_is_followed_and_a_torn_tail_is_waited_for() {
        let site = site();
        assert!(site.drain().is_empty(), "no segments yet");
        let all = frames(0..10);
        let cut = frames(0..7).len() + 13;
        site.append(0, &all[..cut]);
        assert_eq!(site.drain().events, 7);
        assert!(site.drain().is_empty(), "the torn frame is not taken");
        site.append(0, &all[cut..]);
        assert_eq!(site.drain(), Ingested { events: 3, ..Ingested::default() });
        assert_eq!(site.ids(), once(0..10));
    }

    #[test]
    fn what_was_not_acknowledged_comes_again_and_replaces_its_file() {
        let site = site();
        site.append(0, &frames(0..5));
        let mut source = site.source();
        let batch = source.read().unwrap().unwrap();
        site.lake.write_events(&batch.events_range, &batch.events).unwrap();
        drop(source);
        site.append(0, &frames(5..9));
        assert_eq!(site.drain().events, 9, "killed before the cursor moved: from the old place, and further");
        assert_eq!(site.ids(), once(0..9));
        assert_eq!(site.lake.event_files().unwrap().len(), 1);
    }

    #[test]
    fn consumed_segments_are_removed_but_never_the_newest() {
        let site = site();
        site.append(0, &frames(0..3));
        site.append(3, &frames(3..5));
        site.append(5, &[]);
        assert_eq!(site.drain().events, 5);
        assert_eq!(site.source().list().unwrap(), [5]);
        assert!(site.drain().is_empty());
        site.append(5, &frames(5..6));
        assert_eq!(site.drain().events, 1);
        assert_eq!(site.ids(), once(0..6));
    }

    #[test]
    fn damage_is_counted_and_costs_only_the_rest_of_its_segment() {
        let site = site();
        let mut bytes = frames(0..4);
        let at = frames(0..2).len() + segment::FRAME_HEADER + 5;
        bytes[at] ^= 1;
        site.append(0, &bytes);
        assert_eq!(site.drain(), Ingested { events: 2, ..Ingested::default() }, "the newest: wait");
        assert!(site.drain().is_empty());
        site.append(4, &frames(4..6));
        assert_eq!(site.drain(), Ingested { events: 2, damaged: 1, ..Ingested::default() });
        site.append(6, &[&frames(6..7)[..], b"torn"].concat());
        site.append(7, &frames(7..8));
        assert_eq!(site.drain(), Ingested { events: 2, damaged: 1, ..Ingested::default() });
        assert_eq!(site.ids().into_keys().collect::<Vec<_>>(), [0, 1, 4, 5, 6, 7]);
    }

    #[test]
    fn records_of_another_version_are_kept_aside_and_reviews_go_to_their_own_file() {
        let site = site();
        let mut bytes = frames(0..1);
        assert!(segment::append(&mut bytes, Kind::Event, b"\xff\xff\x03what is this"));
        assert!(segment::append(&mut bytes, Kind::Review, &samples::review(1).encode()));
        site.append(0, &bytes);
        assert_eq!(site.drain(), Ingested { events: 1, reviews: 1, rejected: 1, ..Ingested::default() });
        assert_eq!(site.lake.reviews().unwrap(), [samples::review(1)]);
        let kept: Vec<_> = fs::read_dir(site.lake.path().join("rejected")).unwrap().collect();
        let kept = fs::read(kept[0].as_ref().unwrap().path()).unwrap();
        assert!(matches!(segment::read(&kept), Frame::Whole { record: b"\xff\xff\x03what is this", .. }));
    }

    #[test]
    fn a_store_that_begins_anew_never_overwrites_what_the_lake_has() {
        let site = site();
        site.append(0, &frames(0..6));
        site.append(6, &frames(6..8));
        site.drain();
        fs::remove_dir_all(&site.events).unwrap();
        fs::create_dir(&site.events).unwrap();
        site.append(0, &frames(100..102));
        assert_eq!(site.drain().events, 2);
        let expected: BTreeMap<u128, u32> = (0..8).chain(100..102).map(|id| (id, 1)).collect();
        assert_eq!(site.ids(), expected);
    }

    #[test]
    fn a_damaged_cursor_is_an_error_that_says_what_to_do() {
        let site = site();
        fs::create_dir_all(site.lake.path()).unwrap();
        fs::write(site.lake.path().join("cursor"), "0 x").unwrap();
        let message = Segments::open(site.events.clone(), &site.lake).unwrap_err().to_string();
        assert!(message.contains("remove it to ingest the segments again"), "{message}");
    }
}
