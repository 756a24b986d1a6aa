//! Sizes, times and numbers that hold for every request: what is wrong with them, and what they are by default.

use super::{
    Limits,
    compile::{Compiler, KIB, MIB, MINUTE, SECOND, bytes, whole},
    raw::limits::RawLimits,
};

impl Compiler {
    pub(super) fn limits(&mut self, raw: &RawLimits) -> Limits {
        let body = self.size("limits.body", raw.body.as_deref(), 10 * MIB);
        let inspect = self.size("limits.inspect", raw.inspect.as_deref(), MIB.min(body));
        if inspect > body {
            let message = "cannot be more than limits.body; larger bodies are refused anyway";
            self.mistakes.add("limits.inspect", message);
        }
        let limits = Limits {
            header_bytes: bytes(self.size("limits.headers", raw.headers.as_deref(), 16 * KIB)),
            header_count: whole(raw.header_count, 100) as usize,
            uri_bytes: bytes(self.size("limits.uri", raw.uri.as_deref(), 8 * KIB)),
            body_bytes: body,
            inspect_bytes: bytes(inspect),
            header_timeout: self.duration(
                "limits.header_timeout",
                raw.header_timeout.as_deref(),
                10 * SECOND,
            ),
            body_idle_timeout: self.duration(
                "limits.body_idle_timeout",
                raw.body_idle_timeout.as_deref(),
                10 * SECOND,
            ),
            keep_alive: self.duration("limits.keep_alive", raw.keep_alive.as_deref(), MINUTE),
            body_rate: self.size("limits.body_rate", raw.body_rate.as_deref(), KIB),
            connections: whole(raw.connections, 10_000) as usize,
            connections_per_address: whole(raw.connections_per_address, 1000),
            requests_per_connection: whole(raw.requests_per_connection, 1000),
            requests_in_flight: whole(raw.requests_in_flight, 10_000) as usize,
            response_bytes: self.size("limits.response", raw.response.as_deref(), u64::MAX),
            response_inspect_bytes: bytes(self.size(
                "limits.response_inspect",
                raw.response_inspect.as_deref(),
                512 * KIB,
            )),
            response_hold: self.duration("limits.response_hold", raw.response_hold.as_deref(), SECOND),
        };
        for (path, value) in [
            ("limits.header_count", limits.header_count),
            ("limits.connections", limits.connections),
            ("limits.connections_per_address", limits.connections_per_address as usize),
            ("limits.requests_per_connection", limits.requests_per_connection as usize),
            ("limits.requests_in_flight", limits.requests_in_flight),
        ] {
            if value == 0 {
                self.mistakes.add(path, "must be at least 1: nothing could be served");
            }
        }
        for (path, value, most) in [
            ("limits.headers", limits.header_bytes, MIB),
            ("limits.uri", limits.uri_bytes, 64 * KIB - 2),
            ("limits.inspect", limits.inspect_bytes, 64 * MIB),
            ("limits.response_inspect", limits.response_inspect_bytes, 64 * MIB),
        ] {
            if value as u64 > most {
                self.mistakes.add(
                    path,
                    format!("is more than {most} bytes, which one request may not hold in memory"),
                );
            }
        }
        limits
    }
}
