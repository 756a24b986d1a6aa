//! A dataset from the lake: sanitized, cut by time and by client.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::Result;
use waf_model::{
    base,
    event::{Event, Review, ReviewVerdict, Verdict},
    features, keys,
    observation::ValueKey,
};

use super::{Extent, LeftOut, Row, Slice, spread};
use crate::{
    lake::{Lake, columns::Head, day::Day},
    sanitize::{ClientCap, NetworkCap, Removal, Sanitizer},
};

/// Of 100 clients, so many are learned from.
const TRAIN_CLIENTS: u64 = 50;

/// Of 100 clients, so many calibrate; the others are held out.
const CALIBRATE_CLIENTS: u64 = 40;

/// Moments kept to find the middle of the time.
const MOMENTS: usize = 8192;

/// Most rejected rows that are looked at; more of them refuse the model anyway.
const MOST_REJECTED: usize = 1_000_000;

/// A span of at least so many days is cut at midnight, so that calibration sees whole client-days.
const WHOLE_DAYS: i64 = 4;

/// The events of a lake that may be learned from. What grows with the lake is two bits a row.
#[derive(Debug)]
pub struct LakeDataset {
    lake: Lake,
    key: ValueKey,
    marks: Marks,
    /// Rows that people judged, by number.
    judged: HashMap<u64, ReviewVerdict>,
    /// Of the training slice.
    moments: Moments,
    left_out: BTreeSet<u64>,
    extent: Extent,
}

