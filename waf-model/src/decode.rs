//! Transformations: total functions from bytes to bytes, named as SecLang names them.

use std::borrow::Cow;

mod base64;
mod comment;
mod digest;
mod escape;
mod hex;
mod html;
mod path;
mod percent;
mod space;
mod unicode;

pub(crate) use base64::text as base64_text;
pub(crate) use escape::{js_number, js_text};
pub(crate) use html::decode_text as html_text;
pub(crate) use percent::{decode as percent_decode, decode_text as percent_text, form_decode};

/// A transformation, as in SecLang's `t:` action. Semantics follow the reference manual of ModSecurity v3;
/// where it is silent, the form that reveals more of an attack is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transformation {
    /// Changes nothing; in a rule it discards the transformations named before it.
    None,
    /// ASCII to lower case.
    Lowercase,
    /// ASCII to upper case.
    Uppercase,
    /// Percent decoding with `+` as space; a bad escape stays as it is.
    UrlDecode,
    /// Percent decoding with `+` as space and the IIS form `%uXXXX`.
    UrlDecodeUni,
    /// Percent encoding with space as `+`.
    UrlEncode,
    /// HTML character references.
    HtmlEntityDecode,
    /// JavaScript escapes.
    JsDecode,
    /// CSS 2 escapes.
    CssDecode,
    /// ANSI C escapes; an unknown one stays as it is.
    EscapeSeqDecode,
    /// Base64 up to the first byte that is not base64.
    Base64Decode,
    /// Base64, bytes that are not base64 skipped.
    Base64DecodeExt,
    /// Bytes to base64 with padding.
    Base64Encode,
    /// Pairs of hexadecimal digits to bytes; other input stays as it is.
    HexDecode,
    /// Bytes to pairs of lower-case hexadecimal digits.
    HexEncode,
    /// Removes double slashes, self references and back references.
    NormalizePath,
    /// Like [`Self::NormalizePath`], with backslashes taken as slashes.
    NormalizePathWin,
    /// Every run of white space becomes one space.
    CompressWhitespace,
    /// Removes white space.
    RemoveWhitespace,
    /// Removes NUL bytes.
    RemoveNulls,
    /// NUL bytes become spaces.
    ReplaceNulls,
    /// Removes C, HTML, SQL and shell comments.
    RemoveComments,
    /// Every C comment becomes one space.
    ReplaceComments,
    /// Removes the marks that start and end comments, but not their text.
    RemoveCommentsChar,
    /// Undoes shell evasions: quotes, carets, spaces before `/` and `(`, case.
    CmdLine,
    /// Multi-byte UTF-8 sequences become `%uXXXX`.
    Utf8ToUnicode,
    /// Removes white space at both ends.
    Trim,
    /// Removes white space at the start.
    TrimLeft,
    /// Removes white space at the end.
    TrimRight,
    /// The length in bytes, as decimal text.
    Length,
    /// The raw SHA-1 digest.
    Sha1,
}

