//! How often clients may come: every limit of the route is asked. Each one counts, and the first that is used up
//! refuses, or lets the request wait for its turn.
//!
//! No request waits for the store: gateways that share one count for themselves and settle in the background
//! ([`ledger`]), forty times a second.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures_util::future::join;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use waf_model::{keys, observation::ValueKey};

use crate::{
    auth::Principal,
    clock,
    config::{
        Config, Route,
        rate::{KeyPart, Kind, RateLimit, WhenAway},
    },
    error::{Fault, Refusal},
    geo::Country,
    identity::{self, Identity},
    store::{QuotaStore, RateStore, StoreError},
    telemetry::{
        metrics::{LimitLabels, Metrics},
        store_metrics::StoreMetrics,
    },
};

pub mod concurrent;
pub mod ledger;
pub mod local;

use concurrent::{Concurrent, Place};
use ledger::Ledger;
use local::Local;

/// Pause between two settlements with a store that gateways share, and with one that only has to outlive this one.
const SETTLE_SHARED: Duration = Duration::from_millis(25);
const SETTLE_OWN: Duration = Duration::from_secs(1);

/// Pause between two rounds of forgetting who has not come for a while.
const FORGET_EVERY: Duration = Duration::from_secs(30);

/// The policy and the state of the tightest limit, as the drafts of RFC `RateLimit` headers have them.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// The state of all limits; what a reload does not change goes on counting.
pub struct RateLimits {
    site_key: ValueKey,
    stores: Stores,
    limiters: ArcSwap<HashMap<Arc<str>, Arc<Limiter>>>,
    metrics: Arc<StoreMetrics>,
}

/// Where counts are shared or kept.
pub struct Stores {
    /// Rates, if there is a store that several gateways share.
    pub rates: Option<Arc<dyn RateStore>>,
    /// Quotas.
    pub quotas: Arc<dyn QuotaStore>,
}

/// One limit and what it has counted.
struct Limiter {
    limit: Arc<RateLimit>,
    state: State,
}

enum State {
    Local(Local),
    Shared(Ledger),
    Quota(Ledger),
    Concurrent(Arc<Concurrent>),
}

/// A request before its limits.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The route it takes.
    pub route: &'a Route,
    /// Who sends it.
    pub identity: &'a Identity,
    /// Who it proved to be.
    pub principal: Option<&'a Principal>,
    /// Its headers, as the client sent them.
    pub headers: &'a HeaderMap,
}

/// What a request that may go on holds until its response has ended.
#[derive(Debug, Default)]
pub struct Turn {
    _places: Vec<Place>,
    standing: Option<Standing>,
}

/// How a limit stands for one client.
#[derive(Debug, Clone)]
struct Standing {
    name: Arc<str>,
    /// How many in one window.
    quota: u64,
    /// The window, in seconds.
    window: u64,
    /// How many more may come now.
    remaining: u64,
    /// Seconds until there are more.
    reset: u64,
}

/// What a limit says about one request.
enum Answer {
    Goes(Standing),
    /// Used up for so long.
    Waits(Standing, Duration),
}

impl RateLimits {
    /// The limits of a configuration; nothing is counted yet.
    pub fn new(config: &Config, site_key: ValueKey, stores: Stores, metrics: Arc<StoreMetrics>) -> Self {
        let limits = Self { site_key, stores, limiters: ArcSwap::default(), metrics };
        limits.adopt(config);
        limits
    }

    /// Takes over the limits of a new configuration; those that did not change go on counting.
    pub fn adopt(&self, config: &Config) {
        let before = self.limiters.load();
        let all = config.routes.iter().flat_map(|route| &route.rate_limits);
        let limiters = all.map(|limit| {
            let kept = before.get(&limit.name).filter(|kept| kept.limit == *limit);
            let limiter = kept.map_or_else(|| Arc::new(self.limiter(limit)), Arc::clone);
            (Arc::clone(&limit.name), limiter)
        });
        self.limiters.store(Arc::new(limiters.collect()));
    }

