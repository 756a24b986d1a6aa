//! End-to-end tests: the built programs, real sockets, a real Redis. `cargo build --bins` must come before; `make
//! test` does it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod acme;
mod admin;
mod artifacts;
mod audit;
mod auth;
mod balancing;
mod bombs;
mod breaker;
mod challenger;
mod config;
mod detect;
mod drain;
mod exposure;
mod faults;
mod framing;
mod groups;
mod h2_abuse;
mod ingest;
mod inventory;
mod large;
mod leaving;
mod limits;
mod listener;
mod openapi;
mod outage;
mod parity;
mod policy;
mod protocols;
mod quick_start;
mod raw;
mod readme;
mod records;
mod reload;
mod replay;
mod review;
mod routing;
mod rules;
mod secrets;
mod streams;
mod tidy;
mod tls;
mod transform;
mod upstreams;
mod wire;
