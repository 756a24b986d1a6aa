//! Guessing: failed logins count for the address, the account, the pair of both, and the password that was tried.
//!
//! An attempt counts before its outcome is known, so that many at once do not slip through, and is taken back when it
//! succeeds. Whoever logged in to an account from an address before is not kept out by what others do to the account.
//! Accounts that do not exist are counted like all others: no answer tells which they are.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use quick_cache::sync::Cache;
use tokio::{sync::Semaphore, time::sleep};

use super::{Account, buckets::Buckets};
use crate::{clock, config::auth::Guessing, error::Refusal, store::raw_block::address_key};

/// What the reasons of refusals made here start with; the rest says whose failures they are.
const GUESSING: &str = "guessing_";

/// Buckets kept at most: about 48 bytes each.
const BUCKETS: usize = 400_000;

/// Pairs of address and account that are remembered as familiar, and for how long.
const FAMILIAR: usize = 200_000;
const FAMILIAR_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Failures of one address that cost no time.
const FREE: f64 = 3.0;

/// The first delay; doubles with each failure up to the longest.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Attempts that may be delayed at once; further ones are refused instead.
const DELAYED: usize = 512;

/// What an attempt says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    /// The account, if one is named.
    pub account: Option<Account>,
    /// A keyed hash of the password, if one is seen: see [`Guard::password`].
    pub password: Option<u64>,
}

/// Counts failed logins.
#[derive(Debug)]
pub struct Guard {
    settings: Guessing,
    buckets: Buckets,
    familiar: Cache<u64, u64>,
    delayed: Arc<Semaphore>,
    secret: [u8; 32],
    /// Refusals so far, for the log.
    refusals: AtomicU64,
}

/// An attempt under way; counts as failed until told otherwise.
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    guard: Arc<Guard>,
    places: Vec<u64>,
    pair: Option<u64>,
    delay: Duration,
}

/// Whose bucket it is.
#[derive(Hash)]
enum Whose<'a> {
    Address(&'a str),
    Account(Account),
    Pair(&'a str, Account),
    Password(u64),
}

impl Guard {
    /// Counts nothing yet.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(settings: Guessing) -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self {
            buckets: Buckets::new(BUCKETS, clock::millis(settings.window)),
            settings,
            familiar: Cache::new(FAMILIAR),
            delayed: Arc::new(Semaphore::new(DELAYED)),
            secret,
            refusals: AtomicU64::new(0),
        })
    }

    /// How many logins may fail.
    pub fn settings(&self) -> &Guessing {
        &self.settings
    }

    /// What stands for a password here: a hash under a key that this process made and never shows.
    pub fn password(&self, password: &[u8]) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::keyed_hash(&self.secret, password).as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Counts an attempt.
    ///
    /// # Errors
    /// 429: too many have failed.
    pub fn attempt(self: &Arc<Self>, address: IpAddr, tried: Tried, now_ms: u64) -> Result<Attempt, Refusal> {
        let address = address_key(address).to_string();
        let Guessing { address: per_address, account, pair, password, .. } = self.settings;
        let place = |whose: Whose<'_>| self.buckets.place(whose);
        let pair_place = tried.account.map(|name| place(Whose::Pair(&address, name)));
        let mut attempt = Attempt {
            guard: Arc::clone(self),
            places: Vec::with_capacity(4),
            pair: pair_place,
            delay: Duration::ZERO,
        };
        if pair_place.is_some_and(|pair| self.is_familiar(pair, now_ms)) {
            // Twice as much as strangers have: its owner may share the address with who attacks.
            attempt.fill(pair_place, pair.saturating_mul(2), now_ms, "guessing_pair")?;
            return Ok(attempt);
        }
        let of_address = Some(place(Whose::Address(&address)));
        let of_account = tried.account.map(|name| place(Whose::Account(name)));
        let of_password = tried.password.map(|hash| place(Whose::Password(hash)));
        let level = attempt.fill(of_address, per_address, now_ms, "guessing_address")?;
        attempt.fill(pair_place, pair, now_ms, "guessing_pair")?;
        attempt.fill(of_account, account, now_ms, "guessing_account")?;
        attempt.fill(of_password, password, now_ms, "guessing_password")?;
        attempt.delay = delay(level);
        Ok(attempt)
    }

    /// Counts a failure with something that cannot be guessed. Right ones pass whatever was counted: it slows down who
    /// tries, and is no evidence, because a program with an old key does the same.
    ///
    /// # Errors
    /// 429: too many have failed already.
    pub fn count(&self, address: IpAddr, now_ms: u64) -> Result<(), Refusal> {
        let address = address_key(address).to_string();
        let place = self.buckets.place(Whose::Address(&address));
        let filled = self.buckets.fill(place, self.settings.address, now_ms).map(drop);
        filled.map_err(|wait_ms| self.refuse(wait_ms, "guessing_key"))
    }

    /// 429: the same whatever was tried, and whether or not it would have been right.
    fn refuse(&self, wait_ms: u64, reason: &'static str) -> Refusal {
        let refusals = self.refusals.fetch_add(1, Ordering::Relaxed) + 1;
        // While it lasts, ever more rarely.
        if refusals.is_power_of_two() {
            tracing::warn!(reason, refusals, "too many logins failed: further ones are refused for a while");
        }
        let seconds = HeaderValue::from(wait_ms.div_ceil(1000).max(1));
        Refusal::with(StatusCode::TOO_MANY_REQUESTS, reason, vec![(RETRY_AFTER, seconds)])
    }

    fn is_familiar(&self, pair: u64, now_ms: u64) -> bool {
        self.familiar.get(&pair).is_some_and(|since_ms| now_ms.saturating_sub(since_ms) < FAMILIAR_MS)
    }
}

