//! Patterns with macros, `^(?:%{tx.allowed_charsets})$`: what they are is known only while a request is looked at.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use regex::bytes::Regex;

use super::{pattern, template::Template};

/// A pattern with macros.
#[derive(Debug)]
pub(super) struct LatePattern {
    template: Template,
    /// The last text and the pattern it is, if it is one. Macros in patterns hold settings, which do not change.
    last: Mutex<Option<(Vec<u8>, Option<Arc<Regex>>)>>,
}

impl LatePattern {
    pub(super) fn new(template: Template) -> Self {
        Self { template, last: Mutex::default() }
    }

    pub(super) fn template(&self) -> &Template {
        &self.template
    }

    pub(super) fn template_mut(&mut self) -> &mut Template {
        &mut self.template
    }

    /// Where `text` matches the pattern that reads `written`; nowhere if that is no pattern, which cannot be told
    /// any earlier.
    pub(super) fn find(&self, written: Vec<u8>, text: &[u8]) -> Option<Range<usize>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(known, _)| *known != written) {
            let pattern = std::str::from_utf8(&written).ok().and_then(|written| pattern::small(written).ok());
            *last = Some((written, pattern.map(Arc::new)));
        }
        let pattern = last.as_ref().and_then(|(_, pattern)| pattern.clone());
        drop(last);
        pattern?.find(text).map(|found| found.range())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_follows_the_macros() {
        let late = LatePattern::new(Template::default());
        let find = |pattern: &str, text: &str| late.find(pattern.into(), text.as_bytes());
        assert_eq!(find("^a|b$", "xb"), Some(1..2));
        assert_eq!(find("^a|b$", "xc"), None);
        assert_eq!(find("c", "xc"), Some(1..2));
        // No pattern, one that is not linear, and one that is too large.
        for wrong in ["(", "(?=a)a", "(?:a{1000}){1000}"] {
            assert_eq!(find(wrong, "a("), None, "{wrong}");
        }
    }
}
