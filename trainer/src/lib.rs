//! Learns models from what the gateway logged.
//!
//! Read `pipeline.rs` first: it is the learning path on one screen.
//!
//! Modules; each uses only modules above it:
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

pub mod micro;

pub mod drift;

pub mod calibrate;

pub mod robust;

pub mod gate;

pub mod publish;

pub mod evaluate;

pub mod rules;

pub mod backtest;

pub mod report;

pub mod pipeline;

pub mod service;

pub mod base;

pub mod cli;
