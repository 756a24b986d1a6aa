//! Requests of the gateway's own, to who issues tokens or decides about them: short, bounded, and never redirected.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

/// Longest time for a whole exchange, where nothing else is said.
const WHOLE: Duration = Duration::from_secs(5);

/// Longest time until there is a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// Most bytes of an answer.
const MOST: usize = 256 * 1024;

/// A client for such requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    patience: Duration,
}

/// What came back.
#[derive(Debug)]
pub struct Fetched {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why nothing came back. Says nothing that the request held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// There is no connection, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It takes too long.
    #[error("does not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The answer is too large, or breaks off.
    #[error("answers with more than {MOST} bytes, or not to the end")]
    Unreadable,
    /// The answer is of no use.
    #[error("answers with {0}")]
    Useless(String),
}

impl Fetcher {
    /// A client that trusts the system's certificates and `extra`.
    ///
    /// # Errors
    /// TLS cannot be set up at all.
    pub fn new(extra: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots.add_parsable_certificates(extra.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self { client, patience: WHOLE })
    }

    /// The same, but it may take so long.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// There is no whole answer in time.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Fetched, FetchError> {
        let exchange = async {
            let answer = self.client.request(request).await;
            let (parts, body) = answer.map_err(|error| FetchError::Unreachable(reason(&error)))?.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(|_| FetchError::Unreadable)?;
            Ok(Fetched { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        timeout(self.patience, exchange).await.unwrap_or(Err(FetchError::Late(self.patience)))
    }

    /// Gets a JSON document.
    ///
    /// # Errors
    /// There is none in time, or its status is not 200.
    pub async fn document(&self, uri: &Uri) -> Result<Bytes, FetchError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri.clone();
        request
            .headers_mut()
            .insert(http::header::ACCEPT, http::HeaderValue::from_static("application/json"));
        let fetched = self.send(request).await?;
        if fetched.status != StatusCode::OK {
            return Err(FetchError::Useless(format!("status {}", fetched.status.as_u16())));
        }
        Ok(fetched.body)
    }
}

/// The innermost cause: what an operator can act on.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
