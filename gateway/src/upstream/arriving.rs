//! A response's body on its way from the origin. It moves the connection that it comes by, and gives it back.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    connect::Stream,
    link::Link,
    origin::{InFlight, Origin},
    shared::Open,
};

/// A body that arrives; dropped before its end, the connection it comes by is closed.
pub struct ArrivingBody {
    /// `None` where there is no body.
    incoming: Option<Incoming>,
    /// What was read together with the head.
    first: Option<Frame<Bytes>>,
    /// How it broke off, kept back until the connection to the client had time to write what came before: it drops
    /// that otherwise.
    broken: Option<hyper::Error>,
    /// HTTP/1.1: the connection, and where it goes afterwards.
    link: Option<(Link, Arc<Origin>)>,
    in_flight: Option<InFlight>,
    /// HTTP/2: the stream it is.
    stream: Option<Open>,
}

/// A connection to an origin that speaks another protocol from now on.
pub struct Switched {
    /// The connection.
    pub(crate) stream: Stream,
    /// What the origin has said already.
    pub(crate) early: Bytes,
    /// The request that it counts as.
    pub(crate) in_flight: InFlight,
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

impl fmt::Debug for ArrivingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArrivingBody").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

impl ArrivingBody {
    /// A body whose connection moves by itself.
    pub(super) fn new(incoming: Incoming, in_flight: InFlight) -> Self {
        Self {
            incoming: Some(incoming),
            first: None,
            broken: None,
            link: None,
            in_flight: Some(in_flight),
            stream: None,
        }
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self { incoming: None, first: None, broken: None, link: None, in_flight: None, stream: None }
    }

    /// A body that comes by `link`, which goes back to `origin` afterwards.
    pub(super) fn by(mut self, link: Link, origin: Arc<Origin>) -> Self {
        self.link = Some((link, origin));
        self
    }

    /// A body that is one stream of many on its connection.
    pub(super) fn on(mut self, stream: Open) -> Self {
        self.stream = Some(stream);
        self
    }

    /// The connection, after the protocol was switched on it.
    pub(super) async fn switch(mut self) -> Option<Switched> {
        let (mut link, _) = self.link.take()?;
        // It has to notice that its exchange is over.
        std::future::poll_fn(|context| {
            link.drive(context);
            Poll::Ready(())
        })
        .await;
        let (stream, early) = link.into_stream();
        Some(Switched { stream, early, in_flight: self.in_flight.take()? })
    }

    /// Takes what has come already: most bodies are whole then, and their connection is free for the next request.
    pub(super) async fn look_ahead(&mut self) {
        std::future::poll_fn(|context| {
            if http_body::Body::is_end_stream(self) {
                self.end(context);
            } else if let Poll::Ready(Some(Ok(frame))) = self.advance(context) {
                self.first = Some(frame);
            }
            Poll::Ready(())
        })
        .await;
    }

    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        use http_body::Body as _;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let mut frame = Pin::new(&mut *incoming).poll_frame(context);
        if frame.is_pending()
            && let Some((link, _)) = &mut self.link
        {
            link.drive(context);
            frame = Pin::new(&mut *incoming).poll_frame(context);
        }
        match &frame {
            Poll::Ready(None) => self.end(context),
            Poll::Ready(Some(Ok(_))) if incoming.is_end_stream() => self.end(context),
            _ => {}
        }
        if let Poll::Ready(Some(Err(error))) = frame {
            self.link = None;
            self.release();
            self.broken = Some(error);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        frame
    }

    fn release(&mut self) {
        self.in_flight = None;
        self.stream = None;
    }

    fn end(&mut self, context: &mut Context<'_>) {
        self.release();
        if let Some((mut link, origin)) = self.link.take() {
            // The connection notices that the exchange is over. If the origin answered before it had the whole
            // request, it is not, and the connection is good for nothing more.
            link.drive(context);
            if link.is_usable() {
                origin.keep(link);
            }
        }
    }
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(frame) = self.first.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.broken.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => self.advance(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none()
            && self.broken.is_none()
            && self.incoming.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let Some(incoming) = &self.incoming else { return SizeHint::with_exact(0) };
        let rest = incoming.size_hint();
        let taken = self.first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(taken));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(taken));
        }
        hint
    }
}
