//! Urlencoded pairs, of a query or a form.

use crate::{
    decode::form_decode,
    values::{Collector, Location},
};

/// Adds every `name=value` of `input`; a pair without `=` is a name with an empty value.
pub(crate) fn collect<'a>(input: &'a [u8], location: Location, out: &mut Collector<'a>) {
    for pair in input.split(|byte| *byte == b'&') {
        if out.is_full() {
            return;
        }
        if pair.is_empty() {
            continue;
        }
        let (name, value) = split_pair(pair);
        out.push(location, form_decode(name), form_decode(value));
    }
}

/// Both sides of the first `=`.
pub(crate) fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', pair).and_then(|at| pair.split_at_checked(at)) {
        Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
        None => (pair, b""),
    }
}

/// Whether `input` starts with a name as forms have it, and `=`.
pub(super) fn looks_like(input: &[u8]) -> bool {
    let (name, _) = split_pair(input);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.[]%+$@:".contains(byte);
    name.len() < input.len() && !name.is_empty() && name.iter().all(plain)
}
