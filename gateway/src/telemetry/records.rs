//! Whole requests on their way to the store, from routes that say `record: full`: chosen and copied on the request
//! path, freed of secrets and sealed on another thread, stored in batches. Nothing waits for them: what does not fit is
//! dropped and counted.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;
use waf_model::full_record::FullRecord;

use crate::{
    config::{self, Recording, Route},
    telemetry::store_metrics::StoreMetrics,
};

pub mod delivery;

/// Requests that may wait.
const QUEUE: usize = 4096;

/// Bytes of requests that may wait: they are in memory.
const QUEUED_BYTES: usize = 32 << 20;

/// What a record takes beside its body and headers, about.
const OVERHEAD: usize = 1024;

/// Takes whole requests from the request path.
#[derive(Debug)]
pub struct Records {
    queue: mpsc::Sender<FullRecord>,
    queued: Arc<AtomicUsize>,
    rate: Rate,
    body_bytes: usize,
    metrics: Arc<StoreMetrics>,
}

/// The receiving end of [`Records`].
#[derive(Debug)]
pub struct Queue {
    receiver: mpsc::Receiver<FullRecord>,
    queued: Arc<AtomicUsize>,
}

impl Records {
    /// The sending end, and the end for [`delivery::Delivery`].
    pub fn new(settings: &config::Records, metrics: Arc<StoreMetrics>) -> (Self, Queue) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let records = Self {
            queue,
            queued: Arc::clone(&queued),
            rate: Rate { most: settings.per_second, ..Rate::default() },
            body_bytes: settings.body_bytes,
            metrics,
        };
        (records, Queue { receiver, queued })
    }

    /// How many bytes of the body to record of a request on `route` that arrived at `at_ms`; `None` to record nothing.
    pub fn wants(&self, route: &Route, at_ms: u64, flagged: bool) -> Option<usize> {
        if route.record != Recording::Full {
            return None;
        }
        if !self.rate.admits(at_ms / 1000, flagged) {
            self.metrics.full_records_skipped.inc();
            return None;
        }
        Some(self.body_bytes)
    }

    /// Queues a request.
    pub fn push(&self, record: FullRecord) {
        let size = size(&record);
        if self.queued.fetch_add(size, Ordering::Relaxed) + size > QUEUED_BYTES
            || self.queue.try_send(record).is_err()
        {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            self.metrics.lose_full_records("queue", 1);
        }
    }
}

impl Queue {
    /// At most `most` requests more, once there is one; their number, 0 when no more will come.
    async fn take(&mut self, into: &mut Vec<FullRecord>, most: usize) -> usize {
        let before = into.len();
        let taken = self.receiver.recv_many(into, most).await;
        let freed: usize = into.iter().skip(before).map(size).sum();
        self.queued.fetch_sub(freed, Ordering::Relaxed);
        taken
    }
}

fn size(record: &FullRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let query = record.query.as_ref().map_or(0, Vec::len);
    record.body.len() + record.path.len() + query + headers + OVERHEAD
}

/// The first so many requests of each second, and as many flagged ones beside them.
#[derive(Debug, Default)]
struct Rate {
    most: u32,
    second: AtomicU64,
    seen: AtomicU32,
    flagged: AtomicU32,
}

impl Rate {
    fn admits(&self, second: u64, flagged: bool) -> bool {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.seen.store(0, Ordering::Relaxed);
            self.flagged.store(0, Ordering::Relaxed);
        }
        let count = if flagged { &self.flagged } else { &self.seen };
        count.fetch_add(1, Ordering::Relaxed) < self.most
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokio_util::sync::CancellationToken;
    use waf_model::{
        event::{Event, Review, Verdict},
        full_record::RecordKey,
    };

    use super::{
        delivery::{Delivery, Sealer},
        *,
    };
    use crate::{
        config::{Config, Mode},
        store::{EventSink, StoreError, StoreFuture},
    };

    fn record(body: usize) -> FullRecord {
        FullRecord {
            id: [1; 16],
            at_ms: 0,
            client: 0,
            route: "default".to_owned(),
            paranoia: 1,
            thresholds: (5, 4),
            verdict: Verdict::Pass,
            acts: true,
            hits: Vec::new(),
            what: String::new(),
            network: String::new(),
            method: "GET".to_owned(),
            path: b"/".to_vec(),
            query: Some(b"token=hunter2".to_vec()),
            protocol: "HTTP/1.1".to_owned(),
            headers: vec![("x-site".to_owned(), b"hunter2".to_vec())],
            body: vec![b'a'; body],
            complete: true,
        }
    }