impl LakeDataset {
    /// Passes over the heads in `lake`: what each client did; then what is left, and the middle of its time; then what
    /// each network gives of the rows to train on, and what is too much of that.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub fn plan(lake: Lake, key: ValueKey) -> Result<Self> {
        let mut dataset = Self {
            lake,
            key,
            marks: Marks::default(),
            judged: HashMap::new(),
            moments: Moments::default(),
            left_out: BTreeSet::new(),
            extent: Extent { window_ms: (u64::MAX, 0), ..Extent::default() },
        };
        let (mut sanitizer, rejected) = dataset.note(&dataset.lake.reviews()?)?;
        dataset.read_rejected(&mut sanitizer, &rejected)?;
        let moments = dataset.judge(&sanitizer)?;
        drop(sanitizer);
        let (first, last) = dataset.extent.window_ms;
        let mut cut_ms = moments.middle();
        if Day::of(first).days_before(Day::of(last)) >= WHOLE_DAYS {
            cut_ms = Day::of(cut_ms).start_ms();
        }
        let networks = dataset.cut(cut_ms)?;
        dataset.cap(&networks)?;
        Ok(dataset)
    }

    /// What each client did, which rows are no repeats, and which ones the model in force rejected.
    fn note(&mut self, reviews: &[Review]) -> Result<(Sanitizer, HashSet<u64>)> {
        let mut sanitizer = Sanitizer::new(keys::key_id(&self.key), reviews);
        let mut rejected = HashSet::new();
        let Self { lake, marks, judged, extent, .. } = self;
        lake.scan_heads(|number, event| {
            let new = sanitizer.note(event);
            marks.push(UNDEALT.filter(|_| new));
            extent.read += 1;
            if !new {
                *extent.removed.entry(Removal::Repeat.name().to_owned()).or_default() += 1;
            } else if !reviews.is_empty() {
                let verdicts = [ReviewVerdict::FalsePositive, ReviewVerdict::Confirmed].into_iter();
                let found = verdicts.filter(|verdict| sanitizer.is_judged(event, *verdict));
                judged.extend(found.map(|verdict| (number, verdict)));
            }
            if new && event.verdict == Verdict::Model && rejected.len() < MOST_REJECTED {
                rejected.insert(number);
            }
            Ok(())
        })?;
        rejected.retain(|number| judged.get(number) != Some(&ReviewVerdict::FalsePositive));
        sanitizer.all_noted();
        Ok((sanitizer, rejected))
    }

    /// What the model in force rejected, and the base by itself takes for an attack, tells as much of its client as a
    /// rule that matched.
    fn read_rejected(&self, sanitizer: &mut Sanitizer, rejected: &HashSet<u64>) -> Result<()> {
        if rejected.is_empty() {
            return Ok(());
        }
        let key_id = keys::key_id(&self.key);
        self.lake.scan_rows(
            |number| rejected.contains(&number),
            |_, event| {
                let log_odds = features::attack(&event.observation, None).log_odds;
                (event.key_id == key_id && base::shipped().flags(log_odds)).then_some(event.client)
            },
            |client| {
                client.into_iter().for_each(|client| sanitizer.note_attack(client));
                Ok(())
            },
        )
    }

    /// Which rows are clean, and when they were.
    fn judge(&mut self, sanitizer: &Sanitizer) -> Result<Moments> {
        let mut moments = Moments::default();
        let mut clients = HashSet::new();
        let Self { lake, marks, extent, .. } = self;
        lake.scan_heads(|number, event| {
            if marks.get(number).is_none() {
                return Ok(());
            }
            if let Some(removal) = sanitizer.judge(event) {
                *extent.removed.entry(removal.name().to_owned()).or_default() += 1;
                marks.set(number, None);
                return Ok(());
            }
            extent.rows += 1;
            clients.insert(event.client);
            let (first, last) = extent.window_ms;
            extent.window_ms = (first.min(event.at_ms), last.max(event.at_ms));
            moments.add(event.at_ms);
            Ok(())
        })?;
        extent.clients = clients.len() as u64;
        if extent.rows == 0 {
            extent.window_ms = (0, 0);
        }
        Ok(moments)
    }

    /// The slice of each row, within what its client may give.
    fn cut(&mut self, cut_ms: u64) -> Result<NetworkCap> {
        let mut networks = NetworkCap::default();
        let mut caps = ClientCap::default();
        let Self { lake, marks, moments, extent, .. } = self;
        lake.scan_heads(|number, event| {
            if marks.get(number).is_none() {
                return Ok(());
            }
            let mut mark = slice(event, cut_ms);
            // Calibration needs all that a client did: evidence accumulates.
            if mark == Some(Slice::Train) {
                if caps.admit(event) {
                    networks.note(event);
                    moments.add(event.at_ms);
                } else {
                    *extent.left_out.entry(Removal::ClientCap.name().to_owned()).or_default() += 1;
                    mark = None;
                }
            }
            marks.set(number, mark);
            Ok(())
        })?;
        Ok(networks)
    }

    /// Leaves out what networks give too much of.
    fn cap(&mut self, networks: &NetworkCap) -> Result<()> {
        if networks.is_kept() {
            return Ok(());
        }
        self.moments = Moments::default();
        let Self { lake, marks, moments, extent, .. } = self;
        lake.scan_heads(|number, event| {
            if marks.get(number) != Some(Slice::Train) {
                return Ok(());
            }
            if networks.admit(event) {
                moments.add(event.at_ms);
            } else {
                *extent.left_out.entry(Removal::NetworkCap.name().to_owned()).or_default() += 1;
                marks.set(number, None);
            }
            Ok(())
        })
    }

    pub(super) fn scan<T: Send>(
        &self,
        slice: Slice,
        work: impl Fn(Row) -> T + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        self.lake.scan_rows(
            |number| self.marks.get(number) == Some(slice),
            |number, event| {
                let left_out = slice == Slice::Train && self.left_out.contains(&event.client);
                (!left_out).then(|| work(self.row(number, event)))
            },
            |made| made.map_or(Ok(()), &mut take),
        )
    }

    pub(super) fn scan_judged(
        &self,
        verdict: ReviewVerdict,
        take: &mut dyn FnMut([u8; 16], Row) -> Result<()>,
    ) -> Result<()> {
        if self.judged(verdict) == 0 {
            return Ok(());
        }
        self.lake.scan_rows(
            |number| self.judged.get(&number) == Some(&verdict),
            |number, event| (event.id, self.row(number, event)),
            |(id, row)| take(id, row),
        )
    }

    pub(super) fn judged(&self, verdict: ReviewVerdict) -> usize {
        self.judged.values().filter(|found| **found == verdict).count()
    }

    pub(super) fn count(&self, slice: Slice) -> u64 {
        (0..self.marks.rows).filter(|number| self.marks.get(*number) == Some(slice)).count() as u64
    }

    pub(super) fn times(&self, parts: usize) -> Vec<u64> {
        self.moments.cut(parts)
    }

    pub(super) fn leave_out(&mut self, left_out: LeftOut) {
        for (removal, rows) in [(Removal::OddInTime, left_out.rows), (Removal::Verdict, left_out.rejected)] {
            if rows > 0 {
                self.extent.left_out.insert(removal.name().to_owned(), rows);
            }
        }
        left_out.numbers.into_iter().for_each(|number| self.marks.set(number, None));
        self.left_out = left_out.clients;
    }

    pub(super) fn value_key(&self) -> ValueKey {
        self.key
    }

    pub(super) fn extent(&self) -> &Extent {
        &self.extent
    }

    fn row(&self, number: u64, event: Event) -> Row {
        let harmless = self.judged.get(&number) == Some(&ReviewVerdict::FalsePositive);
        Row {
            number,
            at_ms: event.at_ms,
            client: event.client,
            network: event.network,
            route: event.route,
            harmless,
            rejected: event.verdict == Verdict::Model && !harmless,
            observation: event.observation,
            client_vector: Some(event.client_vector),
        }
    }
}

