//! A dataset from the lake: sanitized, cut by time and by client.

use std::{cell::RefCell, collections::HashSet};

use anyhow::Result;
use waf_model::{event::Event, keys, observation::ValueKey};

use super::{Extent, Row, Slice, spread};
use crate::{
    lake::{Lake, day::Day},
    sanitize::{ClientCap, Sanitizer, Use},
};

/// Of 100 clients, so many are learned from.
const TRAIN_CLIENTS: u64 = 50;

/// Of 100 clients, so many calibrate; the others are held out.
const CALIBRATE_CLIENTS: u64 = 40;

/// Moments kept to find the middle of the time.
const MOMENTS: usize = 8192;

/// A span of at least so many days is cut at midnight, so that calibration sees whole client-days.
const WHOLE_DAYS: i64 = 4;

/// The events of a lake that may be learned from.
#[derive(Debug)]
pub struct LakeDataset {
    lake: Lake,
    key: ValueKey,
    sanitizer: RefCell<Sanitizer>,
    cut_ms: u64,
    extent: Extent,
}

impl LakeDataset {
    /// Two passes over `lake`: what each client did; then what is left, and the middle of its time.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub fn plan(lake: Lake, key: ValueKey) -> Result<Self> {
        let mut sanitizer = Sanitizer::new(keys::key_id(&key), &lake.reviews()?);
        lake.scan_events(|event| {
            sanitizer.note(&event);
            Ok(())
        })?;
        sanitizer.rewind();
        let mut extent = Extent { window_ms: (u64::MAX, 0), ..Extent::default() };
        let mut clients = HashSet::new();
        let mut moments = Moments::default();
        lake.scan_events(|event| {
            extent.read += 1;
            match sanitizer.judge(&event, Use::Calibrate) {
                Some(removal) => *extent.removed.entry(removal.name().to_owned()).or_default() += 1,
                None => {
                    extent.rows += 1;
                    clients.insert(event.client);
                    let (first, last) = extent.window_ms;
                    extent.window_ms = (first.min(event.at_ms), last.max(event.at_ms));
                    moments.add(event.at_ms);
                }
            }
            Ok(())
        })?;
        extent.clients = clients.len() as u64;
        if extent.rows == 0 {
            extent.window_ms = (0, 0);
        }
        let (first, last) = extent.window_ms;
        let mut cut_ms = moments.middle();
        if Day::of(first).days_before(Day::of(last)) >= WHOLE_DAYS {
            cut_ms = Day::of(cut_ms).start_ms();
        }
        Ok(Self { lake, key, sanitizer: RefCell::new(sanitizer), cut_ms, extent })
    }

    pub(super) fn scan(&self, slice: Slice, take: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let mut sanitizer = self.sanitizer.borrow_mut();
        sanitizer.rewind();
        let mut cap = ClientCap::default();
        self.lake.scan_events(|event| {
            let purpose = if slice == Slice::Train { Use::Train } else { Use::Calibrate };
            if sanitizer.judge(&event, purpose).is_some() || self.slice(&event) != Some(slice) {
                return Ok(());
            }
            // Calibration needs all that a client did: evidence accumulates.
            if slice == Slice::Train && !cap.admit(&event) {
                return Ok(());
            }
            take(row(event))
        })
    }

    pub(super) fn scan_harmless(&self, take: &mut dyn FnMut([u8; 16], Row) -> Result<()>) -> Result<()> {
        let sanitizer = self.sanitizer.borrow();
        if !sanitizer.knows_harmless() {
            return Ok(());
        }
        self.lake.scan_events(
            |event| {
                if sanitizer.is_harmless(&event) { take(event.id, row(event)) } else { Ok(()) }
            },
        )
    }

    pub(super) fn value_key(&self) -> ValueKey {
        self.key
    }

    pub(super) fn extent(&self) -> &Extent {
        &self.extent
    }

    /// The slice of an event; none if its client belongs to one slice and its time to the other.
    fn slice(&self, event: &Event) -> Option<Slice> {
        let early = event.at_ms < self.cut_ms;
        match spread(event.client, "slice") % 100 {
            part if part < TRAIN_CLIENTS => early.then_some(Slice::Train),
            part if part < TRAIN_CLIENTS + CALIBRATE_CLIENTS => (!early).then_some(Slice::Calibrate),
            _ => (!early).then_some(Slice::Holdout),
        }
    }
}

fn row(event: Event) -> Row {
    Row {
        at_ms: event.at_ms,
        client: event.client,
        observation: event.observation,
        client_vector: Some(event.client_vector),
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

    fn middle(mut self) -> u64 {
        self.kept.sort_unstable();
        self.kept.get(self.kept.len() / 2).copied().unwrap_or(0)
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
        dataset
            .scan(slice, &mut |row| {
                rows.push(row);
                Ok(())
            })
            .unwrap();
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
        assert_eq!(dataset.cut_ms % 86_400_000, 0);
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
    fn the_middle_moment_is_found_in_bounded_memory() {
        let mut moments = Moments::default();
        (0..1_000_000).for_each(|at| moments.add(at));
        assert!(moments.kept.len() < MOMENTS);
        let middle = moments.middle();
        assert!((480_000..520_000).contains(&middle), "{middle}");
        assert_eq!(Moments::default().middle(), 0);
    }
}
