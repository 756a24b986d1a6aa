//! A server that answers as a test says: an origin that shows what reaches it, an issuer of tokens, an external service.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Makes the answer to one request.
pub type Answering = Box<Answer>;

type Answer = dyn Fn(&Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync;

/// A running server; stops when dropped.
pub struct Responder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request<Bytes>>>>,
    task: JoinHandle<()>,
}

impl Responder {
    /// Serves on a free port of this machine.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(answer: Answering) -> Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer).await
    }

    /// Serves at `address`.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start_at(address: SocketAddr, answer: Answering) -> Result<Self> {
        let listener = TcpListener::bind(address).await.context("binding a responder")?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, answer.into(), Arc::clone(&seen)));
        Ok(Self { address, seen, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a URL, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request that reached it so far, in order.
    pub fn seen(&self) -> MutexGuard<'_, Vec<Request<Bytes>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, answer: Arc<Answer>, seen: Arc<Mutex<Vec<Request<Bytes>>>>) {
    // Ends its connections with itself: who is away is away for those who knew it, too.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                async move {
                    let (parts, body) = request.into_parts();
                    let request = Request::from_parts(parts, body.collect().await?.to_bytes());
                    let response = answer(&request);
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                    Ok::<_, hyper::Error>(response)
                }
            });
            // A client that leaves in the midst is no concern of a test.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
