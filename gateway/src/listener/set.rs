//! The listeners that are open. A reload opens, changes and closes them; what stays keeps its socket and connections.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, PoisonError},
};

use listenfd::ListenFd;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    acme::Acme,
    config,
    listener::{BindError, Bound, CertificateSlot, bind, bind_to, certificate, serve},
    pipeline::Gateway,
};

/// Every listener by its name.
pub struct ListenerSet {
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
    open: Mutex<HashMap<String, Open>>,
    tasks: TaskTracker,
}

/// A listener that is served.
struct Open {
    /// As configured: the port may be 0.
    address: SocketAddr,
    /// A second handle on the socket, for a listener that takes over the address under another name.
    socket: StdListener,
    certificate: CertificateSlot,
    stop: CancellationToken,
}

/// What a new configuration needs: everything that can fail has been done.
pub struct Prepared {
    fresh: Vec<(config::Listener, Bound)>,
    kept: Vec<(String, CertificateSlot)>,
}

impl Prepared {
    /// Binds every listener at the start. Sockets that a supervisor opened for this process (systemd's `LISTEN_FDS`)
    /// are used where their addresses fit: connections that came during a restart wait in them.
    ///
    /// # Errors
    /// The first address that cannot be taken, or certificate that cannot be used.
    pub fn at_start(listeners: &[config::Listener], acme: &Acme) -> Result<Self, BindError> {
        let mut handed = ListenFd::from_env();
        let mut sockets: Vec<StdListener> =
            (0..handed.len()).filter_map(|index| handed.take_tcp_listener(index).ok().flatten()).collect();
        let mut fresh = Vec::new();
        for listener in listeners {
            let same = |socket: &StdListener| socket.local_addr().is_ok_and(|own| own == listener.address);
            let bound = match sockets.iter().position(same) {
                Some(index) => bind_to(listener, Ok(sockets.swap_remove(index)), acme)?,
                None => bind(listener, acme)?,
            };
            fresh.push((listener.clone(), bound));
        }
        for address in sockets.iter().filter_map(|socket| socket.local_addr().ok()) {
            tracing::warn!(%address, "a socket was handed over, but no listener has its address; closed");
        }
        Ok(Self { fresh, kept: Vec::new() })
    }

    /// The listeners that are about to be served.
    pub fn bound(&self) -> impl Iterator<Item = &Bound> {
        self.fresh.iter().map(|(_, bound)| bound)
    }
}

impl ListenerSet {
    /// No listener yet; all end with `shutdown`.
    pub fn new(gateway: Arc<Gateway>, shutdown: CancellationToken) -> Self {
        Self { gateway, shutdown, open: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Binds the listeners that are new and reads all certificates; nothing that is open changes.
    ///
    /// # Errors
    /// The first address that cannot be taken, or certificate that cannot be used.
    pub fn prepare(&self, listeners: &[config::Listener]) -> Result<Prepared, BindError> {
        let acme = &self.gateway.acme;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut prepared = Prepared { fresh: Vec::new(), kept: Vec::new() };
        for listener in listeners {
            let same_address = |(_, open): &(&String, &Open)| open.address == listener.address;
            if open.get(&listener.name).is_some_and(|open| open.address == listener.address) {
                prepared.kept.push((listener.name.clone(), certificate(listener, acme)?));
            } else if let Some((_, other)) = open.iter().find(same_address) {
                let socket = other.socket.try_clone();
                let bound = bind_to(listener, socket, acme)?;
                prepared.fresh.push((listener.clone(), bound));
            } else {
                prepared.fresh.push((listener.clone(), bind(listener, acme)?));
            }
        }
        Ok(prepared)
    }

    /// Serves what was prepared, and closes what is not part of it; connections of those are drained.
    ///
    /// # Errors
    /// A socket cannot be duplicated: the process has no file descriptors left. Its listener is not served.
    pub fn apply(&self, prepared: Prepared) -> Result<(), BindError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *open);
        for (name, fresh) in prepared.kept {
            if let Some(kept) = before.remove(&name) {
                kept.certificate.store(fresh.load_full());
                open.insert(name, kept);
            }
        }
        let mut outcome = Ok(());
        for (listener, bound) in prepared.fresh {
            let config::Listener { name, address, .. } = listener;
            let socket = match bound.duplicate() {
                Ok(socket) => socket,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            let stop = self.shutdown.child_token();
            let entry =
                Open { address, socket, certificate: Arc::clone(&bound.certificate), stop: stop.clone() };
            self.tasks.spawn(serve(bound, Arc::clone(&self.gateway), stop));
            open.insert(name, entry);
        }
        for closed in before.into_values() {
            closed.stop.cancel();
        }
        outcome
    }

    /// Waits until every listener has ended, after the shutdown that was given to [`Self::new`].
    pub async fn ended(&self) {
        self.shutdown.cancelled().await;
        // The second handles, too: nobody may connect to a socket that nobody serves.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
