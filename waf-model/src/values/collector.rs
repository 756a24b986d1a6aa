//! Gathers values and findings within limits.

use std::borrow::Cow;

use super::{Departures, Finding, Limits, Location, Value, Values, layers};

/// The values and findings so far.
#[derive(Debug)]
pub(crate) struct Collector<'a> {
    values: Values<'a>,
    limits: Limits,
    /// Decoded bytes that may still be added.
    left: usize,
    full: bool,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { values: Values::default(), limits, left: limits.bytes, full: false }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether a limit was overrun, so that nothing more will be added.
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    pub(crate) fn note(&mut self, finding: Finding) {
        if !self.values.findings.contains(&finding) {
            self.values.findings.push(finding);
        }
    }

    /// Notes how a multipart body departs from what browsers write.
    pub(crate) fn depart(&mut self, departures: Departures) {
        self.values.departures.extend(departures);
    }

    /// Adds one value and its deeper layers. Of the one that overruns the bytes its start is kept.
    pub(crate) fn push(&mut self, location: Location, name: Cow<'a, [u8]>, value: Cow<'a, [u8]>) {
        self.add(location, name, None, value);
    }

    /// As [`Self::push`], for a value that rules call `alias`.
    pub(crate) fn push_alias(
        &mut self,
        location: Location,
        name: Cow<'a, [u8]>,
        alias: Vec<u8>,
        value: Cow<'a, [u8]>,
    ) {
        self.add(location, name, Some(alias), value);
    }

    fn add(&mut self, location: Location, name: Cow<'a, [u8]>, alias: Option<Vec<u8>>, value: Cow<'a, [u8]>) {
        if self.full {
            return;
        }
        if self.values.items.len() >= self.limits.count {
            self.full = true;
            return self.note(Finding::TooManyValues);
        }
        let name = self.take(name);
        let value = self.take(value);
        if self.full && value.is_empty() {
            return;
        }
        let mut deeper = Vec::new();
        while let Some(next) = layers::deeper(deeper.last().map_or(&*value, Vec::as_slice)) {
            if deeper.len() >= self.limits.layers {
                self.note(Finding::TooManyLayers);
                break;
            }
            if self.full {
                break;
            }
            let next = self.take(Cow::Owned(next)).into_owned();
            deeper.push(next);
        }
        self.values.items.push(Value { location, name, alias, value, deeper });
    }

    pub(crate) fn finish(mut self) -> Values<'a> {
        self.values.findings.sort_unstable();
        self.values
    }

    /// `bytes`, cut to what may still be added.
    fn take<'b>(&mut self, bytes: Cow<'b, [u8]>) -> Cow<'b, [u8]> {
        let cut = match bytes {
            bytes if bytes.len() <= self.left => bytes,
            bytes => {
                self.full = true;
                self.note(Finding::TooLarge);
                match bytes {
                    Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(..self.left).unwrap_or_default()),
                    Cow::Owned(mut bytes) => {
                        bytes.truncate(self.left);
                        Cow::Owned(bytes)
                    }
                }
            }
        };
        self.left -= cut.len();
        cut
    }
}
