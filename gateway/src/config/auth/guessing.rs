//! Guessing of passwords: how many failures there may be, and which routes are logins.

use std::{sync::Arc, time::Duration};

use regex::{Regex, RegexBuilder};

use crate::config::{
    compile::{Compiler, DAY, MINUTE},
    raw::{
        RawConfig,
        auth::{RawGuessing, RawLogin},
    },
};

/// Largest program that a pattern may become, in bytes.
const PATTERN_BYTES: usize = 256 * 1024;

/// Most failures that may be allowed: more is no limit.
const MOST: u32 = 100_000;

/// How many logins may fail within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guessing {
    /// The time in which as many are forgotten as may fail.
    pub window: Duration,
    /// From one address (IPv6: its /64).
    pub address: u32,
    /// At one account, from addresses that never logged in to it.
    pub account: u32,
    /// From one address at one account.
    pub pair: u32,
    /// With one password, at whatever accounts.
    pub password: u32,
}

impl Default for Guessing {
    fn default() -> Self {
        Self { window: 10 * MINUTE, address: 10, account: 50, pair: 5, password: 100 }
    }
}

/// A route at whose upstream people log in.
#[derive(Debug, Clone)]
pub struct Login {
    /// Field that names the account.
    pub account: String,
    /// Field that holds the password.
    pub password: Option<String>,
    /// Statuses that say the login failed.
    pub statuses: Vec<u16>,
    /// What a response's body says when the login failed.
    pub body: Option<Regex>,
}

impl Compiler {
    /// How many logins may fail.
    pub(super) fn guessing(&mut self, raw: &RawGuessing) -> Guessing {
        let default = Guessing::default();
        let mut most = |name: &str, value: Option<u64>, default: u32| {
            let path = format!("auth.guessing.{name}");
            let value = self.at_least_one(&path, value, default);
            if value > MOST {
                self.mistakes.add(&path, format!("is more than {MOST}, which is no limit"));
            }
            value
        };
        let (address, account) = (
            most("per_address", raw.per_address, default.address),
            most("per_account", raw.per_account, default.account),
        );
        let (pair, password) = (
            most("per_pair", raw.per_pair, default.pair),
            most("per_password", raw.per_password, default.password),
        );
        let window = self.duration("auth.guessing.window", raw.window.as_deref(), default.window);
        if window > DAY {
            self.mistakes.add("auth.guessing.window", "is more than a day");
        }
        Guessing { window, address, account, pair, password }
    }

    /// How a login is read at the route at `path`.
    pub(in crate::config) fn login(
        &mut self,
        raw: &RawLogin,
        path: &str,
        config: &RawConfig,
    ) -> Option<Arc<Login>> {
        let path = format!("{path}.login");
        let account = raw.account.clone().unwrap_or_default();
        if account.is_empty() {
            self.mistakes.add(&format!("{path}.account"), "missing; name the field that holds the account");
        }
        let inspected = config.limits.inspect.as_deref();
        let window = self.size("limits.inspect", inspected, u64::MAX);
        if window < 1024 {
            self.mistakes
                .add(&path, "needs limits.inspect of at least 1KiB, to read the account from the body");
        }
        let mut statuses = Vec::with_capacity(raw.failure.statuses.len());
        for (index, status) in raw.failure.statuses.iter().enumerate() {
            match u16::try_from(*status) {
                Ok(status @ 200..=599) => statuses.push(status),
                _ => {
                    let at = format!("{path}.failure.statuses[{index}]");
                    self.mistakes.add(&at, format!("{status} is not a status of a response"));
                }
            }
        }
        let body = raw.failure.body.as_deref().and_then(|pattern| {
            let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
            built.map_err(|error| self.mistakes.add(&format!("{path}.failure.body"), error.to_string())).ok()
        });
        if statuses.is_empty() && body.is_none() {
            statuses = vec![400, 401, 403, 422];
        }
        Some(Arc::new(Login { account, password: raw.password.clone(), statuses, body }))
    }
}
