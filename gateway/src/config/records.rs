//! What is recorded of requests: `record: full` of a route, and `records`.

use super::{
    Recording, Records,
    compile::{Compiler, DAY, KIB, bytes},
    parse::existing,
    raw::{RawConfig, RawMode, RawRecording, RawRecords, RawRoute, RawStore, RawWaf},
};

impl Compiler {
    /// What is recorded of the requests of the route at `path`.
    pub(super) fn recording(&mut self, raw: &RawRoute, path: &str, waf: &RawWaf) -> Recording {
        let Some(RawRecording::Full) = raw.record else { return Recording::Observation };
        if matches!(raw.waf.mode.or(waf.mode), Some(RawMode::Off)) {
            let message = "needs waf.mode detect or block: what is not inspected is not recorded";
            self.mistakes.add(&format!("{path}.record"), message);
        }
        Recording::Full
    }

    /// How whole requests are recorded.
    pub(super) fn records(&mut self, raw: &RawConfig) -> Records {
        let RawRecords { key, keep, body, per_second } = &raw.records;
        let full = raw.routes.iter().any(|route| route.record == Some(RawRecording::Full));
        if full && key.is_none() && matches!(raw.store, RawStore::Redis(_)) {
            let message = "missing; with Redis, gateways and trainer share one key: make a file of 64 hexadecimal \
                           digits (openssl rand -hex 32) and name it here";
            self.mistakes.add("records.key", message);
        }
        let records = Records {
            key: key.as_deref().and_then(|file| match existing(file) {
                Ok(path) => Some(path),
                Err(message) => {
                    self.mistakes.add("records.key", message);
                    None
                }
            }),
            keep: self.duration("records.keep", keep.as_deref(), 7 * DAY),
            body_bytes: bytes(self.size("records.body", body.as_deref(), 16 * KIB)),
            per_second: self.at_least_one("records.per_second", *per_second, 50),
        };
        if records.keep < DAY {
            self.mistakes.add("records.keep", "is less than a day; write 1d or more");
        }
        if records.body_bytes as u64 > 512 * KIB {
            self.mistakes.add("records.body", "is more than 512KiB, the most that one record holds");
        }
        records
    }
}
