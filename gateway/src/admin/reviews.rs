//! Judgments of people on blocks, as reviews for the trainer.

use uuid::Uuid;
use waf_model::{
    event::{Review, ReviewVerdict},
    keys,
};

use crate::{
    admin::{Admin, answers::ApiError},
    clock,
    store::Block,
};

/// Queues the review of one block.
///
/// # Errors
/// The queue is full.
pub fn record(admin: &Admin, block: &Block, verdict: ReviewVerdict) -> Result<(), ApiError> {
    let request = block.request_id.as_deref().and_then(|id| Uuid::parse_str(id).ok());
    let review = Review {
        request: request.map(|id| *id.as_bytes()),
        client: keys::keyed_hash(&admin.gateway.site_key, &block.client.0.to_string()),
        verdict,
        at_ms: clock::now_ms(),
    };
    let request = review.request;
    if admin.gateway.events.review(review) {
        if let (Some(challenger), Some(request)) = (admin.gateway.model.challenger(), request) {
            challenger.review(request, verdict);
        }
        Ok(())
    } else {
        Err(ApiError::new(
            axum::http::StatusCode::SERVICE_UNAVAILABLE,
            "the review could not be queued because events wait for the store; try again",
        ))
    }
}
