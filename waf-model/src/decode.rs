//! Transformations: total functions from bytes to bytes, named as SecLang names them.

use std::borrow::Cow;

/// A transformation, as in SecLang's `t:` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transformation {
    /// ASCII to lower case.
    Lowercase,
    /// Percent decoding with `+` as space; a bad escape stays as it is.
    UrlDecode,
    /// Percent decoding with `+` as space and the IIS form `%uXXXX`.
    UrlDecodeUni,
    /// HTML character references.
    HtmlEntityDecode,
    /// JavaScript escapes.
    JsDecode,
}

impl Transformation {
    /// Applies the transformation. Borrowed output means that nothing changed.
    pub fn apply<'a>(self, input: &'a [u8]) -> Cow<'a, [u8]> {
        Cow::Borrowed(input)
    }
}
