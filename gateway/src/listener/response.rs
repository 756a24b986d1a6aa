//! The body of a response over HTTP/2 on its way to the client: who waits for whom.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::wire::WireState;
use crate::body::{Body, BoxError};

/// What each part of a response earns its client: frames that open windows.
const PART: u64 = 4;

/// A body that says when it waits for the client. Over HTTP/2 a client that opens no window stops no bytes on the wire.
pub(super) struct Offered {
    body: Body,
    state: Arc<WireState>,
    is_offered: bool,
}

impl Offered {
    pub(super) fn new(body: Body, state: Arc<WireState>) -> Self {
        // The HTTP library asks for the first part when the client may get it.
        state.offer();
        Self { body, state, is_offered: true }
    }
}

impl http_body::Body for Offered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_offered {
            self.is_offered = false;
            self.state.taken();
        }
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            let size = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.state.earn(PART + size / 1024);
            self.state.offer();
            self.is_offered = true;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if self.is_offered {
            self.state.taken();
        }
    }
}