impl Transformation {
    /// The transformation called `name` in a `t:` action, in any case; `None` if there is none.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, found)| *found)
    }

    /// Applies the transformation. Borrowed output means that nothing changed, owned that something did.
    ///
    /// Total on any input; linear in time; the output is at most four times as long as the input, or 20 bytes.
    pub fn apply(self, input: &[u8]) -> Cow<'_, [u8]> {
        let changed = match self {
            Self::None => None,
            Self::Lowercase => input.iter().any(u8::is_ascii_uppercase).then(|| input.to_ascii_lowercase()),
            Self::Uppercase => input.iter().any(u8::is_ascii_lowercase).then(|| input.to_ascii_uppercase()),
            Self::UrlDecode => percent::url_decode(input),
            Self::UrlDecodeUni => percent::url_decode_uni(input),
            Self::UrlEncode => Some(percent::encode(input)),
            Self::HtmlEntityDecode => html::decode(input),
            Self::JsDecode => escape::js(input),
            Self::CssDecode => escape::css(input),
            Self::EscapeSeqDecode => escape::ansi_c(input),
            Self::Base64Decode => Some(base64::decode(input)),
            Self::Base64DecodeExt => Some(base64::decode_skipping(input)),
            Self::Base64Encode => Some(base64::encode(input)),
            Self::HexDecode => hex::decode(input),
            Self::HexEncode => Some(hex::encode(input)),
            Self::NormalizePath => Some(path::normalize(input)),
            Self::NormalizePathWin => Some(path::normalize_windows(input)),
            Self::CompressWhitespace => space::compress(input),
            Self::RemoveWhitespace => space::remove(input),
            Self::RemoveNulls => {
                memchr::memchr(0, input).map(|_| input.iter().copied().filter(|byte| *byte != 0).collect())
            }
            Self::ReplaceNulls => memchr::memchr(0, input)
                .map(|_| input.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect()),
            Self::RemoveComments => comment::remove(input),
            Self::ReplaceComments => comment::replace(input),
            Self::RemoveCommentsChar => comment::remove_marks(input),
            Self::CmdLine => Some(space::command_line(input)),
            Self::Utf8ToUnicode => unicode::escape(input),
            Self::Trim => Some(space::trim_left(space::trim_right(input)).to_vec()),
            Self::TrimLeft => Some(space::trim_left(input).to_vec()),
            Self::TrimRight => Some(space::trim_right(input).to_vec()),
            Self::Length => Some(input.len().to_string().into_bytes()),
            Self::Sha1 => Some(digest::sha1(input).to_vec()),
        };
        match changed {
            Some(output) if output != input => Cow::Owned(output),
            _ => Cow::Borrowed(input),
        }
    }
}

/// Every name that [`Transformation::from_name`] knows, with both spellings where the manual has two.
const NAMES: [(&str, Transformation); 33] = [
    ("none", Transformation::None),
    ("lowercase", Transformation::Lowercase),
    ("uppercase", Transformation::Uppercase),
    ("urlDecode", Transformation::UrlDecode),
    ("urlDecodeUni", Transformation::UrlDecodeUni),
    ("urlEncode", Transformation::UrlEncode),
    ("htmlEntityDecode", Transformation::HtmlEntityDecode),
    ("jsDecode", Transformation::JsDecode),
    ("cssDecode", Transformation::CssDecode),
    ("escapeSeqDecode", Transformation::EscapeSeqDecode),
    ("base64Decode", Transformation::Base64Decode),
    ("base64DecodeExt", Transformation::Base64DecodeExt),
    ("base64Encode", Transformation::Base64Encode),
    ("hexDecode", Transformation::HexDecode),
    ("hexEncode", Transformation::HexEncode),
    ("normalizePath", Transformation::NormalizePath),
    ("normalisePath", Transformation::NormalizePath),
    ("normalizePathWin", Transformation::NormalizePathWin),
    ("normalisePathWin", Transformation::NormalizePathWin),
    ("compressWhitespace", Transformation::CompressWhitespace),
    ("removeWhitespace", Transformation::RemoveWhitespace),
    ("removeNulls", Transformation::RemoveNulls),
    ("replaceNulls", Transformation::ReplaceNulls),
    ("removeComments", Transformation::RemoveComments),
    ("replaceComments", Transformation::ReplaceComments),
    ("removeCommentsChar", Transformation::RemoveCommentsChar),
    ("cmdLine", Transformation::CmdLine),
    ("utf8toUnicode", Transformation::Utf8ToUnicode),
    ("trim", Transformation::Trim),
    ("trimLeft", Transformation::TrimLeft),
    ("trimRight", Transformation::TrimRight),
    ("length", Transformation::Length),
    ("sha1", Transformation::Sha1),
];

/// Every transformation.
#[cfg(test)]
pub(crate) const ALL: [Transformation; 31] = {
    let mut all = [Transformation::None; 31];
    let (mut index, mut count) = (0, 0);
    while index < NAMES.len() {
        // Two spellings of one follow each other.
        if index == 0 || NAMES[index].1 as usize != NAMES[index - 1].1 as usize {
            all[count] = NAMES[index].1;
            count += 1;
        }
        index += 1;
    }
    all
};

#[cfg(test)]
mod tests;
