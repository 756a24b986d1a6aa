//! Memo: verdicts on texts that come again and again, such as user agents and cookies.
//!
//! Holds no text, only keyed hashes of 128 bits under a key that nobody knows: two texts are never taken for each
//! other, and nothing of a request stays in memory. A memo belongs to one thread, so that nobody waits for it.

use std::{
    cell::RefCell,
    hash::{BuildHasher as _, RandomState},
    thread::LocalKey,
};

use siphasher::sip128::SipHasher13;

/// Longest text that is remembered, in bytes: longer ones seldom come again.
const TEXT_BYTES: usize = 512;

/// Shortest text for which [`Denials`] are worth the effort, in bytes.
const SHORTEST: usize = 8;

/// Texts that are remembered at the same time.
const SLOTS: usize = 1024;

/// What is remembered of texts.
#[derive(Debug)]
pub struct Memo<V> {
    key: (u64, u64),
    slots: Vec<Slot<V>>,
}

/// A text that comes often, and the latest other one that fell on its place, each as a hash and what was found.
#[derive(Debug, Clone, Copy, Default)]
struct Slot<V> {
    often: (u128, V),
    latest: (u128, V),
}

impl<V: Copy + Default> Default for Memo<V> {
    fn default() -> Self {
        Self { key: random_key(), slots: vec![Slot::default(); SLOTS] }
    }
}

impl<V: Copy + Default> Memo<V> {
    /// What `find` says of `text`, from memory where it was asked before; `about` tells questions apart that share
    /// the memo.
    ///
    /// A text stays when it comes again before another one that falls on the same place: a flood of different texts
    /// does not displace those that come often.
    pub fn recall(
        memo: &'static LocalKey<RefCell<Self>>,
        about: u64,
        text: &[u8],
        find: impl FnOnce() -> V,
    ) -> V {
        if text.len() > TEXT_BYTES { find() } else { Self::recall_any(memo, about, text, find) }
    }

    /// The same for texts of any length: for what is much dearer than to hash them, and is asked more than once about
    /// the same request.
    pub fn recall_any(
        memo: &'static LocalKey<RefCell<Self>>,
        about: u64,
        text: &[u8],
        find: impl FnOnce() -> V,
    ) -> V {
        let (hash, known) = memo.with_borrow_mut(|memo| memo.look_up(about, text));
        known.unwrap_or_else(|| {
            let value = find();
            memo.with_borrow_mut(|memo| memo.note(hash, value));
            value
        })
    }

    fn look_up(&mut self, about: u64, text: &[u8]) -> (u128, Option<V>) {
        let hash = SipHasher13::new_with_keys(self.key.0, self.key.1 ^ about).hash(text).as_u128();
        let Some(slot) = self.slots.get_mut(place(hash)) else { return (hash, None) };
        if slot.latest.0 == hash && slot.often.0 != hash {
            std::mem::swap(&mut slot.often, &mut slot.latest);
        }
        (hash, (slot.often.0 == hash).then_some(slot.often.1))
    }

    fn note(&mut self, hash: u128, value: V) {
        if let Some(slot) = self.slots.get_mut(place(hash)) {
            slot.latest = (hash, value);
        }
    }
}

/// Questions to which the answer is no for a text; the same promises as for a [`Memo`] hold.
#[derive(Debug)]
pub struct Denials {
    key: (u64, u64),
    slots: Vec<u64>,
}

/// A text in the eyes of [`Denials`].
#[derive(Debug, Clone, Copy)]
pub struct Tag(u64);

/// Pairs of a text and a question that are remembered at the same time.
const PAIRS: usize = 1 << 14;

impl Default for Denials {
    fn default() -> Self {
        Self { key: random_key(), slots: Vec::new() }
    }
}

impl Denials {
    /// The tag of a text that is worth remembering.
    pub fn tag(&self, text: &[u8]) -> Option<Tag> {
        use std::hash::Hasher as _;
        if !(SHORTEST..=TEXT_BYTES).contains(&text.len()) {
            return None;
        }
        let mut hasher = siphasher::sip::SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(text);
        Some(Tag(hasher.finish()))
    }

    /// Whether the answer to `question` is known to be no.
    pub fn hold(&self, Tag(tag): Tag, question: u64) -> bool {
        let (at, pair) = pair(tag, question);
        self.slots.get(at) == Some(&pair)
    }

    /// Remembers that the answer to `question` is no.
    pub fn note(&mut self, Tag(tag): Tag, question: u64) {
        let (at, pair) = pair(tag, question);
        self.slots.resize(PAIRS, 0);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = pair;
        }
    }
}

/// Where a pair is kept, and what stands for it there.
fn pair(tag: u64, question: u64) -> (usize, u64) {
    // The tag is as good as random, and odd factors lose nothing of it.
    let pair = tag ^ question.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (pair as usize % PAIRS, pair)
}

fn random_key() -> (u64, u64) {
    let random = || RandomState::new().hash_one(SLOTS);
    (random(), random())
}

fn place(hash: u128) -> usize {
    hash as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static LENGTHS: RefCell<Memo<usize>> = RefCell::default();
    }

    #[test]
    fn what_comes_often_is_found_once_and_stays_through_a_flood() {
        let asked = Cell::new(0);
        let length = |text: &str| {
            Memo::recall(&LENGTHS, 0, text.as_bytes(), || {
                asked.set(asked.get() + 1);
                text.len()
            })
        };
        for _ in 0..10 {
            assert_eq!(length("a user agent"), 12);
        }
        assert_eq!(asked.get(), 1);
        for other in 0..50_000 {
            let text = format!("different {other}");
            assert_eq!(length(&text), text.len());
        }
        assert_eq!(length("a user agent"), 12);
        assert_eq!(asked.get(), 50_001);
    }

    #[test]
    fn a_no_counts_for_its_text_and_question_only() {
        let mut denials = Denials::default();
        let tag = |denials: &Denials, text: &str| denials.tag(text.as_bytes()).unwrap();
        let (one, other) = (tag(&denials, "a user agent"), tag(&denials, "another agent"));
        denials.note(one, 7);
        assert!(denials.hold(one, 7) && !denials.hold(one, 8) && !denials.hold(other, 7));
        assert!(denials.tag(b"short").is_none() && denials.tag(&[b'a'; TEXT_BYTES + 1]).is_none());
    }

    #[test]
    fn long_texts_are_not_remembered() {
        let asked = Cell::new(0);
        for _ in 0..3 {
            Memo::recall(&LENGTHS, 0, &[b'a'; TEXT_BYTES + 1], || {
                asked.set(asked.get() + 1);
                0
            });
        }
        assert_eq!(asked.get(), 3);
    }
}
