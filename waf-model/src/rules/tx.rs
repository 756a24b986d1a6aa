//! `TX`: the variables that rules set for one exchange.

use std::{borrow::Cow, collections::BTreeMap};

/// The place of a name that is known at load time.
pub(super) type Slot = usize;
/// The index of a text that a rule sets as it is written.
pub(super) type TextId = usize;

/// Names with their slots, and the fixed texts.
#[derive(Debug, Default)]
pub(super) struct Names {
    slots: BTreeMap<Vec<u8>, Slot>,
    /// The name of each slot, lower case.
    names: Vec<Vec<u8>>,
    texts: Vec<(Vec<u8>, i64)>,
}

impl Names {
    /// The slot of `name`, whose case does not matter.
    pub(super) fn slot(&mut self, name: &[u8]) -> Slot {
        let name = name.to_ascii_lowercase();
        if let Some(slot) = self.slots.get(&name) {
            return *slot;
        }
        self.slots.insert(name.clone(), self.names.len());
        self.names.push(name);
        self.names.len() - 1
    }

    /// Keeps a fixed text.
    pub(super) fn text(&mut self, text: &[u8]) -> TextId {
        let known = self.texts.iter().position(|(known, _)| known == text);
        known.unwrap_or_else(|| {
            self.texts.push((text.to_vec(), number(text)));
            self.texts.len() - 1
        })
    }

    /// Whether the name is that of an anomaly score, by how the Core Rule Set calls them.
    pub(super) fn is_score(&self, slot: Slot) -> bool {
        self.names.get(slot).is_some_and(|name| memchr::memmem::find(name, b"score").is_some())
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    fn fixed(&self, id: TextId) -> (&[u8], i64) {
        self.texts.get(id).map_or((b"", 0), |(text, number)| (text, *number))
    }
}

/// The leading whole number of a text, 0 if there is none: what ModSecurity compares and adds.
pub(super) fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        _ => (false, text),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let value =
        digits.fold(0i64, |sum, digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    if negative { -value } else { value }
}

/// One value.
#[derive(Debug, Clone)]
pub(super) enum Datum {
    Fixed(TextId),
    Number(i64),
    Text(Vec<u8>),
}

impl Datum {
    pub(super) fn bytes<'v>(&'v self, names: &'v Names) -> Cow<'v, [u8]> {
        match self {
            Self::Fixed(id) => Cow::Borrowed(names.fixed(*id).0),
            Self::Number(number) => Cow::Owned(number.to_string().into_bytes()),
            Self::Text(text) => Cow::Borrowed(text),
        }
    }

    pub(super) fn number(&self, names: &Names) -> i64 {
        match self {
            Self::Fixed(id) => names.fixed(*id).1,
            Self::Number(number) => *number,
            Self::Text(text) => number(text),
        }
    }
}

/// The values of one exchange.
#[derive(Debug, Clone, Default)]
pub(super) struct Tx {
    slots: Vec<Option<Datum>>,
    /// Names that rules put together from the request.
    others: BTreeMap<Vec<u8>, Datum>,
}

impl Tx {
    /// Makes room for so many names.
    pub(super) fn reserve(&mut self, count: usize) {
        self.slots.resize_with(count, || None);
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Datum> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    pub(super) fn set(&mut self, slot: Slot, value: Option<Datum>) {
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = value;
        }
    }

    /// The place of a name that may not be known; its case does not matter.
    pub(super) fn named(&self, names: &Names, name: &[u8]) -> Option<&Datum> {
        let name = name.to_ascii_lowercase();
        match names.slots.get(&name) {
            Some(slot) => self.get(*slot),
            None => self.others.get(&name),
        }
    }

    pub(super) fn set_named(&mut self, names: &Names, name: &[u8], value: Option<Datum>) {
        let name = name.to_ascii_lowercase();
        match (names.slots.get(&name), value) {
            (Some(slot), value) => self.set(*slot, value),
            (None, Some(value)) => {
                self.others.insert(name, value);
            }
            (None, None) => {
                self.others.remove(&name);
            }
        }
    }

    /// Every name and value that is set.
    pub(super) fn all<'t>(&'t self, names: &'t Names) -> impl Iterator<Item = (&'t [u8], &'t Datum)> {
        let known = names.names.iter().zip(&self.slots);
        let known = known.filter_map(|(name, value)| Some((name.as_slice(), value.as_ref()?)));
        known.chain(self.others.iter().map(|(name, value)| (name.as_slice(), value)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_read_as_far_as_they_go() {
        for (text, value) in
            [("12", 12), (" -3x", -3), ("+4", 4), ("", 0), ("x", 0), ("99999999999999999999", i64::MAX)]
        {
            assert_eq!(number(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn known_and_unknown_names() {
        let mut names = Names::default();
        let (slot, text) = (names.slot(b"Score"), names.text(b"7"));
        let mut tx = Tx::default();
        tx.set(slot, Some(Datum::Fixed(text)));
        tx.set_named(&names, b"OTHER", Some(Datum::Number(3)));
        assert_eq!(tx.named(&names, b"SCORE").unwrap().number(&names), 7);
        assert_eq!(tx.named(&names, b"other").unwrap().bytes(&names).as_ref(), b"3");
        assert_eq!(tx.all(&names).count(), 2);
        tx.set_named(&names, b"score", None);
        tx.set_named(&names, b"other", None);
        assert_eq!(tx.all(&names).count(), 0);
    }
}
