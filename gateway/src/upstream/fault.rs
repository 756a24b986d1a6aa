//! What can go wrong between a request that is sent and the head of its response.

use crate::error::Fault;

/// Why no response came.
#[derive(Debug)]
pub(super) enum SendError {
    /// No connection.
    Unreachable(String),
    /// The connection closed before any part of a response.
    Closed(String),
    /// What came is not HTTP, or not all of it.
    Broken(String),
    /// Nothing came in time.
    Timeout,
    /// It cannot be sent at all.
    Fault(Fault),
}

impl From<Fault> for SendError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<hyper::Error> for SendError {
    fn from(error: hyper::Error) -> Self {
        let text = causes(&error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let left = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        if left || is_reset(&error) { Self::Closed(text) } else { Self::Broken(text) }
    }
}

impl SendError {
    /// The fault that the request ends with.
    pub(super) fn into_fault(self) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Timeout => Fault::UpstreamTimeout,
            Self::Unreachable(text) => Fault::UpstreamUnreachable(text),
            Self::Closed(text) | Self::Broken(text) => Fault::UpstreamBroken(text),
        }
    }
}

fn is_reset(error: &hyper::Error) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
        })
    })
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| cause.source())
}
