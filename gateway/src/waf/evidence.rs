//! What is known of each client: its window and the evidence against it, in bounded memory.

use waf_model::{
    client::{ClientVector, ResponseSummary, Suspicion},
    keys::ClientKey,
    observation::Observation,
};

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

    /// Forgets the evidence and holds it at zero until `until_ms`.
    pub fn release(&self, client: &ClientKey, until_ms: u64) {
        let _ = (client, until_ms);
    }
}
