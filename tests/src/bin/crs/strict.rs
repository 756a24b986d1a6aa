//! What the gateway itself answers to a request's bytes, before any rule: the same HTTP parser and the same checks.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gateway::{
    config::Limits,
    limits::{self, Framing},
};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
};

use crate::wire::Message;

/// Far more than any answer here takes.
const ANSWER_BYTES: usize = 64 * 1024;

/// The gateway's way of reading requests.
#[derive(Debug)]
pub(crate) struct Strict {
    runtime: Runtime,
    limits: Limits,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is a request that the rules are asked about.
    Accepted,
    /// It is answered with this status.
    Refused(u16),
    /// The connection is closed without an answer.
    None,
}

impl Strict {
    /// With the gateway's default limits.
    ///
    /// # Errors
    /// No runtime.
    pub(crate) fn new() -> Result<Self> {
        let wait = Duration::from_secs(10);
        let limits = Limits {
            header_bytes: 32 * 1024,
            header_count: 100,
            uri_bytes: 8 * 1024,
            body_bytes: 16 << 20,
            inspect_bytes: 1 << 20,
            header_timeout: wait,
            body_idle_timeout: wait,
            keep_alive: wait,
            connections: 1,
            connections_per_address: 1,
            requests_per_connection: 1,
            requests_in_flight: 1,
            body_rate: 1,
            response_bytes: u64::MAX,
            response_inspect_bytes: 512 << 10,
            response_hold: wait,
        };
        Ok(Self { runtime: Builder::new_current_thread().build().context("a runtime")?, limits })
    }

    /// The answer to `bytes`, which `message` was read from.
    ///
    /// # Errors
    /// An answer that is not HTTP.
    pub(crate) fn answer(&self, bytes: &[u8], message: &Message) -> Result<Answer> {
        let framing =
            if message.is_framed_twice { Framing::Refused("conflicting_framing") } else { Framing::Plain };
        let answer = self.runtime.block_on(self.serve(bytes, framing))?;
        let Some(line) = answer.split(|byte| *byte == b'\r').next().filter(|line| !line.is_empty()) else {
            return Ok(Answer::None);
        };
        let line = String::from_utf8_lossy(line).into_owned();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        match status.with_context(|| format!("{line:?} is no status line"))? {
            200 => Ok(Answer::Accepted),
            status => Ok(Answer::Refused(status)),
        }
    }

    async fn serve(&self, bytes: &[u8], framing: Framing) -> Result<Vec<u8>> {
        let (mut client, server) = tokio::io::duplex(bytes.len() + ANSWER_BYTES);
        client.write_all(bytes).await?;
        // The client sends nothing more: a body that is too short stays so.
        client.shutdown().await?;
        let service = service_fn(async |mut request: Request<Incoming>| {
            request.extensions_mut().insert(framing);
            let status = match limits::check(&self.limits, &request) {
                Err(fault) => fault.status(),
                Ok(()) => {
                    request.into_body().collect().await?;
                    http::StatusCode::OK
                }
            };
            let mut response = Response::new(Empty::<bytes::Bytes>::new());
            *response.status_mut() = status;
            Ok::<_, hyper::Error>(response)
        });
        // How the connection ends says nothing that the answer does not.
        let _: Result<(), hyper::Error> = http1::Builder::new()
            .half_close(true)
            .keep_alive(false)
            .serve_connection(TokioIo::new(server), service)
            .await;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_are_accepted() {
        let strict = Strict::new().unwrap();
        let answer = |bytes: &[u8]| strict.answer(bytes, &Message::parse(bytes)).unwrap();
        assert_eq!(answer(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"), Answer::Accepted);
        assert_eq!(answer(b"GET / HTTP/1.1\r\n\r\n"), Answer::Refused(400));
        assert_eq!(answer(b"GET / JUNK\r\n\r\n"), Answer::Refused(400));
        assert_eq!(answer(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab"), Answer::None);
        let both =
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(answer(both), Answer::Refused(400));
    }
}