/// Whether this is the reason of a refusal made here.
pub fn is_guessing(reason: &str) -> bool {
    reason.starts_with(GUESSING)
}

/// Whether such a refusal speaks against its address.
pub fn is_evidence(reason: &str) -> bool {
    is_guessing(reason) && reason != "guessing_key"
}

impl Attempt {
    /// Waits as long as an attempt has to after so many failures of its address.
    ///
    /// # Errors
    /// 429: too many wait already.
    pub async fn wait(self) -> Result<Self, Refusal> {
        if !self.delay.is_zero() {
            let Ok(_turn) = self.guard.delayed.try_acquire() else {
                self.take_back();
                return Err(self.guard.refuse(clock::millis(LONGEST_DELAY), "guessing_address"));
            };
            sleep(self.delay).await;
        }
        Ok(self)
    }

    /// It failed, and counts.
    pub fn failed(self) {}

    /// It succeeded: the account and the address belong together from now on.
    pub fn succeeded(self, now_ms: u64) {
        if let Some(pair) = self.pair {
            self.guard.familiar.insert(pair, now_ms);
        }
        self.take_back();
    }

    /// It did not come to a decision, and does not count.
    pub fn undecided(self) {
        self.take_back();
    }

    /// The level before, 0 where there is nothing to fill. What was filled before is taken back if there is no room.
    fn fill(
        &mut self,
        place: Option<u64>,
        capacity: u32,
        now_ms: u64,
        reason: &'static str,
    ) -> Result<f64, Refusal> {
        let Some(place) = place else { return Ok(0.0) };
        match self.guard.buckets.fill(place, capacity, now_ms) {
            Ok(level) => {
                self.places.push(place);
                Ok(level)
            }
            Err(wait_ms) => {
                self.take_back();
                Err(self.guard.refuse(wait_ms, reason))
            }
        }
    }

    fn take_back(&self) {
        for place in &self.places {
            self.guard.buckets.take_back(*place);
        }
    }
}

