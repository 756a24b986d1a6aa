//! Recent: the latest few answers. The elements of an array bring the same few names in turn, and each is looked at
//! once.

/// Answers that are kept: objects in arrays seldom have more fields.
const SLOTS: usize = 8;

/// The latest few answers of `find`, by what was asked.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    slots: [Option<(K, V)>; SLOTS],
    next: usize,
}

impl<K: Copy + PartialEq, V: Clone> Recent<K, V> {
    /// Nothing was asked yet.
    pub(crate) fn new() -> Self {
        Self { slots: [const { None }; SLOTS], next: 0 }
    }

    /// The answer to `asked`, from memory where it is one of the latest.
    pub(crate) fn recall(&mut self, asked: K, find: impl FnOnce() -> V) -> V {
        // What comes in turn was answered longest ago, and lies where the next answer would go.
        let (newer, older) = self.slots.split_at(self.next);
        if let Some((_, known)) = older.iter().chain(newer).flatten().find(|(key, _)| *key == asked) {
            return known.clone();
        }
        let value = find();
        if let Some(slot) = self.slots.get_mut(self.next) {
            *slot = Some((asked, value.clone()));
        }
        self.next = (self.next + 1) % SLOTS;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_turn_is_answered_once_and_nothing_is_mixed_up() {
        let mut recent = Recent::new();
        let mut found = 0;
        for round in 0..50 {
            for name in ["sku", "quantity", "price"] {
                let answer = recent.recall(name, || {
                    found += 1;
                    name.len()
                });
                assert_eq!(answer, name.len(), "round {round}");
            }
        }
        assert_eq!(found, 3);
        for number in 0..100 {
            assert_eq!(recent.recall(["a", "b", "c"][number % 3], || number % 3), number % 3);
        }
        let mut wide = Recent::new();
        for number in (0..40).chain(0..40) {
            assert_eq!(wide.recall(number, || number * 2), number * 2);
        }
    }
}
