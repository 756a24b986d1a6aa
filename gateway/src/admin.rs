//! Administration: on a unix socket for the owner alone, and on listeners where callers show who they are. `routes.rs`
//! is the table of everything that can be asked, and what each needs.

pub mod access;
pub mod answers;
pub mod api;
pub mod breaker;
pub mod certificates;
pub mod door;
pub mod health;
pub mod inventory;
pub mod log;
pub mod models;
pub mod openapi;
pub mod reload;
pub mod reviews;
pub mod routes;
pub mod status;
pub mod upstreams;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::net::UnixListener;

use crate::{
    admin::access::Failures, pipeline::Gateway, store::ModelSource, telemetry::store_metrics::StoreMetrics,
};

/// Name of the admin socket in the state directory.
pub const SOCKET: &str = "admin.sock";

/// What administration looks at and acts on.
pub struct Admin {
    /// The request path.
    pub gateway: Arc<Gateway>,
    /// Where models come from.
    pub models: Arc<dyn ModelSource>,
    /// How the store fares.
    pub store_metrics: Arc<StoreMetrics>,
    /// Whether the listeners are up.
    pub ready: AtomicBool,
    /// Wrong tokens of late.
    pub failures: Failures,
}

impl Admin {
    /// Says that the listeners are up (or going down).
    pub fn set_ready(&self, ready: Readiness) {
        self.ready.store(ready == Readiness::Ready, Ordering::Relaxed);
    }
}

/// Whether traffic may be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Listeners are up.
    Ready,
    /// Starting, or draining.
    NotReady,
}

/// Binds the admin socket in `state`, for the owner alone; a socket that a dead gateway left behind is replaced.
///
/// # Errors
/// The socket is in use, or cannot be made.
pub fn bind_socket(state: &Path) -> io::Result<UnixListener> {
    let path = state.join(SOCKET);
    if path.exists() {
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another gateway answers on it; give each gateway a state directory of its own",
            ));
        }
        fs::remove_file(&path)?;
    }
    // Bound in a private directory first: nobody may connect before the permissions are set.
    let private = state.join("admin.new");
    match fs::remove_dir_all(&private) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(&private)?;
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700))?;
    let fresh = private.join(SOCKET);
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, &path)?;
    fs::remove_dir(&private)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_a_dead_one_is_replaced() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(SOCKET);
        let first = bind_socket(state.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind_socket(state.path()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        bind_socket(state.path()).unwrap();
    }
}
