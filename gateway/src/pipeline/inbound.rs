//! A request's body as rules and the model can read it: its content coding undone, within bounds. What is forwarded
//! stays as it came.

use std::{borrow::Cow, panic::catch_unwind};

use http::HeaderMap;
use waf_model::request::{BodyExtent, BodyView, Header};

use crate::{
    body::{
        Window,
        coding::{self, Coding},
    },
    config::{Limits, Oversize, Route},
    error::Fault,
    waf::decision,
};

/// Most bytes that are decoded, whatever the inspection window is.
const MOST: usize = 10 * 1024 * 1024;

/// A body that can be read, or that is left as it came.
#[derive(Debug)]
pub(super) struct Readable<'a> {
    bytes: Cow<'a, [u8]>,
    extent: BodyExtent,
    is_decoded: bool,
}

/// Undoes one content coding. A body that cannot be decoded, or that grows as no honest one does, is left as it came:
/// inspection then finds that it cannot look inside, and the route's `on_error` decides.
///
/// # Errors
/// It decodes to more than the inspection window, and the route refuses such bodies.
pub(super) fn readable<'a>(
    limits: &Limits,
    route: &Route,
    headers: &HeaderMap,
    body: BodyView<'a>,
) -> Result<Readable<'a>, Fault> {
    let as_it_came = Readable { bytes: Cow::Borrowed(body.bytes), extent: body.extent, is_decoded: false };
    let coding = Coding::of(headers);
    if coding == Coding::Identity || body.bytes.is_empty() {
        return Ok(as_it_came);
    }
    let window = limits.inspect_bytes.min(MOST);
    // A defect of a decoder costs the sight of this body, not the request.
    let decoded = catch_unwind(|| coding::decode(coding, body.bytes, window)).ok().flatten();
    let Some((bytes, extent)) = decoded else { return Ok(as_it_came) };
    let is_beyond = extent == BodyExtent::Truncated && bytes.len() >= window;
    match (body.extent, extent) {
        (BodyExtent::Complete, BodyExtent::Complete) => Ok(Readable { bytes, extent, is_decoded: true }),
        // It ends in the middle, or grew too fast.
        (BodyExtent::Complete, BodyExtent::Truncated) if !is_beyond => Ok(as_it_came),
        _ => match decision::body_window(route) {
            Window::Open(Oversize::Reject) if is_beyond => Err(Fault::BodyTooLarge),
            Window::Open(Oversize::Pass) | Window::Closed if is_beyond => {
                Ok(Readable { bytes: Cow::Borrowed(b""), extent: BodyExtent::Truncated, is_decoded: true })
            }
            _ => Ok(Readable { bytes, extent: BodyExtent::Truncated, is_decoded: true }),
        },
    }
}

impl Readable<'_> {
    /// The body to inspect.
    pub(super) fn view(&self) -> BodyView<'_> {
        BodyView { bytes: &self.bytes, extent: self.extent }
    }

    /// The fields that fit it: rules still see that there was a coding.
    pub(super) fn fields<'a>(&self, headers: &'a HeaderMap) -> Vec<Header<'a>> {
        let coded = |name: &str| self.is_decoded && name == "content-encoding";
        headers
            .iter()
            .map(|(name, value)| match name.as_str() {
                name if coded(name) => Header { name, value: b"identity" },
                name => Header { name, value: value.as_bytes() },
            })
            .collect()
    }
}
