//! Learns models from what the gateway logged.
//!
//! Modules, in reading order; each uses only modules above it:
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod durable;

pub mod state;

pub mod lake;

pub mod ingest;

pub mod sanitize;

pub mod dataset;

pub mod conformal;

pub mod sample;

pub mod train;

pub mod calibrate;

pub mod gate;

pub mod publish;
