//! An HTTP client that sends generated requests as they are, in the name of their simulated client.

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
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    server: SocketAddr,
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
        Self { http, server }
    }

    /// Sends `request` in the name of its client (`x-forwarded-for`).
    ///
    /// # Errors
    /// The target is not a URI, or no whole response arrived within 30 seconds.
    pub async fn send(&self, request: &GeneratedRequest) -> Result<Answer> {
        let uri: Uri = format!("http://{}{}", self.server, request.uri)
            .parse()
            .with_context(|| format!("not a request target: {}", request.uri))?;
        let mut message = Request::builder().method(request.method).uri(uri).header("host", "shop.example");
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
        let uri = format!("http://{}{target}", self.server);
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
            let response =
                self.http.request(message).await.with_context(|| format!("requesting {target}"))?;
            let (parts, body) = response.into_parts();
            let body =
                body.collect().await.with_context(|| format!("reading the response of {target}"))?.to_bytes();
            anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body, took: started.elapsed() })
        };
        tokio::time::timeout(Duration::from_secs(30), exchange)
            .await
            .with_context(|| format!("no response within 30 s: {target}"))?
    }
}
