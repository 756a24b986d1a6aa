//! The accept loop: survives errors, limits connections, drains on shutdown.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::FutureExt as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    acme::Acme,
    config::{self, Toggle},
    identity::Peer,
    listener::connection::Connection,
    pipeline::Gateway,
    telemetry::metrics::ReasonLabels,
    tls::{TlsError, server::Acceptor},
};

mod connection;
mod flood;
mod framing;
mod proxy_protocol;
mod response;
pub mod set;
mod wire;

/// Connections that wait in the kernel.
const BACKLOG: i32 = 4096;

/// Pause after an error that another accept would only repeat, such as no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener that is bound and has its certificate, ready to serve.
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    name: Arc<str>,
    certificate: CertificateSlot,
}

/// The certificate in force of one listener, or none for plain HTTP; swapped by a reload.
pub type CertificateSlot = Arc<ArcSwapOption<Acceptor>>;

/// Why a listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be taken.
    #[error("listener {name}: cannot listen on {address}: {error}")]
    Socket {
        /// Listener name.
        name: String,
        /// Its address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Its certificate cannot be used.
    #[error("listener {name}: {error}")]
    Tls {
        /// Listener name.
        name: String,
        /// What is wrong.
        error: TlsError,
    },
}

/// Takes the address and reads the certificate. Needs a tokio runtime.
///
/// # Errors
/// The address is taken or not ours, or the certificate cannot be used.
pub fn bind(listener: &config::Listener, acme: &Acme) -> Result<Bound, BindError> {
    bind_to(listener, open(listener), acme)
}

/// As [`bind`], with a socket that somebody opened.
///
/// # Errors
/// There is no such socket, or the certificate cannot be used.
pub fn bind_to(
    listener: &config::Listener,
    socket: io::Result<StdListener>,
    acme: &Acme,
) -> Result<Bound, BindError> {
    let certificate = certificate(listener, acme)?;
    let name = listener.name.as_str();
    let wrong = |error| BindError::Socket { name: name.to_owned(), address: listener.address, error };
    let socket = socket.and_then(|socket| {
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    });
    let socket = socket.map_err(wrong)?;
    let address = socket.local_addr().map_err(wrong)?;
    Ok(Bound { socket, address, name: name.into(), certificate })
}

/// The certificates of a listener, as they were read with the configuration or are fetched.
///
/// # Errors
/// It cannot be used.
fn certificate(listener: &config::Listener, acme: &Acme) -> Result<CertificateSlot, BindError> {
    let tls = listener
        .tls
        .as_ref()
        .map(|tls| Acceptor::new(tls, tls.acme.as_ref().map(|settings| acme.automatic(settings))));
    let tls = tls.transpose();
    let tls = tls.map_err(|error| BindError::Tls { name: listener.name.clone(), error })?;
    Ok(Arc::new(ArcSwapOption::from_pointee(tls)))
}

impl Bound {
    /// The address, with the port that was picked if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The listener's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A second handle on the socket.
    fn duplicate(&self) -> Result<StdListener, BindError> {
        self.socket.as_fd().try_clone_to_owned().map(StdListener::from).map_err(|error| BindError::Socket {
            name: self.name.to_string(),
            address: self.address,
            error,
        })
    }
}

/// Serves until `shutdown`, then finishes what is in flight for at most [`config::Config::drain`].
pub async fn serve(bound: Bound, gateway: Arc<Gateway>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    let Bound { socket, address, name, certificate } = bound;
    let mut failures: u32 = 0;
    let welcome = |stream: TcpStream, peer: SocketAddr, place| {
        // The listener may have been bound to all addresses.
        let local = stream.local_addr().unwrap_or(address);
        let connection = Connection {
            gateway: Arc::clone(&gateway),
            peer: Peer { address: peer, listener: Arc::clone(&name), local, tls: None, certificate: None },
            shutdown: shutdown.clone(),
            abort: abort.clone(),
        };
        let tls = certificate.load_full();
        connections.spawn(async move {
            let gateway = Arc::clone(&connection.gateway);
            gateway.metrics.connections.inc();
            connection.run(stream, tls).await;
            gateway.metrics.connections.dec();
            drop(place);
        });
    };
    loop {
        // A free connection slot comes first: what cannot be served waits in the kernel.
        let place = tokio::select! {
            place = gateway.admission.place() => place,
            () = shutdown.cancelled() => break,
        };
        let Some(place) = place else { break };
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => {
                failures = 0;
                accepted
            }
            Err(error) => {
                count_error(&gateway, "accept");
                if !concerns_one_connection(&error) {
                    failures = failures.saturating_add(1);
                    // While it lasts, ever more rarely: a full disk of warnings would be the next failure.
                    if failures.is_power_of_two() {
                        tracing::warn!(listener = &*name, %error, failures, "cannot accept connections; trying on");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        welcome(stream, peer, place);
    }
    // Who waits in the kernel's queue would be turned away with the socket, though another may listen at the address.
    while let Some(Some(place)) = gateway.admission.place().now_or_never()
        && let Some(Ok((stream, peer))) = socket.accept().now_or_never()
    {
        welcome(stream, peer, place);
    }
    drop(socket);
    connections.close();
    let drain = gateway.config.snapshot().drain;
    if timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(
            listener = &*name,
            open = connections.len(),
            "drain took too long: closing what is left"
        );
        abort.cancel();
        connections.wait().await;
    }
}

fn open(listener: &config::Listener) -> io::Result<StdListener> {
    let address = listener.address;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(listener.reuse_port == Toggle::On)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Errors of the one connection that was just taken from the queue; the next accept is a new chance.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

fn count_error(gateway: &Gateway, reason: &'static str) {
    gateway.metrics.connection_errors.get_or_create(&ReasonLabels { reason }).inc();
}
