//! A certificate that is fetched while the gateway runs, and what proves meanwhile that its hosts are ours.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use arc_swap::ArcSwapOption;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{Certificate, provider};

/// The certificate of one group of hosts, once there is one; shared by who fetches it and the listeners that show it.
#[derive(Debug, Default)]
pub struct Automatic {
    certificate: ArcSwapOption<Certificate>,
    proofs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Automatic {
    /// The certificate in force, if there is one.
    pub fn certificate(&self) -> Option<Arc<Certificate>> {
        self.certificate.load_full()
    }

    /// Shows this certificate from now on.
    pub fn put(&self, certificate: Certificate) {
        self.certificate.store(Some(Arc::new(certificate)));
    }

    /// What is shown for `host` to whoever asks for proof (TLS-ALPN-01, RFC 8737). Its critical extension is one that
    /// only such a client understands, so it is not looked into here.
    ///
    /// # Errors
    /// The key is of no use.
    pub fn prove(
        &self,
        host: String,
        proof: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), rustls::Error> {
        let key = provider().key_provider.load_private_key(key)?;
        let proof = Arc::new(CertifiedKey::new(vec![proof], key));
        self.proofs.write().unwrap_or_else(PoisonError::into_inner).insert(host, proof);
        Ok(())
    }

    /// Nobody asks for proof any more.
    pub fn proven(&self) {
        self.proofs.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Chooses what proves that a host is ours.
#[derive(Debug)]
pub(super) struct Proofs(pub(super) Arc<Automatic>);

impl ResolvesServerCert for Proofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_ascii_lowercase();
        self.0.proofs.read().unwrap_or_else(PoisonError::into_inner).get(&host).cloned()
    }
}
