//! Talks HTTP to a running gateway: over its admin socket, or over the network with a token.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::Target;
use crate::{
    admin::{SOCKET, routes::PREFIX},
    tls::{self, Alpn, Trust},
};

/// Most bytes of an answer.
const MAX_ANSWER: usize = 512 << 20;

/// One gateway.
#[derive(Debug)]
pub struct Client {
    way: Way,
    token: Option<Zeroizing<String>>,
}

#[derive(Debug)]
enum Way {
    Socket(PathBuf),
    Network { url: Uri, ca: Option<PathBuf> },
}

/// The gateway answered that it will not.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
pub struct Refused {
    /// With which status.
    pub status: StatusCode,
    /// Its problem document, or what else it sent.
    pub problem: Value,
}

impl Refused {
    fn text(&self) -> String {
        let detail = self.problem.get("detail").and_then(Value::as_str);
        detail.map_or_else(|| format!("{}: {}", self.status, self.problem), str::to_owned)
    }
}

impl Client {
    /// The gateway that the command line names: by URL, or by its state directory.
    ///
    /// # Errors
    /// The URL cannot be used, or the token not be read.
    pub fn of(target: &Target) -> anyhow::Result<Self> {
        let Some(url) = &target.admin else {
            return Ok(Self { way: Way::Socket(target.state.join(SOCKET)), token: None });
        };
        let text = match &target.token_file {
            Some(file) => std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
            None => std::env::var("PORTCULLIS_ADMIN_TOKEN").unwrap_or_default(),
        };
        let text = Zeroizing::new(text);
        let token = Some(Zeroizing::new(text.trim().to_owned())).filter(|token| !token.is_empty());
        let url: Uri = url.parse().with_context(|| format!("--admin {url}"))?;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        match url.scheme_str() {
            Some("https") => {}
            Some("http") if is_local => {}
            Some("http") => bail!("--admin {url}: a token is not sent in clear over a network; use https"),
            _ => bail!("--admin {url}: write https://HOST:PORT"),
        }
        Ok(Self { way: Way::Network { url, ca: target.admin_ca.clone() }, token })
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
    /// No gateway answers, or it says why not ([`Refused`]).
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Bytes::from(body.to_string())).await
    }

    async fn send(&self, method: Method, target: &str, body: Bytes) -> anyhow::Result<Value> {
        let (host, before) = match &self.way {
            Way::Socket(_) => ("admin".to_owned(), ""),
            Way::Network { url, .. } => (
                url.authority().map_or_else(String::new, ToString::to_string),
                url.path().trim_end_matches('/'),
            ),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{before}{PREFIX}{target}"))
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        if let Some(token) = &self.token {
            let text = Zeroizing::new(format!("Bearer {}", **token));
            let mut value = HeaderValue::from_str(&text).context("the token cannot stand in a header")?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let (status, body) = match &self.way {
            Way::Socket(path) => {
                let stream = UnixStream::connect(path).await.with_context(|| {
                    format!(
                        "no gateway answers on {}; start one, or name its state directory with --state or \
                         PORTCULLIS_STATE",
                        path.display()
                    )
                })?;
                exchange(stream, request).await?
            }
            Way::Network { url, ca } => by_network(url, ca.as_ref(), request).await?,
        };
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| text());
        Err(Refused { status, problem }.into())
    }
}

async fn by_network(
    url: &Uri,
    ca: Option<&PathBuf>,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let is_secure = url.scheme_str() == Some("https");
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let stream =
        TcpStream::connect((host.as_str(), port)).await.with_context(|| format!("no answer from {url}"))?;
    if !is_secure {
        return exchange(stream, request).await;
    }
    let trust = ca.map_or(Trust::System, |file| Trust::Authorities(file));
    let (config, _) = tls::client(trust, None, Alpn::H1)?;
    let name = ServerName::try_from(host).with_context(|| format!("--admin {url}"))?;
    let stream =
        TlsConnector::from(config).connect(name, stream).await.with_context(|| format!("TLS with {url}"))?;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender; its error shows there too.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
    Ok((status, body.to_bytes()))
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
