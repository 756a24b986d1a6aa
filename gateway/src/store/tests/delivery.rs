//! Events on their way to Redis: batches, trimming, and the spool while it is away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waf_model::event::{Event, Verdict};

use super::{event, review, server::RedisServer};
use crate::{
    store::{
        EventSink,
        redis::{events::RedisEvents, link::Link},
    },
    telemetry::{
        events::{Events, delivery::Delivery, spool::Spool},
        store_metrics::StoreMetrics,
    },
};

struct Feed {
    events: Events,
    metrics: Arc<StoreMetrics>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Feed {
    fn start(server: &RedisServer, cap: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let metrics = Arc::new(StoreMetrics::default());
        let (events, queue) = Events::new(1_000_000, Arc::clone(&metrics));
        let delivery = Delivery {
            queue,
            sink: server.store().events,
            spool: Some(Arc::new(Mutex::new(Spool::open(directory.path(), cap).unwrap()))),
            metrics: Arc::clone(&metrics),
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(delivery.run(stop.clone()));
        Self { events, metrics, stop, task, _directory: directory }
    }

    async fn emit(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.events.emit(event(number));
            if number % 1_000 == 999 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn stream(server: &RedisServer) -> Vec<u64> {
    let entries: Vec<(String, HashMap<String, Vec<u8>>)> =
        server.ask(&["XRANGE", "portcullis:events:0", "-", "+"]).await;
    entries.iter().map(|(_, fields)| Event::decode(&fields["d"]).unwrap().at_ms).collect()
}

#[tokio::test]
async fn events_wait_in_the_spool_while_redis_is_away_and_come_in_order() {
    let mut server = RedisServer::start().await;
    let feed = Feed::start(&server, 64 << 20);
    feed.emit(0..10).await;
    let started = Instant::now();
    while stream(&server).await.len() < 10 {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop();
    feed.emit(10..5_000).await;
    assert!(feed.events.review(review()));
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(feed.metrics.events_spooled.get() > 4_000, "{}", feed.metrics.events_spooled.get());
    server.restart().await;
    let started = Instant::now();
    loop {
        feed.emit(5_000..5_001).await;
        if feed.metrics.events_spooled.get() == 0 && stream(&server).await.contains(&5_000) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{} left", feed.metrics.events_spooled.get());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut seen = stream(&server).await;
    assert!(seen.is_sorted(), "order is kept");
    seen.dedup();
    assert_eq!(seen, (10..=5_000).collect::<Vec<_>>());
    for reason in ["queue", "spool", "store", "unwritable"] {
        assert_eq!(feed.metrics.lost(reason), 0, "{reason}");
    }
    let reviews: Vec<(String, HashMap<String, String>)> =
        server.ask(&["XRANGE", "portcullis:reviews", "-", "+"]).await;
    assert_eq!(reviews[0].1["verdict"], "false_positive");
    assert_eq!(reviews[0].1["client"], "9");
}

#[tokio::test]
async fn what_exceeds_the_spool_is_counted() {
    let mut server = RedisServer::start().await;
    server.stop();
    let bytes = event(1).encode().len() as u64 + 9;
    let feed = Feed::start(&server, 400 * bytes);
    feed.emit(0..2_000).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    server.restart().await;
    feed.stop.cancel();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    feed.task.await.unwrap();
    let waiting = u64::try_from(feed.metrics.events_spooled.get()).unwrap();
    let seen = stream(&server).await.len() as u64;
    assert!(waiting.max(seen) <= 400);
    assert_eq!(feed.metrics.lost("spool") + waiting.max(seen), 2_000);
}

#[tokio::test]
async fn queued_events_are_delivered_before_the_end() {
    let server = RedisServer::start().await;
    let feed = Feed::start(&server, 1 << 20);
    feed.emit(0..1_234).await;
    let mut benign = event(1_234);
    benign.verdict = Verdict::Pass;
    feed.events.emit(benign);
    feed.stop.cancel();
    feed.task.await.unwrap();
    assert_eq!(stream(&server).await, (0..=1_234).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_stream_is_trimmed_behind_the_trainer_and_losses_beyond_the_cap_are_counted() {
    let server = RedisServer::start().await;
    let sink = RedisEvents::with_cap(Link::new(&server.url()).unwrap(), 600);
    let key = "portcullis:events:0";
    sink.trim().await.unwrap();
    sink.append(&(0..500).map(event).collect::<Vec<_>>()).await.unwrap();
    server.ask::<()>(&["XGROUP", "CREATE", key, "trainer", "0"]).await;
    sink.trim().await.unwrap();
    assert_eq!(stream(&server).await.len(), 500, "nothing was read yet");
    let read = ["XREADGROUP", "GROUP", "trainer", "t", "COUNT", "400", "STREAMS", key, ">"];
    server.ask::<redis::Value>(&read).await;
    sink.trim().await.unwrap();
    assert_eq!(stream(&server).await.len(), 500, "nothing was acknowledged yet");
    let entries: Vec<(String, redis::Value)> = server.ask(&["XRANGE", key, "-", "+", "COUNT", "300"]).await;
    let mut acknowledge = vec!["XACK", key, "trainer"];
    acknowledge.extend(entries.iter().map(|(id, _)| id.as_str()));
    server.ask::<()>(&acknowledge).await;
    sink.trim().await.unwrap();
    let left = stream(&server).await;
    // Whole nodes of the stream are dropped, so a few acknowledged entries stay.
    assert!((200..=300).contains(&left.len()), "{}", left.len());
    assert_eq!(left.last(), Some(&499));
    assert!(left.contains(&300), "the lowest that is not acknowledged stays");
    assert_eq!(sink.take_lost(), 0);

    let before = left.len() as u64;
    sink.append(&(500..1_500).map(event).collect::<Vec<_>>()).await.unwrap();
    sink.trim().await.unwrap();
    let left = stream(&server).await;
    assert!((600..=700).contains(&left.len()), "{}", left.len());
    assert_eq!(sink.take_lost(), before + 1_000 - left.len() as u64);
    assert_eq!(sink.take_lost(), 0);
}
