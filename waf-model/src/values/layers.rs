//! One more decoding of a value that was decoded before.

use crate::decode::{base64_text, html_text, js_text, percent_text};

/// The next layer of `value`: what is left after undoing the first of percent encoding, HTML character
/// references, backslash escapes and base64 that is there. `None`, without allocating, for most values.
pub(super) fn deeper(value: &[u8]) -> Option<Vec<u8>> {
    let next = match memchr::memchr3(b'%', b'&', b'\\', value) {
        Some(_) => percent_text(value).or_else(|| html_text(value)).or_else(|| js_text(value)),
        None => base64_text(value),
    };
    next.filter(|next| next != value)
}
