//! Rates and quotas that all gateways share.

use std::time::Duration;

use waf_model::keys;

use crate::store::{Charge, QuotaStore, RateStore, StoreError, StoreFuture, redis::link::Link};

/// Charges requests to a rate by GCRA, on the clock of Redis; answers how many microseconds the theoretical arrival time
/// lies ahead. The key ends when it is in the past. Arguments: microseconds a request, how many requests.
const GCRA: &str = "\
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local tat = tonumber(redis.call('GET', KEYS[1]) or '0')
if tat < now then tat = now end
tat = tat + ARGV[1] * ARGV[2]
redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil((tat - now) / 1000) + 1)
return math.floor(tat - now)";

/// How long the count of a quota is kept after its period.
const QUOTA_KEPT_MS: u64 = 60 * 60 * 1000;

/// Rates under `portcullis:rate:<limit>:<key>`, quotas under `portcullis:quota:<limit>:<end of period>:<key>`.
#[derive(Debug)]
pub struct RedisLimits {
    link: Link,
}

impl RedisLimits {
    pub(super) fn new(link: Link) -> Self {
        Self { link }
    }
}

impl RateStore for RedisLimits {
    fn charge_rates<'a>(
        &'a self,
        limit: &'a str,
        every: Duration,
        charges: &'a [Charge],
    ) -> StoreFuture<'a, Vec<u64>> {
        Box::pin(async move {
            let microseconds = every.as_nanos() as f64 / 1_000.0;
            let mut pipeline = redis::pipe();
            for charge in charges {
                let key = keys::rate(limit, charge.key);
                pipeline.cmd("EVAL").arg(GCRA).arg(1).arg(key).arg(microseconds).arg(charge.count);
            }
            // A negative answer would need a clock that runs backwards.
            let ahead: Vec<i64> = self.link.ask_all(&pipeline).await?;
            complete(ahead.into_iter().map(|ahead| u64::try_from(ahead).unwrap_or(0)).collect(), charges)
        })
    }
}

impl QuotaStore for RedisLimits {
    fn charge_quotas<'a>(&'a self, limit: &'a str, charges: &'a [Charge]) -> StoreFuture<'a, Vec<u64>> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            for charge in charges {
                let key = keys::quota(limit, charge.ends_ms, charge.key);
                pipeline.cmd("INCRBY").arg(&key).arg(charge.count);
                pipeline
                    .cmd("PEXPIREAT")
                    .arg(&key)
                    .arg(charge.ends_ms.saturating_add(QUOTA_KEPT_MS))
                    .ignore();
            }
            complete(self.link.ask_all(&pipeline).await?, charges)
        })
    }
}

fn complete(levels: Vec<u64>, charges: &[Charge]) -> Result<Vec<u64>, StoreError> {
    if levels.len() == charges.len() {
        return Ok(levels);
    }
    let what = format!("{} answers to {} charges", levels.len(), charges.len());
    Err(StoreError::Unexpected { at: "limits".to_owned(), what })
}