    fn limiter(&self, limit: &Arc<RateLimit>) -> Limiter {
        let state = match limit.kind {
            Kind::Rate { every, burst, .. } if self.stores.rates.is_none() => {
                State::Local(Local::new(every, burst))
            }
            Kind::Rate { every, burst, .. } => State::Shared(Ledger::of_rate(every, burst)),
            Kind::Quota { most, period } => State::Quota(Ledger::of_quota(most, period)),
            Kind::Concurrent(most) => State::Concurrent(Arc::new(Concurrent::new(most))),
        };
        Limiter { limit: Arc::clone(limit), state }
    }

    /// Counts a request at every limit of its route, and lets it wait where a limit says so.
    ///
    /// # Errors
    /// [`Fault::Refused`] with 429, or with 503 where the store is away and the limit wants it.
    pub async fn admit(&self, caller: Caller<'_>, metrics: &Metrics) -> Result<Turn, Fault> {
        let mut turn = Turn::default();
        if caller.route.rate_limits.is_empty() {
            return Ok(turn);
        }
        let limiters = self.limiters.load_full();
        for limit in &caller.route.rate_limits {
            // A request that began before a reload finds the limits of its own configuration gone.
            let Some(limiter) = limiters.get(&limit.name) else { continue };
            let key = key(&limit.key, &caller, &self.site_key);
            let standing = self.pass(limiter, key, &mut turn, metrics).await?;
            if let Some(standing) = standing
                && turn.standing.as_ref().is_none_or(|tightest| standing.remaining < tightest.remaining)
            {
                turn.standing = Some(standing);
            }
        }
        Ok(turn)
    }

    async fn pass(
        &self,
        limiter: &Limiter,
        key: u64,
        turn: &mut Turn,
        metrics: &Metrics,
    ) -> Result<Option<Standing>, Fault> {
        let Limiter { limit, state } = limiter;
        let labels = || LimitLabels { limit: limit.name.to_string() };
        if matches!(state, State::Shared(_) | State::Quota(_)) && self.metrics.fails("limits") {
            match limit.when_away {
                WhenAway::Local => {}
                WhenAway::Open => return Ok(None),
                WhenAway::Closed => return Err(unavailable()),
            }
        }
        let longest = if let Kind::Rate { delay, .. } = limit.kind { delay } else { Duration::ZERO };
        let began = Instant::now();
        loop {
            let (standing, wait) = match state.ask(limit, key, turn) {
                Answer::Goes(standing) => return Ok(Some(standing)),
                Answer::Waits(standing, wait) => (standing, wait),
            };
            if began.elapsed() + wait > longest {
                metrics.rate_limited.get_or_create(&labels()).inc();
                return Err(refused(&standing, wait));
            }
            if began.elapsed() < wait {
                metrics.rate_delayed.get_or_create(&labels()).inc();
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Settles with the stores and forgets who has not come for a while. Runs until it is dropped.
    pub async fn run(&self) {
        join(self.settle_always(), self.forget_always()).await;
    }

    async fn settle_always(&self) {
        let pause = if self.stores.rates.is_some() { SETTLE_SHARED } else { SETTLE_OWN };
        loop {
            tokio::time::sleep(pause).await;
            for limiter in self.limiters.load_full().values() {
                match limiter.settle(&self.stores).await {
                    Ok(0) => {}
                    Ok(_) => self.metrics.store_works("limits"),
                    Err(error) => self.metrics.store_failed("limits", &error),
                }
            }
        }
    }

    async fn forget_always(&self) {
        loop {
            tokio::time::sleep(FORGET_EVERY).await;
            for limiter in self.limiters.load_full().values() {
                limiter.forget();
            }
        }
    }

    /// Settles once more, at the end: a quota that was used up stays so.
    pub async fn settle(&self) {
        for limiter in self.limiters.load_full().values() {
            if let Err(error) = limiter.settle(&self.stores).await {
                self.metrics.store_failed("limits", &error);
            }
        }
    }
}

impl State {
    fn ask(&self, limit: &RateLimit, key: u64, turn: &mut Turn) -> Answer {
        match self {
            Self::Local(local) => local.ask(&limit.name, key),
            Self::Shared(ledger) | Self::Quota(ledger) => ledger.ask(&limit.name, key, clock::now_ms()),
            Self::Concurrent(concurrent) => match concurrent.take(key) {
                Ok((place, remaining)) => {
                    turn._places.push(place);
                    Answer::Goes(concurrent.standing(&limit.name, remaining))
                }
                // Nobody knows when another request ends.
                Err(()) => Answer::Waits(concurrent.standing(&limit.name, 0), Duration::from_secs(1)),
            },
        }
    }
}

impl Limiter {
    async fn settle(&self, stores: &Stores) -> Result<usize, StoreError> {
        match (&self.state, &stores.rates) {
            (State::Shared(ledger), Some(rates)) => ledger.settle_rates(&self.limit.name, &**rates).await,
            (State::Quota(ledger), _) => ledger.settle_quotas(&self.limit.name, &*stores.quotas).await,
            _ => Ok(0),
        }
    }

    fn forget(&self) {
        match &self.state {
            State::Local(local) => local.forget(),
            State::Shared(ledger) | State::Quota(ledger) => ledger.forget(clock::now_ms()),
            State::Concurrent(_) => {}
        }
    }
}

impl Turn {
    /// Tells the client how its tightest limit stands.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(standing) = &self.standing {
            headers.extend(standing.headers());
        }
    }
}

impl Standing {
    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let Self { name, quota, window, remaining, reset } = self;
        let texts = [
            (POLICY, format!("\"{name}\";q={quota};w={window}")),
            (STATE, format!("\"{name}\";r={remaining};t={reset}")),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::from_str(&text).ok()?)))
    }
}

