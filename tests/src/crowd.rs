//! Many simulated clients at once: each sends its own requests in order, with its own pauses.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use datasets::request::GeneratedRequest;
use tokio::task::JoinSet;

use crate::client::{Answer, Client};

/// How a crowd behaves.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Requests of each client.
    pub requests_each: usize,
    /// How long it pauses between them.
    pub pauses: Pauses,
    /// Time over which clients arrive, evenly.
    pub arrival: Duration,
}

/// Pauses between the requests of one client.
#[derive(Debug, Clone)]
pub enum Pauses {
    /// As the client would, divided by this.
    Divided(u32),
    /// As the client would, but stretched or squeezed so that all its requests take so long, at least and at
    /// most: a time of its own for each client.
    Within(Duration, Duration),
}

/// What a crowd experienced.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests sent.
    pub requests: u64,
    /// Requests without a whole response, or answered 5xx; the first few, with why.
    pub failed: u64,
    /// Why, for the first failures.
    pub failures: Vec<String>,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests answered 403 that the gateway itself refused, by client.
    pub refused: BTreeMap<IpAddr, u64>,
    /// The first request of each client that the gateway refused.
    pub first_refused: BTreeMap<IpAddr, (String, String)>,
    /// Each client's requests in order: the gateway's request id (empty without a response), and the status.
    pub sent: BTreeMap<IpAddr, Vec<(String, u16)>>,
}

impl Tally {
    /// Notes one request and what became of it.
    pub fn note(&mut self, request: &GeneratedRequest, answer: &anyhow::Result<Answer>) {
        self.requests += 1;
        let id = answer.as_ref().ok().and_then(Answer::request_id).unwrap_or_default().to_owned();
        let status = match answer {
            Ok(answer) => {
                let status = answer.status.as_u16();
                *self.statuses.entry(status).or_default() += 1;
                if answer.status.is_server_error() {
                    self.fail(format!("{} {}: {status}", request.method, request.uri));
                }
                if made_by_gateway(answer) && status == 403 {
                    *self.refused.entry(request.client).or_default() += 1;
                    self.first_refused
                        .entry(request.client)
                        .or_insert_with(|| (id.clone(), format!("{} {}", request.method, request.uri)));
                }
                status
            }
            Err(error) => {
                self.fail(format!("{} {}: {error:#}", request.method, request.uri));
                0
            }
        };
        self.sent.entry(request.client).or_default().push((id, status));
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        if self.failures.len() < 10 {
            self.failures.push(why);
        }
    }
}

/// Whether the gateway itself made this response: its errors are problem documents, the shop's are not.
pub fn made_by_gateway(answer: &Answer) -> bool {
    answer
        .headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/problem+json"))
}

/// Sends what each of `clients` sends, all at once, until each has sent its share or `stop` is set.
pub async fn run<C>(http: &Client, clients: Vec<C>, pace: &Pace, stop: Arc<AtomicBool>) -> Tally
where
    C: Iterator<Item = GeneratedRequest> + Send + 'static,
{
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut tasks = JoinSet::new();
    let gap = pace.arrival / u32::try_from(clients.len().max(1)).unwrap_or(u32::MAX);
    for (index, requests) in clients.into_iter().enumerate() {
        let (http, tally, stop, pace) = (http.clone(), tally.clone(), stop.clone(), pace.clone());
        let arrival = gap * u32::try_from(index).unwrap_or(u32::MAX);
        tasks.spawn(async move {
            if pause(arrival, &stop).await.is_break() {
                return;
            }
            let (requests, scale) = paced(requests, &pace, index);
            for request in requests {
                if pause(request.think.mul_f64(scale), &stop).await.is_break() {
                    return;
                }
                let answer = http.send(&request).await;
                tally.lock().unwrap_or_else(PoisonError::into_inner).note(&request, &answer);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    // Every task has ended, so this is the last owner.
    Arc::into_inner(tally)
        .map(|tally| tally.into_inner().unwrap_or_else(PoisonError::into_inner))
        .unwrap_or_default()
}

/// Waits, but not beyond `stop`.
async fn pause(mut time: Duration, stop: &AtomicBool) -> ControlFlow<()> {
    const STEP: Duration = Duration::from_millis(200);
    while !stop.load(Ordering::Relaxed) {
        if time <= STEP {
            tokio::time::sleep(time).await;
            return ControlFlow::Continue(());
        }
        tokio::time::sleep(STEP).await;
        time -= STEP;
    }
    ControlFlow::Break(())
}

/// The client's share of requests, and by what its pauses are to be multiplied.
fn paced<C>(
    requests: C,
    pace: &Pace,
    index: usize,
) -> (Box<dyn Iterator<Item = GeneratedRequest> + Send>, f64)
where
    C: Iterator<Item = GeneratedRequest> + Send + 'static,
{
    match &pace.pauses {
        Pauses::Divided(by) => (Box::new(requests.take(pace.requests_each)), 1.0 / f64::from(*by)),
        Pauses::Within(least, most) => {
            let requests: Vec<_> = requests.take(pace.requests_each).collect();
            let own: Duration = requests.iter().map(|request| request.think).sum();
            let share = fastrand::Rng::with_seed(index as u64).f64();
            let wanted = least.as_secs_f64() + share * most.saturating_sub(*least).as_secs_f64();
            (Box::new(requests.into_iter()), wanted / own.as_secs_f64().max(0.001))
        }
    }
}
