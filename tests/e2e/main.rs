//! End-to-end tests: the built programs, real sockets, a real Redis. `cargo build --bins` must come before; `make
//! test` does it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod artifacts;
mod auth;
mod breaker;
mod challenger;
mod config;
mod detect;
mod drain;
mod ingest;
mod large;
mod outage;
mod parity;
mod protocols;
mod quick_start;
mod records;
mod replay;
mod review;
mod rules;
mod secrets;
mod tidy;
mod wire;
