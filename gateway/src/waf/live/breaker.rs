//! The circuit breaker of one route: puts the model back to `detect` where it flags more than it promised.
//!
//! It counts clients, not requests, and only clients whose requests nothing but the model speaks against (see
//! [`super::Seen::disputed`]): an attack cannot open it, however long it lasts, unless the attacker first keeps
//! clients from several networks on their best behavior and then sends what rules and base knowledge find
//! harmless. What that buys is that the model only reports on that route, loudly; rules, base knowledge and
//! blocks stay as they are.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use serde::Serialize;

use super::{
    Seen,
    accused::{Accused, Count},
    poisson,
};

/// Fewer clients than this never open it: with two of a network at most, they are of three networks at least.
const LEAST_CLIENTS: u64 = 5;

/// So many clients on one path are the usual shape of a false positive: a form that changed, a new parameter.
const ON_ONE_PATH: u64 = 10;

/// The breaker of one route.
#[derive(Debug, Default)]
pub struct Breaker {
    open: AtomicBool,
    /// Taken for disputed flags only, which are rare.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    accused: Accused,
    opened: Option<Opened>,
}

/// Why and when a breaker opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Opened {
    /// Milliseconds since 1970.
    pub since_ms: u64,
    /// In words.
    pub reason: String,
}

/// How many requests may be flagged by the budget.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Of those in the last hour.
    pub hour: f64,
    /// Of those in the last day.
    pub day: f64,
}

impl Breaker {
    /// Whether the model may only report.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a disputed flag; the reason if that opens the breaker.
    pub fn note(&self, seen: &Seen<'_>, allowed: Allowed, now_ms: u64) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.accused.note(seen.client, seen.network, seen.path, now_ms) || state.opened.is_some() {
            return None;
        }
        let reason = too_many(state.accused.count(now_ms), allowed, seen.path)?;
        state.opened = Some(Opened { since_ms: now_ms, reason: reason.clone() });
        self.open.store(true, Ordering::Relaxed);
        Some(reason)
    }

    /// Clients that were flagged and that nothing else speaks against.
    pub fn count(&self, now_ms: u64) -> Count {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).accused.count(now_ms)
    }

    /// Why it is open, if it is.
    pub fn opened(&self) -> Option<Opened> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).opened.clone()
    }

    /// Closes it and forgets what opened it; whether it was open.
    pub fn reset(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.accused.clear();
        self.open.store(false, Ordering::Relaxed);
        state.opened.take().is_some()
    }
}

/// Why `found` is more than luck, if it is.
fn too_many(found: Count, allowed: Allowed, path: &str) -> Option<String> {
    for (clients, allowed, span) in [(found.hour, allowed.hour, "hour"), (found.day, allowed.day, "day")] {
        let bound = poisson::bound(allowed);
        if clients >= LEAST_CLIENTS && clients > bound {
            return Some(format!(
                "the model flagged {clients} clients within one {span} that nothing else speaks against; its budget \
                 allows {allowed:.1} requests, by luck up to {bound}"
            ));
        }
    }
    // On a busy route ten clients are within the budget; that one path alone spends all of it is not.
    (found.path >= ON_ONE_PATH && found.path as f64 > allowed.hour).then(|| {
        format!(
            "the model flagged {} clients within one hour on one path ({path}) that nothing else speaks against; its \
             budget allows {:.1} requests on the whole route",
            found.path, allowed.hour
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Allowed = Allowed { hour: 0.0, day: 0.0 };

    fn seen(client: u64, network: u64, path: &str) -> Seen<'_> {
        Seen { client, network, path, flagged: true, disputed: true, blocked: false }
    }

    #[test]
    fn one_client_or_one_network_never_opens_it() {
        let breaker = Breaker::default();
        for request in 0..10_000 {
            assert_eq!(breaker.note(&seen(1, 1, "/a"), NONE, request), None);
            assert_eq!(breaker.note(&seen(request, 2, "/b"), NONE, request), None);
        }
        assert!(!breaker.is_open());
        assert_eq!(breaker.count(10_000).hour, 3);
    }

    #[test]
    fn more_clients_than_the_budget_explains_open_it_until_reset() {
        let allowed = Allowed { hour: 1.0, day: 24.0 };
        let breaker = Breaker::default();
        let paths: Vec<String> = (0..6).map(|path| format!("/{path}")).collect();
        for (client, path) in (0..5).zip(&paths) {
            assert_eq!(breaker.note(&seen(client, client, path), allowed, 7), None, "five may be luck");
        }
        let reason = breaker.note(&seen(5, 5, &paths[5]), allowed, 8).unwrap();
        assert!(reason.contains("6 clients") && reason.contains("by luck up to 5"), "{reason}");
        assert!(breaker.is_open());
        assert_eq!(breaker.opened().unwrap(), Opened { since_ms: 8, reason });
        assert_eq!(breaker.note(&seen(6, 6, "/"), allowed, 9), None, "it is open already");
        assert!(breaker.reset() && !breaker.is_open() && !breaker.reset());
        assert_eq!(
            breaker.note(&seen(7, 7, "/"), allowed, 10),
            None,
            "what came before the reset is forgotten"
        );
    }

    #[test]
    fn ten_clients_on_one_path_open_it_if_they_alone_spend_the_budget() {
        let over = |hour: f64| {
            let breaker = Breaker::default();
            let allowed = Allowed { hour, day: 24.0 * hour };
            (0..10).find_map(|client| breaker.note(&seen(client, client, "/form"), allowed, 7))
        };
        let reason = over(9.0).unwrap();
        assert!(reason.contains("/form") && reason.contains("10 clients"), "{reason}");
        assert_eq!(over(11.0), None);
    }
}
