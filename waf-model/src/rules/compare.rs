//! Comparisons of texts and numbers.

use std::ops::Range;

/// How a text is compared with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    Contains,
    ContainsWord,
    BeginsWith,
    EndsWith,
    Equals,
    Within,
}

/// How a number is compared with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberTest {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl TextTest {
    /// Where `text` holds against `argument`.
    pub(super) fn find(self, text: &[u8], argument: &[u8]) -> Option<Range<usize>> {
        let all = 0..text.len();
        match self {
            Self::Contains => memchr::memmem::find(text, argument).map(|start| start..start + argument.len()),
            Self::ContainsWord => memchr::memmem::find_iter(text, argument)
                .map(|start| start..start + argument.len())
                .find(|range| {
                    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
                    ![before, text.get(range.end)].into_iter().flatten().any(|byte| is_word(*byte))
                }),
            Self::BeginsWith => text.starts_with(argument).then_some(0..argument.len()),
            Self::EndsWith => text.ends_with(argument).then(|| text.len() - argument.len()..text.len()),
            Self::Equals => (text == argument).then_some(all),
            Self::Within => memchr::memmem::find(argument, text).map(|_| all),
        }
    }
}

impl NumberTest {
    pub(super) fn holds(self, left: i64, right: i64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
