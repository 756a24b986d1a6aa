//! Response bodies: the first part is held for inspection, then it goes on unchanged, and the rest streams.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use waf_model::request::BodyExtent;

use super::{Body, BoxError, joined};

/// A body that arrives by a connection.
pub trait Arriving: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static {}

impl<B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static> Arriving for B {}

/// A response body of which the first part was held.
#[derive(Debug)]
pub struct Held<B> {
    first: Bytes,
    end: End<B>,
    length: Length,
}

/// Whether the upstream said how long its body is. What it did not say is not said to the client either, so that the
/// message is framed as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Said,
    Unsaid,
}

impl Length {
    fn of(body: &impl http_body::Body) -> Self {
        if body.size_hint().exact().is_some() { Self::Said } else { Self::Unsaid }
    }
}

/// What comes after the held part.
#[derive(Debug)]
enum End<B> {
    /// More of the body.
    Rest(B),
    /// Only trailers.
    Trailers(HeaderMap),
    /// Nothing.
    Nothing,
    /// The upstream broke off.
    Broken(hyper::Error),
}

/// Holds `body` until it ends, has more than `most` bytes, or `time` is over.
pub async fn hold<B: Arriving>(mut body: B, most: usize, time: Duration) -> Held<B> {
    let deadline = Instant::now() + time;
    let length = Length::of(&body);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    let end = loop {
        if body.is_end_stream() {
            break End::Nothing;
        }
        if first.len() + more.len() > most {
            break End::Rest(body);
        }
        let Ok(frame) = timeout_at(deadline, body.frame()).await else { break End::Rest(body) };
        match frame.map(|frame| frame.map(Frame::into_data)) {
            None => break End::Nothing,
            Some(Err(error)) => break End::Broken(error),
            Some(Ok(Ok(data))) if first.is_empty() => first = data,
            Some(Ok(Ok(data))) => more.extend_from_slice(&data),
            Some(Ok(Err(frame))) => {
                if let Ok(trailers) = frame.into_trailers() {
                    break End::Trailers(trailers);
                }
            }
        }
    };
    Held { first: joined(first, more), end, length }
}

impl<B: Arriving> Held<B> {
    /// A body of which nothing is held.
    pub fn nothing(body: B) -> Self {
        Self { first: Bytes::new(), length: Length::of(&body), end: End::Rest(body) }
    }

    /// The held part.
    pub fn bytes(&self) -> &[u8] {
        &self.first
    }

    /// Whether the held part is the whole body.
    pub fn extent(&self) -> BodyExtent {
        match &self.end {
            End::Rest(rest) if !rest.is_end_stream() => BodyExtent::Truncated,
            End::Broken(_) => BodyExtent::Truncated,
            End::Rest(_) | End::Trailers(_) | End::Nothing => BodyExtent::Complete,
        }
    }

    /// The body as the upstream sent it.
    pub fn forward(self) -> Body {
        match self.end {
            End::Rest(rest) if self.first.is_empty() => rest.map_err(BoxError::from).boxed_unsync(),
            end => {
                let first = Some(self.first).filter(|first| !first.is_empty());
                Replay { first, end, length: self.length, paused: false }.boxed_unsync()
            }
        }
    }
}

struct Replay<B> {
    first: Option<Bytes>,
    end: End<B>,
    length: Length,
    /// Whether the connection had time to write what came before an error, which it would drop otherwise.
    paused: bool,
}

impl<B: Arriving> http_body::Body for Replay<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let End::Rest(rest) = &mut self.end {
            let frame = ready!(Pin::new(rest).poll_frame(context));
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        if matches!(self.end, End::Broken(_)) && !self.paused {
            self.paused = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(match std::mem::replace(&mut self.end, End::Nothing) {
            End::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            End::Broken(error) => Some(Err(error.into())),
            End::Nothing | End::Rest(_) => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none()
            && match &self.end {
                End::Rest(rest) => rest.is_end_stream(),
                End::Nothing => self.length == Length::Said,
                End::Trailers(_) | End::Broken(_) => false,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        match &self.end {
            End::Rest(rest) => {
                let rest = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(first));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(first));
                }
                hint
            }
            End::Nothing if self.length == Length::Said => SizeHint::with_exact(first),
            // A length that was announced stands in the headers.
            End::Nothing | End::Trailers(_) | End::Broken(_) => SizeHint::new(),
        }
    }
}