/// Doubles with each failure.
fn delay(level: f64) -> Duration {
    if level < FREE {
        return Duration::ZERO;
    }
    FIRST_DELAY.mul_f64((level - FREE).clamp(0.0, 10.0).exp2()).min(LONGEST_DELAY)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MINUTE: u64 = 60_000;

    fn guard() -> Arc<Guard> {
        let window = Duration::from_secs(600);
        let settings = Guessing { window, address: 10, account: 50, pair: 5, password: 100 };
        Arc::new(Guard::new(settings).unwrap())
    }

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    /// How many of `count` guesses get through within a minute.
    fn through(guard: &Arc<Guard>, count: u32, guess: impl Fn(u32) -> (IpAddr, Tried)) -> usize {
        let mut passed = 0;
        for number in 0..count {
            let now_ms = u64::from(number) * MINUTE / u64::from(count);
            let (from, tried) = guess(number);
            if let Ok(attempt) = guard.attempt(from, tried, now_ms) {
                attempt.failed();
                passed += 1;
            }
        }
        passed
    }

    fn tried(name: &str, password: u64) -> Tried {
        Tried { account: Some(Account::of(name)), password: Some(password) }
    }

    #[test]
    fn ten_thousand_guesses_become_a_few() {
        let one_address = |number: u32| (address(1), tried(&format!("user{}", number % 50), number.into()));
        assert_eq!(through(&guard(), 10_000, one_address), 10);
        let one_account = |number: u32| (address(number % 500), tried("ada", number.into()));
        let passed = through(&guard(), 10_000, one_account);
        assert!((50..60).contains(&passed), "{passed}");
        let one_password = |number: u32| (address(number), tried(&format!("user{number}"), 7));
        let passed = through(&guard(), 5_000, one_password);
        assert!((100..120).contains(&passed), "{passed}");
        let one_pair = |number: u32| (address(1), tried("ada", number.into()));
        assert_eq!(through(&guard(), 10_000, one_pair), 5);
    }

    #[test]
    fn who_was_there_before_gets_in_and_others_are_not_told_why_they_do_not() {
        let guard = guard();
        let (home, owner) = (address(9_999), tried("ada", 1));
        guard.attempt(home, owner, 0).unwrap().succeeded(0);
        through(&guard, 10_000, |number| (address(number % 500), tried("ada", number.into())));
        guard.attempt(home, owner, MINUTE).unwrap().succeeded(MINUTE);
        // A stranger, once the one guess that has become free by now is used up.
        let stranger = |name: &str| {
            if let Ok(attempt) = guard.attempt(address(999), tried(name, 2), MINUTE) {
                attempt.failed();
            }
            guard.attempt(address(1_000), tried(name, 1), MINUTE).unwrap_err()
        };
        let refused = stranger("ada");
        assert_eq!(refused.status, 429);
        // An account that nobody has is refused after as many, in the same words.
        through(&guard, 10_000, |number| (address(2_000 + number % 500), tried("nobody", number.into())));
        let other = stranger("nobody");
        assert_eq!((refused.reason, refused.status), (other.reason, other.status));
        // Others log in to their own accounts.
        guard.attempt(address(1_001), tried("bob", 2), MINUTE).unwrap().succeeded(MINUTE);
    }

    #[test]
    fn successes_do_not_count_and_failures_are_delayed_ever_longer() {
        let guard = guard();
        for number in 0..100 {
            guard.attempt(address(1), tried(&format!("user{number}"), number), 0).unwrap().succeeded(0);
        }
        let mut delays = Vec::new();
        for number in 0..10_u64 {
            let attempt = guard.attempt(address(2), tried(&format!("user{number}"), number), 0).unwrap();
            delays.push(attempt.delay.as_millis());
            attempt.failed();
        }
        assert_eq!(delays, [0, 0, 0, 50, 100, 200, 400, 800, 1600, 2000]);
        assert!(guard.attempt(address(2), tried("x", 0), 0).is_err());
    }

    #[test]
    fn accounts_are_the_same_in_any_case() {
        assert_eq!(Account::of(" Ada@Example.com"), Account::of("ada@example.com "));
        assert_ne!(Account::of("ada"), Account::of("adb"));
    }
}
