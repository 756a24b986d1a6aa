//! The ways in to the admin API: the socket in the state directory, and the admin listeners.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{Admin, access::Door};
use crate::{
    auth::certificate,
    config::{Config, admin::AdminListener},
    identity,
    telemetry::metrics::RefusalLabels,
    tls::server::server_config,
};

/// Most connections at once by each way.
const MOST_CONNECTIONS: usize = 128;

/// Longest time for a handshake, and for the headers of a request.
const HEAD: Duration = Duration::from_secs(10);

/// Longest life of a connection.
const LIFE: Duration = Duration::from_secs(300);

/// Pause after a connection could not be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the socket, without end.
pub async fn serve_socket(listener: UnixListener, router: Router) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin socket: a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        let router = router.clone();
        tokio::spawn(async move {
            converse(stream, Door::Socket { uid }, router).await;
            drop(permit);
        });
    }
}

/// Serves the admin listener in this place of the configuration, without end. Who may connect, and by which
/// certificate, follows the configuration in force.
pub async fn serve_port(listener: TcpListener, place: usize, admin: Arc<Admin>, router: Router) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let is_local = listener.local_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
    let mut secure = Secure::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "admin listener: a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let from = peer.ip().to_canonical();
        let config = admin.gateway.config.snapshot();
        let Some(settings) = config.admin.listeners.get(place) else { continue };
        if !settings.networks.is_empty() && !identity::contains(&settings.networks, from) {
            admin.gateway.metrics.admin_refused.get_or_create(&RefusalLabels { reason: "network" }).inc();
            continue;
        }
        let Some(acceptor) = secure.acceptor(&config, settings) else { continue };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let router = router.clone();
        tokio::spawn(async move {
            meet(stream, acceptor, from, is_local, router).await;
            drop(permit);
        });
    }
}

/// The certificate in force, read again with each new configuration.
#[derive(Default)]
struct Secure {
    config: Option<Arc<Config>>,
    acceptor: Option<TlsAcceptor>,
}

impl Secure {
    /// `None` if there has to be one and is none; within, `None` for plain HTTP.
    fn acceptor(&mut self, config: &Arc<Config>, settings: &AdminListener) -> Option<Option<TlsAcceptor>> {
        let Some(tls) = &settings.tls else { return Some(None) };
        if !self.config.as_ref().is_some_and(|known| Arc::ptr_eq(known, config)) {
            match server_config(tls, None, &[b"http/1.1"]) {
                Ok(server) => self.acceptor = Some(TlsAcceptor::from(Arc::new(server))),
                Err(error) => {
                    tracing::error!(%error, "admin listener: the certificate before stays in force")
                }
            }
            self.config = Some(Arc::clone(config));
        }
        self.acceptor.clone().map(Some)
    }
}

async fn meet(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    from: IpAddr,
    is_local: bool,
    router: Router,
) {
    let door = |certificate| Door::Port { from, is_local, certificate };
    let Some(acceptor) = acceptor else { return converse(stream, door(None), router).await };
    let Ok(Ok(stream)) = timeout(HEAD, acceptor.accept(stream)).await else { return };
    let chain = stream.get_ref().1.peer_certificates();
    let names = chain.and_then(|chain| certificate::names(chain.first()?)).map(Arc::from);
    converse(stream, door(names), router).await;
}

async fn converse<S>(stream: S, door: Door, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(door.clone());
        hyper::service::Service::call(&inner, request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 * 1024);
    // How a client leaves is its own affair.
    let _ = timeout(LIFE, builder.serve_connection(TokioIo::new(stream), service)).await;
}
