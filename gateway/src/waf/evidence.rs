//! What is known of each client: its window and the evidence against it, in bounded memory.

use waf_model::{
    client::{ClientVector, ResponseSummary, Suspicion},
    keys::ClientKey,
    observation::Observation,
};

/// What a new block says about its client.
#[derive(Debug, Clone, PartialEq)]
pub struct Offence {
    /// How often the client has been blocked with this one, from 1.
    pub count: u32,
    /// Milliseconds since 1970 when the client was first seen.
    pub first_seen_ms: u64,
    /// Requests that added evidence, newest last.
    pub timeline: Vec<(u64, String, f32)>,
}

/// Windows and evidence of the clients seen lately; at most the configured number, least recently seen dropped.
#[derive(Debug, Default)]
pub struct Clients {}

impl Clients {
    /// Counts a request and returns the client's window as numbers.
    pub fn observe(&self, client: &ClientKey, now_ms: u64, observation: &Observation) -> ClientVector {
        let _ = (client, now_ms, observation);
        ClientVector([0.0; waf_model::client::CLIENT_FEATURES])
    }

    /// Adds what the request says; returns the evidence level after it. A client that was released lately stays
    /// at zero.
    pub fn suspect(&self, client: &ClientKey, now_ms: u64, request_id: &str, suspicion: &Suspicion) -> f32 {
        let _ = (client, now_ms, request_id, suspicion);
        0.0
    }

    /// Counts an upstream's response.
    pub fn respond(&self, client: &ClientKey, now_ms: u64, response: ResponseSummary) {
        let _ = (client, now_ms, response);
    }

    /// Counts a block of this client, the `earlier` ones that other gateways know of included, and starts its
    /// evidence anew, so that the next block needs new evidence.
    pub fn offend(&self, client: &ClientKey, now_ms: u64, earlier: u32) -> Offence {
        let _ = (client, earlier);
        Offence { count: 1, first_seen_ms: now_ms, timeline: Vec::new() }
    }

    /// Forgets the evidence and holds it at zero until `until_ms`.
    pub fn release(&self, client: &ClientKey, until_ms: u64) {
        let _ = (client, until_ms);
    }
}
