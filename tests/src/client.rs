//! An HTTP client that sends generated requests as they are, in the name of their simulated client, with TLS or without.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use datasets::request::GeneratedRequest;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// Sends requests to one server over kept-alive connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    transport: Transport,
    /// Scheme and authority.
    base: String,
}

#[derive(Debug, Clone)]
enum Transport {
    Plain(Box<legacy::Client<HttpConnector, Full<Bytes>>>),
    Secure(reqwest::Client),
}

/// The HTTP version that a client speaks over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// From sending to the last byte.
    pub took: Duration,
}

impl Answer {
    /// The gateway's request id.
    pub fn request_id(&self) -> Option<&str> {
        self.headers.get("x-request-id").and_then(|value| value.to_str().ok())
    }
}

impl Client {
    /// A client of the server at `server`.
    pub fn new(server: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(5))
            .build(connector);
        Self { transport: Transport::Plain(Box::new(http)), base: format!("http://{server}") }
    }

    /// A client of the TLS server at `server`, which shows a certificate for `localhost` by one of the authorities in
    /// `roots` (PEM).
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub fn secure(server: SocketAddr, roots: &str, protocol: Protocol) -> Result<Self> {
        // Fails only if one is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(5))
            .resolve("localhost", server)
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(roots.as_bytes())?);
        let builder = match protocol {
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder,
        };
        let transport = Transport::Secure(builder.build()?);
        Ok(Self { transport, base: format!("https://localhost:{}", server.port()) })
    }

    /// Sends `request` in the name of its client (`x-forwarded-for`).
    ///
    /// # Errors
    /// The target is not a URI, or no whole response arrived within 30 seconds.
    pub async fn send(&self, request: &GeneratedRequest) -> Result<Answer> {
        let uri: Uri = format!("{}{}", self.base, request.uri)
            .parse()
            .with_context(|| format!("not a request target: {}", request.uri))?;
        let mut message = Request::builder().method(request.method).uri(uri);
        if let Transport::Plain(_) = self.transport {
            message = message.header("host", "shop.example");
        }
        for (name, value) in &request.headers {
            message = message.header(*name, value);
        }
        let message = message
            .header("x-forwarded-for", request.client.to_string())
            .body(Full::new(Bytes::copy_from_slice(&request.body)))?;
        self.exchange(message).await
    }

    /// Sends a bare GET.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn get(&self, target: &str) -> Result<Answer> {
        let uri = format!("{}{target}", self.base);
        self.exchange(Request::builder().uri(uri).body(Full::default())?).await
    }

    /// Sends any message whose URI names this client's server.
    ///
    /// # Errors
    /// No whole response arrived within 30 seconds.
    pub async fn exchange(&self, message: Request<Full<Bytes>>) -> Result<Answer> {
        let target = message.uri().to_string();
        let started = Instant::now();
        let exchange = async {
            let requesting = || format!("requesting {target}");
            let reading = || format!("reading the response of {target}");
            let (status, headers, body) = match &self.transport {
                Transport::Plain(http) => {
                    let (parts, body) = http.request(message).await.with_context(requesting)?.into_parts();
                    (parts.status, parts.headers, body.collect().await.with_context(reading)?.to_bytes())
                }
                Transport::Secure(http) => {
                    let (parts, body) = message.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let message = reqwest::Request::try_from(Request::from_parts(parts, body))?;
                    let mut response = http.execute(message).await.with_context(requesting)?;
                    let headers = std::mem::take(response.headers_mut());
                    (response.status(), headers, response.bytes().await.with_context(reading)?)
                }
            };
            anyhow::Ok(Answer { status, headers, body, took: started.elapsed() })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .with_context(|| format!("no response within 30 s: {target}"))?
    }
}
