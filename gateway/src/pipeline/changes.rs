//! Stated changes on the way: of the request once it was inspected, and of the upstream's response once that was.

use std::{borrow::Cow, future::ready, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use tokio::time::{Instant, timeout_at};
use waf_model::{
    event::Origin,
    request::{BodyExtent, BodyView},
};

use super::{Gateway, record::Record};
use crate::{
    body::{
        Body, RequestBody,
        coding::{self, Coding},
    },
    config::{Limits, Route},
    error::{Fault, Refusal},
    identity::Identity,
    limits::shape,
    response::compression::{self, DIGESTS},
    telemetry::metrics::ChangeLabels,
    transform::{
        Facts,
        json::{Edits, NotJson},
        mask::{Beyond, Mask},
    },
};

/// What some editors begin a text with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What stands in headers and arguments for facts of the request.
#[derive(Default)]
pub(super) struct Told {
    request_id: String,
    consumer: String,
    client_address: String,
}

impl Told {
    /// The facts of a request, where the route may ask for them.
    pub(super) fn of(route: &Route, record: &Record, identity: &Identity) -> Self {
        if route.transform.is_none() {
            return Self::default();
        }
        Self {
            request_id: record.request_id.0.clone(),
            consumer: record
                .caller
                .as_ref()
                .and_then(|caller| caller.consumer())
                .unwrap_or_default()
                .to_owned(),
            client_address: identity.address.to_string(),
        }
    }

    fn facts(&self) -> Facts<'_> {
        let Self { request_id, consumer, client_address } = self;
        Facts { request_id, consumer, client_address }
    }
}

/// Whether the route has to see the whole body of a request, inspected or not.
pub(super) fn needs_body(route: &Route) -> bool {
    route.shape.needs_body()
        || route.transform.as_ref().is_some_and(|transform| !transform.request.json.is_empty())
}

/// Checks how large and how nested a body is.
///
/// # Errors
/// More than the route allows, or not to be seen as a whole though that is needed.
pub(super) fn check_shape(
    limits: &Limits,
    route: &Route,
    headers: &HeaderMap,
    body: BodyView<'_>,
) -> Result<(), Fault> {
    if !route.shape.needs_body() || (body.bytes.is_empty() && body.extent == BodyExtent::Complete) {
        return Ok(());
    }
    let (bytes, extent) = decoded(limits, headers, body);
    shape::check_body(&route.shape, headers, BodyView { bytes: &bytes, extent })
}

/// The body without its coding; nothing of it where that cannot be undone.
fn decoded<'a>(limits: &Limits, headers: &HeaderMap, body: BodyView<'a>) -> (Cow<'a, [u8]>, BodyExtent) {
    match Coding::of(headers) {
        Coding::Identity => (Cow::Borrowed(body.bytes), body.extent),
        coding => match coding::decode(coding, body.bytes, limits.inspect_bytes) {
            Some((bytes, BodyExtent::Complete)) => (bytes, body.extent),
            Some((bytes, BodyExtent::Truncated)) => (bytes, BodyExtent::Truncated),
            None => (Cow::Borrowed(b""), BodyExtent::Truncated),
        },
    }
}

/// The body of a request with the route's changes of its fields.
///
/// # Errors
/// It says that it is JSON, and is not, or is more than is inspected.
pub(super) fn request_body(
    route: &Route,
    limits: &Limits,
    headers: &mut HeaderMap,
    body: RequestBody,
) -> Result<RequestBody, Fault> {
    let Some(transform) = &route.transform else { return Ok(body) };
    let edits = &transform.request.json;
    if edits.is_empty() || body.is_empty() {
        return Ok(body);
    }
    let (text, extent) = decoded(limits, headers, body.view());
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if text.is_empty() && extent == BodyExtent::Truncated {
        // Nobody can say whether there is something to change.
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "coding_unknown").into());
    }
    if !shape::is_json(kind, &text) {
        return Ok(body);
    }
    if extent == BodyExtent::Truncated {
        return Err(Fault::BodyTooLarge);
    }
    // What begins like JSON may be taken for it by an origin that is less strict, with what was to be changed in it.
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let changed = edits
        .apply(text)
        .map_err(|NotJson| Fault::from(Refusal::new(StatusCode::BAD_REQUEST, "not_json")))?;
    forget_coding(headers);
    Ok(RequestBody::of(changed.into()))
}

