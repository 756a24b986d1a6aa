//! Portcullis: an API gateway with the web application firewall inside.
//!
//! Read [`pipeline`] first: it is the way of one request. Modules in reading order:
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod clock;

pub mod tls;

pub mod rules;

pub mod openapi;

pub mod config;

pub mod error;

pub mod store;

pub mod audit;

pub mod block_list;

pub mod telemetry;

pub mod inventory;

pub mod admission;

pub mod limits;

pub mod geo;

pub mod identity;

pub mod https;

pub mod router;

pub mod auth;

pub mod rate;

pub mod body;

pub mod transform;

pub mod response;

pub mod acme;

pub mod waf;

pub mod upstream;

pub mod upgrade;

pub mod pipeline;

pub mod listener;

pub mod reload;

pub mod admin;

pub mod app;

pub mod cli;