/// The slice of an event; none if its client belongs to one slice and its time to the other.
fn slice(event: &Head, cut_ms: u64) -> Option<Slice> {
    let early = event.at_ms < cut_ms;
    match spread(event.client, "slice") % 100 {
        part if part < TRAIN_CLIENTS => early.then_some(Slice::Train),
        part if part < TRAIN_CLIENTS + CALIBRATE_CLIENTS => (!early).then_some(Slice::Calibrate),
        _ => (!early).then_some(Slice::Holdout),
    }
}

/// The slice of every row, none for what is not learned from; two bits a row.
#[derive(Debug, Default)]
struct Marks {
    quads: Vec<u8>,
    rows: u64,
}

/// What is marked for a row that is not dealt to a slice yet.
const UNDEALT: Option<Slice> = Some(Slice::Train);

/// By the two bits that stand for them.
const MARKS: [Option<Slice>; 4] = [None, Some(Slice::Train), Some(Slice::Calibrate), Some(Slice::Holdout)];

impl Marks {
    fn push(&mut self, mark: Option<Slice>) {
        if self.rows.is_multiple_of(4) {
            self.quads.push(0);
        }
        self.rows += 1;
        self.set(self.rows - 1, mark);
    }

    fn set(&mut self, number: u64, mark: Option<Slice>) {
        let bits = MARKS.iter().position(|known| *known == mark).unwrap_or(0) as u8;
        let quad = usize::try_from(number / 4).ok().and_then(|at| self.quads.get_mut(at));
        quad.into_iter().for_each(|quad| *quad = *quad & !(3 << (number % 4 * 2)) | bits << (number % 4 * 2));
    }

    fn get(&self, number: u64) -> Option<Slice> {
        let quad = usize::try_from(number / 4).ok().and_then(|at| self.quads.get(at)).copied().unwrap_or(0);
        MARKS.get(usize::from(quad >> (number % 4 * 2) & 3)).copied().flatten()
    }
}

/// An even sample of moments in bounded memory: when full, every second is dropped and the step doubles.
#[derive(Debug, Default)]
struct Moments {
    kept: Vec<u64>,
    skip: u64,
    seen: u64,
}

impl Moments {
    fn add(&mut self, at_ms: u64) {
        if self.seen.is_multiple_of(self.skip + 1) {
            self.kept.push(at_ms);
        }
        self.seen += 1;
        if self.kept.len() >= MOMENTS {
            let mut keep = false;
            self.kept.retain(|_| {
                keep = !keep;
                keep
            });
            self.skip = self.skip * 2 + 1;
        }
    }

    fn middle(&self) -> u64 {
        self.cut(2).first().copied().unwrap_or(0)
    }

