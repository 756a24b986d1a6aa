//! One connection to an origin, driven by whoever uses it: no task of its own, so that a request wakes nobody else.

use std::{
    pin::Pin,
    task::{Context, Waker},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;

use super::{connect::Stream, fault::SendError};
use crate::body::Body;

/// An HTTP/1.1 connection. It carries one exchange at a time.
pub(super) struct Link {
    sender: http1::SendRequest<Body>,
    connection: Box<http1::Connection<TokioIo<Stream>, Body>>,
    is_closed: bool,
    idle_since: Instant,
}

impl Link {
    /// Takes a connection that was just opened.
    ///
    /// # Errors
    /// The connection broke at once.
    pub(super) async fn new(stream: Stream) -> Result<Self, SendError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(SendError::from)?;
        let connection = Box::new(connection);
        let mut link = Self { sender, connection, is_closed: false, idle_since: Instant::now() };
        // The connection takes requests once it was polled.
        link.is_usable();
        Ok(link)
    }

    /// Sends a request and waits for the response's head. The body comes as far as the connection is
    /// [driven](Self::drive).
    ///
    /// # Errors
    /// What the connection says.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let mut response = std::pin::pin!(self.sender.send_request(request));
        let (connection, is_closed) = (&mut self.connection, &mut self.is_closed);
        std::future::poll_fn(|context| {
            if !*is_closed {
                *is_closed = Pin::new(connection.as_mut()).poll(context).is_ready();
            }
            response.as_mut().poll(context)
        })
        .await
    }

    /// Moves what can be moved.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        if !self.is_closed {
            // Whatever ended it is also told to the body that was coming.
            self.is_closed = Pin::new(self.connection.as_mut()).poll(context).is_ready();
        }
    }

    /// Whether it can take another request; looks whether the origin has closed it meanwhile.
    pub(super) fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.is_closed && self.sender.is_ready()
    }

    /// What is left of it after the protocol was switched: the stream, and what was read beyond the response.
    pub(super) fn into_stream(self) -> (Stream, Bytes) {
        let parts = self.connection.into_parts();
        (parts.io.into_inner(), parts.read_buf)
    }

    /// Since when it waits for a request.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Notes that it waits from now on.
    pub(super) fn rest(&mut self) {
        self.idle_since = Instant::now();
    }
}
