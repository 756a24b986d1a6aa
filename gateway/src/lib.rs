//! Portcullis: an API gateway with the web application firewall inside.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]


pub mod block_list;
pub mod config;
pub mod store;
pub mod telemetry;
pub mod waf;
