//! Portcullis: an API gateway with the web application firewall inside.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]


pub mod admin;
pub mod app;
pub mod block_list;
pub mod cli;
pub mod clock;
pub mod config;
pub mod rules;
pub mod store;
pub mod telemetry;
pub mod waf;
