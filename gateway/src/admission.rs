//! How much may be in progress at once: connections in all and of one address, and requests.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts what is in progress, for all listeners together.
#[derive(Debug)]
pub struct Admission {
    connections: Arc<Semaphore>,
    addresses: Mutex<HashMap<IpAddr, u32>>,
    requests: AtomicUsize,
}

impl Admission {
    /// Nothing is in progress; at most `connections` may be open.
    pub fn new(connections: usize) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(connections)),
            addresses: Mutex::default(),
            requests: AtomicUsize::new(0),
        }
    }

    /// Waits for a free place for one more connection; `None` never comes, unless the places were closed.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    /// Counts a connection of `address`, until what is returned is dropped; `None` if it has `most` of them already.
    pub fn connection(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<Connection> {
        let address = unit(address);
        let mut addresses = self.addresses();
        let open = addresses.entry(address).or_insert(0);
        if *open >= most {
            return None;
        }
        *open += 1;
        Some(Connection { admission: Arc::clone(self), address })
    }

    /// Counts a request, until what is returned is dropped; `None` if there are `most` of them already.
    pub fn request(self: &Arc<Self>, most: usize) -> Option<InProgress> {
        if self.requests.fetch_add(1, Ordering::Relaxed) >= most {
            self.requests.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(InProgress(Arc::clone(self)))
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one client: an IPv4 address, or a /64 of IPv6, which one client has to itself.
fn unit(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Connection {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut addresses = self.admission.addresses();
        if let Some(open) = addresses.get_mut(&self.address) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// A request that is counted.
#[derive(Debug)]
pub struct InProgress(Arc<Admission>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_own_places_and_gives_them_back() {
        let admission = Arc::new(Admission::new(1));
        let enter = |address: &str| admission.connection(address.parse().unwrap(), 2);
        let (first, _second) = (enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap());
        assert!(enter("192.0.2.1").is_none());
        assert!(enter("192.0.2.2").is_some());
        drop(first);
        assert!(enter("192.0.2.1").is_some());
        let _network = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::3").is_none());
        assert_eq!(admission.addresses().len(), 2, "those who left are forgotten");
    }

    #[test]
    fn requests_are_counted_until_they_end() {
        let admission = Arc::new(Admission::new(1));
        let first = admission.request(1).unwrap();
        assert!(admission.request(1).is_none());
        drop(first);
        assert!(admission.request(1).is_some());
    }
}