    /// Moments that cut the stream into `parts` of about equal size.
    fn cut(&self, parts: usize) -> Vec<u64> {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        (1..parts).filter_map(|part| sorted.get(sorted.len() * part / parts).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::lake::samples;

    fn lake(events: &[Event]) -> (tempfile::TempDir, Lake) {
        let directory = tempfile::tempdir().unwrap();
        let lake = Lake::new(directory.path().to_owned());
        lake.write_events("a", events).unwrap();
        (directory, lake)
    }

    fn events(count: u64, step_ms: u64, key: &ValueKey) -> Vec<Event> {
        (0..count)
            .map(|at| {
                let mut event = samples::event(u128::from(at));
                event.observation.rules.clear();
                event.at_ms = 1_785_000_000_000 + at * step_ms;
                event.client = at % 97;
                event.key_id = keys::key_id(key);
                event
            })
            .collect()
    }

    fn rows(dataset: &LakeDataset, slice: Slice) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut push = |row| {
            rows.push(row);
            Ok(())
        };
        dataset.scan(slice, |row| row, &mut push).unwrap();
        rows
    }

    #[test]
    fn slices_share_no_client_and_calibration_comes_later() {
        let key = ValueKey([3; 16]);
        let (_directory, lake) = lake(&events(5000, 1000, &key));
        let dataset = LakeDataset::plan(lake, key).unwrap();
        assert_eq!((dataset.extent.rows, dataset.extent.clients), (5000, 97));
        let [train, calibrate, holdout] =
            [Slice::Train, Slice::Calibrate, Slice::Holdout].map(|slice| rows(&dataset, slice));
        let clients = |rows: &[Row]| rows.iter().map(|row| row.client).collect::<BTreeSet<_>>();
        assert!(clients(&train).is_disjoint(&clients(&calibrate)));
        assert!(clients(&train).is_disjoint(&clients(&holdout)));
        assert!(clients(&calibrate).is_disjoint(&clients(&holdout)));
        let last = train.iter().map(|row| row.at_ms).max().unwrap();
        assert!(calibrate.iter().chain(&holdout).all(|row| row.at_ms > last));
        assert!(train.len() > 800 && calibrate.len() > 600 && holdout.len() > 50);
        assert_eq!(rows(&dataset, Slice::Train).len(), train.len(), "a second scan gives the same");
    }

    #[test]
    fn a_long_window_is_cut_at_midnight() {
        let key = ValueKey([3; 16]);
        let (_directory, lake) = lake(&events(1000, 600_000, &key));
        let dataset = LakeDataset::plan(lake, key).unwrap();
        let last = rows(&dataset, Slice::Train).iter().map(|row| row.at_ms).max().unwrap();
        let first = rows(&dataset, Slice::Calibrate).iter().map(|row| row.at_ms).min().unwrap();
        assert_eq!(Day::of(last).days_before(Day::of(first)), 1, "{last} {first}");
    }

    #[test]
    fn repeats_and_events_under_another_key_are_counted_not_used() {
        let key = ValueKey([3; 16]);
        let mut all = events(10, 1, &key);
        let mut other = events(12, 1, &ValueKey([4; 16]));
        all.extend(other.drain(10..));
        let (_directory, lake) = lake(&all);
        lake.write_events("b", &all[..4]).unwrap();
        let dataset = LakeDataset::plan(lake, key).unwrap();
        assert_eq!((dataset.extent.read, dataset.extent.rows), (16, 10));
        assert_eq!(dataset.extent.removed["repeat"], 4);
        assert_eq!(dataset.extent.removed["other_key"], 2);
    }

    #[test]
    fn every_row_keeps_its_own_mark() {
        let mut marks = Marks::default();
        (0..10).for_each(|at| marks.push(MARKS[at % 4]));
        marks.set(5, Some(Slice::Holdout));
        marks.set(6, None);
        let found: Vec<_> = (0..11).map(|at| marks.get(at)).collect();
        let mut expected: Vec<_> = (0..10).map(|at| MARKS[at % 4]).chain([None]).collect();
        (expected[5], expected[6]) = (Some(Slice::Holdout), None);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_middle_moment_is_found_in_bounded_memory() {
        let mut moments = Moments::default();
        (0..1_000_000).for_each(|at| moments.add(at));
        assert!(moments.kept.len() < MOMENTS);
        let middle = moments.middle();
        assert!((480_000..520_000).contains(&middle), "{middle}");
        assert_eq!(Moments::default().middle(), 0);
    }
}
