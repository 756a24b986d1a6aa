//! One certificate of a listener with its key and what is stapled to it: read, and found to fit.

use std::{fs, path::Path, sync::Arc};

use rustls::{crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use webpki::EndEntityCert;
use x509_cert::{
    certificate::{CertificateInner, Raw},
    der::{Decode, asn1::OctetString},
};
use x509_ocsp::{BasicOcspResponse, OcspResponse, OcspResponseStatus};

use super::{TlsError, file_error, read_chain, read_key};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// A certificate with its key; cheap to clone.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    names: Arc<[String]>,
    not_before_ms: u64,
    not_after_ms: u64,
    /// When the stapled response is out of date, if it says so.
    staple_until_ms: Option<u64>,
}

impl Certificate {
    /// Reads a chain (PEM, leaf first), its private key (PEM), and the OCSP response (DER) that is stapled to it.
    ///
    /// # Errors
    /// A file is missing or of no use, or they do not belong together.
    pub fn read(certificate: &Path, key: &Path, ocsp: Option<&Path>) -> Result<Self, TlsError> {
        let mut read = Self::new(read_chain(certificate)?, read_key(key)?)?;
        if let Some(ocsp) = ocsp {
            read.staple(ocsp)?;
        }
        Ok(read)
    }

    /// Takes a chain and its key from one PEM text.
    ///
    /// # Errors
    /// One of them is missing, or they do not belong together.
    pub fn parse(pem: &[u8]) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(|_| TlsError::Certificate("holds no certificate in PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| TlsError::Certificate("holds no private key in PEM"))?;
        Self::new(chain, key)
    }

    fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        let leaf = chain.first().ok_or(TlsError::Certificate("holds no certificate"))?;
        let unreadable = "holds no certificate that could be read (X.509, DER in PEM)";
        let names: Arc<[String]> = match EndEntityCert::try_from(leaf) {
            Ok(leaf) => leaf.valid_dns_names().map(str::to_ascii_lowercase).collect(),
            Err(_) => return Err(TlsError::Certificate(unreadable)),
        };
        let parsed =
            CertificateInner::<Raw>::from_der(leaf).map_err(|_| TlsError::Certificate(unreadable))?;
        let validity = parsed.tbs_certificate.validity;
        let ms = |time: x509_cert::time::Time| crate::clock::millis(time.to_unix_duration());
        Ok(Self {
            names,
            not_before_ms: ms(validity.not_before),
            not_after_ms: ms(validity.not_after),
            staple_until_ms: None,
            key: Arc::new(CertifiedKey::from_der(chain, key, &provider())?),
        })
    }

    /// Staples the OCSP response in a DER file.
    fn staple(&mut self, file: &Path) -> Result<(), TlsError> {
        let wrong = |what: &str| file_error(file, what);
        let der = fs::read(file).map_err(|error| wrong(&error.to_string()))?;
        let no_response = "holds no OCSP response in DER, as `openssl ocsp -respout FILE` writes it";
        let response = OcspResponse::from_der(&der).map_err(|_| wrong(no_response))?;
        if response.response_status != OcspResponseStatus::Successful {
            return Err(wrong("the OCSP responder refused to answer; fetch the response again"));
        }
        let bytes = response.response_bytes.ok_or_else(|| wrong(no_response))?;
        let basic = BasicOcspResponse::from_der(OctetString::as_bytes(&bytes.response));
        let basic = basic.map_err(|_| wrong(no_response))?;
        let leaf = self.key.cert.first().and_then(|leaf| CertificateInner::<Raw>::from_der(leaf).ok());
        let serial = leaf.as_ref().map(|leaf| leaf.tbs_certificate.serial_number.as_bytes());
        let responses = &basic.tbs_response_data.responses;
        let own = responses.iter().find(|one| Some(one.cert_id.serial_number.as_bytes()) == serial);
        let own = own.ok_or_else(|| {
            wrong("is the response for another certificate: their serial numbers differ; fetch that of this one")
        })?;
        self.staple_until_ms =
            own.next_update.as_ref().map(|time| crate::clock::millis(time.0.to_unix_duration()));
        let mut key = CertifiedKey::clone(&self.key);
        key.ocsp = Some(der);
        self.key = Arc::new(key);
        Ok(())
    }

    /// The host names that it is for, in lower case; `*.` stands for one label.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it ends, in milliseconds since 1970.
    pub fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// When two thirds of its life are over, in milliseconds since 1970: time to see to another one.
    pub fn renewal_ms(&self) -> u64 {
        self.not_after_ms.saturating_sub(self.not_after_ms.saturating_sub(self.not_before_ms) / 3)
    }

    /// What clients will find wrong with it at `now_ms`, and what to do.
    pub fn complaint(&self, now_ms: u64) -> Option<String> {
        let day = |at| crate::clock::text(at).chars().take(16).collect::<String>();
        if self.not_after_ms <= now_ms {
            return Some(format!(
                "expired at {}; clients refuse it: put a new one there",
                day(self.not_after_ms)
            ));
        }
        if self.not_before_ms > now_ms.saturating_add(HOUR_MS) {
            return Some(format!(
                "is not valid before {}; clients refuse it until then",
                day(self.not_before_ms)
            ));
        }
        let stale = self.staple_until_ms.filter(|until| *until <= now_ms)?;
        Some(format!(
            "its OCSP response is out of date since {}; clients may refuse it: fetch it again, and regularly",
            day(stale)
        ))
    }
}

pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}
