//! The way to the origins: kept-alive connections, time limits, one careful retry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::{
    body::{self, Body, Progress, RequestBody},
    config::{Limits, Route},
    error::Fault,
    response, router,
    waf::decision::Inspected,
};

/// Time to open a connection to an upstream.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle upstream connection is kept: less than the 60 s that common servers keep theirs.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Connections to all origins.
#[derive(Debug)]
pub struct Upstream {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    turn: AtomicUsize,
}

/// One request on its way out.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// The route it takes.
    pub route: &'a Route,
    /// Method.
    pub method: Method,
    /// The client's target.
    pub uri: &'a Uri,
    /// Headers to send.
    pub headers: HeaderMap,
    /// Body to send.
    pub body: RequestBody,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The upstream's response, cleaned.
    pub response: Response<Incoming>,
    /// Time until its headers.
    pub took: Duration,
    /// What is known of the request body's way.
    pub progress: Arc<Progress>,
    /// How often the request was sent again.
    pub retries: u32,
}

impl Upstream {
    /// A pool without connections. Certificates of `https` origins are checked against the system's roots.
    ///
    /// # Errors
    /// TLS cannot be set up at all.
    pub fn new() -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()
        };
        let tls = match builder()?.with_native_roots() {
            Ok(config) => config.with_no_client_auth(),
            Err(error) => {
                // Without roots no https origin can be verified, but plain ones work.
                tracing::warn!(%error, "no root certificates on this system: https upstreams will fail");
                builder()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
            }
        };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Ok(Self { client, turn: AtomicUsize::new(0) })
    }

    /// Sends a request that passed inspection to the route's next origin and waits for the response headers.
    ///
    /// # Errors
    /// The upstream's fault, or the client's if its body did not arrive.
    pub async fn forward(
        &self,
        _proof: Inspected,
        outbound: Outbound<'_>,
        limits: &Limits,
    ) -> Result<Answer, Fault> {
        let Outbound { route, method, uri, mut headers, body } = outbound;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // The body is framed anew by the client connection; the length is known to it from the body itself.
        headers.remove(header::CONTENT_LENGTH);
        if !route.preserve_host {
            headers.remove(header::HOST);
        }
        let target = target(route, turn, uri)?;
        let again = (method.is_idempotent() && body.is_empty()).then(|| headers.clone());

        let (body, progress) = body.forward(limits);
        if http_body::Body::size_hint(&body).exact().is_none() {
            // Otherwise the client connection drops the body of a GET in silence, and with it what was inspected.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let started = Instant::now();
        let mut retries = 0;
        let first = request(method.clone(), target, headers, body);
        let mut result = self.send(first, route.upstream_timeout, &progress).await;
        if let (Err(error), Some(headers)) = (&result, again)
            && let Some(turn) = error.retry_turn(turn, route)
        {
            retries = 1;
            let second = request(method, self::target(route, turn, uri)?, headers, body::whole(Bytes::new()));
            result = self.send(second, route.upstream_timeout, &progress).await;
        }
        let mut response = result.map_err(|error| progress.fault().unwrap_or_else(|| error.into_fault()))?;
        if response.status().is_informational() {
            // Nobody asked for an upgrade, so nobody may switch protocols.
            return Err(Fault::UpstreamBroken("unsolicited 101".to_owned()));
        }
        // The versions of the two connections have nothing to do with each other.
        *response.version_mut() = Version::HTTP_11;
        response::clean(response.headers_mut());
        Ok(Answer { response, took: started.elapsed(), progress, retries })
    }

    /// The time limit counts from the last movement of the request body, so that a slow upload is not the origin's
    /// fault.
    async fn send(
        &self,
        request: Request<Body>,
        limit: Duration,
        progress: &Progress,
    ) -> Result<Response<Incoming>, SendError> {
        let response = self.client.request(request);
        tokio::pin!(response);
        loop {
            let left = limit.saturating_sub(progress.quiet());
            match timeout(left, &mut response).await {
                Ok(result) => return result.map_err(SendError::from),
                Err(_) if progress.quiet() >= limit => return Err(SendError::Timeout),
                Err(_) => {}
            }
        }
    }
}

enum SendError {
    Timeout,
    Unreachable(String),
    /// The connection closed before any part of a response.
    Closed(String),
    Broken(String),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        let text = describe(&error);
        if error.is_connect() {
            return Self::Unreachable(text);
        }
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
        match cause {
            Some(cause) if cause.is_incomplete_message() || cause.is_canceled() || cause.is_closed() => {
                Self::Closed(text)
            }
            _ if is_reset(&error) => Self::Closed(text),
            _ => Self::Broken(text),
        }
    }
}

impl SendError {
    /// Whose turn it is if an idempotent request without a body is worth another try: the same origin's if it only
    /// closed a kept connection, the next one's if it cannot be reached.
    fn retry_turn(&self, turn: usize, route: &Route) -> Option<usize> {
        match self {
            Self::Closed(_) => Some(turn),
            Self::Unreachable(_) if route.upstreams.len() > 1 => Some(turn.wrapping_add(1)),
            _ => None,
        }
    }

    fn into_fault(self) -> Fault {
        match self {
            Self::Timeout => Fault::UpstreamTimeout,
            Self::Unreachable(text) => Fault::UpstreamUnreachable(text),
            Self::Closed(text) | Self::Broken(text) => Fault::UpstreamBroken(text),
        }
    }
}

fn is_reset(error: &Error) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| {
            matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)
        })
    })
}

fn describe(error: &Error) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |cause| cause.source())
}

fn target(route: &Route, turn: usize, uri: &Uri) -> Result<Uri, Fault> {
    let origin = turn.checked_rem(route.upstreams.len()).and_then(|index| route.upstreams.get(index));
    let origin = origin.ok_or(Fault::Internal("no_upstream"))?;
    let path = if route.strip_prefix { router::without_prefix(route, uri.path()) } else { uri.path() };
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Fault::Malformed("request_target"))?;
    let mut parts = origin.clone().into_parts();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).map_err(|_| Fault::Internal("upstream_uri"))
}

fn request(method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    request
}
