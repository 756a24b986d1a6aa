//! Which certificate a client is shown: by the name that it asks for, and by what it can verify.

use std::{collections::HashMap, sync::Arc};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{automatic::Automatic, certificate::Certificate};

/// Certificates by the names in them; a client that asks for none of these gets the first.
#[derive(Debug)]
pub(super) struct Choice {
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Option<String>,
    nameless: Option<Arc<CertifiedKey>>,
    automatic: Option<Arc<Automatic>>,
}

impl Choice {
    pub(super) fn new(certificates: &[Certificate], automatic: Option<Arc<Automatic>>) -> Self {
        let mut by_name: HashMap<String, Vec<_>> = HashMap::new();
        for certificate in certificates {
            for name in certificate.names() {
                by_name.entry(name.clone()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        let first = certificates.first();
        let default = first.and_then(|first| first.names().first().cloned());
        let nameless = first.filter(|_| default.is_none()).map(|first| Arc::clone(&first.key));
        Self { by_name, default, nameless, automatic }
    }

    fn find(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let automatic = self.automatic.as_ref().and_then(|automatic| automatic.certificate());
        if let (Some(name), Some(automatic)) = (&name, &automatic)
            && automatic.names().contains(name)
        {
            return Some(Arc::clone(&automatic.key));
        }
        let named = name.as_deref().and_then(|name| self.named(name));
        let group = named.or_else(|| self.by_name.get(self.default.as_deref()?));
        // One name may have an ECDSA and an RSA certificate.
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let chosen = group.and_then(|group| group.iter().find(fits).or_else(|| group.first()));
        chosen.or(self.nameless.as_ref()).cloned().or_else(|| automatic.map(|one| Arc::clone(&one.key)))
    }

    /// Those for `name` itself, or for all of its neighbours.
    fn named(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let neighbours = || Some(format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(name).or_else(|| self.by_name.get(&neighbours()?))
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};

    use super::*;

    fn certificate(names: &[&str], algorithm: &'static SignatureAlgorithm) -> Certificate {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Certificate::parse(format!("{}{}", made.pem(), key.serialize_pem()).as_bytes()).unwrap()
    }

    #[test]
    fn names_choose_exactly_then_by_wildcard_then_the_first() {
        let ecdsa = &PKCS_ECDSA_P256_SHA256;
        let all = [
            certificate(&["a.example"], ecdsa),
            certificate(&["*.B.example", "b.example"], ecdsa),
            certificate(&["x.b.example"], &PKCS_ED25519),
            certificate(&["x.b.example"], ecdsa),
        ];
        let automatic = Arc::new(Automatic::default());
        let choice = Choice::new(&all, Some(Arc::clone(&automatic)));
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let index = |name: Option<&str>, schemes: &[SignatureScheme]| {
            let found = choice.find(name, schemes).unwrap();
            all.iter().position(|one| Arc::ptr_eq(&one.key, &found))
        };
        assert_eq!(index(Some("a.example"), &schemes), Some(0));
        assert_eq!(index(Some("B.example"), &schemes), Some(1));
        assert_eq!(index(Some("y.b.Example"), &schemes), Some(1));
        // One label, no more; and none but itself.
        assert_eq!(index(Some("z.y.b.example"), &schemes), Some(0));
        assert_eq!(index(Some("other.example"), &schemes), Some(0));
        assert_eq!(index(None, &schemes), Some(0));
        // What the client can verify.
        assert_eq!(index(Some("x.b.example"), &schemes), Some(3));
        assert_eq!(index(Some("x.b.example"), &[SignatureScheme::ED25519]), Some(2));
        assert_eq!(index(Some("x.b.example"), &[SignatureScheme::RSA_PSS_SHA256]), Some(2));

        automatic.put(certificate(&["a.example"], ecdsa));
        assert_eq!(index(Some("a.example"), &schemes), None);
        assert_eq!(index(None, &schemes), Some(0));
    }

    #[test]
    fn a_certificate_without_names_is_for_everybody_and_none_is_for_nobody() {
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let choice = Choice::new(&[certificate(&[], &PKCS_ECDSA_P256_SHA256)], None);
        assert!(choice.find(Some("a.example"), &schemes).is_some());
        let automatic = Arc::new(Automatic::default());
        let choice = Choice::new(&[], Some(Arc::clone(&automatic)));
        assert!(choice.find(Some("a.example"), &schemes).is_none());
        automatic.put(certificate(&["a.example"], &PKCS_ECDSA_P256_SHA256));
        assert!(choice.find(None, &schemes).is_some());
    }
}
