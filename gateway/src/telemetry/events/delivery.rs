//! The task that carries events from the queue to the store in batches, over the spool while the store is away.

use std::{
    io, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use waf_model::{
    event::{Event, EventError, Review},
    segment::Kind,
};

use crate::{
    store::{EventSink, StoreError},
    telemetry::{
        events::{Record, spool::Spool},
        store_metrics::StoreMetrics,
    },
};

/// Most records in one batch.
const BATCH: usize = 500;

/// Longest time a record waits for its batch to fill.
const LINGER: Duration = Duration::from_millis(100);

/// Pause before the store is tried again after it failed.
const RETRY: Duration = Duration::from_secs(1);

/// Pause between two batches from the spool, so that a long backlog does not crowd out live traffic.
const DRAIN_PAUSE: Duration = Duration::from_millis(2);

/// Tries for a batch that no spool can take.
const TRIES: u32 = 3;

/// Carries records to the store.
pub struct Delivery {
    /// What is to be delivered.
    pub queue: mpsc::Receiver<Record>,
    /// Where it goes.
    pub sink: Arc<dyn EventSink>,
    /// Where it waits while the sink is away; without one a batch is tried a few times, then lost and counted.
    pub spool: Option<Arc<Mutex<Spool>>>,
    /// Where losses are counted.
    pub metrics: Arc<StoreMetrics>,
}

impl Delivery {
    /// Runs until `stop`, then delivers (or spools) what is queued.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry_at = Instant::now();
        // Outside of the loop: an order to stop must not drop a batch that is being gathered.
        let mut batch = Vec::new();
        loop {
            let spooled = self.waiting();
            self.metrics.events_spooled.set(i64::try_from(spooled).unwrap_or(i64::MAX));
            tokio::select! {
                () = self.gather(&mut batch, spooled > 0 && retry_at <= Instant::now()) => {}
                () = stop.cancelled() => break,
            };
            let batch = mem::take(&mut batch);
            if !batch.is_empty() {
                if spooled > 0 {
                    self.spool(&batch).await;
                } else if let Err(error) = self.deliver(&batch).await {
                    self.metrics.store_failed("events", &error);
                    retry_at = Instant::now() + RETRY;
                    self.keep(batch).await;
                }
            }
            if self.waiting() > 0 && retry_at <= Instant::now() {
                match self.drain_one().await {
                    Ok(()) => tokio::time::sleep(DRAIN_PAUSE).await,
                    Err(error) => {
                        self.metrics.store_failed("events", &error);
                        retry_at = Instant::now() + RETRY;
                    }
                }
            }
            self.metrics.lose_events("store", self.sink.take_lost());
        }
        self.queue.close();
        loop {
            let received = self.queue.recv_many(&mut batch, BATCH).await;
            if !batch.is_empty() {
                let batch = mem::take(&mut batch);
                if self.waiting() > 0 {
                    self.spool(&batch).await;
                } else if self.deliver(&batch).await.is_err() {
                    self.keep(batch).await;
                }
            }
            if received == 0 {
                break;
            }
        }
    }

    /// The next records: a full batch, or what came until the first of them has waited long enough. With
    /// `hurry` only what is there.
    async fn gather(&mut self, batch: &mut Vec<Record>, hurry: bool) {
        let first = if hurry { Duration::from_millis(1) } else { RETRY };
        let Ok(received) = tokio::time::timeout(first, self.queue.recv()).await else { return };
        let Some(record) = received else {
            // All senders are gone; only the order to stop ends the task.
            return tokio::time::sleep(first).await;
        };
        batch.push(record);
        let deadline = Instant::now() + if hurry { Duration::ZERO } else { LINGER };
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            match tokio::time::timeout_at(deadline, self.queue.recv_many(batch, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    }

    async fn deliver(&self, batch: &[Record]) -> Result<(), StoreError> {
        let mut events = Vec::with_capacity(batch.len());
        for record in batch {
            match record {
                Record::Event(event) => events.push(Event::clone(event)),
                Record::Review(review) => self.sink.review(review).await?,
            }
        }
        if !events.is_empty() {
            self.sink.append(&events).await?;
            self.metrics.events_written.inc_by(events.len() as u64);
        }
        self.metrics.store_works("events");
        Ok(())
    }

    /// Saves a batch that the store did not take.
    async fn keep(&self, batch: Vec<Record>) {
        if self.spool.is_some() {
            return self.spool(&batch).await;
        }
        for _ in 1..TRIES {
            tokio::time::sleep(LINGER).await;
            if self.deliver(&batch).await.is_ok() {
                return;
            }
        }
        self.metrics.lose_events("unwritable", batch.len() as u64);
    }

    async fn spool(&self, batch: &[Record]) {
        let records: Vec<_> = batch
            .iter()
            .map(|record| match record {
                Record::Event(event) => (Kind::Event, event.encode()),
                Record::Review(review) => (Kind::Review, review.encode()),
            })
            .collect();
        let count = records.len() as u64;
        match self.with_spool(move |spool| spool.push(&records)).await {
            Ok(lost) => self.metrics.lose_events("spool", lost),
            Err(error) => {
                self.metrics.lose_events("spool", count);
                tracing::error!(%error, lost = count, "spool cannot be written");
            }
        }
    }

    /// Sends the oldest batch of the spool.
    async fn drain_one(&self) -> Result<(), StoreError> {
        let away = |error: io::Error| StoreError::Away(format!("spool: {error}"));
        let mut front = self.with_spool(|spool| spool.front(BATCH)).await.map_err(away)?;
        let mut batch = Vec::with_capacity(front.records.len());
        for (kind, record) in mem::take(&mut front.records) {
            let read = match kind {
                Kind::Event => Event::decode(&record).map(|event| Record::Event(Box::new(event))),
                Kind::Review => Review::decode(&record).map(Record::Review),
                Kind::Full => Err(EventError::Malformed("a full record is never spooled".to_owned())),
            };
            match read {
                Ok(record) => batch.push(record),
                Err(error) => {
                    self.metrics.lose_events("spool", 1);
                    tracing::warn!(%error, "spooled record cannot be read");
                }
            }
        }
        self.deliver(&batch).await?;
        self.with_spool(move |spool| spool.advance(front.end)).await.map_err(away)
    }

    fn waiting(&self) -> u64 {
        let Some(spool) = &self.spool else { return 0 };
        spool.lock().unwrap_or_else(PoisonError::into_inner).waiting()
    }

    /// Runs file work off the request threads.
    async fn with_spool<T: Send + Default + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(spool) = self.spool.clone() else { return Ok(T::default()) };
        tokio::task::spawn_blocking(move || work(&mut spool.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}
