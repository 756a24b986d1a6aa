//! End-to-end tests: the built programs, real sockets, a real Redis.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod tidy;
