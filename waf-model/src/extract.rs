//! A request to its values: path, query, headers, cookies, body.

use std::borrow::Cow;

use crate::{
    body::{self, Processor},
    decode,
    request::RequestView,
    values::{Collector, Limits, Location, Values},
};

impl<'a> Values<'a> {
    /// Takes every value out of `request`, each decoded once, within `limits`.
    ///
    /// Total on any bytes, linear in their number. What could not be read is a finding, and is then among the
    /// values as it is.
    pub fn extract(request: &RequestView<'a>, limits: &Limits) -> Self {
        let mut out = Collector::new(*limits);
        for segment in request.path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()) {
            out.push(Location::Path, Cow::Borrowed(b""), decode::percent_decode(segment));
        }
        if let Some(query) = request.query {
            body::collect_form(query, Location::Query, &mut out);
        }
        for header in request.headers.iter().filter(|header| header.name != "cookie") {
            out.push(Location::Header, Cow::Borrowed(header.name.as_bytes()), Cow::Borrowed(header.value));
        }
        for cookies in request.header_all("cookie") {
            for cookie in cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
                if !cookie.is_empty() {
                    let (name, value) = body::split_pair(cookie);
                    let (name, value) = (name.trim_ascii(), value.trim_ascii());
                    out.push(Location::Cookie, Cow::Borrowed(name), Cow::Borrowed(value));
                }
            }
        }
        body::collect(request, &mut out);
        out.finish()
    }
}

/// The values of the body of `request` read in the given way, whatever its type says.
pub(crate) fn forced_body<'a>(
    request: &RequestView<'a>,
    processor: Processor,
    limits: &Limits,
) -> Values<'a> {
    let mut out = Collector::new(*limits);
    body::collect_forced(request, processor, &mut out);
    out.finish()
}

#[cfg(test)]
mod tests;
