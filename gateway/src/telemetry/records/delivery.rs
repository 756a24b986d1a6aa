//! The task that takes the secrets out of recorded requests, seals them, and hands them to the store.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use waf_model::full_record::{FullRecord, NONCE_BYTES, RecordKey};

use super::Queue;
use crate::{
    clock,
    store::{EventSink, StoreError},
    telemetry::store_metrics::StoreMetrics,
};

/// Most requests in one batch.
const BATCH: usize = 128;

/// Pause before a batch that the store did not take is tried again, and how often it is tried.
const RETRY: Duration = Duration::from_millis(500);
const TRIES: u32 = 3;

/// Carries whole requests to the store.
pub struct Delivery {
    /// What is to be delivered.
    pub queue: Queue,
    /// Where it goes.
    pub sink: Arc<dyn EventSink>,
    /// Seals.
    pub sealer: Arc<Sealer>,
    /// Where losses are counted.
    pub metrics: Arc<StoreMetrics>,
}

/// Takes secrets out and seals.
#[derive(Debug)]
pub struct Sealer {
    /// The key.
    pub key: RecordKey,
    /// How long records are kept.
    pub keep: Duration,
    /// Headers (lower case) that hold a secret on this site.
    pub secret_headers: Vec<String>,
}

impl Sealer {
    /// The sealed form, to be kept until some days after `now_ms`.
    ///
    /// # Errors
    /// The system has no randomness to give.
    fn seal(&self, mut record: FullRecord, now_ms: u64) -> Result<Vec<u8>, StoreError> {
        let headers: Vec<&str> = self.secret_headers.iter().map(String::as_str).collect();
        record.conceal(&headers);
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| StoreError::Away(format!("no randomness: {error}")))?;
        let keep_ms = u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX);
        Ok(record.seal(&self.key, nonce, now_ms.saturating_add(keep_ms)))
    }
}

impl Delivery {
    /// Runs until `stop`, then delivers what is queued.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                taken = self.queue.take(&mut batch, BATCH) => if taken == 0 { return },
                () = stop.cancelled() => break,
            }
            self.deliver(std::mem::take(&mut batch), TRIES).await;
        }
        self.queue.receiver.close();
        while self.queue.take(&mut batch, BATCH).await > 0 {
            self.deliver(std::mem::take(&mut batch), 1).await;
        }
    }

    async fn deliver(&self, batch: Vec<FullRecord>, tries: u32) {
        let count = batch.len() as u64;
        let (sealer, now_ms) = (Arc::clone(&self.sealer), clock::now_ms());
        let work = move || batch.into_iter().map(|record| sealer.seal(record, now_ms)).collect();
        let sealed: Result<Vec<_>, StoreError> = tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|_| Err(StoreError::Away("sealing failed".to_owned())));
        let sealed = match sealed {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::error!(%error, lost = count, "recorded requests cannot be sealed");
                return self.metrics.lose_full_records("unsealed", count);
            }
        };
        for left in (0..tries).rev() {
            match self.sink.append_full(&sealed).await {
                Ok(deleted) => {
                    self.metrics.full_records_written.inc_by(count);
                    self.metrics.store_works("records");
                    return self.metrics.lose_full_records("store", deleted);
                }
                Err(error) if left == 0 => self.metrics.store_failed("records", &error),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        self.metrics.lose_full_records("unwritable", count);
    }
}
