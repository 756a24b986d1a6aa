//! TLS of a listener: its certificates are read here, so that a mistake has its place; what runs takes them as they are.

use std::{path::PathBuf, sync::Arc};

use rustls_pki_types::CertificateDer;

use super::{
    AcmeSettings, Toggle,
    compile::Compiler,
    raw::{
        RawListener,
        tls::{RawCertificateFiles, RawTls, RawTlsVersion},
    },
};
use crate::{
    clock,
    tls::{certificate::Certificate, server::Acceptor},
};

/// TLS of a listener.
#[derive(Debug, Clone)]
pub struct ListenerTls {
    /// Certificates with their keys; the first is for clients that ask for another name, or for none.
    pub certificates: Vec<Certificate>,
    /// How a certificate is fetched, if one is.
    pub acme: Option<Arc<AcmeSettings>>,
    /// Oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whose certificates clients may show.
    pub clients: Option<TlsClients>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

/// Certificates of clients.
#[derive(Debug, Clone)]
pub struct TlsClients {
    /// What signs them.
    pub ca: Vec<CertificateDer<'static>>,
    /// Whether a client without one gets no connection.
    pub required: Toggle,
}

impl Compiler {
    /// TLS as `path` says; `None` if it cannot be.
    pub(super) fn tls(&mut self, raw: &RawTls, path: &str) -> Option<ListenerTls> {
        let single = RawCertificateFiles {
            certificate: raw.certificate.clone(),
            key: raw.key.clone(),
            ocsp: raw.ocsp.clone(),
        };
        let is_single = raw.certificate.is_some() || raw.key.is_some() || raw.ocsp.is_some();
        let named = match (is_single, raw.certificates.is_empty()) {
            (true, false) => {
                let message = "names files twice: put all of them into \"certificates\"";
                self.mistakes.add(path, message);
                return None;
            }
            (false, true) if raw.acme.is_some() => Vec::new(),
            (_, true) => vec![(path.to_owned(), &single)],
            (false, false) => raw
                .certificates
                .iter()
                .enumerate()
                .map(|(index, raw)| (format!("{path}.certificates[{index}]"), raw))
                .collect(),
        };
        let mut certificates = Vec::new();
        for (path, raw) in named {
            let Some(certificate) = self.listener_certificate(raw, &path) else { continue };
            if certificate.names().is_empty() && !certificates.is_empty() {
                self.mistakes
                    .add(&path, "names no host, so no client would see it; put it first or leave it out");
            }
            certificates.push(certificate);
        }
        let acme = raw.acme.as_ref().and_then(|raw| self.acme(raw, &format!("{path}.acme"))).map(Arc::new);
        let clients = raw.clients.as_ref().and_then(|raw| self.tls_clients(raw, &format!("{path}.clients")));
        let min_version = match raw.min_version {
            Some(RawTlsVersion::V1_3) => TlsVersion::V1_3,
            Some(RawTlsVersion::V1_2) | None => TlsVersion::V1_2,
        };
        let tls = ListenerTls { certificates, acme, min_version, clients };
        if let Err(error) = Acceptor::new(&tls, None) {
            self.mistakes.add(path, error.to_string());
        }
        Some(tls)
    }

    /// TLS with one certificate and nothing else to say; `None` if it cannot be.
    pub(super) fn plain_tls(
        &mut self,
        certificate: Option<String>,
        key: Option<String>,
        clients: Option<TlsClients>,
        path: &str,
    ) -> Option<ListenerTls> {
        let files = RawCertificateFiles { certificate, key, ocsp: None };
        let certificates = vec![self.listener_certificate(&files, path)?];
        let tls = ListenerTls { certificates, acme: None, min_version: TlsVersion::V1_2, clients };
        if let Err(error) = Acceptor::new(&tls, None) {
            self.mistakes.add(path, error.to_string());
        }
        Some(tls)
    }

    fn listener_certificate(&mut self, raw: &RawCertificateFiles, path: &str) -> Option<Certificate> {
        let (Some(certificate), Some(key)) = (&raw.certificate, &raw.key) else {
            self.mistakes.add(path, "needs \"certificate\" and \"key\", both PEM files");
            return None;
        };
        match Certificate::read(certificate.as_ref(), key.as_ref(), raw.ocsp.as_deref().map(str::as_ref)) {
            Ok(read) => {
                if let Some(complaint) = read.complaint(clock::now_ms()) {
                    self.warnings.push((path.to_owned(), format!("{certificate}: {complaint}")));
                }
                Some(read)
            }
            Err(error) => {
                self.mistakes.add(path, error.to_string());
                None
            }
        }
    }
}

/// The files of every listener's TLS: a change of one makes its certificates anew.
pub(super) fn files_of_tls(listeners: &[RawListener]) -> Vec<PathBuf> {
    let all = listeners.iter().filter_map(|listener| listener.tls.as_ref());
    all.flat_map(|tls| {
        let many = tls.certificates.iter().flat_map(|one| [&one.certificate, &one.key, &one.ocsp]);
        let authority = tls.acme.iter().map(|acme| &acme.ca);
        [&tls.certificate, &tls.key, &tls.ocsp].into_iter().chain(many).chain(authority)
    })
    .flatten()
    .map(PathBuf::from)
    .collect()
}