    fn settings() -> config::Records {
        Config::quick("http://127.0.0.1:1", None, None, None).unwrap().records
    }

    /// A store that refuses so many batches, and then says that it deleted two older records.
    struct Sink(Mutex<(u32, Vec<Vec<u8>>)>);

    impl EventSink for Sink {
        fn append<'a>(&'a self, _: &'a [Event]) -> StoreFuture<'a, ()> {
            Box::pin(async { Ok(()) })
        }
        fn review<'a>(&'a self, _: &'a Review) -> StoreFuture<'a, ()> {
            Box::pin(async { Ok(()) })
        }
        fn append_full<'a>(&'a self, sealed: &'a [Vec<u8>]) -> StoreFuture<'a, u64> {
            let mut state = self.0.lock().unwrap();
            let answer = match state.0.checked_sub(1) {
                Some(left) => {
                    state.0 = left;
                    Err(StoreError::Away("test".to_owned()))
                }
                None => {
                    state.1.extend_from_slice(sealed);
                    Ok(2)
                }
            };
            Box::pin(async { answer })
        }
        fn take_lost(&self) -> u64 {
            0
        }
    }

    async fn delivered(refusals: u32) -> (Arc<StoreMetrics>, Vec<Vec<u8>>) {
        let metrics = Arc::new(StoreMetrics::default());
        let (records, queue) = Records::new(&settings(), Arc::clone(&metrics));
        records.push(record(10));
        let sink = Arc::new(Sink(Mutex::new((refusals, Vec::new()))));
        let sealer = Sealer {
            key: RecordKey::new([3; 32]),
            keep: Duration::from_secs(60),
            secret_headers: vec!["x-site".to_owned()],
        };
        let delivery = Delivery {
            queue,
            sink: Arc::clone(&sink) as Arc<dyn EventSink>,
            sealer: Arc::new(sealer),
            metrics: Arc::clone(&metrics),
        };
        // Without a sending end nothing more can come.
        drop(records);
        delivery.run(CancellationToken::new()).await;
        let sealed = std::mem::take(&mut sink.0.lock().unwrap().1);
        (metrics, sealed)
    }

    #[tokio::test]
    async fn what_the_store_gets_is_sealed_and_has_no_secret() {
        let (metrics, sealed) = delivered(1).await;
        let [sealed] = sealed.as_slice() else { panic!("one record, on the second try") };
        let opened = FullRecord::open(sealed, &RecordKey::new([3; 32])).unwrap();
        assert_eq!(opened.query.as_deref(), Some(&b"token=x"[..]));
        assert_eq!(opened.headers, [("x-site".to_owned(), b"x".to_vec())]);
        assert_eq!((metrics.full_records_written.get(), metrics.full_lost("store")), (1, 2));
    }

    #[tokio::test]
    async fn what_is_lost_is_counted() {
        let (metrics, sealed) = delivered(9).await;
        assert_eq!((sealed.len(), metrics.full_lost("unwritable")), (0, 1));

        let metrics = Arc::new(StoreMetrics::default());
        let (records, mut queue) = Records::new(&settings(), Arc::clone(&metrics));
        for _ in 0..5 {
            records.push(record(QUEUED_BYTES / 4));
        }
        assert_eq!(metrics.full_lost("queue"), 2, "three fit with what they take beside their bodies");
        let mut taken = Vec::new();
        assert_eq!(queue.take(&mut taken, 10).await, 3);
        assert_eq!(queue.queued.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_routes_that_ask_for_it_are_recorded_and_not_more_than_the_rate() {
        let config = Config::quick("http://127.0.0.1:1", None, None, None).unwrap();
        let mut route = Route::clone(&config.routes[0]);
        assert_eq!((route.mode, route.record), (Mode::Block, Recording::Observation));
        let metrics = Arc::new(StoreMetrics::default());
        let (records, _queue) = Records::new(&config.records, Arc::clone(&metrics));
        assert_eq!(records.wants(&route, 0, true), None);
        route.record = Recording::Full;
        let wanted = (0..60).filter_map(|_| records.wants(&route, 5000, false));
        assert_eq!(wanted.collect::<Vec<_>>(), vec![16 << 10; 50]);
        assert_eq!(metrics.full_records_skipped.get(), 10);
    }

    #[test]
    fn the_rate_is_kept_and_what_is_flagged_has_its_own() {
        let rate = Rate { most: 3, ..Rate::default() };
        for second in 1..4 {
            let admitted = |flagged| (0..10).filter(|_| rate.admits(second, flagged)).count();
            assert_eq!((admitted(false), admitted(true)), (3, 3));
        }
    }
}