fn refused(standing: &Standing, wait: Duration) -> Fault {
    let seconds = whole_seconds(wait).max(1);
    let mut headers: Vec<_> = standing.headers().collect();
    headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
    Refusal::with(StatusCode::TOO_MANY_REQUESTS, "rate_limited", headers).into()
}

fn unavailable() -> Fault {
    let again = vec![(header::RETRY_AFTER, HeaderValue::from(1))];
    Refusal::with(StatusCode::SERVICE_UNAVAILABLE, "limits_unavailable", again).into()
}

/// Seconds, rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// What is counted apart, as a keyed hash: neither headers nor claims leave the request.
fn key(parts: &[KeyPart], caller: &Caller<'_>, site_key: &ValueKey) -> u64 {
    let mut text = String::new();
    for part in parts {
        match part {
            KeyPart::Address => text.push_str(&identity::counted_address(caller.identity.address)),
            KeyPart::Network => text.push_str(&format!("{:016x}", caller.identity.network)),
            KeyPart::Consumer => text.push_str(&caller.identity.client.to_string()),
            KeyPart::Country => {
                text.push_str(caller.identity.place.country.as_ref().map_or("", Country::as_str));
            }
            KeyPart::System => text.push_str(&format!("{:?}", caller.identity.place.system)),
            KeyPart::Route => text.push_str(&caller.route.name),
            KeyPart::Header(name) => {
                for value in caller.headers.get_all(name) {
                    text.push_str(&String::from_utf8_lossy(value.as_bytes()));
                    text.push('\u{1}');
                }
            }
            KeyPart::Claim(name) => {
                if let Some(claim) = caller.principal.and_then(|principal| principal.claims().get(name)) {
                    text.push_str(&claim.to_string());
                }
            }
        }
        text.push('\0');
    }
    keys::keyed_hash(site_key, &text)
}
