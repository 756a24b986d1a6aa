//! Ledgers on a clock that the test moves, against an exact count.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::store::StoreFuture;

const NAME: &str = "limit";

/// A store that counts exactly, or is away.
#[derive(Default)]
struct Store {
    now: Arc<AtomicU64>,
    level: Mutex<u64>,
    away: std::sync::atomic::AtomicBool,
}

impl Store {
    fn charge(&self, add: u64, floor: u64) -> Result<u64, StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Away("test".to_owned()));
        }
        let mut level = self.level.lock().unwrap();
        *level = (*level).max(floor) + add;
        Ok(*level)
    }
}

impl RateStore for Store {
    fn charge_rates<'a>(
        &'a self,
        _: &'a str,
        every: Duration,
        charges: &'a [Charge],
    ) -> StoreFuture<'a, Vec<u64>> {
        let now = self.now.load(Ordering::Relaxed);
        let level =
            |charge: &Charge| Ok((self.charge(nanoseconds(every) * charge.count, now)? - now) / 1_000);
        let levels = charges.iter().map(level).collect();
        Box::pin(async { levels })
    }
}

impl QuotaStore for Store {
    fn charge_quotas<'a>(&'a self, _: &'a str, charges: &'a [Charge]) -> StoreFuture<'a, Vec<u64>> {
        let levels = charges.iter().map(|charge| self.charge(charge.count, 0)).collect();
        Box::pin(async { levels })
    }
}

fn goes(ledger: &Ledger, now_ms: u64) -> bool {
    matches!(ledger.ask(&NAME.into(), 1, now_ms), Answer::Goes(_))
}

/// How many requests three gateways let through in ten seconds, at 100 a second and 20 at once, when clients ask each
/// of them `asked` times a millisecond; beside what one exact count would.
async fn let_through(asked: impl Fn(u64, usize) -> u64) -> (u64, u64) {
    let store = Store::default();
    let ledgers: Vec<Ledger> = (0..3)
        .map(|_| {
            let mut ledger = Ledger::of_rate(Duration::from_millis(10), NonZeroU32::new(20).unwrap());
            ledger.now = Now::Set(Arc::clone(&store.now));
            ledger
        })
        .collect();
    let (mut through, mut exact, mut exact_level) = (0, 0, 0_u64);
    for ms in 0..10_000 {
        let now = ms * 1_000_000;
        store.now.store(now, Ordering::Relaxed);
        for (index, ledger) in ledgers.iter().enumerate() {
            for _ in 0..asked(ms, index) {
                through += u64::from(goes(ledger, 0));
                let after = exact_level.max(now) + 10_000_000;
                if after <= now + 200_000_000 {
                    (exact, exact_level) = (exact + 1, after);
                }
            }
            // Each gateway settles at a moment of its own.
            if ms % 25 == index as u64 * 8 {
                ledger.settle_rates(NAME, &store).await.unwrap();
            }
        }
    }
    (through, exact)
}

#[tokio::test]
async fn three_gateways_let_through_what_one_exact_count_would() {
    let flood = let_through(|_, _| 1).await;
    let uneven = let_through(|ms, index| u64::from(index == 0 || ms % 7 == 0)).await;
    let moving = let_through(|ms, index| u64::from((ms / 500) % 3 == index as u64)).await;
    let below = let_through(|ms, index| u64::from(ms % 40 == index as u64)).await;
    for (through, exact) in [flood, uneven, moving, below] {
        let error = through.abs_diff(exact) as f64 / exact as f64;
        assert!(error < 0.02, "{through} instead of {exact}");
    }
}

#[tokio::test]
async fn without_the_store_each_gateway_keeps_the_rate_by_itself() {
    let store = Store::default();
    store.away.store(true, Ordering::Relaxed);
    let mut ledger = Ledger::of_rate(Duration::from_millis(10), NonZeroU32::new(20).unwrap());
    ledger.now = Now::Set(Arc::clone(&store.now));
    let mut through = 0;
    for ms in 0..1_000 {
        store.now.store(ms * 1_000_000, Ordering::Relaxed);
        let went = goes(&ledger, 0);
        through += u64::from(went);
        assert_eq!(ledger.settle_rates(NAME, &store).await.is_err(), went, "what went is charged, in vain");
    }
    assert_eq!(through, 20 + 99);
}

#[tokio::test]
async fn a_quota_is_whole_again_when_its_period_begins_and_owes_what_could_not_be_charged() {
    let store = Store::default();
    let ledger = Ledger::of_quota(5, Period::Day);
    let day = 24 * 60 * 60 * 1000;
    assert!(goes(&ledger, day - 1));
    let charged = ledger.take_due();
    assert_eq!((0..7).filter(|_| goes(&ledger, day - 1)).count(), 4, "what is being charged counts");
    ledger.owe(&charged);
    store.away.store(true, Ordering::Relaxed);
    assert!(ledger.settle_quotas(NAME, &store).await.is_err());
    assert!(!goes(&ledger, day - 1), "not forgotten");
    store.away.store(false, Ordering::Relaxed);
    ledger.settle_quotas(NAME, &store).await.unwrap();
    assert_eq!(*store.level.lock().unwrap(), 5);
    let Answer::Waits(standing, wait) = ledger.ask(&NAME.into(), 1, day - 1) else { panic!("used up") };
    assert_eq!((standing.remaining, wait), (0, Duration::from_millis(1)));
    assert!(goes(&ledger, day), "a new day");
    // Another gateway used up most of it.
    *store.level.lock().unwrap() = 3;
    ledger.settle_quotas(NAME, &store).await.unwrap();
    assert!(goes(&ledger, day) && !goes(&ledger, day));
    ledger.settle_quotas(NAME, &store).await.unwrap();
    ledger.forget(2 * day);
    assert!(ledger.entries.is_empty());
}
