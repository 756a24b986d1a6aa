//! What one request says, what is normal for this site, and how far apart the two are.
//!
//! The crate is pure: no I/O, no clock, no async, no linfa. The gateway and the trainer both use it, so that
//! training and serving cannot differ. Every function is total: bad input is a finding, never a panic.
//!
//! Modules, in reading order; each uses only modules above it:
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

#[cfg(test)]
mod tests;

pub mod request;

pub mod decode;

pub mod values;

pub mod body;

pub mod extract;

pub mod mask;

pub mod secrets;

pub mod shape;

pub mod memo;

mod recent;

mod repeats;

pub mod injection;

pub mod rules;

pub mod score;

pub mod base;

pub mod observation;

pub mod profile;

pub mod client;

pub mod features;

pub mod model;

pub mod artifact;

pub mod event;

pub mod full_record;

pub mod segment;

pub mod keys;
