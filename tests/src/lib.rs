//! What the end-to-end tests, the demo and the benchmarks share: real processes, an example origin, a client.
//!
//! Modules, in reading order:

pub mod ports;

pub mod process;

pub mod shop;

pub mod origin;

pub mod responder;

pub mod client;

pub mod asking;

pub mod redis_server;

pub mod gateway;

pub mod pebble;

pub mod handshake;

pub mod trainer;

pub mod crowd;
pub mod echo;

pub mod teacher;

pub mod load;

pub mod nginx;

pub mod mmdb;
