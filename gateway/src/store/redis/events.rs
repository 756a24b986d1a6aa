//! Events and reviews as Redis streams, trimmed behind what the trainer has acknowledged.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{Value, cmd};
use uuid::Uuid;
use waf_model::{
    event::{EVENT_VERSION, Event, Review, ReviewVerdict},
    keys,
};

use crate::store::{EventSink, StoreError, StoreFuture, redis::link::Link};

/// Most entries of the event stream; beyond it the oldest are lost, counted and alarmed.
pub const HARD_CAP: u64 = 1_000_000;

/// Pause between two trims.
const TRIM_EVERY: Duration = Duration::from_secs(5);

/// Most entries of the stream of whole requests: each may have some ten thousand bytes.
const FULL_CAP: u64 = 16_384;

/// Reviews are few and small; this many are kept.
const REVIEWS_CAP: usize = 100_000;

/// The streams `portcullis:events:0` and `portcullis:reviews`.
#[derive(Debug)]
pub struct RedisEvents {
    link: Link,
    cap: u64,
    trimmed: Mutex<Option<Instant>>,
    lost: AtomicU64,
}

impl RedisEvents {
    pub(super) fn new(link: Link) -> Self {
        Self::with_cap(link, HARD_CAP)
    }

    /// The same with another cap, in entries.
    pub fn with_cap(link: Link, cap: u64) -> Self {
        Self { link, cap, trimmed: Mutex::new(None), lost: AtomicU64::new(0) }
    }

    /// Deletes what the trainer has acknowledged, and what exceeds the cap.
    ///
    /// # Errors
    /// Redis does not answer or refuses.
    pub async fn trim(&self) -> Result<(), StoreError> {
        if let Some(oldest_needed) = self.oldest_needed().await? {
            self.link.ask::<()>(cmd("XTRIM").arg(&[keys::EVENTS, "MINID", "~", &oldest_needed])).await?;
        }
        let length: u64 = self.link.ask(cmd("XLEN").arg(keys::EVENTS)).await?;
        if length <= self.cap {
            return Ok(());
        }
        let removed: u64 =
            self.link.ask(cmd("XTRIM").arg(&[keys::EVENTS, "MAXLEN", "~"]).arg(self.cap)).await?;
        if removed > 0 {
            self.lost.fetch_add(removed, Ordering::Relaxed);
            tracing::warn!(
                lost = removed,
                cap = self.cap,
                "event stream is full: its oldest events were deleted before the trainer acknowledged them"
            );
        }
        Ok(())
    }

    /// The lowest entry that the trainer has not acknowledged; `None` without a trainer.
    async fn oldest_needed(&self) -> Result<Option<String>, StoreError> {
        let groups = match self.link.ask::<Value>(cmd("XINFO").arg("GROUPS").arg(keys::EVENTS)).await {
            Ok(groups) => groups,
            // No stream yet.
            Err(StoreError::Away(error)) if error.contains("no such key") => return Ok(None),
            Err(error) => return Err(error),
        };
        let unreadable = |_| StoreError::Unexpected {
            at: keys::EVENTS.to_owned(),
            what: "XINFO GROUPS answered in a form that is not known".to_owned(),
        };
        let groups: Vec<HashMap<String, Value>> = redis::from_redis_value(groups).map_err(unreadable)?;
        for group in groups {
            let text = |name: &str| {
                group.get(name).and_then(|value| redis::from_redis_value::<String>(value.clone()).ok())
            };
            if text("name").as_deref() != Some(keys::TRAINER_GROUP) {
                continue;
            }
            let pending: (u64, Option<String>, Option<String>, Value) =
                self.link.ask(cmd("XPENDING").arg(keys::EVENTS).arg(keys::TRAINER_GROUP)).await?;
            return Ok(match pending {
                (0, ..) => text("last-delivered-id"),
                (_, lowest, ..) => lowest,
            });
        }
        Ok(None)
    }

    fn trim_is_due(&self) -> bool {
        let mut trimmed = self.trimmed.lock().unwrap_or_else(PoisonError::into_inner);
        if trimmed.is_some_and(|at| at.elapsed() < TRIM_EVERY) {
            return false;
        }
        *trimmed = Some(Instant::now());
        true
    }
}

impl EventSink for RedisEvents {
    fn append<'a>(&'a self, events: &'a [Event]) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            for event in events {
                pipeline
                    .cmd("XADD")
                    .arg(&[keys::EVENTS, "*", "v"])
                    .arg(EVENT_VERSION)
                    .arg("d")
                    .arg(event.encode())
                    .ignore();
            }
            self.link.ask_all::<()>(&pipeline).await?;
            if self.trim_is_due()
                && let Err(error) = self.trim().await
            {
                // The events are written; a late trim is no reason to send them again.
                tracing::warn!(%error, "event stream not trimmed");
            }
            Ok(())
        })
    }

    fn review<'a>(&'a self, review: &'a Review) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let verdict = match review.verdict {
                ReviewVerdict::FalsePositive => "false_positive",
                ReviewVerdict::Confirmed => "confirmed",
            };
            self.link
                .ask::<()>(
                    cmd("XADD")
                        .arg(keys::REVIEWS)
                        .arg("MAXLEN")
                        .arg("~")
                        .arg(REVIEWS_CAP)
                        .arg("*")
                        .arg("request")
                        .arg(review.request.map(|id| Uuid::from_bytes(id).to_string()).unwrap_or_default())
                        .arg("verdict")
                        .arg(verdict)
                        .arg("client")
                        .arg(review.client)
                        .arg("at")
                        .arg(review.at_ms),
                )
                .await
        })
    }

    fn append_full<'a>(&'a self, sealed: &'a [Vec<u8>]) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            for record in sealed {
                pipeline.cmd("XADD").arg(&[keys::FULL_RECORDS, "*", "d"]).arg(record.as_slice()).ignore();
            }
            self.link.ask_all::<()>(&pipeline).await?;
            // The trainer trims what it has taken; what is left beyond the cap was not.
            self.link.ask(cmd("XTRIM").arg(&[keys::FULL_RECORDS, "MAXLEN", "~"]).arg(FULL_CAP)).await
        })
    }

    fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}
