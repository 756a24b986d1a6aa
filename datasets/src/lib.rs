//! Traffic to learn from and to test with: readers of labelled requests, and generators of benign clients and of
//! attackers for an example shop.
//!
//! What is generated is seeded: the same seed gives the same requests on every machine. The generators know the
//! shop's API ([`shop`]), not the gateway in front of it. Modules, in reading order:
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod labelled;

pub mod request;

pub mod shop;

pub mod text;

pub mod snippet;

pub mod identity;

mod headers;

pub mod benign;

pub mod payload;

pub mod attackers;

pub mod mutate;

pub mod traffic;