/// Takes off what is said about a body as it was before.
fn forget_coding(headers: &mut HeaderMap) {
    for name in [header::CONTENT_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    for name in DIGESTS {
        headers.remove(name);
    }
}

/// Changes the target of a request.
///
/// # Errors
/// There is no such target with the changes.
pub(super) fn request_target(route: &Route, told: &Told, parts: &mut Parts) -> Result<(), Fault> {
    let Some(transform) = &route.transform else { return Ok(()) };
    let changed = transform.request.query.apply(&parts.uri, told.facts());
    if let Some(uri) = changed.map_err(|_| Fault::Malformed("request_target"))? {
        parts.uri = uri;
    }
    Ok(())
}

/// Changes the headers of a request, and asks the upstream for a body that can be changed, where one has to be.
pub(super) fn request_headers(route: &Route, told: &Told, headers: &mut HeaderMap) {
    if let Some(transform) = &route.transform {
        transform.request.headers.apply(headers, told.facts());
    }
    if edits(route).is_some() || route.responses.mask.is_some() {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        // A part may begin in the midst of what is masked.
        headers.remove(header::RANGE);
        headers.remove(header::IF_RANGE);
    }
}

/// Changes of the fields of responses, if there are any.
fn edits(route: &Route) -> Option<&Edits> {
    route.transform.as_ref().map(|transform| &transform.response.json).filter(|edits| !edits.is_empty())
}

/// The upstream's response with the route's changes and masks.
///
/// # Errors
/// It cannot be changed, or masked, as the route demands; or the upstream breaks off.
pub(super) async fn response(
    gateway: &Gateway,
    route: &Route,
    told: &Told,
    method: &Method,
    response: Response<Body>,
    record: &mut Record,
) -> Result<Response<Body>, Fault> {
    let (mut parts, body) = response.into_parts();
    // What the upstream says that it is; a change of that says nothing about the body.
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = &*kind.unwrap_or_default().to_ascii_lowercase();
    if let Some(transform) = &route.transform {
        transform.response.headers.apply(&mut parts.headers, told.facts());
    }
    let is_json = !kind.is_empty() && shape::is_json(kind, b"");
    let edits = edits(route).filter(|_| is_json);
    let is_text = kind.is_empty() || compression::is_text(kind) || kind.starts_with("text/");
    let mask = route.responses.mask.as_ref().filter(|_| is_text);
    if edits.is_none() && mask.is_none() || parts.status.is_informational() {
        return Ok(Response::from_parts(parts, body));
    }
    parts.headers.remove(header::ACCEPT_RANGES);
    if method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        // The length is that of a body that nobody looked through.
        parts.headers.remove(header::CONTENT_LENGTH);
        return Ok(Response::from_parts(parts, body));
    }
    let (most, longest) = (record.config.limits.response_inspect_bytes, record.config.limits.response_hold);
    let count = |outcome| {
        let labels = ChangeLabels { route: route.name.clone(), outcome };
        gateway.metrics.response_changes.get_or_create(&labels).inc();
    };
    let (held, rest) = hold(body, most, longest).await?;
    let coding = Coding::of(&parts.headers);
    let changed = match &rest {
        Rest::More(_) => None,
        Rest::End(_) => changed(edits, mask, is_json, coding, &held, most),
    };
    match changed {
        Some(changed) if changed == held && coding == Coding::Identity => {
            count("unchanged");
            Ok(Response::from_parts(parts, rest.after(held)))
        }
        Some(changed) => {
            count("changed");
            forget_coding(&mut parts.headers);
            compression::weaken(&mut parts.headers);
            Ok(Response::from_parts(parts, rest.after(changed.into())))
        }
        None if edits.is_none() && mask.is_some_and(|mask| mask.beyond == Beyond::Pass) => {
            count("passed");
            Ok(Response::from_parts(parts, rest.after(held)))
        }
        None => {
            count("withheld");
            record.origin = Origin::Gateway;
            Err(Refusal::new(StatusCode::BAD_GATEWAY, "response_not_masked").into())
        }
    }
}

/// The text with changes and masks; `None` if it cannot be looked through.
fn changed(
    edits: Option<&Edits>,
    mask: Option<&Mask>,
    is_json: bool,
    coding: Coding,
    held: &[u8],
    most: usize,
) -> Option<Vec<u8>> {
    let (text, BodyExtent::Complete) = coding::decode(coding, held, most.max(held.len()))? else {
        return None;
    };
    let text = match edits {
        Some(edits) => Cow::Owned(edits.apply(&text).ok()?),
        None => text,
    };
    match mask {
        // Pages take for JSON what begins like it, whatever its type.
        Some(mask) if !is_json && shape::is_json("", &text) => {
            mask.apply(&text, true).or_else(|_| mask.apply(&text, false)).ok()
        }
        Some(mask) => mask.apply(&text, is_json).ok(),
        None => Some(text.into_owned()),
    }
}

/// What comes after the part of a body that is held.
enum Rest {
    /// Nothing, or trailers.
    End(Option<HeaderMap>),
    /// More, or nothing in time.
    More(Body),
}

/// Holds a body until it ends, has more than `most` bytes, or `time` is over.
async fn hold(mut body: Body, most: usize, time: Duration) -> Result<(Bytes, Rest), Fault> {
    let deadline = Instant::now() + time;
    let mut held = BytesMut::new();
    loop {
        if held.len() > most {
            return Ok((held.freeze(), Rest::More(body)));
        }
        let Ok(frame) = timeout_at(deadline, body.frame()).await else {
            return Ok((held.freeze(), Rest::More(body)));
        };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => return Ok((held.freeze(), Rest::End(None))),
            Some(Err(error)) => return Err(Fault::UpstreamBroken(error.to_string())),
            Some(Ok(Ok(data))) => held.extend_from_slice(&data),
            Some(Ok(Err(frame))) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Ok((held.freeze(), Rest::End(Some(trailers))));
                }
            }
        }
    }
}

impl Rest {
    /// The body with `first` in place of what was held.
    fn after(self, first: Bytes) -> Body {
        match self {
            Self::End(None) => crate::body::whole(first),
            Self::End(Some(trailers)) => {
                let whole = Full::new(first).map_err(|never| match never {});
                whole.with_trailers(ready(Some(Ok(trailers)))).boxed_unsync()
            }
            Self::More(rest) => {
                let first = stream::once(ready(Ok(Frame::data(first))));
                StreamBody::new(first.chain(BodyStream::new(rest))).boxed_unsync()
            }
        }
    }
}
