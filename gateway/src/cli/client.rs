//! Talks HTTP to a running gateway over its admin socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::admin::SOCKET;

/// Most bytes of an answer.
const MAX_ANSWER: usize = 512 << 20;

/// The admin socket of one gateway.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// The socket of the gateway with this state directory.
    pub fn of(state: &Path) -> Self {
        Self { path: state.join(SOCKET) }
    }

    /// Asks for `path`.
    ///
    /// # Errors
    /// No gateway answers, or it says why not.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut target = path.to_owned();
        for (at, (name, value)) in query.iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.push_str(&escape(value));
        }
        self.send(Method::GET, &target, Bytes::new()).await
    }

    /// Orders something at `path`.
    ///
    /// # Errors
    /// No gateway answers, or it says why not.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Bytes::from(body.to_string())).await
    }

    async fn send(&self, method: Method, target: &str, body: Bytes) -> anyhow::Result<Value> {
        let stream = UnixStream::connect(&self.path).await.with_context(|| {
            format!(
                "no gateway answers on {}; start one, or name its state directory with --state or PORTCULLIS_STATE",
                self.path.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; its error shows there too.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "admin")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
        let body = body.to_bytes();
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        match serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|answer| Some(answer.get("error")?.as_str()?.to_owned()))
        {
            Some(error) => bail!("{error}"),
            None => bail!("{status}: {}", String::from_utf8_lossy(&body)),
        }
    }
}

/// Percent-encodes everything but letters, digits and a few harmless characters.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(escape("ip:10.0.0.0/8 &é"), "ip%3A10.0.0.0%2F8%20%26%C3%A9");
    }
}
