//! A dataset from the lake: sanitized, cut by time and by client.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
};

use anyhow::Result;
use waf_model::{
    event::{Event, ReviewVerdict, Verdict},
    keys,
    observation::ValueKey,
};

use super::{Extent, LeftOut, Row, Slice, spread};
use crate::{
    lake::{Lake, columns::Head, day::Day},
    sanitize::{ClientCap, NetworkCap, Removal, Sanitizer, Use},
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
    networks: NetworkCap,
    /// Of the training slice.
    moments: Moments,
    left_out: LeftOut,
    extent: Extent,
}

impl LakeDataset {
    /// Three passes over the heads in `lake`: what each client did; then what is left, and the middle of its time;
    /// then what each network gives of the rows to train on.
    ///
    /// # Errors
    /// The lake cannot be read.
    pub fn plan(lake: Lake, key: ValueKey) -> Result<Self> {
        let mut sanitizer = Sanitizer::new(keys::key_id(&key), &lake.reviews()?);
        lake.scan_heads(|event| {
            sanitizer.note(event);
            Ok(())
        })?;
        sanitizer.rewind();
        let mut extent = Extent { window_ms: (u64::MAX, 0), ..Extent::default() };
        let mut clients = HashSet::new();
        let mut moments = Moments::default();
        lake.scan_heads(|event| {
            extent.read += 1;
            match sanitizer.judge(event, Use::Calibrate) {
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
        let mut dataset = Self {
            lake,
            key,
            sanitizer: RefCell::new(sanitizer),
            cut_ms,
            networks: NetworkCap::default(),
            moments: Moments::default(),
            left_out: LeftOut::default(),
            extent,
        };
        dataset.count_networks()?;
        Ok(dataset)
    }

    fn count_networks(&mut self) -> Result<()> {
        let mut networks = NetworkCap::default();
        let mut pass = Pass::new(self);
        self.lake.scan_heads(|event| {
            if pass.is_candidate(event, Slice::Train) {
                networks.note(event);
            }
            Ok(())
        })?;
        let mut left_out = pass.left_out;
        let mut capped = 0;
        self.networks = networks;
        let mut moments = Moments::default();
        let mut pass = Pass::new(self);
        self.lake.scan_heads(|event| {
            if pass.is_candidate(event, Slice::Train) {
                if self.networks.admit(event) {
                    moments.add(event.at_ms);
                } else {
                    capped += 1;
                }
            }
            Ok(())
        })?;
        self.moments = moments;
        if capped > 0 {
            left_out.insert(Removal::NetworkCap.name().to_owned(), capped);
        }
        self.extent.left_out = left_out;
        Ok(())
    }

    pub(super) fn scan(&self, slice: Slice, take: &mut dyn FnMut(Row) -> Result<()>) -> Result<()> {
        let mut pass = Pass::new(self);
        self.lake.scan_wanted(|event| pass.wants(event, slice), |event| take(self.row(event)))
    }

    pub(super) fn scan_judged(
        &self,
        verdict: ReviewVerdict,
        take: &mut dyn FnMut([u8; 16], Row) -> Result<()>,
    ) -> Result<()> {
        if self.judged(verdict) == 0 {
            return Ok(());
        }
        let mut seen = HashSet::new();
        self.lake.scan_wanted(
            |event| self.sanitizer.borrow().is_judged(event, verdict) && seen.insert(event.id),
            |event| take(event.id, self.row(event)),
        )
    }

    pub(super) fn judged(&self, verdict: ReviewVerdict) -> usize {
        self.sanitizer.borrow().judged(verdict)
    }

    pub(super) fn times(&self, parts: usize) -> Vec<u64> {
        self.moments.cut(parts)
    }

    pub(super) fn leave_out(&mut self, left_out: LeftOut) {
        if left_out.rows > 0 {
            self.extent.left_out.insert(Removal::OddInTime.name().to_owned(), left_out.rows);
        }
        self.left_out = left_out;
    }

    pub(super) fn value_key(&self) -> ValueKey {
        self.key
    }

    pub(super) fn extent(&self) -> &Extent {
        &self.extent
    }

    /// The slice of an event; none if its client belongs to one slice and its time to the other.
    fn slice(&self, event: &Head<'_>) -> Option<Slice> {
        let early = event.at_ms < self.cut_ms;
        match spread(event.client, "slice") % 100 {
            part if part < TRAIN_CLIENTS => early.then_some(Slice::Train),
            part if part < TRAIN_CLIENTS + CALIBRATE_CLIENTS => (!early).then_some(Slice::Calibrate),
            _ => (!early).then_some(Slice::Holdout),
        }
    }

    fn row(&self, event: Event) -> Row {
        let harmless = self.sanitizer.borrow().is_judged(&Head::of(&event), ReviewVerdict::FalsePositive);
        Row {
            at_ms: event.at_ms,
            client: event.client,
            network: event.network,
            route: event.route,
            harmless,
            observation: event.observation,
            client_vector: Some(event.client_vector),
        }
    }
}

/// One pass over the heads: decides which are rows of a slice. Every pass decides alike.
struct Pass<'a> {
    dataset: &'a LakeDataset,
    clients: ClientCap,
    /// Candidates of the training slice that no cap left out, so far.
    number: u64,
    left_out: BTreeMap<String, u64>,
}

impl<'a> Pass<'a> {
    fn new(dataset: &'a LakeDataset) -> Self {
        dataset.sanitizer.borrow_mut().rewind();
        Self { dataset, clients: ClientCap::default(), number: 0, left_out: BTreeMap::new() }
    }

    /// Whether the event is clean, of `slice`, and within what its client may give.
    fn is_candidate(&mut self, event: &Head<'_>, slice: Slice) -> bool {
        let purpose = if slice == Slice::Train { Use::Train } else { Use::Calibrate };
        let removal = self.dataset.sanitizer.borrow_mut().judge(event, purpose);
        if self.dataset.slice(event) != Some(slice) {
            return false;
        }
        // Calibration needs all that a client did: evidence accumulates.
        let capped = removal.is_none() && slice == Slice::Train && !self.clients.admit(event);
        let removal = if capped { Some(Removal::ClientCap) } else { removal };
        // What the last model rejected counts among the clean requests, but is not trained on.
        let flagged = removal == Some(Removal::Verdict) && event.verdict == Verdict::Model;
        if slice == Slice::Train && (capped || flagged) {
            let name = removal.map_or("", Removal::name);
            *self.left_out.entry(name.to_owned()).or_default() += 1;
        }
        removal.is_none()
    }

    fn wants(&mut self, event: &Head<'_>, slice: Slice) -> bool {
        if !self.is_candidate(event, slice) {
            return false;
        }
        if slice != Slice::Train {
            return true;
        }
        if !self.dataset.networks.admit(event) {
            return false;
        }
        let number = self.number;
        self.number += 1;
        let LeftOut { numbers, clients, .. } = &self.dataset.left_out;
        !numbers.contains(&number) && !clients.contains(&event.client)
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
