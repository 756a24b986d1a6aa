//! Asks origins again and again whether they are well.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::time::{sleep, timeout};

use super::{
    fault::SendError,
    health::State,
    origin::{Freshness, Origin},
    request::Sending,
};
use crate::{body, config::Check};

/// Starts to ask an origin, if it is to be asked, until nobody uses it any more.
pub(super) fn start(origin: &Arc<Origin>) {
    if let Some(check) = &origin.reach().check {
        tokio::spawn(ask(Arc::downgrade(origin), check.clone()));
    }
}

async fn ask(origin: Weak<Origin>, check: Check) {
    loop {
        {
            let Some(origin) = origin.upgrade() else { return };
            let outcome = match timeout(check.timeout, answer(&origin, &check)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {:?}", check.timeout)),
            };
            let threshold = if outcome.is_ok() { check.healthy } else { check.unhealthy };
            match (origin.health.checked(outcome.is_ok(), threshold), outcome) {
                (Some(State::Down), Err(reason)) => {
                    tracing::warn!(origin = %origin.reach().url, path = %check.path, reason, "taken out by its checks");
                }
                (Some(_), _) => tracing::info!(origin = %origin.reach().url, "well again by its checks"),
                (None, _) => {}
            }
        }
        sleep(check.interval.max(Duration::from_millis(1))).await;
    }
}

/// Asks once. A kept connection may have been closed meanwhile, which says nothing.
async fn answer(origin: &Arc<Origin>, check: &Check) -> Result<(), String> {
    let mut result = origin.send(question(check), Freshness::Any, origin.begin()).await;
    if matches!(result, Err(SendError::Closed(_))) {
        result = origin.send(question(check), Freshness::Fresh, origin.begin()).await;
    }
    match result {
        Ok(response) if (200..400).contains(&response.status().as_u16()) => Ok(()),
        Ok(response) => Err(format!("status {}", response.status())),
        Err(error) => Err(format!("{error:?}")),
    }
}

fn question(check: &Check) -> Sending {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static("portcullis-health"));
    let (method, target) = (Method::GET, check.path.clone());
    Sending { method, target, headers, body: body::whole(Bytes::new()), upgrade: None }
}
