//! Load for benchmarks: many connections kept busy, and what that costs the processes under it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use datasets::request::GeneratedRequest;

use crate::{client::Client, process::Process};

/// Connections kept busy.
pub const CONNECTIONS: usize = 32;

/// CPU microseconds of `processes` for each request that `http` sends, over `time`.
///
/// # Errors
/// A process is gone, a request got no answer or a server error, or more than one in a hundred was refused.
pub async fn cost(
    http: &Client,
    processes: &[&Process],
    requests: &Arc<[GeneratedRequest]>,
    time: Duration,
) -> Result<f64> {
    let cpu = || -> Result<Duration> { processes.iter().map(|process| process.cpu()).sum() };
    load(http, requests, Duration::from_secs(1)).await?;
    let before = cpu()?;
    let sent = load(http, requests, time).await?;
    let used = cpu()? - before;
    Ok(used.as_secs_f64() * 1e6 / sent as f64)
}

/// Keeps every connection busy for `time`; how many requests were answered.
///
/// # Errors
/// A request got no answer or a server error, or more than one in a hundred was refused.
pub async fn load(http: &Client, requests: &Arc<[GeneratedRequest]>, time: Duration) -> Result<u64> {
    let (next, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (http, requests, next) = (http.clone(), requests.clone(), next.clone());
            let (refused, stop) = (refused.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize % requests.len();
                    let Some(request) = requests.get(at) else { break };
                    let answer = http.send(request).await?;
                    ensure!(
                        !answer.status.is_server_error(),
                        "{} {}: {}",
                        request.method,
                        request.uri,
                        answer.status
                    );
                    refused.fetch_add(u64::from(answer.status == 403), Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    tokio::time::sleep(time.saturating_sub(started.elapsed())).await;
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.context("a worker of the load")??;
    }
    let (sent, refused) = (next.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    // What is refused is not forwarded, and would make the figure look better than it is.
    ensure!(
        refused * 100 <= sent,
        "{refused} of {sent} benign requests were refused: this measures refusing"
    );
    Ok(sent)
}

/// Sends `rate` requests a second for `time`, evenly, whether earlier ones were answered or not; how long each took from
/// the moment when it was due, in milliseconds, ascending.
///
/// # Errors
/// A request got no answer.
pub async fn paced(
    http: &Client,
    requests: &Arc<[GeneratedRequest]>,
    rate: f64,
    time: Duration,
) -> Result<Vec<f64>> {
    let started = tokio::time::Instant::now();
    let count = (rate * time.as_secs_f64()) as usize;
    let mut sent = Vec::with_capacity(count);
    for number in 0..count {
        let due = started + Duration::from_secs_f64(number as f64 / rate);
        tokio::time::sleep_until(due).await;
        let (http, requests) = (http.clone(), Arc::clone(requests));
        sent.push(tokio::spawn(async move {
            let request = requests.get(number % requests.len().max(1)).context("no requests")?;
            http.send(request).await?;
            anyhow::Ok(due.elapsed().as_secs_f64() * 1e3)
        }));
    }
    let mut took = Vec::with_capacity(count);
    for sent in sent {
        took.push(sent.await.context("a request of the load")??);
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

/// The value in the middle; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
